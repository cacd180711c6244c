// What all quantised formats have in common: a block is small integers (quants), scales and perhaps minima. A format is
// data: where in a block's bytes the bits of each stand. Decoding follows from it, and so does packing for kernels.
//   value = d · scale · (q − offset)   or   d · scale · level[q]   or   d · scale · q + minimum
// where scale is 1, or a small integer that 16 or 32 values share, and minimum is m itself or −dMin · min. A scale's
// sign may say which way values are shifted: d · |scale| · (q − offset) + d · scale · shift. Such scales are odd; one
// that is even stands for the next odd one, and the last half of its values is shifted the other way.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { f16ToF32 } from '../base/float16.ts';
import type { Codec } from './codec.ts';
import { expanderOf } from './grids/expansion.ts';
import type { Expansion } from './grids/expansion.ts';

/**
 * Some bits of `count` integers of a block, from integer `first` on. Integers i, i + span, i + 2·span … share byte i of
 * `span` bytes, from bit `shift` on, as many as fit; then the next `span` bytes follow. Integers to which no field
 * belongs are 0. Five ternary digits ('trit') share a byte as a fraction of 256, the most significant one first.
 */
export interface Field {
  /** Where the first byte stands, from the start of the block. */
  readonly at: number;
  readonly span: number;
  readonly width: 8 | 6 | 4 | 2 | 1 | 'trit';
  /** The bit of the integer that they begin at. Default 0. */
  readonly to?: number;
  /** Defaults: 0, all there are, 0. */
  readonly first?: number;
  readonly count?: number;
  readonly shift?: number;
}

/** A number that some bits of a quant make: those of `mask`, moved down by `shift` (default 0), held within `clamp`. */
export interface Term {
  readonly factor: number;
  readonly mask: number;
  readonly shift?: number;
  readonly clamp?: readonly [min: number, max: number];
}

export interface QuantizedFormat {
  readonly dtype: DType;
  /** Bits of a quant. Those of 8 bits are signed. */
  readonly bits: 8 | 6 | 5 | 4 | 3 | 2;
  readonly offset: number;
  /** Quants are indices of these, at most sixteen. */
  readonly levels?: readonly number[];
  /**
   * The levels without a table: level = Σ factor · number − offset. Kernels multiply each number on its own, and the
   * bits of different masks are packed apart.
   */
  readonly terms?: readonly Term[];
  /** Values that share an integer scale; 0: there are none. */
  readonly scaleColumns: 0 | 16 | 32;
  readonly hasMinima: boolean;
  /** Blocks are first written out as this says; all places below are those in what comes out. */
  readonly expansion?: Expansion;
  /** What d is: a binary16 by default, an F32, or the exponent of a power of two, halved (`E8M0`). */
  readonly dType?: 'F16' | 'F32' | 'E8M0';
  /** A power of two that multiplies d. Default 1. */
  readonly dFactor?: number;
  /** Where d stands, and the binary16 dMin, which is m where there are no `mins`. */
  readonly dAt: number;
  readonly dMinAt?: number;
  /** One a value. */
  readonly quants: readonly Field[];
  /** One for every `scaleColumns` values: bytes, signed once `scaleOffset` (0 by default) is subtracted. */
  readonly scales?: readonly Field[];
  readonly scaleOffset?: number;
  readonly shift?: number;
  readonly mins?: readonly Field[];
}

/**
 * Where the bits of integer `index` stand: the byte, and the bit in it, or the ternary digit; undefined where it has
 * none in this field.
 */
export function placeOf(field: Field, index: number): { readonly byte: number; readonly bit: number } | undefined {
  const { at, span, width, first = 0, count = Infinity, shift = 0 } = field;
  const i = index - first;
  if (i < 0 || i >= count) return undefined;
  const chunkSize = span * (width === 'trit' ? 5 : Math.floor((8 - shift) / width));
  const inChunk = i % chunkSize;
  const digit = Math.floor(inChunk / span);
  return {
    byte: at + span * Math.floor(i / chunkSize) + (inChunk % span),
    bit: width === 'trit' ? digit : shift + width * digit,
  };
}

