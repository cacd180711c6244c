// Random-weight llama files against llama.cpp: the same tokens into both, the log-probabilities of every position
// compared with each other and with exact arithmetic (our float64 reference). Every format runs on every seed whose
// heads its cache takes, with grouped and single heads; each seed has a shape, a prefill chunk and tokens of its own,
// some also texts that begin alike. Tied and separate output, kernel sets and thread counts rotate.

import { BLOCK_FORMATS } from '../src/base/dtype.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import { N_CTX, branchingTokens, comparePeers } from './random-comparison.ts';
import type { Case, Format } from './random-comparison.ts';

/** The first has next to nothing to round, and so the sharpest eye; the others are what users get. */
const FORMATS: readonly Format[] = [
  { dtype: 'F32', kvType: 'F32' },
  { dtype: 'F32', kvType: 'F16' },
  { dtype: 'F16', kvType: 'F16' },
  { dtype: 'Q8_0', kvType: 'F16' },
  { dtype: 'Q4_0', kvType: 'F16' },
  { dtype: 'F32', kvType: 'Q8_0' },
  { dtype: 'Q8_0', kvType: 'Q8_0' },
];

const KERNELS = ['auto', 'simd', 'strict'] as const;

/** Seed 1 is the first row. `nHeadKv` is that of the grouped variant; rows of `nFf` are odd unless quantised. */
const SHAPES = [
  { nLayer: 2, nEmbd: 64, nHead: 4, headDim: 16, nHeadKv: 2, nFf: 96, nVocab: 515, prefillChunk: 7 },
  { nLayer: 3, nEmbd: 96, nHead: 6, headDim: 16, nHeadKv: 3, nFf: 224, nVocab: 331, prefillChunk: 32 },
  { nLayer: 1, nEmbd: 32, nHead: 2, headDim: 16, nHeadKv: 1, nFf: 64, nVocab: 1001, prefillChunk: 1 },
  { nLayer: 2, nEmbd: 96, nHead: 8, headDim: 12, nHeadKv: 4, nFf: 128, nVocab: 260, prefillChunk: 64 },
  { nLayer: 4, nEmbd: 64, nHead: 2, headDim: 32, nHeadKv: 1, nFf: 160, nVocab: 293, prefillChunk: 13 },
  { nLayer: 1, nEmbd: 128, nHead: 16, headDim: 8, nHeadKv: 4, nFf: 192, nVocab: 515, prefillChunk: 128 },
  { nLayer: 2, nEmbd: 64, nHead: 3, headDim: 64, nHeadKv: 1, nFf: 32, nVocab: 450, prefillChunk: 33 },
  { nLayer: 2, nEmbd: 96, nHead: 3, headDim: 32, nHeadKv: 1, nFf: 256, nVocab: 387, prefillChunk: 48 },
] as const;

function casesOf({ dtype, kvType }: Format): Case[] {
  return [true, false].flatMap((grouped, variant) =>
    SHAPES.flatMap(({ prefillChunk, ...shape }, i) => {
      if (shape.headDim % BLOCK_FORMATS[kvType].blockElements > 0) return [];
      const seed = i + 1;
      const tied = (i + variant) % 2 === 0;
      const nHeadKv = grouped ? shape.nHeadKv : shape.nHead;
      const nFf = dtype === 'F32' || dtype === 'F16' ? shape.nFf + 1 : shape.nFf;
      const model = { ...shape, seed, dtype, tied, nHeadKv, nFf, nCtx: N_CTX };
      const index = 2 * i + variant;
      const kernels = KERNELS[index % KERNELS.length]!;
      const threads = 1 + (Math.floor(index / KERNELS.length) % 2);
      const { tokens, branch } = branchingTokens(seed, shape.nVocab);
      const variantName = `${grouped ? 'grouped' : 'single'} heads, ${tied ? 'tied' : 'separate'} output`;
      const label = `seed ${seed}, ${variantName}, ${kernels}, ${threads} thread(s)`;
      const options = { kernels, threads, prefillChunk, kvType } as const;
      const write = (): Uint8Array => randomLlamaGguf(model);
      return [{ label, nLayer: shape.nLayer, write, tokens, ...(i % 4 === 0 && { branch }), options }];
    }),
  );
}

// The fewer cases, the fewer positions of which something can be said.
for (const format of FORMATS) {
  const cases = casesOf(format);
  comparePeers(format, cases, 3 * cases.length);
}
