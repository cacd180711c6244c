// Random weights in any type that kernels run, as blocks: random bits for quants and small scales, and binary16 scales
// of a size that gives values of mean 0 and of a wanted deviation. For synthetic models, which say nothing and are as
// fast as real ones.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { f32ToF16 } from '../base/float16.ts';
import type { Random } from '../base/random.ts';
import { quantize } from '../quant/codecs.ts';

interface Scales {
  /** Where a block keeps d. */
  readonly at: number;
  /** Of values where d is 1. */
  readonly deviation: number;
  /** Where it keeps dMin, or m, and how many times d that is, so that the mean is 0. */
  readonly minimum?: readonly [at: number, ratio: number];
}

/** Deviations are those of uniform quants times uniform scales, measured. */
const SCALES: Readonly<Partial<Record<DType, Scales>>> = {
  Q8_0: { at: 0, deviation: 74 },
  Q4_0: { at: 0, deviation: 4.6 },
  Q4_1: { at: 0, deviation: 4.6, minimum: [2, -7.5] },
  Q5_0: { at: 0, deviation: 9.2 },
  Q5_1: { at: 0, deviation: 9.2, minimum: [2, -15.5] },
  IQ4_NL: { at: 0, deviation: 69 },
  IQ4_XS: { at: 0, deviation: 1270 },
  Q2_K: { at: 80, deviation: 13, minimum: [82, 1.5] },
  Q3_K: { at: 108, deviation: 43 },
  Q4_K: { at: 0, deviation: 250, minimum: [2, 7.5] },
  Q5_K: { at: 0, deviation: 505, minimum: [2, 15.5] },
  Q6_K: { at: 208, deviation: 1360 },
};

/** The bytes of `nElements` values: of mean 0, and uniform where the type has no blocks. */
export function randomBlocks(dtype: DType, nElements: number, random: Random, deviation = 1): Uint8Array {
  const scales = SCALES[dtype];
  if (!scales) {
    const range = deviation * Math.sqrt(12);
    return quantize(
      dtype,
      Float32Array.from({ length: nElements }, () => (random.uniform() - 0.5) * range),
    );
  }
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const { at, deviation: own, minimum } = scales;
  const bytes = new Uint8Array((nElements / blockElements) * blockBytes);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.uint32();
  for (let block = 0; block < bytes.length; block += blockBytes) {
    const put = (offset: number, value: number): void => {
      const bits = f32ToF16(Math.fround(value));
      bytes[block + offset] = bits;
      bytes[block + offset + 1] = bits >> 8;
    };
    const d = (deviation / own) * (0.75 + random.uniform() / 2);
    put(at, d);
    if (minimum) put(minimum[0], minimum[1] * d);
  }
  return bytes;
}