/** Reads the first `n` integers of the block at `at`. */
type ReadIntegers = (bytes: Uint8Array, at: number, out: Uint8Array | Int8Array) => void;

function readerOf(fields: readonly Field[], n: number, offset = 0): ReadIntegers {
  const parts = fields.flatMap((field) =>
    Array.from({ length: n }, (_, index) => ({ field, index, place: placeOf(field, index) })),
  );
  // Digits of any radix: the product's low byte begins with the digit, as a fraction of 256.
  const steps = parts.flatMap(({ field: { width, to = 0 }, index, place }) => {
    if (!place) return [];
    const [factor, radix] = width === 'trit' ? [3 ** place.bit, 3] : [1 << (8 - width - place.bit), 1 << width];
    return [index, place.byte, factor, radix, to];
  });
  const table = Uint16Array.from(steps);
  return (bytes, at, out) => {
    out.fill(-offset, 0, n);
    for (let i = 0; i < table.length; i += 5) {
      const fraction = (bytes[at + table[i + 1]!]! * table[i + 2]!) & 255;
      out[table[i]!]! += ((fraction * table[i + 3]!) >> 8) << table[i + 4]!;
    }
  };
}

/** Decodes as ggml does: every product is rounded to float32. */
export function codecOf(format: QuantizedFormat, encode?: Codec['encode']): Codec {
  const { dtype, bits, offset, levels, scaleColumns, hasMinima, dAt, dMinAt = 0, dFactor = 1, expansion } = format;
  const { shift } = format;
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const expand = expansion && expanderOf(expansion, bits);
  const integer = (q: number): number => levels?.[q] ?? (bits === 8 ? (q << 24) >> 24 : q - offset);
  const isShifted = hasMinima || shift !== undefined;
  const partSize = scaleColumns || blockElements;
  const nParts = blockElements / partSize;
  const quants = new Uint8Array(blockElements);
  const scales = new Int8Array(nParts);
  const mins = new Uint8Array(nParts);
  const readQuants = readerOf(format.quants, blockElements);
  const readScales = readerOf(format.scales ?? [], nParts, format.scaleOffset);
  const readMins = readerOf(format.mins ?? [], nParts);
  const readD = D_READERS[format.dType ?? 'F16'];
  const decode: Codec['decode'] = (file, out) => {
    for (let first = 0, fileAt = 0; first < out.length; first += blockElements, fileAt += blockBytes) {
      const [bytes, at] = expand ? [expand(file, fileAt), 0] : [file, fileAt];
      const d = dFactor * readD(bytes, at + dAt);
      const dMin = hasMinima ? f16ToF32(wordAt(bytes, at + dMinAt)) : 0;
      readQuants(bytes, at, quants);
      readScales(bytes, at, scales);
      readMins(bytes, at, mins);
      for (let part = 0; part < nParts; part++) {
        const integerScale = shift === undefined ? scales[part]! : scales[part]! | 1;
        const signed = scaleColumns ? Math.fround(d * integerScale) : d;
        const scale = shift !== undefined && integerScale < 0 ? -signed : signed;
        const minimum = shift !== undefined ? signed * shift : scaleColumns ? -Math.fround(dMin * mins[part]!) : dMin;
        const turnsAt = integerScale === scales[part] ? Infinity : (part + 0.5) * partSize;
        for (let i = part * partSize; i < (part + 1) * partSize; i++) {
          const value = scale * integer(quants[i]!);
          out[first + i] = isShifted ? Math.fround(value) + (i < turnsAt ? minimum : -minimum) : value;
        }
      }
    }
  };
  return encode ? { decode, encode } : { decode };
}

/** Of d, as f32. */
const D_READERS: Readonly<Record<NonNullable<QuantizedFormat['dType']>, (bytes: Uint8Array, at: number) => number>> = {
  F16: (bytes, at) => f16ToF32(wordAt(bytes, at)),
  F32: (bytes, at) => new DataView(bytes.buffer, bytes.byteOffset + at, 4).getFloat32(0, true),
  E8M0: (bytes, at) => 2 ** (bytes[at]! - 128),
};

const wordAt = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
