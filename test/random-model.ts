// Makes GGUF files of the llama architecture with random weights and a synthetic SPM vocabulary, which llama.cpp loads
// too: any shape, any dtype, small or in true size, the same bytes for the same options. They say nothing meaningful,
// but every runtime has to compute the same logits from them.

import { ALIGNMENT_KEY } from '../src/gguf/metadata-reader.ts';
import { writeGguf } from '../src/gguf/writer.ts';
import type { TensorData } from '../src/gguf/writer.ts';
import type { MetadataEntry } from '../src/gguf/value-types.ts';
import type { DType } from '../src/base/dtype.ts';
import { Random } from '../src/base/random.ts';
import { CODECS, quantize } from '../src/quant/codecs.ts';
import { randomBlocks } from '../src/convert/random-blocks.ts';

export interface RandomLlamaOptions {
  readonly seed: number;
  /** Of all matrices; norm weights are F32. */
  readonly dtype: DType;
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
}

/** The bytes of the file. The same options give the same bytes on every machine. */
export function randomLlamaGguf(options: RandomLlamaOptions): Uint8Array<ArrayBuffer> {
  return writeGguf({
    metadata: [...hyperParameters(options), ...vocabulary(options.nVocab)],
    tensors: randomTensors(options),
  });
}

type Entries = [key: string, entry: MetadataEntry][];

const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });
const text = (value: string): MetadataEntry => ({ type: 'string', value });

/** What most of a file is; readers do not depend on it. */
const FILE_TYPES: Readonly<Partial<Record<DType, number>>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7 };

function headDimOf({ headDim, nEmbd, nHead }: RandomLlamaOptions): number {
  return headDim ?? nEmbd / nHead;
}

function hyperParameters(options: RandomLlamaOptions): Entries {
  const headDim = headDimOf(options);
  const entries: Entries = [
    ['general.architecture', text('llama')],
    ['general.name', text(`random ${options.dtype} ${options.seed}`)],
    [ALIGNMENT_KEY, u32(32)],
    ['general.file_type', u32(FILE_TYPES[options.dtype] ?? 1)],
    ['general.quantization_version', u32(2)],
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

function vocabulary(nVocab: number): Entries {
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

function randomTensors(options: RandomLlamaOptions): TensorData[] {
  const { seed, dtype, nLayer, nEmbd, nHead, nHeadKv, nFf, nVocab, tied } = options;
  const random = xorshift(seed);
  const blocks = new Random(seed);
  const headDim = headDimOf(options);
  const tensors: TensorData[] = [];

  /** f32[nOut, nIn], uniform with mean 0 and standard deviation 1/√nIn, so that activations keep their size. */
  const matrix = (name: string, nOut: number, nIn: number): void => {
    if (!CODECS[dtype]?.encode) {
      const bytes = randomBlocks(dtype, nOut * nIn, blocks, 1 / Math.sqrt(nIn));
      tensors.push({ name: `${name}.weight`, dtype, shape: [nOut, nIn], bytes });
      return;
    }
    const range = Math.sqrt(12 / nIn);
    const values = Float32Array.from({ length: nOut * nIn }, () => (random() - 0.5) * range);
    tensors.push({ name: `${name}.weight`, dtype, shape: [nOut, nIn], bytes: quantize(dtype, values) });
  };
  /** f32[nEmbd] in 0.75..1.25: a norm whose weights were all 1 would hide mistakes. */
  const norm = (name: string): void => {
    const values = Float32Array.from({ length: nEmbd }, () => 0.75 + random() / 2);
    tensors.push({ name: `${name}.weight`, dtype: 'F32', shape: [nEmbd], bytes: quantize('F32', values) });
  };

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
