// The ways of stretching rotary positions against llama.cpp, on llama files with random weights.

import { Random } from '../src/base/random.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import type { RandomLlamaOptions } from '../test/random-model.ts';
import { N_CTX, comparePeers, randomTokens } from './random-comparison.ts';
import type { Case } from './random-comparison.ts';

const N_VOCAB = 300;
const SHAPES = [
  { nLayer: 2, nEmbd: 64, nHead: 4, headDim: 16, nHeadKv: 2, nFf: 96, prefillChunk: 7 },
  { nLayer: 1, nEmbd: 96, nHead: 3, headDim: 32, nHeadKv: 1, nFf: 128, prefillChunk: 32 },
  { nLayer: 3, nEmbd: 64, nHead: 2, headDim: 64, nHeadKv: 2, nFf: 64, prefillChunk: 64 },
] as const;

type Scaling = Pick<RandomLlamaOptions, 'ropeScaling' | 'freqFactors'>;

/** As Llama 3.1 has them: 1 for fast pairs, 8 for slow ones, and whatever between. */
function randomFactors(headDim: number): Float32Array {
  const random = new Random(11);
  return Float32Array.from({ length: headDim / 2 }, (_, pair) => (pair < 3 ? 1 : 1 + 7 * random.uniform()));
}

const SCALINGS: Readonly<Record<string, (headDim: number) => Scaling>> = {
  linear: () => ({ ropeScaling: { type: 'linear', factor: 4 } }),
  'a factor of none': () => ({ ropeScaling: { type: 'none', factor: 4 } }),
  'an attention factor': () => ({ ropeScaling: { type: 'linear', factor: 2, attn_factor: 1.25 } }),
  yarn: () => ({ ropeScaling: { type: 'yarn', factor: 4, original_context_length: 1024 } }),
  'yarn of the context': () => ({ ropeScaling: { type: 'yarn', factor: 8 } }),
  'yarn that shrinks': () => ({ ropeScaling: { type: 'yarn', factor: 0.5, original_context_length: 1024 } }),
  'yarn with an attention factor': () => ({
    ropeScaling: { type: 'yarn', factor: 16, original_context_length: 4096, attn_factor: 0.75 },
  }),
  'frequency factors': (headDim) => ({ freqFactors: randomFactors(headDim) }),
  'frequency factors and yarn': (headDim) => ({
    freqFactors: randomFactors(headDim),
    ropeScaling: { type: 'yarn', factor: 4, original_context_length: 2048 },
  }),
};

const cases = Object.entries(SCALINGS).flatMap(([kind, scalingOf]) =>
  SHAPES.map(({ prefillChunk, ...shape }, i): Case => {
    const seed = i + 1;
    const common = { seed, dtype: 'F32', tied: true, nVocab: N_VOCAB, nCtx: N_CTX } as const;
    const model: RandomLlamaOptions = { ...common, ...shape, ...scalingOf(shape.headDim) };
    const options = { kernels: i % 2 === 0 ? 'auto' : 'strict', threads: 1 + (i % 2), prefillChunk } as const;
    return {
      label: `${kind}, seed ${seed}`,
      nLayer: shape.nLayer,
      write: () => randomLlamaGguf(model),
      tokens: randomTokens(seed, N_VOCAB),
      options: { ...options, kvType: 'F32' },
    };
  }),
);
// All together: of a few models, the roundings of float32 may be larger on either side.
comparePeers({ dtype: 'F32', kvType: 'F32', kind: 'scaled positions' }, cases);
