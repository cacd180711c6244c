// A model for tests of the public API: random weights, so that it is there without the shared data, and so small that a
// text takes milliseconds. Half of what it generates are single bytes, which makes decoding work for its text.

import { randomLlamaGguf } from '../random-model.ts';
import type { RandomLlamaOptions } from '../random-model.ts';

const SMALL: RandomLlamaOptions = {
  seed: 5,
  dtype: 'F32',
  nLayer: 2,
  nEmbd: 64,
  nHead: 4,
  nHeadKv: 2,
  nFf: 96,
  nVocab: 320,
  nCtx: 256,
  tied: false,
};

/** The bytes of the file. */
export function smallModel(options: Partial<RandomLlamaOptions> = {}): Uint8Array<ArrayBuffer> {
  return randomLlamaGguf({ ...SMALL, ...options });
}

export const N_VOCAB = SMALL.nVocab;
export const N_CTX = SMALL.nCtx;
export const BOS = 1;

/** Where the engine may run. */
export const THREADS = ['worker', 'inline'] as const;
