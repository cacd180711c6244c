// Packing: weights as the file stores them → groups of eight interleaved rows, as kernels/weights.ts reads them.
// Floats: for each column the eight rows' values. Quantised formats: planes of bits, told there. Rows that the last
// group lacks are zero.

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
    for (let k = 0, to = 0; k < nColumns; k++, to += GROUP_ROWS) {
      for (let row = 0, from = k; row < nRows; row++, from += nColumns) {
        const bits = source[from]!;
        if ((bits & exponentMask) === exponentMask) throw new NonFiniteWeight();
        packed[to + row] = bits;
      }
    }
  };
}

/** Where two neighbouring quants of a plane go, by 16 · row + half the column: word, and bit within its bytes. */
interface Places {
  readonly words: Uint16Array;
  readonly shifts: Uint8Array;
}

/** @param bits  of the plane, which stores vectors v, v + 2·bits … in the same bytes */
function placesOf(interleaving: Interleaving, bits: number): Places {
  const places = { words: new Uint16Array(GROUP_ROWS * 16), shifts: new Uint8Array(GROUP_ROWS * 16) };
  const nStored = 2 * bits;
  for (let row = 0; row < GROUP_ROWS; row++) {
    for (let pair = 0; pair < 16; pair++) {
      const [vector, word] =
        interleaving === 'quads' ? [2 * (pair >> 1) + (row >> 2), 2 * (row & 3) + (pair & 1)] : [pair, row];
      places.words[16 * row + pair] = 8 * (vector % nStored) + word;
      places.shifts[16 * row + pair] = bits * Math.floor(vector / nStored);
    }
  }
  return places;
}

/**
 * Blocks of 32 without a plane of high bits: the bytes of a file's quants are those of the plane, in another order, and
 * are moved two at a time. Five times as fast as reading the fields.
 */
function packDirectly(format: QuantizedFormat, variant: KernelVariant): PackGroup {
  const { lowBits } = planesOf(format);
  const blockWords = BLOCK_FORMATS[format.dtype].blockBytes / 2;
  const groupWords = groupBlockBytes(format.dtype) / 2;
  const nHeads = headerBytes(format) / HALF_ROWS_BYTES;
  const nQuantWords = 2 * lowBits;
  const places = placesOf(interleavingOf(format, variant), lowBits).words;
  // Turns signed bytes into unsigned ones, 128 added.
  const flip = format.bits === 8 && isBiased(variant) ? 0x8080 : 0;
  return (rows, nRows, nColumns, target) => {
    const nBlocks = nColumns / 32;
    const source = new Uint16Array(rows.buffer as ArrayBuffer, rows.byteOffset, nRows * nBlocks * blockWords);
    const words = new Uint16Array(target.buffer as ArrayBuffer, target.byteOffset, nBlocks * groupWords);
    if (nRows < GROUP_ROWS) words.fill(0);
    for (let row = 0; row < nRows; row++) {
      let from = row * nBlocks * blockWords;
      for (let to = 0; to < words.length; to += groupWords) {
        for (let head = 0; head < nHeads; head++, from++) {
          const bits = source[from]!;
          if ((bits & 0x7c00) === 0x7c00) throw new NonFiniteWeight();
          words[to + 8 * head + row] = bits;
        }
        const first = to + 8 * nHeads;
        for (let i = 0; i < nQuantWords; i++, from++) words[first + places[16 * row + i]!] = source[from]! ^ flip;
      }
    }
  };
}

/** How the fields of a block of eight rows lie is told in kernels/weights.ts. */
function packFields(format: QuantizedFormat, variant: KernelVariant): PackGroup {
  const { blockElements, blockBytes } = BLOCK_FORMATS[format.dtype];
  const { lowBits, highBits } = planesOf(format);
  const layout = layoutOf32(format);
  const groupBytes = groupBlockBytes(format.dtype);
  const interleaving = interleavingOf(format, variant);
  const planes = [
    { at: layout.low / 2, places: placesOf(interleaving, lowBits), shift: 0, mask: ((1 << lowBits) - 1) * 0x0101 },
    {
      at: layout.high / 2,
      places: placesOf(interleaving, highBits),
      shift: lowBits,
      mask: ((1 << highBits) - 1) * 0x0101,
    },
  ].filter(({ mask }) => mask !== 0);
  const block = newBlock();
  const pairs = new Uint16Array(block.quants.buffer);
  return (rows, nRows, nColumns, target) => {
    const nBlocks = nColumns / blockElements;
    const words = new Uint16Array(target.buffer as ArrayBuffer, target.byteOffset, target.length / 2);
    words.fill(0);
    for (let row = 0; row < nRows; row++) {
      for (let b = 0; b < nBlocks; b++) {
        format.read(rows, (row * nBlocks + b) * blockBytes, block);
        const start = b * groupBytes;
        packHeader(format, block, target, start, row);
        for (let part = 0; part * 32 < blockElements; part++) {
          const at = start + headerBytes(format) + part * layout.sizeBytes;
          packScales(format, block, part, target, at, row);
          for (const plane of planes) {
            const { words: places, shifts } = plane.places;
            const first = at / 2 + plane.at;
            for (let i = 0; i < 16; i++) {
              const quants = (pairs[16 * part + i]! >> plane.shift) & plane.mask;
              words[first + places[16 * row + i]!]! |= quants << shifts[16 * row + i]!;
            }
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

const isDirect = (format: QuantizedFormat): boolean =>
  BLOCK_FORMATS[format.dtype].blockElements === 32 && planesOf(format).highBits === 0;

function packerOf(dtype: DType, variant: KernelVariant): PackGroup {
  const format = quantizedFormatOf(dtype);
  if (format) return isDirect(format) ? packDirectly(format, variant) : packFields(format, variant);
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
