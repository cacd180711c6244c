// Makes GGUF files of the architectures llama and gpt2 with random weights and a synthetic SPM vocabulary, which
// llama.cpp loads too: any shape, any dtype, small or in true size, the same bytes for the same options. They say
// nothing meaningful, but every runtime has to compute the same logits from them.

import { ALIGNMENT_KEY } from '../src/gguf/metadata-reader.ts';
import { writeGguf } from '../src/gguf/writer.ts';
import type { TensorData } from '../src/gguf/writer.ts';
import type { MetadataEntry } from '../src/gguf/value-types.ts';
import type { DType } from '../src/base/dtype.ts';
import { Random } from '../src/base/random.ts';
import { CODECS, quantize } from '../src/quant/codecs.ts';
import { randomBlocks } from '../src/convert/random-blocks.ts';
import { vocabularyEntries } from '../src/tokenizer/vocabulary.ts';
import type { Vocabulary } from '../src/tokenizer/vocabulary.ts';

export interface RandomLlamaOptions {
  readonly seed: number;
  /** `general.name`. By default it tells dtype and seed. */
  readonly name?: string;
  /** Of all matrices; norm weights are F32. */
  readonly dtype: DType;
  /** Of those whose name ends so, `ffn_down`, instead. By default of none. */
  readonly dtypes?: Readonly<Record<string, DType>>;
  readonly nLayer: number;
  /** With quantised dtypes a multiple of their block, like `nFf` and `nHead · headDim`. */
  readonly nEmbd: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly nFf: number;
  /** At least 260: three control tokens, 256 bytes, one piece. */
  readonly nVocab: number;
  readonly nCtx: number;
  /** Whether logits come from the token embedding; otherwise there is an output matrix of its own. */
  readonly tied: boolean;
  /** By default nEmbd / nHead. */
  readonly headDim?: number;
  /** What divides the rotary frequencies, f32[headDim / 2] (`rope_freqs.weight`). By default the file has none. */
  readonly freqFactors?: Float32Array;
  /** `llama.rope.scaling`: kind, and numbers by their keys. By default the file has none. */
  readonly ropeScaling?: RopeScalingEntries;
  /** Of `nVocab` tokens. By default a synthetic one for SPM. */
  readonly vocabulary?: Vocabulary;
  /** `tokenizer.chat_template`. By default the file has none. */
  readonly chatTemplate?: string;
}

export interface RopeScalingEntries {
  readonly type: 'none' | 'linear' | 'yarn';
  readonly factor: number;
  readonly original_context_length?: number;
  readonly attn_factor?: number;
}

/** The bytes of the file. The same options give the same bytes on every machine. */
export function randomLlamaGguf(options: RandomLlamaOptions): Uint8Array<ArrayBuffer> {
  return writeGguf({
    metadata: [...hyperParameters(options), ...vocabularyOf(options)],
    tensors: randomTensors(options),
  });
}

export type RandomGpt2Options = Omit<
  RandomLlamaOptions,
  'nHeadKv' | 'headDim' | 'freqFactors' | 'ropeScaling' | 'vocabulary' | 'chatTemplate'
>;

