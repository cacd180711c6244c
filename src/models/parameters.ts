// What decoders and encoders read from a file whatever their architecture: counts, heads, rotary positions.

import { GgufError, UnsupportedError } from '../base/errors.ts';
import { ANGLE_MAX, pow } from '../base/math.ts';
import { readTensorBytes } from '../gguf/reader.ts';
import type { Gguf } from '../gguf/reader.ts';
import type { RopeConfig } from '../nn/rope.ts';
import { parametersOf, tensorOf } from './model.ts';
import type { HyperParameters, ParameterReader } from './model.ts';

export interface TransformerParameters {
  readonly hyperParameters: HyperParameters;
  /** Reads further keys. */
  readonly read: ParameterReader;
  /** Rotary positions for a context of that many; which elements are pairs is the architecture's affair. */
  readonly ropeFor: (nCtx: number) => Omit<RopeConfig, 'pairing'>;
}

/** @param isCausal  what a file means that does not say */
export async function readTransformer(gguf: Gguf, isCausal: boolean): Promise<TransformerParameters> {
  const architecture = gguf.metadata.getString('general.architecture');
  const read = parametersOf(gguf, architecture);
  const { count } = read;
  const nEmbd = count('embedding_length');
  const nHead = count('attention.head_count');
  const nHeadKv = count('attention.head_count_kv', nHead);
  const headDim = count('attention.key_length', Math.ceil(nEmbd / nHead));
  const nRot = count('rope.dimension_count', headDim);
  requireEvenHeads(gguf, architecture, { nEmbd, nHead, nHeadKv, headDim, nRot });
  const hyperParameters = {
    architecture,
    nVocab: gguf.tensors.get('token_embd.weight')?.shape[0] ?? count('vocab_size'),
    nEmbd,
    nLayer: count('block_count'),
    nHead,
    nHeadKv,
    headDim,
    nFf: count('feed_forward_length'),
    nCtxTrain: count('context_length'),
    isCausal: gguf.metadata.getBoolean(`${architecture}.attention.causal`, isCausal),
  };
  return { hyperParameters, read, ropeFor: await readRope(gguf, read, hyperParameters, nRot) };
}

/**
 * Whether a layer sees a window of positions only: of every few layers all but the last; 0 means all. How many, the
 * file may say; a list in the place of the number does not count, as in llama.cpp.
 */
export function windowed(
  { metadata }: Gguf,
  { read, hyperParameters: p }: TransformerParameters,
  period: number,
): (layer: number) => boolean {
  const key = 'attention.sliding_window_pattern';
  const isList = metadata.get(`${p.architecture}.${key}`)?.type === 'array';
  const every = isList ? period : read.natural(key, period);
  return (layer) => every === 0 || layer % every < every - 1;
}

/** LayerNorm of queries and keys with weights for each head, which the larger models of some architectures have. */
export const normsOfHeads = ({ tensors }: Gguf): 'ownHead' | undefined =>
  tensors.has('blk.0.attn_q_norm.weight') ? 'ownHead' : undefined;

/** @param remedy  what works instead */
export function unsupported({ source }: Gguf, what: string, remedy: string): UnsupportedError {
  return new UnsupportedError('UNSUPPORTED_FEATURE', `${source.name}: ${what} is not supported yet; ${remedy}`);
}

function requireEvenHeads(
  { metadata, source }: Gguf,
  architecture: string,
  p: { nEmbd: number; nHead: number; nHeadKv: number; headDim: number; nRot: number },
): void {
  const isSplitEvenly = metadata.has(`${architecture}.attention.key_length`) || p.nEmbd % p.nHead === 0;
  if (p.nHead % p.nHeadKv === 0 && isSplitEvenly && p.nRot <= p.headDim && p.nRot % 2 === 0) return;
  throw new GgufError(
    'GGUF_INVALID',
    `${source.name}: heads do not divide: embedding ${p.nEmbd}, heads ${p.nHead}, key-value heads ${p.nHeadKv}, ` +
      `rotary dimensions ${p.nRot}`,
  );
}

/** As in llama.cpp, a file that names a factor and no kind of scaling means linear. */
async function readRope(
  gguf: Gguf,
  { count, positive }: ParameterReader,
  { architecture, headDim, nCtxTrain }: HyperParameters,
  nRot: number,
): Promise<TransformerParameters['ropeFor']> {
  const scaling = gguf.metadata.getString(`${architecture}.rope.scaling.type`, 'linear');
  if (!['none', 'linear', 'yarn', 'longrope'].includes(scaling)) {
    throw unsupported(gguf, `RoPE scaling "${scaling}"`, 'none, linear, yarn and longrope are');
  }
  if (gguf.metadata.has(`${architecture}.rope.dimension_sections`)) {
    throw unsupported(gguf, 'a rotation in sections, for positions in images,', 'models of text alone run');
  }
  // The key of a factor in old files.
  const factor = scaling === 'none' ? 1 : positive('rope.scaling.factor', positive('rope.scale_linear', 1));
  const nCtxOrig = count('rope.scaling.original_context_length', nCtxTrain);
  const rope = {
    headDim,
    nRot,
    freqBase: positive('rope.freq_base', 10000),
    freqScale: 1 / factor,
    attnFactor: positive('rope.scaling.attn_factor', 1),
    yarn: scaling === 'yarn' ? { nCtxOrig } : undefined,
  };
  const read = (name: string): Promise<Float32Array | undefined> => readFreqFactors(gguf, `${name}.weight`, nRot / 2);
  const [all, short, long] = [
    await read('rope_freqs'),
    await read('rope_factors_short'),
    await read('rope_factors_long'),
  ];
  return (nCtx) => {
    const config = { ...rope, freqFactors: all ?? (nCtx > nCtxOrig ? long : short) };
    if (nCtx * turnMax(config) <= ANGLE_MAX) return config;
    const keys = `"${architecture}.rope.freq_base", "…rope.scaling.factor" or the factors of frequencies`;
    throw new GgufError(
      'GGUF_INVALID',
      `${gguf.source.name}: ${keys} turn positions too fast; convert the model again`,
    );
  };
}

/** Radians that a position turns any pair by, at most. */
function turnMax({ nRot, freqBase, freqScale, freqFactors }: Omit<RopeConfig, 'pairing'>): number {
  const least = freqFactors?.reduce((a, b) => Math.min(a, b), 1) ?? 1;
  return (Math.max(1, freqScale) * Math.max(1, pow(freqBase, 2 / nRot - 1))) / least;
}

/** What Llama 3.1 and later, and Phi-3 for long contexts, divide each frequency by, where the file has it. */
async function readFreqFactors(gguf: Gguf, name: string, nPair: number): Promise<Float32Array | undefined> {
  if (!gguf.tensors.has(name)) return undefined;
  const info = tensorOf(gguf, name, [nPair]);
  if (info.dtype !== 'F32') throw unsupported(gguf, `tensor "${name}" in ${info.dtype}`, 'F32 is');
  const view = new DataView((await readTensorBytes(gguf, info)).buffer);
  const factors = Float32Array.from({ length: nPair }, (_, pair) => view.getFloat32(4 * pair, true));
  const bad = factors.find((factor) => !(factor > 0 && factor < Infinity));
  if (bad === undefined) return factors;
  const message = `${gguf.source.name}: tensor "${name}" expected positive numbers, got ${bad}`;
  throw new GgufError('GGUF_INVALID', message, { tensor: name });
}
