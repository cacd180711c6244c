// How a matrix kernel walks through packed groups of eight rows.

import type { DType } from '../../../../base/dtype.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { i32, ptr } from '../../emit/operations.ts';
import { addressAt } from '../kernel.ts';
import type { KernelVariant } from '../kernel.ts';
import { groupSizes, quantizedFormatOf } from './layout.ts';

/** Groups that a bundle has at most. */
export const BUNDLE_MAX = 2;

/**
 * Groups that lie bundled: of each block their headers, then their parts in turn. A tile that takes a whole bundle
 * reads one stream, which memory gives twice as fast as two.
 */
export const bundleOf = (dtype: DType, { wide }: KernelVariant): 1 | typeof BUNDLE_MAX =>
  wide && quantizedFormatOf(dtype) ? BUNDLE_MAX : 1;

/** Where a group is read or written: a block's header, and its next part. */
export interface Cursor {
  readonly header: Local<'ptr'>;
  readonly part: Local<'ptr'>;
}

/** Moves cursors through the groups of a matrix. Emits. */
export class GroupWalk {
  readonly nBundled: number;
  readonly #header: number;
  readonly #part: number;
  readonly #nParts: number;

  constructor(dtype: DType, variant: KernelVariant) {
    const { header, part, nParts } = groupSizes(dtype);
    this.nBundled = bundleOf(dtype, variant);
    [this.#header, this.#part, this.#nParts] = [header, part, nParts];
  }

  /** From a group's part to the next. */
  get partBytes(): number {
    return this.nBundled * this.#part;
  }

  /** Of a block, all groups of the bundle. */
  get blockBytes(): number {
    return this.nBundled * (this.#header + this.#nParts * this.#part);
  }

  cursor(f: FunctionBuilder): Cursor {
    return { header: f.local('ptr', 'header'), part: f.local('ptr', 'part') };
  }

  /** To block `block` of group `group` of the matrix at `base`, or of the one that is `beside` groups behind it. */
  start(
    { header, part }: Cursor,
    base: Expr<'ptr'>,
    group: Local<'i32'>,
    groupBytes: Expr<'ptr'>,
    { beside = 0, block }: { beside?: number; block?: Expr<'i32'> } = {},
  ): void {
    const mask = this.nBundled - 1;
    const isAlone = this.nBundled === 1;
    const first = isAlone ? i32.add(group, beside) : i32.and(group, ~mask);
    header.set(addressAt(base, first, groupBytes));
    if (block) header.set(addressAt(header, block, this.blockBytes));
    part.set(ptr.add(header, this.nBundled * this.#header));
    if (isAlone) return;
    const inBundle = beside > 0 ? i32.const(beside) : i32.and(group, mask);
    part.set(addressAt(part, inBundle, this.#part));
    header.set(addressAt(header, inBundle, this.#header));
  }

  nextPart({ part }: Cursor): void {
    part.set(ptr.add(part, this.partBytes));
  }

  /** From behind the last part of a block. */
  nextBlock({ header, part }: Cursor): void {
    header.set(ptr.add(header, this.blockBytes));
    part.set(ptr.add(part, this.nBundled * this.#header));
  }
}
