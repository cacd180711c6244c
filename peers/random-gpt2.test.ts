// Random-weight gpt2 files against llama.cpp: the same tokens into both, the log-probabilities of every position
// compared with each other and with exact arithmetic (our float64 reference).

import { randomGpt2Gguf } from '../test/random-model.ts';
import { N_CTX, branchingTokens, comparePeers } from './random-comparison.ts';
import type { Case, Format } from './random-comparison.ts';

const FORMATS: readonly Format[] = [
  { dtype: 'F32', kvType: 'F32' },
  { dtype: 'F16', kvType: 'F16' },
  { dtype: 'Q8_0', kvType: 'F16' },
  { dtype: 'Q4_0', kvType: 'F16' },
];

/** Seed 1 is the first row. */
const SHAPES = [
  { nLayer: 2, nEmbd: 64, nHead: 4, nFf: 256, nVocab: 515, prefillChunk: 7 },
  { nLayer: 3, nEmbd: 96, nHead: 8, nFf: 384, nVocab: 331, prefillChunk: 32 },
  { nLayer: 1, nEmbd: 32, nHead: 2, nFf: 64, nVocab: 1001, prefillChunk: 1 },
  { nLayer: 2, nEmbd: 128, nHead: 2, nFf: 160, nVocab: 260, prefillChunk: 64 },
] as const;

function casesOf({ dtype, kvType }: Format): Case[] {
  return [true, false].flatMap((tied, variant) =>
    SHAPES.map(({ prefillChunk, ...shape }, i): Case => {
      const seed = i + 1;
      const kernels = (variant + i) % 2 === 0 ? 'auto' : 'strict';
      const threads = 1 + (Math.floor((variant + i) / 2) % 2);
      return {
        label: `seed ${seed}, ${tied ? 'tied' : 'separate'} output, ${kernels}, ${threads} thread(s)`,
        nLayer: shape.nLayer,
        write: () => randomGpt2Gguf({ ...shape, seed, dtype, tied, nCtx: N_CTX }),
        ...branchingTokens(seed, shape.nVocab),
        options: { kernels, threads, prefillChunk, kvType },
      };
    }),
  );
}

for (const format of FORMATS) {
  const cases = casesOf(format);
  comparePeers({ ...format, kind: 'gpt2', hasGelu: true }, cases, 3 * cases.length);
}
