// Reads the tensor descriptors of a GGUF file and checks where they place their data: whole blocks, aligned, inside the
// file, no two on the same bytes. What it returns can be read without another check.

import { BLOCK_FORMATS, dtypeOfGgmlType } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import type { Cursor } from './cursor.ts';
import { quote } from './metadata.ts';

/** Where a tensor lies in the file, and what it is. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Row-major, columns (the elements that lie side by side) last: GGUF's `ne` reversed. Empty for a scalar. */
  readonly shape: readonly number[];
  /** From the start of the file; in a model that is split, of all files one after the other. */
  readonly offsetBytes: number;
  /** Of its data, without padding. */
  readonly sizeBytes: number;
}

/** The smallest descriptor: an empty name, no dimension, a type and an offset. */
export const TENSOR_INFO_BYTES_MIN = 8 + 4 + 4 + 8;

/** A descriptor as it stands in the file, with its place there for messages. */
interface Descriptor {
  readonly info: Omit<TensorInfo, 'offsetBytes'>;
  readonly field: string;
  /** Of the tensor's data, from the start of all tensor data. */
  readonly dataOffsetBytes: number | bigint;
  /** Where in the file that offset stands. */
  readonly offsetAt: number;
}

/** Reads `nTensors` descriptors, which end the head of the file; `dataOffsetBytes` is where tensor data starts. */
export function readTensorInfos(
  cursor: Cursor,
  nTensors: number,
  alignment: number,
): { tensors: Map<string, TensorInfo>; dataOffsetBytes: number } {
  const descriptors = new Map<string, Descriptor>();
  for (let i = 0; i < nTensors; i++) {
    const at = cursor.offsetBytes;
    const descriptor = readDescriptor(cursor, i);
    const { name } = descriptor.info;
    if (descriptors.has(name)) throw cursor.error('GGUF_INVALID', `name of tensor ${i}`, at, `repeats ${quote(name)}`);
    descriptors.set(name, descriptor);
  }
  const dataOffsetBytes = alignUp(cursor.offsetBytes, alignment);
  const tensors = new Map<string, TensorInfo>();
  for (const [name, descriptor] of descriptors) {
    tensors.set(name, placeTensor(cursor, descriptor, dataOffsetBytes, alignment));
  }
  checkOverlaps(cursor, tensors, descriptors);
  return { tensors, dataOffsetBytes };
}

/** The next multiple of `alignment` from `offsetBytes` on. */
export function alignUp(offsetBytes: number, alignment: number): number {
  return Math.ceil(offsetBytes / alignment) * alignment;
}

function readDescriptor(cursor: Cursor, index: number): Descriptor {
  const name = cursor.string(`name of tensor ${index}`, 'tensorNameBytes');
  const field = `tensor ${quote(name)}`;
  const rankAt = cursor.offsetBytes;
  const rank = cursor.u32(field);
  cursor.checkLimit('dimensions', rank, field, rankAt);

  const shape: number[] = [];
  let nElements = 1;
  for (let i = 0; i < rank; i++) {
    const at = cursor.offsetBytes;
    const dimension = cursor.number('u64', field);
    // A product beyond 2^53 is rounded, but never to a safe integer.
    nElements *= Number(dimension);
    if (typeof dimension === 'bigint' || dimension === 0 || !Number.isSafeInteger(nElements)) {
      const problem = `has a dimension ${i} of ${dimension}; expected at least 1, and at most 2^53 - 1 elements in all`;
      throw cursor.error('GGUF_INVALID', field, at, problem, { value: String(dimension) });
    }
    shape.unshift(dimension);
  }
  const typeAt = cursor.offsetBytes;
  const ggmlType = cursor.u32(field);
  const dtype = dtypeOfGgmlType(ggmlType);
  if (dtype === undefined) {
    const problem = `has type ${ggmlType}, which ggml does not define or has removed`;
    throw cursor.error('GGUF_INVALID', field, typeAt, problem, { value: ggmlType });
  }
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const nColumns = shape.at(-1) ?? 1;
  if (nColumns % blockElements !== 0) {
    const problem = `has rows of ${nColumns} elements; ${dtype} needs a multiple of ${blockElements}`;
    throw cursor.error('GGUF_INVALID', field, typeAt, problem, { value: nColumns, limit: blockElements });
  }
  const sizeBytes = (nElements / blockElements) * blockBytes;
  const offsetAt = cursor.offsetBytes;
  return { info: { name, dtype, shape, sizeBytes }, field, dataOffsetBytes: cursor.number('u64', field), offsetAt };
}

function placeTensor(cursor: Cursor, descriptor: Descriptor, dataOffsetBytes: number, alignment: number): TensorInfo {
  const { info, field, offsetAt } = descriptor;
  const offset = Number(descriptor.dataOffsetBytes);
  if (offset % alignment !== 0) {
    const problem = `has its data at offset ${offset}, which is no multiple of the alignment of ${alignment}`;
    throw cursor.error('GGUF_INVALID', field, offsetAt, problem, { value: offset, limit: alignment });
  }
  // Rounding of huge numbers cannot hide an end beyond the file, whose size is exact and far below them.
  const endBytes = dataOffsetBytes + offset + info.sizeBytes;
  if (endBytes > cursor.sizeBytes) {
    const problem = `has its data up to byte ${endBytes}, but the file ends at ${cursor.sizeBytes}`;
    throw cursor.error('GGUF_TRUNCATED', field, offsetAt, problem, { value: endBytes, limit: cursor.sizeBytes });
  }
  return { ...info, offsetBytes: dataOffsetBytes + offset };
}

function checkOverlaps(
  cursor: Cursor,
  tensors: ReadonlyMap<string, TensorInfo>,
  descriptors: ReadonlyMap<string, Descriptor>,
): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.offsetBytes - b.offsetBytes);
  for (let i = 1; i < inOrder.length; i++) {
    const before = inOrder[i - 1]!;
    const tensor = inOrder[i]!;
    if (tensor.offsetBytes >= before.offsetBytes + before.sizeBytes) continue;
    const { field, offsetAt } = descriptors.get(tensor.name)!;
    const problem = `has its data at byte ${tensor.offsetBytes}, on that of tensor ${quote(before.name)}`;
    throw cursor.error('GGUF_INVALID', field, offsetAt, problem, { value: tensor.offsetBytes });
  }
}
