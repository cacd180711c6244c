// IQ4_NL and IQ4_XS: half a byte names one of sixteen levels that stand closer together around zero. IQ4_NL has blocks
// of 32 laid out as Q4_0's; IQ4_XS has blocks of 256 whose eight sub-blocks have six-bit scales, less 32: four low bits
// each in bytes, two high bits each in a 16-bit word. value = d · scale · level.
// Source: block_iq4_nl, block_iq4_xs and kvalues_iq4nl of ggml; the levels are constants of the format.

import { wordAt } from './block.ts';
import type { QuantizedFormat } from './block.ts';
import { readHalfBytes } from './q4.ts';

const LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

export const IQ4_NL: QuantizedFormat = {
  dtype: 'IQ4_NL',
  bits: 4,
  offset: 0,
  levels: LEVELS,
  scaleColumns: 0,
  hasMinima: false,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    readHalfBytes(bytes, at + 2, block.quants);
  },
};

export const IQ4_XS: QuantizedFormat = {
  dtype: 'IQ4_XS',
  bits: 4,
  offset: 0,
  levels: LEVELS,
  scaleColumns: 32,
  hasMinima: false,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    const high = wordAt(bytes, at + 2);
    for (let j = 0; j < 8; j++) {
      const low = (bytes[at + 4 + (j >> 1)]! >> (4 * (j & 1))) & 15;
      block.scales[j] = (low | (((high >> (2 * j)) & 3) << 4)) - 32;
      readHalfBytes(bytes, at + 8 + 16 * j, block.quants, 32 * j);
    }
  },
};
