// Q4_0 and Q4_1: blocks of 32 values in half a byte each. Byte i holds value i in its low half and value i + 16 in its
// high half. Q4_0 has one binary16 scale d, value = d · (q - 8); Q4_1 has d and a minimum m, value = d · q + m.
// Source: block_q4_0, block_q4_1 and quantize_row_q4_0_ref of ggml.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { QuantizedFormat } from './block.ts';
import { scaleToF16 } from './codec.ts';
import type { Codec } from './codec.ts';

const { blockElements, blockBytes } = BLOCK_FORMATS.Q4_0;
const half = blockElements / 2;

export const Q4_0: QuantizedFormat = {
  dtype: 'Q4_0',
  bits: 4,
  offset: 8,
  scaleColumns: 0,
  hasMinima: false,
  dAt: 0,
  quants: [{ at: 2, span: 16, width: 4 }],
};

export const Q4_1: QuantizedFormat = {
  dtype: 'Q4_1',
  bits: 4,
  offset: 0,
  scaleColumns: 0,
  hasMinima: true,
  dAt: 0,
  dMinAt: 2,
  quants: [{ at: 4, span: 16, width: 4 }],
};

export const encodeQ4_0: Codec['encode'] = (values, out) => {
  for (let block = 0, at = 0; block < values.length; block += blockElements, at += blockBytes) {
    // The value of largest magnitude, with its sign: it becomes -8, the level that has no positive counterpart.
    let extreme = 0;
    for (let i = 0; i < blockElements; i++) {
      const value = values[block + i]!;
      if (Math.abs(value) > Math.abs(extreme)) extreme = value;
    }
    const d = Math.fround(extreme / -8);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    const bits = scaleToF16(d);
    out[at] = bits;
    out[at + 1] = bits >> 8;
    for (let i = 0; i < half; i++) {
      out[at + 2 + i] = level(values[block + i]!, inverse) | (level(values[block + half + i]!, inverse) << 4);
    }
  }
};

/** The half-byte for `x`: x / d + 8, rounded, in float32 as ggml does it (without a fused multiply-add). */
function level(x: number, inverse: number): number {
  return Math.min(15, Math.trunc(Math.fround(Math.fround(x * inverse) + 8.5)));
}
