// The layout of a model's memory, decided once from the program: control words, row counts, records, inputs, scratch,
// arena, constants, weights, state. Everything has its address before the memory is made.

import { BLOCK_FORMATS } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import { UnsupportedError, assert } from '../../base/errors.ts';
import type { Operand, Program } from '../../graph/plan.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { columnsOf, elementsMax, rowsOf, sizeBytesMax } from '../../graph/tensor.ts';
import { RECORD_BYTES, SCRATCH_BYTES } from './kernels/kernel.ts';

/** Control words, a cache line each, from address 0 on. */
export const COUNT_ADDRESS = 0;
export const PHASE_ADDRESS = 64;
export const SLEEPERS_ADDRESS = 128;
export const ABORT_ADDRESS = 192;
const ROW_COUNTS_ADDRESS = 256;
const ROW_COUNT_MAX = 64;

const ALIGNMENT_BYTES = 64;
const MEMORY_BYTES_MAX = 2 ** 32;

export interface MemoryLayout {
  readonly sizeBytes: number;
  readonly programAddress: number;
  readonly scratchAddress: number;
  /** Address of an operand: a leaf's, or the arena's plus its offset. */
  addressOf(operand: Operand): number;
  leafAddress(leaf: Tensor): number;
  /** Address of the count of a dimension that varies by step. */
  rowCountAddress(name: string): number;
}

/** Matrices are packed in groups of eight rows; vectors are kept as f32. */
export const isPacked = (leaf: Tensor): boolean => leaf.op === 'weight' && leaf.shape.length === 2;

/** Bytes that a leaf takes in memory, which for packed weights is that of whole groups. */
export function leafBytes(leaf: Tensor): number {
  if (leaf.op !== 'weight') return sizeBytesMax(leaf);
  if (!isPacked(leaf)) return 4 * elementsMax(leaf);
  const { blockElements, blockBytes } = BLOCK_FORMATS[leaf.dtype as DType];
  return Math.ceil((rowsOf(leaf) as number) / 8) * 8 * (columnsOf(leaf) / blockElements) * blockBytes;
}

/**
 * @throws {UnsupportedError} UNSUPPORTED_FEATURE when more than 4 GB would be needed
 */
export function layOutMemory(program: Program, nThreads: number): MemoryLayout {
  let next = ROW_COUNTS_ADDRESS + 4 * ROW_COUNT_MAX;
  const reserve = (sizeBytes: number): number => {
    const address = next;
    next = Math.ceil((next + sizeBytes) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    return address;
  };
  const programAddress = reserve(program.instructions.length * RECORD_BYTES);
  const scratchAddress = reserve(nThreads * SCRATCH_BYTES);
  const leaves = new Map<Tensor, number>();
  const place = (op: Tensor['op']): void => {
    for (const leaf of program.leaves) if (leaf.op === op) leaves.set(leaf, reserve(leafBytes(leaf)));
  };
  place('input');
  const arenaAddress = reserve(program.arenaBytes);
  for (const op of ['constant', 'weight', 'state'] as const) place(op);
  if (next > MEMORY_BYTES_MAX) {
    throw new UnsupportedError(
      'UNSUPPORTED_FEATURE',
      `the model needs ${(next / 2 ** 30).toFixed(1)} GiB of memory, this version addresses 4 GiB; ` +
        'use a smaller context, a smaller quantisation or a smaller model',
      { neededBytes: next },
    );
  }

  const rowCounts = rowCountNames(program);
  const leafAddress = (leaf: Tensor): number => {
    const address = leaves.get(leaf);
    assert(address !== undefined, `leaf "${leaf.name}" has no address`);
    return address;
  };
  return {
    sizeBytes: next,
    programAddress,
    scratchAddress,
    leafAddress,
    addressOf: (o) => (o.region === 'arena' ? arenaAddress + o.offsetBytes : leafAddress(o.tensor)),
    rowCountAddress(name) {
      const index = rowCounts.indexOf(name);
      assert(index >= 0, `no dimension is called "${name}"`);
      return ROW_COUNTS_ADDRESS + 4 * index;
    },
  };
}

function rowCountNames(program: Program): string[] {
  const names = new Set<string>();
  for (const { shape } of program.leaves) for (const dim of shape) if (typeof dim !== 'number') names.add(dim.name);
  assert(names.size <= ROW_COUNT_MAX, 'too many varying dimensions');
  return [...names];
}
