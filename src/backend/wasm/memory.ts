// The layout of a model's memory, decided once from its programs: control words, row counts, records, scratch, inputs,
// arena, constants, weights, state. Programs share one arena, and leaves of the same name. Everything has its address
// before the memory is made.

import { UnsupportedError, assert } from '../../base/errors.ts';
import type { Instruction, Operand, Program } from '../../graph/plan.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { sizeBytesMax } from '../../graph/tensor.ts';
import { wasmFeatures } from './emit/features.ts';
import type { PointerType } from './emit/opcodes.ts';
import { RECORD_BYTES, SCRATCH_BYTES_MIN } from './kernels/kernel.ts';
import type { Kernel } from './kernels/kernel.ts';
import { kernelFor } from './kernels/table.ts';
import { loadingBytes, packedBytes } from './load.ts';

/** Control words, a cache line each, from address 0 on. */
export const COUNT_ADDRESS = 0;
export const PHASE_ADDRESS = 64;
export const SLEEPERS_ADDRESS = 128;
export const ABORT_ADDRESS = 192;
// 256: what the clear kernel knows and counts (CLEARING in kernels/kernel.ts).
const ROW_COUNTS_ADDRESS = 320;
const ROW_COUNT_MAX = 64;

const ALIGNMENT_BYTES = 64;
/** What a kernel may read, and not use, after the end of anything. */
const OVERREAD_BYTES = 32;
/** What addresses of 32 bits reach, and how much memory engines give to those of 64. */
const MEMORY_BYTES_MAX: Readonly<Record<PointerType, number>> = { i32: 2 ** 32, i64: 2 ** 34 };

export interface MemoryLayout {
  readonly sizeBytes: number;
  /** Width of addresses. All that the caller of `run` names lies below 4 GiB. */
  readonly pointer: PointerType;
  /** Of each program's records. */
  readonly programAddresses: readonly number[];
  /** Of the record by which weights are packed. */
  readonly packingAddress: number;
  readonly scratchAddress: number;
  /** Scratch of each thread. */
  readonly scratchBytes: number;
  /** Of thread 0's counters, an i32 an instruction; all programs use the same. */
  readonly countersAddress: number;
  /** Bytes of each thread's counters. */
  readonly counterBytes: number;
  /** Of what threads share within an instruction. */
  readonly sharedScratchAddress: number;
  /** Of the memory of all intermediates, as long as the largest program wants it, and loading. */
  readonly arenaAddress: number;
  /** Address of an operand: a leaf's, or the arena's plus its offset. */
  addressOf(operand: Operand): number;
  leafAddress(leaf: Tensor): number;
  /** Address of the count of a dimension that varies by step. */
  rowCountAddress(name: string): number;
}

/** Bytes that a leaf takes in memory. */
export const leafBytes = (leaf: Tensor): number => (leaf.op === 'weight' ? packedBytes(leaf) : sizeBytesMax(leaf));

/**
 * @param gapBytes  for tests: left out after control words and records, so that the addresses of the rest are high
 * @throws {UnsupportedError} UNSUPPORTED_FEATURE when more is needed than this machine's engine can address
 */
