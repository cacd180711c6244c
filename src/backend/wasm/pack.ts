// Packing: weights as the file stores them → groups of eight interleaved rows, as weights.ts reads them.
// - F32, F16, BF16: for each column the eight rows' values.
// - Q8_0, Q4_0: for each block of 32 columns the eight f16 scales, then steps of 32 bytes: four bytes of each row.
//   A byte of Q4_0 holds columns k (low nibble) and k + 16.
// Rows that the last group lacks are zero. The size is that of the file's rows, whole groups counted.

import { BLOCK_FORMATS } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import { UnsupportedError } from '../../base/errors.ts';
import { nonFiniteError } from '../executor.ts';

const GROUP_ROWS = 8;

/** Packs one group. `rows` holds up to eight rows one after the other; `target` the group. */
type PackGroup = (rows: Uint8Array, nRows: number, nColumns: number, target: Uint8Array) => void;

function packScalars(elementBytes: 2 | 4, exponentMask: number): PackGroup {
  const Words = elementBytes === 2 ? Uint16Array : Uint32Array;
  return (rows, nRows, nColumns, target) => {
    const source = new Words(rows.buffer as ArrayBuffer, rows.byteOffset, nRows * nColumns);
    const packed = new Words(target.buffer as ArrayBuffer, target.byteOffset, GROUP_ROWS * nColumns);
    if (nRows < GROUP_ROWS) packed.fill(0);
    for (let row = 0; row < nRows; row++) {
      const start = row * nColumns;
      for (let k = 0; k < nColumns; k++) {
        const bits = source[start + k]!;
        if ((bits & exponentMask) === exponentMask) throw new NonFiniteWeight();
        packed[k * GROUP_ROWS + row] = bits;
      }
    }
  };
}

/** @param flip  XORed to each quant: 0x80 turns signed bytes into unsigned ones, 128 added */
function packBlocks(blockBytes: number, flip: number): PackGroup {
  const quantBytes = blockBytes - 2;
  return (rows, nRows, nColumns, target) => {
    const nBlocks = nColumns / 32;
    if (nRows < GROUP_ROWS) target.fill(0);
    for (let row = 0; row < nRows; row++) {
      let from = row * nBlocks * blockBytes;
      for (let block = 0; block < nBlocks; block++, from += blockBytes) {
        const group = block * GROUP_ROWS * blockBytes;
        const scaleHigh = rows[from + 1]!;
        if ((scaleHigh & 0x7c) === 0x7c) throw new NonFiniteWeight();
        target[group + 2 * row] = rows[from]!;
        target[group + 2 * row + 1] = scaleHigh;
        let to = group + 2 * GROUP_ROWS + 4 * row;
        for (let i = 0; i < quantBytes; i += 4, to += 4 * GROUP_ROWS) {
          target[to] = rows[from + 2 + i]! ^ flip;
          target[to + 1] = rows[from + 3 + i]! ^ flip;
          target[to + 2] = rows[from + 4 + i]! ^ flip;
          target[to + 3] = rows[from + 5 + i]! ^ flip;
        }
      }
    }
  };
}

class NonFiniteWeight extends Error {}

function packerOf(dtype: DType, biased: boolean): PackGroup {
  switch (dtype) {
    case 'F32':
      return packScalars(4, 0x7f800000);
    case 'F16':
      return packScalars(2, 0x7c00);
    case 'BF16':
      return packScalars(2, 0x7f80);
    case 'Q8_0':
      return packBlocks(BLOCK_FORMATS.Q8_0.blockBytes, biased ? 0x80 : 0);
    case 'Q4_0':
      return packBlocks(BLOCK_FORMATS.Q4_0.blockBytes, 0);
    default:
      throw new UnsupportedError(
        'UNSUPPORTED_DTYPE',
        `no kernel runs ${dtype} yet; requantise the model to Q8_0 or Q4_0`,
      );
  }
}

/**
 * Packs rows of the matrix `name`.
 * @param rows    the rows as stored, dense; four-byte aligned
 * @param target  receives whole groups; four-byte aligned, may be shared memory
 * @param biased  Q8_0 with 128 added to each quant
 * @throws {GgufError} GGUF_INVALID for a NaN or an infinity, {UnsupportedError} for a type without kernels
 */
export function packRows(
  { name, dtype, nColumns }: { name: string; dtype: DType; nColumns: number },
  rows: Uint8Array,
  target: Uint8Array,
  biased: boolean,
): void {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const rowBytes = (nColumns / blockElements) * blockBytes;
  const nRows = rows.length / rowBytes;
  const pack = packerOf(dtype, biased);
  try {
    for (let row = 0; row < nRows; row += GROUP_ROWS) {
      const n = Math.min(GROUP_ROWS, nRows - row);
      const group = target.subarray(row * rowBytes, (row + GROUP_ROWS) * rowBytes);
      pack(rows.subarray(row * rowBytes, (row + n) * rowBytes), n, nColumns, group);
    }
  } catch (error) {
    if (!(error instanceof NonFiniteWeight)) throw error;
    throw nonFiniteError(name);
  }
}
