// How packed weights are read. Rows are interleaved by eight (packing/), so that eight results are two vectors and
// need no sums over lanes. A format contributes a row of the table below; the matrix kernels are shared.
//
// Packed, a block of eight rows of a quantised format is: d of each row; f16 dmin of each row if it has minima;
// then for each 32 columns: sub-scales, the plane of low bits, the plane of high bits. Expanded to bytes, 32 columns
// are 16 vectors v of 16 bytes; a plane of n bits stores v, v + 2n, v + 4n … in the same bytes, from the low bits on.
// Levels that are sums of terms have a plane for each mask of theirs.
//   quads  vector 2s + h: rows 4h .. 4h + 3, columns 4s .. 4s + 3 of each: what the relaxed dot product wants
//   split  as quads, but of columns 2s, 2s + 1, 16 + 2s, 17 + 2s: where products are added in pairs, to sums of 16
//          bits, those of the first and of the last 16 columns stay apart
//   pairs  vector v: all rows, columns 2v and 2v + 1 of each: what the dot product of 16-bit integers wants

import { BLOCK_FORMATS } from '../../../../base/dtype.ts';
import type { DType } from '../../../../base/dtype.ts';
import type { QuantizedFormat, Term } from '../../../../quant/block.ts';
import { QUANTIZED_FORMATS } from '../../../../quant/codecs.ts';
import type { KernelVariant } from '../kernel.ts';

const BY_DTYPE = new Map(QUANTIZED_FORMATS.map((format) => [format.dtype, format]));

export const quantizedFormatOf = (dtype: DType): QuantizedFormat | undefined => BY_DTYPE.get(dtype);

/** Types whose weights are floats, kept as they are. */
export const FLOAT_DTYPES = ['F32', 'F16', 'BF16'] as const satisfies readonly DType[];

/** Order of the rows of a column of 16-bit floats: pairs that are split into rows 0..3 and 4..7 where they stand. */
export const SHORT_FLOAT_ROWS = [0, 4, 1, 5, 2, 6, 3, 7];

const ROWS = 8;
/** f16 d of eight rows; dmin takes as many. */
export const HALF_ROWS_BYTES = 16;
/** Of a plane, for 32 columns of eight rows, for each bit. */
const PLANE_BYTES_A_BIT = 32;

/** Which bits of the quants a plane holds, and by how much those that share its bytes are moved up. */
export interface Plane {
  readonly mask: number;
  readonly nBits: number;
  readonly shifts: readonly number[];
}

export const shiftBits = (bits: number, shift: number): number => (shift < 0 ? bits >> -shift : bits << shift);

function planeOf(mask: number): Plane {
  const shifts: number[] = [];
  const lowest = Math.clz32(mask & -mask) - 31;
  for (let used = 0, shift = lowest; shift < 8; shift++) {
    const bits = shiftBits(mask, shift);
    if (bits > 255 || (bits & used) !== 0) continue;
    shifts.push(shift);
    used |= bits;
  }
  return { mask, nBits: 8 / shifts.length, shifts };
}

/** The plane of low bits first. */
export function planesOf({ bits, terms }: QuantizedFormat): readonly Plane[] {
  const lowBits = bits === 8 ? 8 : bits >= 4 ? 4 : 2;
  const masks = terms?.map(({ mask }) => mask) ?? [(1 << lowBits) - 1, (1 << bits) - (1 << lowBits)];
  return [...new Set(masks)].filter((mask) => mask !== 0).map(planeOf);
}

/** Minima of 16 columns have four bits, like their scales, and share a byte with them: scale in the low half. */
export const sharesBytes = ({ scaleColumns, hasMinima }: QuantizedFormat): boolean => scaleColumns === 16 && hasMinima;

/** Where the parts of 32 columns lie, from their start. */
export function layoutOf32(format: QuantizedFormat) {
  const { scaleColumns, hasMinima } = format;
  const scaleBytes = scaleColumns === 0 ? 0 : (32 / scaleColumns) * ROWS;
  let sizeBytes = scaleBytes + (scaleColumns === 32 && hasMinima ? ROWS : 0);
  const planes = planesOf(format).map((plane) => {
    const at = sizeBytes;
    sizeBytes += PLANE_BYTES_A_BIT * plane.nBits;
    return { ...plane, at };
  });
  return { mins: scaleBytes, planes, sizeBytes };
}