/** The same for gpt2; biases and position embeddings are F32. */
export function randomGpt2Gguf(options: RandomGpt2Options): Uint8Array<ArrayBuffer> {
  const { nLayer, nEmbd, nHead, nFf, nVocab, nCtx, tied } = options;
  const { tensors, matrix, vector } = randomTensorsOf(options);
  const norm = (name: string): void => {
    vector(`${name}.weight`, nEmbd, 1);
    vector(`${name}.bias`, nEmbd, 0);
  };
  const linear = (name: string, nOut: number, nIn: number): void => {
    matrix(name, nOut, nIn);
    vector(`${name}.bias`, nOut, 0);
  };
  matrix('token_embd', nVocab, nEmbd);
  matrix('position_embd', nCtx, nEmbd, 'F32');
  for (let layer = 0; layer < nLayer; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    norm(name('attn_norm'));
    linear(name('attn_qkv'), 3 * nEmbd, nEmbd);
    linear(name('attn_output'), nEmbd, nEmbd);
    norm(name('ffn_norm'));
    linear(name('ffn_up'), nFf, nEmbd);
    linear(name('ffn_down'), nEmbd, nFf);
  }
  norm('output_norm');
  if (!tied) matrix('output', nVocab, nEmbd);
  const metadata: Entries = [
    ...generalEntries('gpt2', options),
    ['gpt2.block_count', u32(nLayer)],
    ['gpt2.context_length', u32(nCtx)],
    ['gpt2.embedding_length', u32(nEmbd)],
    ['gpt2.feed_forward_length', u32(nFf)],
    ['gpt2.attention.head_count', u32(nHead)],
    ['gpt2.attention.layer_norm_epsilon', f32(1e-5)],
    ...vocabularyOf(options),
  ];
  return writeGguf({ metadata, tensors });
}

export type Entries = [key: string, entry: MetadataEntry][];

export const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
export const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });
export const text = (value: string): MetadataEntry => ({ type: 'string', value });

/** What most of a file is; readers do not depend on it. */
const FILE_TYPES: Readonly<Partial<Record<DType, number>>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7 };

export function generalEntries(
  architecture: string,
  { dtype, seed, name = `random ${dtype} ${seed}` }: Pick<RandomLlamaOptions, 'dtype' | 'seed' | 'name'>,
): Entries {
  return [
    ['general.architecture', text(architecture)],
    ['general.name', text(name)],
    [ALIGNMENT_KEY, u32(32)],
    ['general.file_type', u32(FILE_TYPES[dtype] ?? 1)],
    ['general.quantization_version', u32(2)],
  ];
}

function headDimOf({ headDim, nEmbd, nHead }: RandomLlamaOptions): number {
  return headDim ?? nEmbd / nHead;
}

function hyperParameters(options: RandomLlamaOptions): Entries {
  const headDim = headDimOf(options);
  const entries: Entries = [
    ...generalEntries('llama', options),
    ['llama.block_count', u32(options.nLayer)],
    ['llama.context_length', u32(options.nCtx)],
    ['llama.embedding_length', u32(options.nEmbd)],
    ['llama.feed_forward_length', u32(options.nFf)],
    ['llama.attention.head_count', u32(options.nHead)],
    ['llama.attention.head_count_kv', u32(options.nHeadKv)],
    ['llama.attention.layer_norm_rms_epsilon', f32(1e-5)],
    ['llama.rope.dimension_count', u32(headDim)],
    ['llama.rope.freq_base', f32(10_000)],
    ['llama.vocab_size', u32(options.nVocab)],
  ];
  for (const [key, value] of Object.entries(options.ropeScaling ?? {})) {
    const entry = typeof value === 'string' ? text(value) : key.endsWith('length') ? u32(value) : f32(value);
    entries.push([`llama.rope.scaling.${key}`, entry]);
  }
  if (options.chatTemplate !== undefined) entries.push(['tokenizer.chat_template', text(options.chatTemplate)]);
  // Readers assume nEmbd / nHead unless these say otherwise.
  if (headDim * options.nHead !== options.nEmbd) {
    entries.push(['llama.attention.key_length', u32(headDim)], ['llama.attention.value_length', u32(headDim)]);
  }
  return entries;
}

