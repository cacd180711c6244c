// Q5_0 and Q5_1: as Q4_0 and Q4_1, with a fifth bit of each value in a 32-bit word before the half-bytes: bit i belongs
// to value i. Q5_0: value = d · (q - 16); Q5_1: value = d · q + m.
// Source: block_q5_0 and block_q5_1 of ggml.

import type { Field, QuantizedFormat } from './block.ts';

const fiveBits = (at: number): readonly Field[] => [
  { at: at + 4, span: 16, width: 4 },
  { at, span: 1, width: 1, to: 4 },
];

export const Q5_0: QuantizedFormat = {
  dtype: 'Q5_0',
  bits: 5,
  offset: 16,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 0,
  quants: fiveBits(2),
};

export const Q5_1: QuantizedFormat = {
  dtype: 'Q5_1',
  bits: 5,
  offset: 0,
  scaleColumns: 0,
  hasMinima: true,
  dAt: 0,
  dMinAt: 2,
  quants: fiveBits(4),
};
