// Random blocks of the formats that are not encoded yet: random bits for quants and small scales, and binary16 scales
// of a size that makes values about 1.

import { BLOCK_FORMATS } from '../src/base/dtype.ts';
import type { DType } from '../src/base/dtype.ts';
import { f32ToF16 } from '../src/base/float16.ts';
import type { Random } from '../src/base/random.ts';

/** Where a block keeps d (and dMin, or m), and about how large it should be. */
const SCALES: Readonly<Partial<Record<DType, readonly (readonly [offset: number, value: number])[]>>> = {
  Q8_0: [[0, 1 / 64]],
  Q4_0: [[0, 1 / 5]],
  Q4_1: [
    [0, 1 / 5],
    [2, -1.5],
  ],
  Q5_0: [[0, 1 / 9]],
  Q5_1: [
    [0, 1 / 9],
    [2, -1.7],
  ],
  IQ4_NL: [[0, 1 / 64]],
  IQ4_XS: [[0, 1 / 1200]],
  Q2_K: [
    [80, 1 / 9],
    [82, 1 / 5],
  ],
  Q3_K: [[108, 1 / 40]],
  Q4_K: [
    [0, 1 / 160],
    [2, 1 / 20],
  ],
  Q5_K: [
    [0, 1 / 300],
    [2, 1 / 20],
  ],
  Q6_K: [[208, 1 / 1400]],
};

/** Blocks for `nElements` values. */
export function randomBlocks(dtype: DType, nElements: number, random: Random): Uint8Array {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const bytes = new Uint8Array((nElements / blockElements) * blockBytes);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.uint32();
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const [offset, value] of SCALES[dtype]!) {
      const bits = f32ToF16(Math.fround(value * (0.5 + random.uniform())));
      bytes[at + offset] = bits;
      bytes[at + offset + 1] = bits >> 8;
    }
  }
  return bytes;
}
