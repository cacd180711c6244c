// Loading: weights go from the file into the model's memory piece by piece. One piece is read while all threads pack
// another: packing is a program like any other. Pieces wait in the memory of intermediates, which is free until then.
// Knows neither files nor the bits of formats.

import { BLOCK_FORMATS, rowBytes } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import { assert } from '../../base/errors.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { columnsOf, elementsMax, rowsOf, sizeBytesMax } from '../../graph/tensor.ts';
import { dequantize } from '../../quant/codecs.ts';
import { nonFiniteError, requireFinite } from '../executor.ts';
import type { LoadProgress, WeightSource } from '../executor.ts';
import { INPUT_SLOT, OUT_SLOT, PARAM_SLOT, SLOT_BYTES, setAddress } from './kernels/kernel.ts';
import type { Routine } from './kernels/kernel.ts';
import { PACKING_OVERREAD_BYTES, packKernelOf } from './kernels/packing/pack.ts';
import { groupBlockBytes, quantizedFormatOf } from './kernels/matmul/layout.ts';

/** Bytes that are read at once, where eight rows are not more. */
const PIECE_BYTES = 4 << 20;
/** Bytes that a thread takes at once, where eight rows are not more. */
const GRAIN_BYTES = 1 << 17;
/** Pieces that are read or packed at the same time. */
const PIECE_COUNT = 2;

/** Matrices, and stacks of them, are packed in groups of eight rows; vectors are kept as f32. */
export const isPacked = (leaf: Tensor): boolean => leaf.op === 'weight' && leaf.shape.length > 1;

/** Bytes that a weight takes in memory, which for a packed one is that of whole groups. */
export function packedBytes(leaf: Tensor): number {
  if (!isPacked(leaf)) return 4 * elementsMax(leaf);
  return Math.ceil(rowCount(leaf) / 8) * groupOf(leaf).packedBytes;
}

function rowCount(leaf: Tensor): number {
  const rows = rowsOf(leaf);
  assert(typeof rows === 'number', `weight "${leaf.name}" has rows that vary`);
  return rows;
}

/** Of eight rows: bytes in the file and packed, and blocks a row. */
function groupOf(leaf: Tensor): { fileBytes: number; packedBytes: number; nBlocks: number } {
  const dtype = leaf.dtype as DType;
  const nColumns = columnsOf(leaf);
  const nBlocks = nColumns / BLOCK_FORMATS[dtype].blockElements;
  return { fileBytes: 8 * rowBytes(dtype, nColumns), packedBytes: nBlocks * groupBlockBytes(dtype), nBlocks };
}

/** Groups of eight rows that are read at once. */
function groupsAtOnce(leaf: Tensor): number {
  const nGroups = Math.floor(PIECE_BYTES / groupOf(leaf).fileBytes);
  return Math.min(Math.ceil(rowCount(leaf) / 8), Math.max(1, nGroups));
}

/** Bytes of the place where a piece waits: room for whole groups and for what a kernel reads beyond. */
function placeBytes(weights: readonly Tensor[]): number {
  const needed = weights.map((l) => (isPacked(l) ? groupsAtOnce(l) * groupOf(l).fileBytes : sizeBytesMax(l)));
  return 64 * Math.ceil((needed.reduce((a, b) => Math.max(a, b), 0) + PACKING_OVERREAD_BYTES) / 64);
}

/** Integers of the grid of which the blocks of a matrix hold indices, if they do. */
const gridOf = (leaf: Tensor): Uint8Array | undefined =>
  isPacked(leaf) ? quantizedFormatOf(leaf.dtype as DType)?.expansion?.grid.integers : undefined;

/** Bytes of memory that loading these weights needs: for pieces, and for a grid behind them. */
export const loadingBytes = (weights: readonly Tensor[]): number =>
  PIECE_COUNT * placeBytes(weights) + Math.max(0, ...weights.map((leaf) => gridOf(leaf)?.length ?? 0));

/** What is read at once: a vector, or whole groups of a matrix, of which the last may lack rows. */
interface Piece {
  readonly leaf: Tensor;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  readonly firstGroup: number;
  readonly nGroups: number;
}

function piecesOf(leaf: Tensor): Piece[] {
  const totalBytes = sizeBytesMax(leaf);
  if (!isPacked(leaf)) return [{ leaf, offsetBytes: 0, sizeBytes: totalBytes, firstGroup: 0, nGroups: 0 }];
  const { fileBytes } = groupOf(leaf);
  const nGroups = Math.ceil(totalBytes / fileBytes);
  const nAtOnce = groupsAtOnce(leaf);
  return Array.from({ length: Math.ceil(nGroups / nAtOnce) }, (_, i) => {
    const firstGroup = i * nAtOnce;
    const offsetBytes = firstGroup * fileBytes;
    return {
      leaf,
      offsetBytes,
      sizeBytes: Math.min(nAtOnce * fileBytes, totalBytes - offsetBytes),
      firstGroup,
      nGroups: Math.min(nAtOnce, nGroups - firstGroup),
    };
  });
}

