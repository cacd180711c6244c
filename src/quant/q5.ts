// Q5_0 and Q5_1: as Q4_0 and Q4_1, with a fifth bit of each value in a 32-bit word before the half-bytes: bit i belongs
// to value i. Q5_0: value = d · (q - 16); Q5_1: value = d · q + m.
// Source: block_q5_0 and block_q5_1 of ggml.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import { halfAt } from './codec.ts';
import type { Codec } from './codec.ts';

const HALF = 16;

/** Calls `value` with the index and the five bits of each value of a block; the bits begin at `at`. */
function eachQuant(bytes: Uint8Array, at: number, value: (i: number, q: number) => void): void {
  const high = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  for (let i = 0; i < HALF; i++) {
    const pair = bytes[at + 4 + i]!;
    value(i, (pair & 15) | (((high >>> i) & 1) << 4));
    value(i + HALF, (pair >> 4) | (((high >>> (i + HALF)) & 1) << 4));
  }
}

export const Q5_0: Codec = {
  decode(bytes, out) {
    for (let block = 0, at = 0; block < out.length; block += 32, at += BLOCK_FORMATS.Q5_0.blockBytes) {
      const d = halfAt(bytes, at);
      eachQuant(bytes, at + 2, (i, q) => (out[block + i] = d * (q - 16)));
    }
  },
};

export const Q5_1: Codec = {
  decode(bytes, out) {
    for (let block = 0, at = 0; block < out.length; block += 32, at += BLOCK_FORMATS.Q5_1.blockBytes) {
      const [d, m] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
      eachQuant(bytes, at + 4, (i, q) => (out[block + i] = Math.fround(d * q) + m));
    }
  },
};
