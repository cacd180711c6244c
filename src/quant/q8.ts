// Q8_0: blocks of 32 values as one binary16 scale d and 32 signed bytes q; value = d · q. Q8_1 and Q8_K, which ggml
// makes of activations, also keep sums of quants, which are not needed; Q8_K has blocks of 256 and d in F32.
// Source: block_q8_0, block_q8_1, block_q8_K and quantize_row_q8_0_ref of ggml.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { QuantizedFormat } from './block.ts';
import { scaleToF16 } from './codec.ts';
import type { Codec } from './codec.ts';

const { blockElements, blockBytes } = BLOCK_FORMATS.Q8_0;

export const Q8_0: QuantizedFormat = {
  dtype: 'Q8_0',
  bits: 8,
  offset: 0,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 0,
  quants: [{ at: 2, span: 32, width: 8 }],
};

export const Q8_1: QuantizedFormat = { ...Q8_0, dtype: 'Q8_1', quants: [{ at: 4, span: 32, width: 8 }] };

export const Q8_K: QuantizedFormat = {
  ...Q8_0,
  dtype: 'Q8_K',
  dType: 'F32',
  quants: [{ at: 4, span: 256, width: 8 }],
};

export const encodeQ8_0: Codec['encode'] = (values, out) => {
  for (let block = 0, at = 0; block < values.length; block += blockElements, at += blockBytes) {
    let amax = 0;
    for (let i = 0; i < blockElements; i++) amax = Math.max(amax, Math.abs(values[block + i]!));
    // ggml computes in float32 and divides by the unrounded scale.
    const d = Math.fround(amax / 127);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    const bits = scaleToF16(d);
    out[at] = bits;
    out[at + 1] = bits >> 8;
    for (let i = 0; i < blockElements; i++) {
      out[at + 2 + i] = roundAwayFromZero(Math.fround(values[block + i]! * inverse));
    }
  }
};

/** C's roundf: halves go away from zero. */
function roundAwayFromZero(x: number): number {
  return x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5);
}
