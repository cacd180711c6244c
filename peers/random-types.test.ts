// The tensor types in which people keep models, on random weights against llama.cpp: each type on eight seeds, of which
// each has a shape, a chunk and tokens of its own; heads, output, kernel sets and thread counts rotate.

import { BLOCK_FORMATS } from '../src/base/dtype.ts';
import type { DType } from '../src/base/dtype.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import { N_CTX, comparePeers, randomTokens } from './random-comparison.ts';
import type { Case } from './random-comparison.ts';

const DTYPES = [
  'BF16',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'IQ4_NL',
  'IQ4_XS',
  'Q2_K',
  'Q3_K',
  'Q4_K',
  'Q5_K',
  'Q6_K',
] as const satisfies readonly DType[];

/** In units of a block, so that rows are whole blocks of every type. */
const SHAPES = [
  { nLayer: 1, nEmbd: 1, nHead: 4, nHeadKv: 2, nFf: 1, prefillChunk: 7 },
  { nLayer: 2, nEmbd: 1, nHead: 8, nHeadKv: 2, nFf: 2, prefillChunk: 32 },
  { nLayer: 1, nEmbd: 2, nHead: 8, nHeadKv: 8, nFf: 1, prefillChunk: 64 },
  { nLayer: 2, nEmbd: 1, nHead: 4, nHeadKv: 1, nFf: 1, prefillChunk: 1 },
  { nLayer: 1, nEmbd: 1, nHead: 2, nHeadKv: 1, nFf: 2, prefillChunk: 13 },
  { nLayer: 1, nEmbd: 1, nHead: 8, nHeadKv: 4, nFf: 1, prefillChunk: 128 },
  { nLayer: 2, nEmbd: 1, nHead: 4, nHeadKv: 4, nFf: 1, prefillChunk: 33 },
  { nLayer: 1, nEmbd: 2, nHead: 8, nHeadKv: 2, nFf: 1, prefillChunk: 48 },
] as const;

const N_VOCAB = 300;

function casesOf(dtype: DType): Case[] {
  const unit = BLOCK_FORMATS[dtype].blockElements === 256 ? 256 : 64;
  return SHAPES.map(({ prefillChunk, ...shape }, i) => {
    const seed = i + 1;
    const [nEmbd, nFf] = [unit * shape.nEmbd, unit * shape.nFf];
    const model = { ...shape, seed, dtype, nEmbd, nFf, nVocab: N_VOCAB, tied: i % 2 === 0, nCtx: N_CTX };
    const kernels = i % 4 < 2 ? 'auto' : 'strict';
    const threads = 1 + (i % 2);
    const label = `seed ${seed}, ${kernels}, ${threads} thread(s)`;
    const options = { kernels, threads, prefillChunk } as const;
    const tokens = randomTokens(seed, N_VOCAB);
    return { label, nLayer: shape.nLayer, write: () => randomLlamaGguf(model), tokens, options };
  });
}

for (const dtype of DTYPES) comparePeers({ dtype, kvType: 'F16' }, casesOf(dtype), 20);
