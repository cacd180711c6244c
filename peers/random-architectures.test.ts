// Random-weight files of every decoder architecture against llama.cpp: the same tokens into both, more of them than any
// window holds, and the log-probabilities of every position compared with each other and with exact arithmetic (our
// float64 reference). Prefill chunks of several sizes: later ones read what earlier ones left in the cache. Then texts
// that begin alike, in one batch, which take their beginning from the cache.

import { FILE_KINDS, randomDecoderGguf } from '../test/random-decoder.ts';
import type { DecoderShape, FileKind } from '../test/random-decoder.ts';
import { N_CTX, branchingTokens, comparePeers } from './random-comparison.ts';
import type { Case, Format } from './random-comparison.ts';

const FORMATS: readonly Format[] = [
  { dtype: 'F32', kvType: 'F32' },
  { dtype: 'Q8_0', kvType: 'F16' },
];

/** Seed 1 is the first row. Gemma 3 has its first layer without a window in the sixth place. */
const SHAPES = [
  { nLayer: 7, nEmbd: 64, nHead: 4, headDim: 16, nHeadKv: 2, nFf: 96, nVocab: 300, prefillChunk: 7 },
  { nLayer: 4, nEmbd: 96, nHead: 3, headDim: 32, nHeadKv: 1, nFf: 128, nVocab: 331, prefillChunk: 32 },
] as const;

/** All shapes in F32; in other types, or of a kind that is soon told, one by turns. */
function casesOf(name: string, kind: FileKind, index: number, { dtype, kvType }: Format): Case[] {
  // The tolerance is that of one type.
  if (kind.dtypes !== undefined && dtype === 'F32') return [];
  return SHAPES.flatMap(({ prefillChunk, ...rest }, i): Case[] => {
    if ((dtype !== 'F32' || kind.isBrief) && i !== index % SHAPES.length) return [];
    const seed = i + 1;
    const shape: DecoderShape = { ...rest, seed, dtype, nCtx: N_CTX, usesAllExperts: dtype !== 'F32' };
    const kernels = i % 2 === 0 ? 'auto' : 'strict';
    const label = `${name}, seed ${seed}`;
    const write = (): Uint8Array => randomDecoderGguf(kind, shape);
    const options = { kernels, threads: 1 + (i % 2), prefillChunk, kvType } as const;
    return [{ label, nLayer: kind.nLayer ?? shape.nLayer, write, ...branchingTokens(seed, shape.nVocab), options }];
  });
}

// Together: of a few models, the roundings of float32 may be larger on either side.
for (const hasGelu of [false, true]) {
  const kinds = Object.entries(FILE_KINDS).filter(([, kind]) => hasGeluOf(kind) === hasGelu);
  for (const format of FORMATS) {
    const cases = kinds.flatMap(([name, kind], i) => casesOf(name, kind, i, format));
    comparePeers({ ...format, kind: `decoders with ${hasGelu ? 'GELU' : 'SiLU'}`, hasGelu }, cases, 2 * cases.length);
  }
}

function hasGeluOf({ ffn, architecture }: FileKind): boolean {
  return ffn === 'plain' || architecture.startsWith('gemma');
}