const D_BYTES = { F16: 2, F32: 4, E8M0: 1 } as const;

export const dBytes = ({ dType = 'F16' }: QuantizedFormat): 1 | 2 | 4 => D_BYTES[dType];

const headerBytes = (format: QuantizedFormat): number =>
  ROWS * dBytes(format) + (format.hasMinima ? HALF_ROWS_BYTES : 0);

/** Bytes of one block (of 32 or 256 columns, or of one) of eight rows. */
export function groupBlockBytes(dtype: DType): number {
  const { header, part, nParts } = groupSizes(dtype);
  return header + nParts * part;
}

/** Bytes of what a block of eight rows begins with, and of its parts: 32 columns, or one of floats. */
export function groupSizes(dtype: DType): { header: number; part: number; nParts: number } {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const format = quantizedFormatOf(dtype);
  if (!format) return { header: 0, part: ROWS * blockBytes, nParts: 1 };
  return { header: headerBytes(format), part: layoutOf32(format).sizeBytes, nParts: blockElements / 32 };
}

export type Interleaving = 'quads' | 'split' | 'pairs';

/** Columns of 32 in the order of `split`: what stands at each place. */
export const SPLIT_COLUMNS = Array.from({ length: 32 }, (_, i) => 16 * ((i >> 1) & 1) + 2 * (i >> 2) + (i & 1));

/** Bits of levels once they are unsigned, by half of 2^bits added. */
const levelBits = (levels: readonly number[]): number => 33 - Math.clz32(Math.max(-Math.min(...levels) - 1, ...levels));

const levelOffset = (levels: readonly number[]): number => 2 ** (levelBits(levels) - 1);

/** Quants that take eight bits as unsigned ones. */
export const isSigned = ({ bits, levels }: QuantizedFormat): boolean =>
  bits === 8 || (levels !== undefined && levelOffset(levels) > 64);

/** Levels that are looked up with an offset added in every variant. */
const isShifted = (format: QuantizedFormat): boolean => format.levels !== undefined && !isSigned(format);

/** What kernels multiply of a quant: its terms, or all of it, levels looked up. */
export function termsOf(format: QuantizedFormat): readonly Term[] {
  const nBits = isShifted(format) ? levelBits(format.levels!) : format.bits;
  return format.terms ?? [{ factor: 1, mask: (1 << nBits) - 1 }];
}

/** The largest that its number can be. */
export const maxOf = ({ mask, shift = 0, clamp }: Term): number => clamp?.[1] ?? mask >> shift;

/**
 * Whether signed quants have 128 added, as the 8-bit unsigned operand of the relaxed dot product wants them. Q8_0 is
 * packed so, levels are looked up so.
 */
export const isBiased = (variant: KernelVariant): boolean => variant.dot === 'u8';

/** The relaxed dot product where its unsigned operand holds the quants. */
export function interleavingOf(format: QuantizedFormat, { dot, wide }: KernelVariant): Interleaving {
  if (dot === 'u8') return 'quads';
  // V8 looks levels up in 128 bits, and pairs what follows only if that extends them to 16 bits.
  const isNarrowed = wide && format.levels !== undefined && !format.terms;
  if (dot === 'i16' || isSigned(format) || isNarrowed) return 'pairs';
  return dot === 'i7p' ? 'split' : 'quads';
}

/** What must be subtracted from the bytes that `BlockReader.steps` gives. */
export function offsetOf(format: QuantizedFormat, variant: KernelVariant): number {
  if (isShifted(format)) return levelOffset(format.levels!);
  return isSigned(format) ? (isBiased(variant) ? 128 : 0) : format.offset;
}

/** What must be subtracted from the products of `BlockReader.turns`. */
export const productOffsetOf = (format: QuantizedFormat, variant: KernelVariant): number =>
  format.terms && interleavingOf(format, variant) !== 'pairs' ? format.offset : offsetOf(format, variant);
