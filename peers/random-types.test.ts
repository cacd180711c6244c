// The tensor types in which people keep models, on random weights against llama.cpp: the usual ones on eight seeds
// each, the rest and mixtures on two, of which each has a shape, a chunk and tokens of its own; heads, output, kernel
// sets and thread counts rotate.

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

const RARE_DTYPES = [
  'MXFP4',
  'TQ1_0',
  'TQ2_0',
  'IQ1_S',
  'IQ1_M',
  'IQ2_XXS',
  'IQ2_XS',
  'IQ2_S',
  'IQ3_XXS',
  'IQ3_S',
] as const satisfies readonly DType[];

/** As llama.cpp's tools mix types: of most matrices, and of which others. */
const MIXTURES = [
  ['Q4_0', { token_embd: 'Q6_K', output: 'Q6_K' }],
  ['Q4_K', { attn_v: 'Q6_K', ffn_down: 'Q6_K', token_embd: 'Q4_K', output: 'Q6_K' }],
  ['IQ2_XXS', { token_embd: 'Q2_K', attn_v: 'Q4_K', attn_output: 'IQ3_S', output: 'Q5_K' }],
  ['MXFP4', { token_embd: 'Q8_0', attn_q: 'Q8_0', attn_k: 'Q8_0', attn_v: 'Q8_0', output: 'F16' }],
] as const satisfies readonly (readonly [DType, Readonly<Record<string, DType>>])[];

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

function casesOf(dtype: DType, nCases: number = SHAPES.length, dtypes: Readonly<Record<string, DType>> = {}): Case[] {
  const isLong = [dtype, ...Object.values(dtypes)].some((type) => BLOCK_FORMATS[type].blockElements === 256);
  const unit = isLong ? 256 : 64;
  return SHAPES.slice(0, nCases).map(({ prefillChunk, ...shape }, i) => {
    const seed = i + 1;
    const [nEmbd, nFf] = [unit * shape.nEmbd, unit * shape.nFf];
    const model = { ...shape, seed, dtype, dtypes, nEmbd, nFf, nVocab: N_VOCAB, tied: i % 2 === 0, nCtx: N_CTX };
    const kernels = i % 4 < 2 ? 'auto' : 'strict';
    const threads = 1 + (i % 2);
    const label = `seed ${seed}, ${kernels}, ${threads} thread(s)`;
    const options = { kernels, threads, prefillChunk } as const;
    const tokens = randomTokens(seed, N_VOCAB);
    return { label, nLayer: shape.nLayer, write: () => randomLlamaGguf(model), tokens, options };
  });
}

for (const dtype of DTYPES) comparePeers({ dtype, kvType: 'F16' }, casesOf(dtype), 20);
for (const dtype of RARE_DTYPES) comparePeers({ dtype, kvType: 'F16' }, casesOf(dtype, 2), 5);
for (const [dtype, dtypes] of MIXTURES) {
  const kind = `mixed with ${[...new Set(Object.values(dtypes))].join(', ')}`;
  comparePeers({ dtype, kvType: 'F16', kind }, casesOf(dtype, 2, dtypes), 5);
}
