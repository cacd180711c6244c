// Integer dot products of 32 columns: eight rows of weights with the rows of x in a tile, as sums in registers. Which
// instructions do it best depends on the engine (KernelVariant.dot); the sums are the same.

import type { QuantizedFormat, Term } from '../../../../quant/block.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { i16x8, i32x4, v128 } from '../../emit/operations.ts';
import { splatI32 } from '../floats.ts';
import type { KernelVariant } from '../kernel.ts';
import { ACTIVATION_HEADER_BYTES } from '../../../../graph/tensor.ts';
import type { Halves, Turn } from './block-reader.ts';
import { interleavingOf, maxOf, termsOf } from './layout.ts';

/** Collects products with numbers of one term. The second of two parts has the later half of the turns. */
export interface Sums {
  /** Before the first turn of 32 columns. */
  begin(): void;
  add(c: number, turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void;
  /** i32x4, of part `i`, times the term's factor. */
  total(c: number, i: number, h: number): Expr<'v128'>;
}

/** Locals [row of x][part][half of the group][chain]. */
function sumLocals(f: FunctionBuilder, name: string, nRows: number, nParts: number, nChains: number) {
  return Array.from({ length: nRows }, (_, c) =>
    Array.from({ length: nParts }, (__, i) => [0, 1].map((h) => f.localArray('v128', `${name}${c}${i}${h}`, nChains))),
  );
}

/** The first products of a sum have none yet. */
type MultiplyAdd = (x: Expr<'v128'>, w: Expr<'v128'>, sum?: Expr<'v128'>) => Expr<'v128'>;

/** Sums of 32 bits. Two chains each for a single row of x, to hide the latency. */
class WideSums implements Sums {
  readonly #sums: readonly (readonly (readonly Local<'v128'>[])[])[][];
  readonly #turnsOfPart: number;
  readonly #factor: number;
  readonly #multiplyAdd: MultiplyAdd;

  /** @param nTurns  in which the 32 columns come */
  constructor(
    f: FunctionBuilder,
    nRows: number,
    nParts: number,
    nTurns: number,
    factor: number,
    multiplyAddOf: MultiplyAdd,
  ) {
    this.#factor = factor;
    this.#sums = sumLocals(f, 'dot', nRows, nParts, nRows === 1 ? 2 / nParts : 1);
    this.#turnsOfPart = nTurns / nParts;
    this.#multiplyAdd = multiplyAddOf;
  }

  begin(): void {}