export function layOutMemory(programs: readonly Program[], nThreads: number, gapBytes = 0): MemoryLayout {
  let next = ROW_COUNTS_ADDRESS + 4 * ROW_COUNT_MAX;
  const reserve = (sizeBytes: number): number => {
    const address = next;
    next = Math.ceil((next + sizeBytes) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    return address;
  };
  const programAddresses = programs.map((p) => reserve(p.instructions.length * RECORD_BYTES));
  const packingAddress = reserve(RECORD_BYTES);
  const nInstructions = Math.max(...programs.map((p) => p.instructions.length));
  const counterBytes = Math.ceil((4 * nInstructions) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  reserve(gapBytes);
  const countersAddress = reserve(nThreads * counterBytes);
  const scratchBytes = mostOf(programs, SCRATCH_BYTES_MIN, (kernel, i) => kernel.scratchBytes?.(i));
  const scratchAddress = reserve(nThreads * scratchBytes);
  const sharedScratchAddress = reserve(mostOf(programs, 0, (kernel, i) => kernel.sharedScratchBytes?.(i)));
  const leaves = new Map<string, number>();
  const distinct = distinctLeaves(programs);
  const place = (op: Tensor['op']): void => {
    for (const leaf of distinct) if (leaf.op === op) leaves.set(leafKey(leaf), reserve(leafBytes(leaf)));
  };
  place('input');
  const weights = distinct.filter(({ op }) => op === 'weight');
  const arenaAddress = reserve(Math.max(loadingBytes(weights), ...programs.map((p) => p.arenaBytes)));
  for (const op of ['constant', 'weight', 'state'] as const) place(op);
  const sizeBytes = next + OVERREAD_BYTES;
  const pointer = pointerFor(sizeBytes, wasmFeatures().memory64);

  const rowCounts = rowCountNames(programs);
  const leafAddress = (leaf: Tensor): number => {
    const address = leaves.get(leafKey(leaf));
    assert(address !== undefined, `leaf "${leaf.name}" has no address`);
    return address;
  };
  return {
    sizeBytes,
    pointer,
    programAddresses,
    packingAddress,
    scratchAddress,
    scratchBytes,
    countersAddress,
    counterBytes,
    sharedScratchAddress,
    arenaAddress,
    leafAddress,
    addressOf: (o) => o.offsetBytes + (o.region === 'arena' ? arenaAddress : leafAddress(o.base)),
    rowCountAddress(name) {
      const index = rowCounts.indexOf(name);
      assert(index >= 0, `no dimension is called "${name}"`);
      return ROW_COUNTS_ADDRESS + 4 * index;
    },
  };
}

/**
 * The width of addresses: 32 bits where they do, since bounds are then checked by the machine's pages.
 * @param memory64  whether there are memories with addresses of 64 bits
 * @throws {UnsupportedError} UNSUPPORTED_FEATURE
 */
export function pointerFor(sizeBytes: number, memory64: boolean): PointerType {
  if (sizeBytes <= MEMORY_BYTES_MAX.i32) return 'i32';
  if (memory64 && sizeBytes <= MEMORY_BYTES_MAX.i64) return 'i64';
  const inGiB = (bytes: number): string => (bytes / 2 ** 30).toFixed(bytes % 2 ** 30 === 0 ? 0 : 1);
  const limit = MEMORY_BYTES_MAX[memory64 ? 'i64' : 'i32'];
  const elsewhere = memory64 ? '' : 'Node 24, a browser with 64-bit memories, ';
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `the model needs ${inGiB(sizeBytes)} GiB of memory, WebAssembly has ${inGiB(limit)} GiB here; ` +
      `use ${elsewhere}a smaller context, a smaller quantisation or a smaller model`,
    { neededBytes: sizeBytes, limitBytes: limit },
  );
}

/**
 * The programs' leaves, those of the same name once. Programs may have inputs of different lengths: the longest counts,
 * and each finds its own at the start of it.
 */
export function distinctLeaves(programs: readonly Program[]): Tensor[] {
  const byKey = new Map<string, Tensor>();
  for (const leaf of programs.flatMap((p) => p.leaves)) {
    const known = byKey.get(leafKey(leaf)) ?? leaf;
    const isSame = sizeBytesMax(leaf) === sizeBytesMax(known);
    assert(isSame || leaf.op === 'input', `${leaf.op} "${leaf.name}" has another size in another program`);
    byKey.set(leafKey(leaf), sizeBytesMax(leaf) > sizeBytesMax(known) ? leaf : known);
  }
  return [...byKey.values()];
}

const leafKey = (leaf: Tensor): string => `${leaf.op} ${leaf.name}`;

/** The most that any instruction asks for, but at least `min`, in whole cache lines. */
function mostOf(
  programs: readonly Program[],
  min: number,
  bytesOf: (kernel: Kernel, instruction: Instruction) => number | undefined,
): number {
  const instructions = programs.flatMap((p) => p.instructions);
  const most = instructions.reduce((a, i) => Math.max(a, bytesOf(kernelFor(i), i) ?? 0), min);
  return Math.ceil(most / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

function rowCountNames(programs: readonly Program[]): string[] {
  const names = new Set<string>();
  const leaves = programs.flatMap((p) => p.leaves);
  for (const { shape } of leaves) for (const dim of shape) if (typeof dim !== 'number') names.add(dim.name);
  assert(names.size <= ROW_COUNT_MAX, 'too many varying dimensions');
  return [...names];
}
