// The K formats: blocks of 256 values, divided into sub-blocks of 16 or 32 that have small integer scales of their own,
// which a binary16 scale of the whole block multiplies. Q2_K, Q4_K and Q5_K also have a minimum a sub-block.
//   Q2_K  d·scale·q − dMin·min      scale, min 4 bits a sub-block of 16, q 2 bits
//   Q3_K  d·scale·(q − 4)           scale 6 bits, less 32, a sub-block of 16, q 2 + 1 bits
//   Q4_K  d·scale·q − dMin·min      scale, min 6 bits a sub-block of 32, q 4 bits
//   Q5_K  the same with q 4 + 1 bits
//   Q6_K  d·scale·(q − 32)          scale 8 bits, signed, a sub-block of 16, q 4 + 2 bits
// Source: block_q2_K … block_q6_K and their dequantize_row functions in ggml.

import type { Field, QuantizedFormat } from './block.ts';

/** The eight six-bit scales and minima that Q4_K and Q5_K pack into twelve bytes, from byte 4 on. */
const sixBits = (at: number, shift: 0 | 4): readonly Field[] => [
  { at, span: 4, width: 6, count: 4 },
  { at: 12, span: 4, width: 4, first: 4, shift },
  { at, span: 4, width: 2, first: 4, shift: 6, to: 4 },
];
const SIX_BIT_SCALES = { scales: sixBits(4, 0), mins: sixBits(8, 4) };

export const Q2_K: QuantizedFormat = {
  dtype: 'Q2_K',
  bits: 2,
  offset: 0,
  scaleColumns: 16,
  hasMinima: true,
  dAt: 80,
  dMinAt: 82,
  quants: [{ at: 16, span: 32, width: 2 }],
  scales: [{ at: 0, span: 16, width: 4 }],
  mins: [{ at: 0, span: 16, width: 4, shift: 4 }],
};

export const Q3_K: QuantizedFormat = {
  dtype: 'Q3_K',
  bits: 3,
  offset: 4,
  scaleColumns: 16,
  hasMinima: false,
  dAt: 108,
  quants: [
    { at: 32, span: 32, width: 2 },
    { at: 0, span: 32, width: 1, to: 2 },
  ],
  scales: [
    { at: 96, span: 8, width: 4 },
    { at: 104, span: 4, width: 2, to: 4 },
  ],
  scaleOffset: 32,
};

export const Q4_K: QuantizedFormat = {
  dtype: 'Q4_K',
  bits: 4,
  offset: 0,
  scaleColumns: 32,
  hasMinima: true,
  dAt: 0,
  dMinAt: 2,
  quants: [{ at: 16, span: 32, width: 4 }],
  ...SIX_BIT_SCALES,
};

export const Q5_K: QuantizedFormat = {
  dtype: 'Q5_K',
  bits: 5,
  offset: 0,
  scaleColumns: 32,
  hasMinima: true,
  dAt: 0,
  dMinAt: 2,
  quants: [
    { at: 48, span: 32, width: 4 },
    { at: 16, span: 32, width: 1, to: 4 },
  ],
  ...SIX_BIT_SCALES,
};

export const Q6_K: QuantizedFormat = {
  dtype: 'Q6_K',
  bits: 6,
  offset: 32,
  scaleColumns: 16,
  hasMinima: false,
  dAt: 208,
  quants: [
    { at: 0, span: 64, width: 4 },
    { at: 128, span: 32, width: 2, to: 4 },
  ],
  scales: [{ at: 192, span: 16, width: 8 }],
};
