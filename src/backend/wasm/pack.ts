// Packing: weights as the file stores them → groups of eight interleaved rows, as kernels/weights.ts reads them. Floats:
// for each column the eight rows' values. Quantised formats: planes of bits, told there. Rows that the last group lacks
// are zero.

import { BLOCK_FORMATS, rowBytes } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import { UnsupportedError } from '../../base/errors.ts';
import { newBlock } from '../../quant/block.ts';
import type { Block, QuantizedFormat } from '../../quant/block.ts';
import { nonFiniteError } from '../executor.ts';
import type { KernelVariant } from './kernels/kernel.ts';
import {
  HALF_ROWS_BYTES,
  groupBlockBytes,
  headerBytes,
  interleavingOf,
  isBiased,
  layoutOf32,
  planesOf,
  quantizedFormatOf,
  sharesBytes,
} from './kernels/weights.ts';
import type { Interleaving } from './kernels/weights.ts';

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

/** Where a quant of a plane goes, by 32 · row + column: byte within the plane, and bit within the byte. */
interface Places {
  readonly bytes: Uint16Array;
  readonly shifts: Uint8Array;
}

/** @param bits  of the plane, which stores vectors v, v + 2·bits … in the same bytes */
function placesOf(interleaving: Interleaving, bits: number): Places {
  const places = { bytes: new Uint16Array(GROUP_ROWS * 32), shifts: new Uint8Array(GROUP_ROWS * 32) };
  const nStored = 2 * bits;
  for (let row = 0; row < GROUP_ROWS; row++) {
    for (let column = 0; column < 32; column++) {
      const [vector, byte] =
        interleaving === 'quads'
          ? [2 * (column >> 2) + (row >> 2), 4 * (row & 3) + (column & 3)]
          : [column >> 1, 2 * row + (column & 1)];
      places.bytes[32 * row + column] = 16 * (vector % nStored) + byte;
      places.shifts[32 * row + column] = bits * Math.floor(vector / nStored);
    }
  }
  return places;
}

/** How the fields of a block of eight rows lie is told in kernels/weights.ts. */
function packQuantized(format: QuantizedFormat, variant: KernelVariant): PackGroup {
  const { blockElements, blockBytes } = BLOCK_FORMATS[format.dtype];
  const { lowBits, highBits } = planesOf(format);
  const layout = layoutOf32(format);
  const groupBytes = groupBlockBytes(format.dtype);
  const interleaving = interleavingOf(format, variant);
  const low = placesOf(interleaving, lowBits);
  const high = placesOf(interleaving, highBits);
  const lowMask = (1 << lowBits) - 1;
  // Turns signed bytes into unsigned ones, 128 added.
  const flip = format.bits === 8 && isBiased(variant) ? 0x80 : 0;
  const block = newBlock();
  const { quants } = block;
  return (rows, nRows, nColumns, target) => {
    const nBlocks = nColumns / blockElements;
    target.fill(0);
    for (let row = 0; row < nRows; row++) {
      for (let b = 0; b < nBlocks; b++) {
        format.read(rows, (row * nBlocks + b) * blockBytes, block);
        const start = b * groupBytes;
        packHeader(format, block, target, start, row);
        for (let part = 0; part * 32 < blockElements; part++) {
          const at = start + headerBytes(format) + part * layout.sizeBytes;
          packScales(format, block, part, target, at, row);
          for (let i = 0; i < 32; i++) {
            const quant = quants[32 * part + i]! ^ flip;
            const place = 32 * row + i;
            target[at + layout.low + low.bytes[place]!]! |= (quant & lowMask) << low.shifts[place]!;
            if (highBits === 0) continue;
            target[at + layout.high + high.bytes[place]!]! |= (quant >> lowBits) << high.shifts[place]!;
          }
        }
      }
    }
  };
}

function packHeader(format: QuantizedFormat, block: Block, target: Uint8Array, at: number, row: number): void {
  const put = (bits: number, to: number): void => {
    if ((bits & 0x7c00) === 0x7c00) throw new NonFiniteWeight();
    target[to] = bits;
    target[to + 1] = bits >> 8;
  };
  put(block.dBits, at + 2 * row);
  if (format.hasMinima) put(block.dMinBits, at + HALF_ROWS_BYTES + 2 * row);
}

function packScales(
  format: QuantizedFormat,
  { scales, mins }: Block,
  part: number,
  target: Uint8Array,
  at: number,
  row: number,
): void {
  const { scaleColumns, hasMinima } = format;
  if (scaleColumns === 32) {
    target[at + row] = scales[part]!;
    if (hasMinima) target[at + layoutOf32(format).mins + row] = mins[part]!;
  } else if (scaleColumns === 16) {
    for (const j of [0, 1]) {
      const i = 2 * part + j;
      target[at + 2 * row + j] = sharesBytes(format) ? scales[i]! | (mins[i]! << 4) : scales[i]!;
    }
  }
}

class NonFiniteWeight extends Error {}

function packerOf(dtype: DType, variant: KernelVariant): PackGroup {
  const format = quantizedFormatOf(dtype);
  if (format) return packQuantized(format, variant);
  switch (dtype) {
    case 'F32':
      return packScalars(4, 0x7f800000);
    case 'F16':
      return packScalars(2, 0x7c00);
    case 'BF16':
      return packScalars(2, 0x7f80);
    default:
      throw new UnsupportedError(
        'UNSUPPORTED_DTYPE',
        `no kernel runs ${dtype} yet; requantise the model to Q8_0 or Q4_0`,
      );
  }
}

/**
 * Packs rows of the matrix `name`.
 * @param rows     the rows as stored, dense; four-byte aligned
 * @param target   receives whole groups; four-byte aligned, may be shared memory
 * @param variant  of the kernels that will read it
 * @throws {GgufError} GGUF_INVALID for a NaN or an infinity, {UnsupportedError} for a type without kernels
 */
export function packRows(
  { name, dtype, nColumns }: { name: string; dtype: DType; nColumns: number },
  rows: Uint8Array,
  target: Uint8Array,
  variant: KernelVariant,
): void {
  const rowSizeBytes = rowBytes(dtype, nColumns);
  const groupSizeBytes = (nColumns / BLOCK_FORMATS[dtype].blockElements) * groupBlockBytes(dtype);
  const nRows = rows.length / rowSizeBytes;
  const pack = packerOf(dtype, variant);
  try {
    for (let row = 0; row < nRows; row += GROUP_ROWS) {
      const n = Math.min(GROUP_ROWS, nRows - row);
      const group = row / GROUP_ROWS;
      const packed = target.subarray(group * groupSizeBytes, (group + 1) * groupSizeBytes);
      pack(rows.subarray(row * rowSizeBytes, (row + n) * rowSizeBytes), n, nColumns, packed);
    }
  } catch (error) {
    if (!(error instanceof NonFiniteWeight)) throw error;
    throw nonFiniteError(name);
  }
}
