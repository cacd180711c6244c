// Random-weight files of every decoder architecture against llama.cpp: the same tokens into both, more of them than any
// window holds, and the log-probabilities of every position compared with each other and with exact arithmetic (our
// float64 reference). Prefill chunks of several sizes: later ones read what earlier ones left in the cache.

import { FILE_KINDS, randomDecoderGguf } from '../test/random-decoder.ts';
import type { DecoderShape, FileKind } from '../test/random-decoder.ts';
import { N_CTX, comparePeers, randomTokens } from './random-comparison.ts';
import type { Case, Format } from './random-comparison.ts';

const FORMATS: readonly Format[] = [
  { dtype: 'F32', kvType: 'F32' },
  { dtype: 'Q8_0', kvType: 'F16' },
];

/** Seed 1 is the first row. Gemma 3 has its first layer without a window in the sixth place. */
const SHAPES = [
  { nLayer: 7, nEmbd: 64, nHead: 4, headDim: 16, nHeadKv: 2, nFf: 96, nVocab: 300, prefillChunk: 7 },
  { nLayer: 4, nEmbd: 96, nHead: 3, headDim: 32, nHeadKv: 1, nFf: 128, nVocab: 331, prefillChunk: 32 },
  { nLayer: 5, nEmbd: 64, nHead: 2, headDim: 32, nHeadKv: 2, nFf: 160, nVocab: 293, prefillChunk: 64 },
] as const;

function casesOf(name: string, kind: FileKind, { dtype, kvType }: Format): Case[] {
  const nShape = kind.isBrief ? 1 : (dtype === 'F32' ? 3 : 2) - (kind.experts ? 1 : 0);
  return SHAPES.slice(0, nShape).map(({ prefillChunk, ...rest }, i) => {
    const seed = i + 1;
    const shape: DecoderShape = { ...rest, seed, dtype, nCtx: N_CTX, usesAllExperts: dtype !== 'F32' };
    const kernels = i % 2 === 0 ? 'auto' : 'strict';
    return {
      label: `${name}, seed ${seed}`,
      nLayer: kind.nLayer ?? shape.nLayer,
      write: () => randomDecoderGguf(kind, shape),
      tokens: randomTokens(seed, shape.nVocab),
      options: { kernels, threads: 1 + (i % 2), prefillChunk, kvType },
    };
  });
}

// Together: of a few models, the roundings of float32 may be larger on either side.
for (const hasGelu of [false, true]) {
  const kinds = Object.entries(FILE_KINDS).filter(([, kind]) => hasGeluOf(kind) === hasGelu);
  for (const format of FORMATS) {
    const cases = kinds.flatMap(([name, kind]) => casesOf(name, kind, format));
    comparePeers({ ...format, kind: `decoders with ${hasGelu ? 'GELU' : 'SiLU'}`, hasGelu }, cases, 2 * cases.length);
  }
}

function hasGeluOf({ ffn, architecture }: FileKind): boolean {
  return ffn === 'plain' || architecture.startsWith('gemma');
}
