// IQ1, IQ2 and IQ3: blocks of 256 whose tuples of eight or four quants are an index of a grid (tables.ts) and signs.
//   IQ2  d/8 · (2s + 1) · ±{8, 25, 43}      IQ3_XXS  d/4 · (2s + 1) · ±{4, 12 … 44, 52, 62}
//   IQ1  d · (2s + 1) · ({−1, 0, 1} ± 1/8)  IQ3_S    d · (2s + 1) · ±{1, 3 … 15}
// All products are exact, so their order does not matter. Written out (expansion.ts), they are formats with levels.
// Source: block_iq1_s … block_iq3_xxs and their dequantize_row functions in ggml.

import type { DType } from '../../base/dtype.ts';
import type { QuantizedFormat } from '../block.ts';
import { EXPANDED_QUANTS_AT, EXPANDED_SCALES_AT } from './expansion.ts';
import type { BitField, Expansion } from './expansion.ts';
import { IQ1_S_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID } from './tables.ts';

type Family = Pick<QuantizedFormat, 'bits' | 'levels' | 'terms' | 'offset' | 'shift' | 'dFactor'>;

/** Levels by quant, in ascending order. */
const mirrored = (magnitudes: readonly number[]): number[] => [
  ...magnitudes.toReversed().map((x) => -x),
  ...magnitudes,
];

const IQ1: Family = { bits: 2, offset: 1, shift: 1 / 8 };
const IQ2: Family = {
  bits: 3,
  levels: mirrored([8, 25, 43, 0]),
  terms: [
    { factor: 17, mask: 0b101 },
    { factor: 35, mask: 0b010, shift: 1 },
  ],
  offset: 60,
  dFactor: 1 / 8,
};
const IQ3_FINE: Family = {
  bits: 4,
  levels: mirrored([4, 12, 20, 28, 36, 44, 52, 62]),
  terms: [
    { factor: 10, mask: 0b1111 },
    { factor: -2, mask: 0b1111, clamp: [1, 14] },
  ],
  offset: 60,
  dFactor: 1 / 4,
};
const IQ3_EVEN: Family = {
  bits: 4,
  levels: mirrored([1, 3, 5, 7, 9, 11, 13, 15]),
  terms: [{ factor: 2, mask: 0b1111 }],
  offset: 15,
  dFactor: 1,
};

const gridFormat = (dtype: DType, family: Family, expansion: Omit<Expansion, 'nScales'>, scaleColumns: 16 | 32) =>
  ({
    ...family,
    dtype,
    scaleColumns,
    hasMinima: false,
    expansion: { ...expansion, nScales: scaleColumns === 16 ? 16 : 8 },
    dAt: 0,
    quants: [{ at: EXPANDED_QUANTS_AT, span: 256, width: 8 }],
    scales: [{ at: EXPANDED_SCALES_AT, span: 16, width: 8 }],
  }) as const satisfies QuantizedFormat;

const bytesAt = (byte: number): BitField => ({ bit: 8 * byte, width: 8, stride: 8 });
const nibblesAt = (byte: number): BitField => ({ bit: 8 * byte, width: 4, stride: 4 });
const D: readonly BitField[] = [{ bit: 0, width: 16, stride: 0 }];

/** Words of 32 bits: four times seven signs, and a scale in the highest four. */
const signsAndScale = (byte: number, stride: number) =>
  ({
    signs: [{ bit: 8 * byte, width: 7, stride, each: 4, innerStride: 7 }],
    signKind: 'even',
    scales: [{ bit: 8 * byte + 28, width: 4, stride }],
  }) as const;

export const IQ2_XXS: QuantizedFormat = gridFormat(
  'IQ2_XXS',
  IQ2,
  {
    grid: IQ2_XXS_GRID,
    d: D,
    indices: [{ bit: 16, width: 8, stride: 64, each: 4, innerStride: 8 }],
    ...signsAndScale(6, 64),
  },
  32,
);

export const IQ2_XS: QuantizedFormat = gridFormat(
  'IQ2_XS',
  IQ2,
  {
    grid: IQ2_XS_GRID,
    d: D,
    indices: [{ bit: 16, width: 9, stride: 16 }],
    signs: [{ bit: 25, width: 7, stride: 16 }],
    signKind: 'even',
    scales: [nibblesAt(66)],
  },
  16,
);

export const IQ2_S: QuantizedFormat = gridFormat(
  'IQ2_S',
  IQ2,
  {
    grid: IQ2_S_GRID,
    d: D,
    indices: [bytesAt(2), { bit: 8 * 66, width: 2, stride: 2, to: 8 }],
    signs: [bytesAt(34)],
    signKind: 'eight',
    scales: [nibblesAt(74)],
  },
  16,
);

export const IQ3_XXS: QuantizedFormat = gridFormat(
  'IQ3_XXS',
  IQ3_FINE,
  { grid: IQ3_XXS_GRID, d: D, indices: [bytesAt(2)], ...signsAndScale(66, 32) },
  32,
);

export const IQ3_S: QuantizedFormat = gridFormat(
  'IQ3_S',
  IQ3_EVEN,
  {
    grid: IQ3_S_GRID,
    d: D,
    indices: [bytesAt(2), { bit: 8 * 66, width: 1, stride: 1, to: 8 }],
    signs: [bytesAt(74)],
    signKind: 'eight',
    scales: [nibblesAt(106)],
  },
  32,
);

/** Words of 16 bits: the high three bits of four indices, a scale, and whether 1/8 is subtracted. */
export const IQ1_S: QuantizedFormat = gridFormat(
  'IQ1_S',
  IQ1,
  {
    grid: IQ1_S_GRID,
    d: D,
    indices: [bytesAt(2), { bit: 8 * 34, width: 3, stride: 16, each: 4, innerStride: 3, to: 8 }],
    signs: [{ bit: 8 * 34 + 15, width: 1, stride: 16 }],
    signKind: 'scale',
    scales: [{ bit: 8 * 34 + 12, width: 3, stride: 16 }],
  },
  32,
);

/** Words of 16 bits: four scales, and four bits of d. */
export const IQ1_M: QuantizedFormat = gridFormat(
  'IQ1_M',
  IQ1,
  {
    grid: IQ1_S_GRID,
    d: [0, 1, 2, 3].map((i) => ({ bit: 8 * 48 + 16 * i + 12, width: 4, stride: 0, to: 4 * i }) as const),
    indices: [bytesAt(0), { bit: 8 * 32, width: 3, stride: 4, to: 8 }],
    signs: [{ bit: 8 * 32 + 3, width: 1, stride: 4 }],
    signKind: 'halves',
    scales: [{ bit: 8 * 48, width: 3, stride: 16, each: 4, innerStride: 3 }],
  },
  16,
);
