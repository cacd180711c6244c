// IQ4_NL and IQ4_XS: half a byte names one of sixteen levels that stand closer together around zero. IQ4_NL has blocks
// of 32 laid out as Q4_0's; IQ4_XS has blocks of 256 whose eight sub-blocks have six-bit scales: four low bits each in
// bytes, two high bits each in a 16-bit word. value = d · (scale − 32) · level.
// Source: block_iq4_nl, block_iq4_xs and kvalues_iq4nl of ggml; the levels are constants of the format.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import { halfAt } from './codec.ts';
import type { Codec } from './codec.ts';

export const IQ4_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

const HALF = 16;

/** 32 values of scale `d` from sixteen bytes. */
function decodeLevels(bytes: Uint8Array, at: number, d: number, out: Float32Array, to: number): void {
  for (let i = 0; i < HALF; i++) {
    const pair = bytes[at + i]!;
    out[to + i] = d * IQ4_LEVELS[pair & 15]!;
    out[to + HALF + i] = d * IQ4_LEVELS[pair >> 4]!;
  }
}

export const IQ4_NL: Codec = {
  decode(bytes, out) {
    for (let block = 0, at = 0; block < out.length; block += 32, at += BLOCK_FORMATS.IQ4_NL.blockBytes) {
      decodeLevels(bytes, at + 2, halfAt(bytes, at), out, block);
    }
  },
};

export const IQ4_XS: Codec = {
  decode(bytes, out) {
    for (let block = 0, at = 0; block < out.length; block += 256, at += BLOCK_FORMATS.IQ4_XS.blockBytes) {
      const d = halfAt(bytes, at);
      const high = bytes[at + 2]! | (bytes[at + 3]! << 8);
      for (let j = 0; j < 8; j++) {
        const low = (bytes[at + 4 + (j >> 1)]! >> (4 * (j & 1))) & 15;
        const scale = (low | (((high >> (2 * j)) & 3) << 4)) - 32;
        decodeLevels(bytes, at + 8 + HALF * j, Math.fround(d * scale), out, block + 32 * j);
      }
    }
  },
};
