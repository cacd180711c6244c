// Q5_0 and Q5_1: as Q4_0 and Q4_1, with a fifth bit of each value in a 32-bit word before the half-bytes: bit i belongs
// to value i. Q5_0: value = d · (q - 16); Q5_1: value = d · q + m.
// Source: block_q5_0 and block_q5_1 of ggml.

import { wordAt } from './block.ts';
import type { QuantizedFormat } from './block.ts';
import { readHalfBytes } from './q4.ts';

function readFiveBits(bytes: Uint8Array, at: number, quants: Uint8Array): void {
  const high = wordAt(bytes, at) | (wordAt(bytes, at + 2) << 16);
  readHalfBytes(bytes, at + 4, quants);
  for (let i = 0; i < 32; i++) quants[i]! |= ((high >>> i) & 1) << 4;
}

export const Q5_0: QuantizedFormat = {
  dtype: 'Q5_0',
  bits: 5,
  offset: 16,
  scaleColumns: 0,
  hasMinima: false,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    readFiveBits(bytes, at + 2, block.quants);
  },
};

export const Q5_1: QuantizedFormat = {
  dtype: 'Q5_1',
  bits: 5,
  offset: 0,
  scaleColumns: 0,
  hasMinima: true,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    block.dMinBits = wordAt(bytes, at + 2);
    readFiveBits(bytes, at + 4, block.quants);
  },
};
