// IQ4_NL and IQ4_XS: half a byte names one of sixteen levels that stand closer together around zero. IQ4_NL has blocks
// of 32 laid out as Q4_0's; IQ4_XS has blocks of 256 whose eight sub-blocks have six-bit scales, less 32: four low bits
// each in bytes, two high bits each in a 16-bit word. value = d · scale · level.
// Source: block_iq4_nl, block_iq4_xs and kvalues_iq4nl of ggml; the levels are constants of the format.

import type { QuantizedFormat } from './block.ts';

const LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

export const IQ4_NL: QuantizedFormat = {
  dtype: 'IQ4_NL',
  bits: 4,
  offset: 0,
  levels: LEVELS,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 0,
  quants: [{ at: 2, span: 16, width: 4 }],
};

export const IQ4_XS: QuantizedFormat = {
  dtype: 'IQ4_XS',
  bits: 4,
  offset: 0,
  levels: LEVELS,
  scaleColumns: 32,
  hasMinima: false,
  dAt: 0,
  quants: [{ at: 8, span: 16, width: 4 }],
  scales: [
    { at: 4, span: 1, width: 4 },
    { at: 2, span: 1, width: 2, to: 4 },
  ],
  scaleOffset: 32,
};
