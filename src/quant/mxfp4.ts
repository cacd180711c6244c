// MXFP4: blocks of 32 four-bit floats (one sign, two exponent and one fraction bit) that share a power of two; laid out
// as Q4_0. Levels are twice the values, the scale half of it.
// Source: block_mxfp4 and kvalues_mxfp4 of ggml; OCP Microscaling Formats (MX) 1.0.

import type { QuantizedFormat } from './block.ts';

export const MXFP4: QuantizedFormat = {
  dtype: 'MXFP4',
  bits: 4,
  offset: 0,
  levels: [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12],
  scaleColumns: 0,
  hasMinima: false,
  dType: 'E8M0',
  dAt: 0,
  quants: [{ at: 1, span: 16, width: 4 }],
};
