// TQ1_0 and TQ2_0: blocks of 256 values −d, 0 or d. TQ2_0 keeps two bits a value; TQ1_0 ternary digits, five a byte, in
// the last four bytes four.
// Source: block_tq1_0, block_tq2_0 and their dequantize_row functions in ggml.

import type { QuantizedFormat } from './block.ts';

export const TQ1_0: QuantizedFormat = {
  dtype: 'TQ1_0',
  bits: 2,
  offset: 1,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 52,
  quants: [
    { at: 0, span: 32, width: 'trit', count: 160 },
    { at: 32, span: 16, width: 'trit', first: 160, count: 80 },
    { at: 48, span: 4, width: 'trit', first: 240 },
  ],
};

export const TQ2_0: QuantizedFormat = {
  dtype: 'TQ2_0',
  bits: 2,
  offset: 1,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 64,
  quants: [{ at: 0, span: 32, width: 2 }],
};