/** The memory that weights are loaded into. */
export interface LoadTarget {
  readonly buffer: ArrayBufferLike;
  /** Of `loadingBytes`, zero before and after. */
  readonly scratchAddress: number;
  /** Of a record whose fields for all kernels are filled in, and the function table that it is for. */
  readonly recordAddress: number;
  readonly kernels: readonly Routine[];
  addressOf(leaf: Tensor): number;
  /** Runs the record on all threads. */
  run(): void;
}

/**
 * Fills the weights.
 * @throws {GgufError} GGUF_INVALID for a NaN or an infinity; what `source` throws
 */
export async function loadWeights(
  weights: readonly Tensor[],
  source: WeightSource,
  target: LoadTarget,
  onProgress?: LoadProgress,
): Promise<void> {
  const totalBytes = weights.reduce((sum, leaf) => sum + sizeBytesMax(leaf), 0);
  const sizeBytes = placeBytes(weights);
  const pieces = weights.flatMap(piecesOf);
  const addressAt = (i: number): number => target.scratchAddress + (i % PIECE_COUNT) * sizeBytes;
  const reads: Promise<void>[] = [];
  const startReading = (i: number): void => {
    const piece = pieces[i];
    if (!piece) return;
    const bytes = new Uint8Array(target.buffer, addressAt(i), piece.sizeBytes);
    reads[i] = source.read(piece.leaf.name, piece.offsetBytes, bytes);
    // Where an earlier piece fails, nobody waits for this one.
    reads[i].catch(() => {});
  };
  onProgress?.(0, totalBytes);
  for (let i = 0; i < PIECE_COUNT; i++) startReading(i);
  let doneBytes = 0;
  for (const [i, piece] of pieces.entries()) {
    await reads[i];
    if (isPacked(piece.leaf)) packPiece(piece, addressAt(i), addressAt(0) + PIECE_COUNT * sizeBytes, target);
    else copyVector(piece.leaf, addressAt(i), target);
    startReading(i + PIECE_COUNT);
    doneBytes += piece.sizeBytes;
    onProgress?.(doneBytes, totalBytes);
  }
  new Uint8Array(target.buffer, target.scratchAddress, loadingBytes(weights)).fill(0);
}

function packPiece(
  { leaf, sizeBytes, firstGroup, nGroups }: Piece,
  address: number,
  gridAddress: number,
  target: LoadTarget,
): void {
  const grid = gridOf(leaf);
  if (grid) new Uint8Array(target.buffer, gridAddress, grid.length).set(grid);
  const kernel = packKernelOf(leaf.dtype as DType);
  const group = groupOf(leaf);
  // Rows that the last group lacks are zero.
  new Uint8Array(target.buffer, address + sizeBytes, nGroups * group.fileBytes - sizeBytes).fill(0);
  const record = new DataView(target.buffer, target.recordAddress);
  const paramAt = (name: string): number => SLOT_BYTES * (PARAM_SLOT + Object.keys(kernel.params).indexOf(name));
  record.setInt32(0, target.kernels.indexOf(kernel), true);
  setAddress(record, SLOT_BYTES * OUT_SLOT, target.addressOf(leaf) + firstGroup * group.packedBytes);
  setAddress(record, SLOT_BYTES * INPUT_SLOT, address);
  setAddress(record, SLOT_BYTES * (INPUT_SLOT + 1), gridAddress);
  record.setInt32(paramAt('nGroups'), nGroups, true);
  record.setInt32(paramAt('nBlocks'), group.nBlocks, true);
  record.setInt32(paramAt('grain'), Math.max(1, Math.floor(GRAIN_BYTES / group.fileBytes)), true);
  record.setInt32(paramAt('isNonFinite'), 0, true);
  target.run();
  if (record.getInt32(paramAt('isNonFinite'), true) !== 0) throw nonFiniteError(leaf.name);
}

function copyVector(leaf: Tensor, address: number, target: LoadTarget): void {
  const values = dequantize(leaf.dtype as DType, new Uint8Array(target.buffer, address, sizeBytesMax(leaf)));
  requireFinite(leaf.name, values);
  new Float32Array(target.buffer, target.addressOf(leaf), values.length).set(values);
}