  add(c: number, turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void {
    const chains = this.#sums[c]![Math.floor(turn / this.#turnsOfPart)]![h]!;
    const sum = chains[turn % chains.length]!;
    const isFirst = turn % this.#turnsOfPart < chains.length;
    sum.set(this.#multiplyAdd(x, w, isFirst ? undefined : sum));
  }

  total(c: number, i: number, h: number): Expr<'v128'> {
    const [first, ...others] = this.#sums[c]![i]![h]! as [Local<'v128'>, ...Local<'v128'>[]];
    const sum = others.reduce<Expr<'v128'>>((a, b) => i32x4.add(a, b), first);
    return this.#factor === 1 ? sum : i32x4.mul(sum, splatI32(this.#factor));
  }
}

/**
 * Sums of products of pairs in 16 bits, which hold `nTerms` of them and are then added up in 32. Those of the first and
 * of the last 16 columns stand side by side until then: scales of both, side by side too, may multiply them.
 */
class NarrowSums implements Sums {
  readonly #narrow: readonly (readonly Local<'v128'>[])[];
  /** Where sums are added up that have more terms. */
  readonly #wide: readonly (readonly Local<'v128'>[])[];
  readonly #nTerms: number;
  readonly #factor: number;
  readonly #scales: Halves | undefined;
  /** Products that each has so far, counted as code is emitted. */
  readonly #counts = new Map<Local<'v128'>, number>();

  constructor(f: FunctionBuilder, nRows: number, nTerms: number, factor: number, scales: Halves | undefined) {
    const halves = (name: string) => Array.from({ length: nRows }, (_, c) => f.localArray('v128', `${name}${c}`, 2));
    this.#nTerms = nTerms;
    this.#factor = factor;
    this.#scales = scales;
    this.#narrow = halves('pairs');
    this.#wide = nTerms < 8 ? halves('dot') : [];
  }

  begin(): void {
    this.#counts.clear();
  }

  add(c: number, _turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void {
    const narrow = this.#narrow[c]![h]!;
    const count = this.#counts.get(narrow) ?? 0;
    const product = i16x8.relaxed_dot_i8x16_i7x16_s(x, w);
    if (count > 0 && count % this.#nTerms === 0) this.#wide[c]![h]!.set(this.#sumOf(c, h, count));
    narrow.set(count % this.#nTerms === 0 ? product : i16x8.add(narrow, product));
    this.#counts.set(narrow, count + 1);
  }

  total(c: number, _part: number, h: number): Expr<'v128'> {
    const sum = this.#sumOf(c, h, this.#counts.get(this.#narrow[c]![h]!)!);
    return this.#scales && this.#factor !== 1 ? i32x4.mul(sum, splatI32(this.#factor)) : sum;
  }

  #sumOf(c: number, h: number, count: number): Expr<'v128'> {
    const factors = this.#scales?.[h] ?? splatI32((this.#factor << 16) | (this.#factor & 0xffff));
    const sum = i32x4.dot_i16x8_s(this.#narrow[c]![h]!, factors);
    return count <= this.#nTerms ? sum : i32x4.add(this.#wide[c]![h]!, sum);
  }
}

/** How many products of pairs 16 bits hold. */
const termsIn16Bits = (term: Term): number => Math.floor(32767 / (2 * 127 * maxOf(term)));

/**
 * Four columns a turn, of each term: the relaxed instruction, or that for pairs and an addition in 16 bits.
 * @param scales  multiply the latter's sums
 */
export function quadSums(
  f: FunctionBuilder,
  nRows: number,
  nParts: number,
  format: QuantizedFormat,
  variant: KernelVariant,
  scales?: Halves,
): readonly Sums[] {
  return termsOf(format).map((term) => {
    if (interleavingOf(format, variant) === 'split') {
      return new NarrowSums(f, nRows, termsIn16Bits(term), term.factor, scales);
    }
    return new WideSums(f, nRows, nParts, 8, term.factor, (x, w, sum) =>
      i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, sum ?? v128.zero()),
    );
  });
}

/** Two columns a turn: products of 16-bit integers, added in pairs: exact with standard instructions. */
export function pairSums(f: FunctionBuilder, nRows: number, nParts: number): readonly Sums[] {
  const sums = new WideSums(f, nRows, nParts, 16, 1, (x, w, sum) => {
    const product = i32x4.dot_i16x8_s(x, w);
    return sum ? i32x4.add(sum, product) : product;
  });
  return [sums];
}

/** Sums of all terms: i32x4, of part `i`. */
export const totalOf = (sums: readonly Sums[], c: number, i: number, h: number): Expr<'v128'> =>
  sums.map((each) => each.total(c, i, h)).reduce((a, b) => i32x4.add(a, b));

/**
 * Emits the products of the turns of 32 columns: four bytes of each row of x with those of each term, four columns of 8
 * bits or two of 16.
 */
export function turnProducts(f: FunctionBuilder, sums: readonly Sums[], x: readonly Local<'ptr'>[]) {
  const splat = f.local('v128', 'xSplat');
  const weights = sums.map(() => f.localArray('v128', 'weights', 2));
  return (turns: Iterable<Turn>): void => {
    for (const { turn, terms } of turns) {
      terms.forEach((both, t) => both.forEach((w, h) => weights[t]![h]!.set(w)));
      x.forEach((p, c) => {
        splat.set(v128.load32_splat(p, ACTIVATION_HEADER_BYTES + 4 * turn));
        sums.forEach((each, t) => weights[t]!.forEach((w, h) => each.add(c, turn, h, splat, w)));
      });
    }
  };
}
