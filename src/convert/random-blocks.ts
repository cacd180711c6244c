// Random weights in any type that kernels run, as blocks: random bits for quants and small scales, and binary16 scales
// of a size that gives values of mean 0 and of a wanted deviation. For synthetic models, which say nothing and are as
// fast as real ones.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { f32ToF16 } from '../base/float16.ts';
import type { Random } from '../base/random.ts';
import { quantize } from '../quant/codecs.ts';

interface Scales {
  /** Where a block keeps d; in IQ1_M, four bits of it. */
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
  Q8_1: { at: 0, deviation: 74 },
  Q8_K: { at: 0, deviation: 74 },
  MXFP4: { at: 0, deviation: 5.85 },
  TQ1_0: { at: 52, deviation: 0.82 },
  TQ2_0: { at: 64, deviation: 0.71 },
  IQ1_S: { at: 0, deviation: 7.2 },
  IQ1_M: { at: 49, deviation: 7.2 },
  IQ2_XXS: { at: 0, deviation: 54 },
  IQ2_XS: { at: 0, deviation: 56 },
  IQ2_S: { at: 0, deviation: 56 },
  IQ3_XXS: { at: 0, deviation: 142 },
  IQ3_S: { at: 0, deviation: 141 },
};

/** Of a positive number: the biased exponent from bit 23 on. */
const f32Bits = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0]!;

type Put = (bytes: Uint8Array, at: number, value: number) => void;

const putF16: Put = (bytes, at, value) => {
  const bits = f32ToF16(Math.fround(value));
  bytes[at] = bits;
  bytes[at + 1] = bits >> 8;
};

/** Of d, where it is not a binary16 in one place. */
const PUT_D: Readonly<Partial<Record<DType, Put>>> = {
  Q8_K: (bytes, at, value) => bytes.set(new Uint8Array(Float32Array.of(value).buffer), at),
  MXFP4: (bytes, at, value) => void (bytes[at] = 1 + (f32Bits(Math.SQRT2 * value) >> 23)),
  IQ1_M(bytes, at, value) {
    const bits = f32ToF16(Math.fround(value));
    for (let i = 0; i < 4; i++) bytes[at + 2 * i] = (bytes[at + 2 * i]! & 15) | (((bits >> (4 * i)) & 15) << 4);
  },
};

/** Random bytes of quants as ggml would write them, where it does not use all. */
const BYTE_OF: Readonly<Partial<Record<DType, (byte: number) => number>>> = {
  TQ1_0: (byte) => Math.ceil((Math.floor((byte * 243) / 256) * 256) / 243),
  // No 3.
  TQ2_0: (byte) => byte & ~((byte & (byte >> 1) & 0x55) << 1),
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
  const byteOf = BYTE_OF[dtype] ?? ((byte) => byte);
  for (let i = 0; i < bytes.length; i++) bytes[i] = byteOf(random.uint32() & 255);
  for (let block = 0; block < bytes.length; block += blockBytes) {
    const d = (deviation / own) * (0.75 + random.uniform() / 2);
    (PUT_D[dtype] ?? putF16)(bytes, block + at, d);
    if (minimum) putF16(bytes, block + minimum[0], minimum[1] * d);
  }
  return bytes;
}
