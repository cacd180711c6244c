// What all quantised formats have in common: a block is small integers (quants), scales and perhaps minima. A format is
// data: where in a block's bytes the bits of each stand. Decoding follows from it, and so does packing for kernels.
//   value = d · scale · (q − offset)   or   d · scale · level[q]   or   d · scale · q + minimum
// where scale is 1, or a small integer that 16 or 32 values share, and minimum is m itself or −dMin · min.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { f16ToF32 } from '../base/float16.ts';
import type { Codec } from './codec.ts';

/**
 * Some bits of `count` integers of a block, from integer `first` on. Integers i, i + span, i + 2·span … share byte i of
 * `span` bytes, from bit `shift` on, as many as fit; then the next `span` bytes follow. Integers to which no field
 * belongs are 0.
 */
export interface Field {
  /** Where the first byte stands, from the start of the block. */
  readonly at: number;
  readonly span: number;
  readonly width: 8 | 6 | 4 | 2 | 1;
  /** The bit of the integer that they begin at. Default 0. */
  readonly to?: number;
  /** Defaults: 0, all there are, 0. */
  readonly first?: number;
  readonly count?: number;
  readonly shift?: number;
}

export interface QuantizedFormat {
  readonly dtype: DType;
  /** Bits of a quant. Those of 8 bits are signed. */
  readonly bits: 8 | 6 | 5 | 4 | 3 | 2;
  readonly offset: number;
  /** Quants are indices of these. */
  readonly levels?: readonly number[];
  /** Values that share an integer scale; 0: there are none. */
  readonly scaleColumns: 0 | 16 | 32;
  readonly hasMinima: boolean;
  /** Where the binary16 d stands, and dMin, which is m where there are no `mins`. */
  readonly dAt: number;
  readonly dMinAt?: number;
  /** One a value. */
  readonly quants: readonly Field[];
  /** One for every `scaleColumns` values: bytes, signed once `scaleOffset` (0 by default) is subtracted. */
  readonly scales?: readonly Field[];
  readonly scaleOffset?: number;
  readonly mins?: readonly Field[];
}

/** Where the bits of integer `index` stand: the byte, and the bit in it; undefined where it has none in this field. */
export function placeOf(field: Field, index: number): { readonly byte: number; readonly bit: number } | undefined {
  const { at, span, width, first = 0, count = Infinity, shift = 0 } = field;
  const i = index - first;
  if (i < 0 || i >= count) return undefined;
  const chunkSize = span * Math.floor((8 - shift) / width);
  const inChunk = i % chunkSize;
  return {
    byte: at + span * Math.floor(i / chunkSize) + (inChunk % span),
    bit: shift + width * Math.floor(inChunk / span),
  };
}

/** Reads the first `n` integers of the block at `at`. */
type ReadIntegers = (bytes: Uint8Array, at: number, out: Uint8Array | Int8Array) => void;

function readerOf(fields: readonly Field[], n: number, offset = 0): ReadIntegers {
  const parts = fields.flatMap((field) =>
    Array.from({ length: n }, (_, index) => ({ field, index, place: placeOf(field, index) })),
  );
  const steps = parts.flatMap(({ field: { width, to = 0 }, index, place }) =>
    place ? [index, place.byte, place.bit, (1 << width) - 1, to] : [],
  );
  const table = Uint16Array.from(steps);
  return (bytes, at, out) => {
    out.fill(-offset, 0, n);
    for (let i = 0; i < table.length; i += 5) {
      out[table[i]!]! += ((bytes[at + table[i + 1]!]! >> table[i + 2]!) & table[i + 3]!) << table[i + 4]!;
    }
  };
}

/** Decodes as ggml does: every product is rounded to float32. */
export function codecOf(format: QuantizedFormat, encode?: Codec['encode']): Codec {
  const { dtype, bits, offset, levels, scaleColumns, hasMinima, dAt, dMinAt = 0 } = format;
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const integer = (q: number): number => levels?.[q] ?? (bits === 8 ? (q << 24) >> 24 : q - offset);
  const partSize = scaleColumns || blockElements;
  const nParts = blockElements / partSize;
  const quants = new Uint8Array(blockElements);
  const scales = new Int8Array(nParts);
  const mins = new Uint8Array(nParts);
  const readQuants = readerOf(format.quants, blockElements);
  const readScales = readerOf(format.scales ?? [], nParts, format.scaleOffset);
  const readMins = readerOf(format.mins ?? [], nParts);
  const decode: Codec['decode'] = (bytes, out) => {
    for (let first = 0, at = 0; first < out.length; first += blockElements, at += blockBytes) {
      const d = f16ToF32(wordAt(bytes, at + dAt));
      const dMin = hasMinima ? f16ToF32(wordAt(bytes, at + dMinAt)) : 0;
      readQuants(bytes, at, quants);
      readScales(bytes, at, scales);
      readMins(bytes, at, mins);
      for (let part = 0; part < nParts; part++) {
        const scale = scaleColumns ? Math.fround(d * scales[part]!) : d;
        const minimum = scaleColumns ? -Math.fround(dMin * mins[part]!) : dMin;
        for (let i = part * partSize; i < (part + 1) * partSize; i++) {
          const value = scale * integer(quants[i]!);
          out[first + i] = hasMinima ? Math.fround(value) + minimum : value;
        }
      }
    }
  };
  return encode ? { decode, encode } : { decode };
}

const wordAt = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