/** Token types of tokenizer.ggml.token_type. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const BYTE = 6;

export function vocabularyOf({ nVocab, vocabulary }: Pick<RandomLlamaOptions, 'nVocab' | 'vocabulary'>): Entries {
  if (vocabulary) return vocabularyEntries(vocabulary);
  const tokens = ['<unk>', '<s>', '</s>'];
  const types = [UNKNOWN, CONTROL, CONTROL];
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    types.push(BYTE);
  }
  const nSpecial = tokens.length;
  // ▁ is how SPM writes a space; numbers in base 36 make short pieces, all different.
  for (let i = 0; tokens.length < nVocab; i++) {
    tokens.push(`\u2581${i.toString(36)}`);
    types.push(NORMAL);
  }
  const scores = Float32Array.from(tokens, (_, i) => Math.min(0, nSpecial - i));
  return [
    ['tokenizer.ggml.model', text('llama')],
    ['tokenizer.ggml.tokens', { type: 'array', elementType: 'string', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'array', elementType: 'f32', value: scores }],
    ['tokenizer.ggml.token_type', { type: 'array', elementType: 'i32', value: types }],
    ['tokenizer.ggml.bos_token_id', u32(1)],
    ['tokenizer.ggml.eos_token_id', u32(2)],
    ['tokenizer.ggml.unknown_token_id', u32(0)],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: true }],
    ['tokenizer.ggml.add_eos_token', { type: 'bool', value: false }],
  ];
}

/** A list of tensors, and what appends to it. */
export function randomTensorsOf({ seed, dtype, dtypes }: Pick<RandomLlamaOptions, 'seed' | 'dtype' | 'dtypes'>) {
  const random = xorshift(seed);
  const blocks = new Random(seed);
  const tensors: TensorData[] = [];
  return {
    tensors,
    /** f32[nOut, nIn], uniform with mean 0 and standard deviation 1/√nIn, so that activations keep their size. */
    matrix(name: string, nOut: number, nIn: number, type = dtypes?.[name.split('.').at(-1)!] ?? dtype): void {
      const tensor = { name: `${name}.weight`, dtype: type, shape: [nOut, nIn] };
      if (!CODECS[type]?.encode) {
        tensors.push({ ...tensor, bytes: randomBlocks(type, nOut * nIn, blocks, 1 / Math.sqrt(nIn)) });
        return;
      }
      const range = Math.sqrt(12 / nIn);
      const values = Float32Array.from({ length: nOut * nIn }, () => (random() - 0.5) * range);
      tensors.push({ ...tensor, bytes: quantize(type, values) });
    },
    /** f32[n], up to a quarter around `mean`: a norm whose weights were all 1 would hide mistakes. */
    vector(name: string, n: number, mean: number): void {
      const values = Float32Array.from({ length: n }, () => mean - 0.25 + random() / 2);
      tensors.push({ name, dtype: 'F32', shape: [n], bytes: quantize('F32', values) });
    },
  };
}

function randomTensors(options: RandomLlamaOptions): TensorData[] {
  const { nLayer, nEmbd, nHead, nHeadKv, nFf, nVocab, tied } = options;
  const headDim = headDimOf(options);
  const { tensors, matrix, vector } = randomTensorsOf(options);
  const norm = (name: string): void => vector(`${name}.weight`, nEmbd, 1);

  matrix('token_embd', nVocab, nEmbd);
  for (let layer = 0; layer < nLayer; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    norm(name('attn_norm'));
    matrix(name('attn_q'), nHead * headDim, nEmbd);
    matrix(name('attn_k'), nHeadKv * headDim, nEmbd);
    matrix(name('attn_v'), nHeadKv * headDim, nEmbd);
    matrix(name('attn_output'), nEmbd, nHead * headDim);
    norm(name('ffn_norm'));
    matrix(name('ffn_gate'), nFf, nEmbd);
    matrix(name('ffn_up'), nFf, nEmbd);
    matrix(name('ffn_down'), nEmbd, nFf);
  }
  norm('output_norm');
  if (!tied) matrix('output', nVocab, nEmbd);
  const { freqFactors } = options;
  if (freqFactors) {
    const bytes = quantize('F32', freqFactors);
    tensors.push({ name: 'rope_freqs.weight', dtype: 'F32', shape: [freqFactors.length], bytes });
  }
  return tensors;
}

/** Uniform numbers in [0, 1) with 24 random bits each: xorshift32 (Marsaglia 2003), of which the high bits are good. */
function xorshift(seed: number): () => number {
  // Small seeds must not start alike, and the state must not be 0.
  let state = Math.imul(seed + 1, 0x9e3779b1) || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 8) / 2 ** 24;
  };
}
