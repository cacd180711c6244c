// Models with random weights in the true shapes of well-known ones: nothing to download, and as fast or as slow as the
// real ones, which is what benchmarks want. The file is never whole in memory: it is a ByteSource that makes its data
// when it is read, the same bytes each time. All are of the architecture llama, whatever the shape's own is.

import type { ByteSource } from '../base/byte-source.ts';
import { BLOCK_FORMATS, rowBytes } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { OptionError } from '../base/errors.ts';
import { Random } from '../base/random.ts';
import type { MetadataEntry } from '../gguf/value-types.ts';
import { writeGgufHead } from '../gguf/writer.ts';
import type { TensorDescriptor } from '../gguf/writer.ts';
import { CODECS } from '../quant/codecs.ts';
import { randomBlocks } from './random-blocks.ts';

interface Shape {
  readonly nLayer: number;
  readonly nEmbd: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly nFf: number;
  readonly nVocab: number;
  readonly nCtx: number;
  readonly isTied: boolean;
  readonly freqBase: number;
}

const SYNTHETIC_SHAPES = {
  'SmolLM2-135M': shape(30, 576, [9, 3], 1536, 49152, true, 8192, 100_000),
  'Qwen2.5-0.5B': shape(24, 896, [14, 2], 4864, 151936, true, 32768, 1_000_000),
  'TinyLlama-1.1B': shape(22, 2048, [32, 4], 5632, 32000, false, 2048, 10_000),
  'Llama-3.2-1B': shape(16, 2048, [32, 8], 8192, 128256, true, 131072, 500_000),
  'Llama-3.2-3B': shape(28, 3072, [24, 8], 8192, 128256, true, 131072, 500_000),
} as const satisfies Record<string, Shape>;

function shape(
  nLayer: number,
  nEmbd: number,
  [nHead, nHeadKv]: readonly [number, number],
  nFf: number,
  nVocab: number,
  isTied: boolean,
  nCtx: number,
  freqBase: number,
): Shape {
  return { nLayer, nEmbd, nHead, nHeadKv, nFf, nVocab, nCtx, isTied, freqBase };
}

/** llama.cpp's customary mixtures: most matrices in the first type, the more sensitive ones in the second. */
const MIXTURES: Readonly<Record<string, readonly [DType, DType]>> = {
  Q4_K_M: ['Q4_K', 'Q6_K'],
  Q5_K_M: ['Q5_K', 'Q6_K'],
  Q3_K_M: ['Q3_K', 'Q4_K'],
};

/** Bytes of random data that a kind of matrix repeats. */
const POOL_BYTES = 1 << 18;

/**
 * @param name  SHAPE:TYPE, e.g. `TinyLlama-1.1B:Q8_0` or `SmolLM2-135M:Q4_K_M`, in any case
 * @throws {OptionError} for an unknown shape or type, or rows that are no whole blocks of the type
 */
export function syntheticModel(name: string): ByteSource {
  const [shapeName = '', typeName = ''] = name.split(':');
  const known = Object.entries(SYNTHETIC_SHAPES).find(([key]) => key.toLowerCase() === shapeName.toLowerCase());
  if (!known) {
    throw new OptionError(`unknown shape "${shapeName}"; use one of ${Object.keys(SYNTHETIC_SHAPES).join(', ')}`);
  }
  const type = typeName.toUpperCase();
  const [dtype, finer] = MIXTURES[type] ?? [type as DType, type as DType];
  if (!CODECS[dtype]) {
    const types = [...Object.keys(CODECS), ...Object.keys(MIXTURES)];
    throw new OptionError(`unknown type "${typeName}"; use one of ${types.join(', ')}`);
  }
  const { blockElements } = BLOCK_FORMATS[dtype];
  for (const size of [known[1].nEmbd, known[1].nFf]) {
    if (size % blockElements === 0) continue;
    throw new OptionError(`${known[0]} has rows of ${size}, which are no whole blocks of ${dtype} (${blockElements})`);
  }
  const tensors = tensorsOf(known[1], dtype, finer);
  const head = writeGgufHead({ metadata: metadataOf(`${known[0]} ${type}, synthetic`, known[1]), tensors });
  return source(`${known[0]}:${type}`, head, tensors);
}

function source(
  name: string,
  head: ReturnType<typeof writeGgufHead>,
  tensors: readonly TensorDescriptor[],
): ByteSource {
  const pools = new Map<string, Uint8Array>();
  const starts = [0, ...head.offsetsBytes];
  return {
    name,
    sizeBytes: head.sizeBytes,
    async read(offsetBytes, target) {
      for (let done = 0; done < target.length;) {
        const at = offsetBytes + done;
        const index = starts.findLastIndex((start) => start <= at);
        const end = Math.min(starts[index + 1] ?? head.sizeBytes, offsetBytes + target.length);
        const part = target.subarray(done, end - offsetBytes);
        if (index === 0) part.set(head.bytes.subarray(at, end));
        else fill(part, at - starts[index]!, poolOf(tensors[index - 1]!, pools));
        done += part.length;
      }
    },
    async close() {},
  };
}

/** Whole blocks of random weights, of a deviation that keeps the size of activations. */
function poolOf({ dtype, shape: dims }: TensorDescriptor, pools: Map<string, Uint8Array>): Uint8Array {
  const nIn = dims.at(-1)!;
  const isNorm = dims.length === 1;
  const key = `${dtype} ${nIn} ${isNorm}`;
  let pool = pools.get(key);
  if (!pool) {
    const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
    const nElements = blockElements * Math.floor(POOL_BYTES / blockBytes);
    pool = isNorm
      ? new Uint8Array(new Float32Array(nElements).fill(1).buffer)
      : randomBlocks(dtype, nElements, new Random(nIn), 1 / Math.sqrt(nIn));
    pools.set(key, pool);
  }
  return pool;
}

/** The pool over and over, from the tensor's start on. */
function fill(target: Uint8Array, offsetBytes: number, pool: Uint8Array): void {
  for (let done = 0; done < target.length;) {
    const from = (offsetBytes + done) % pool.length;
    const n = Math.min(pool.length - from, target.length - done);
    target.set(pool.subarray(from, from + n), done);
    done += n;
  }
}

function tensorsOf(s: Shape, dtype: DType, finer: DType): TensorDescriptor[] {
  const { nLayer, nEmbd, nHead, nHeadKv, nFf, nVocab, isTied } = s;
  const nKv = (nEmbd / nHead) * nHeadKv;
  const norm = (name: string): TensorDescriptor => ({ name: `${name}.weight`, dtype: 'F32', shape: [nEmbd] });
  const matrix = (name: string, nOut: number, nIn: number, type = dtype): TensorDescriptor => {
    return { name: `${name}.weight`, dtype: type, shape: [nOut, nIn] };
  };
  // llama.cpp gives the values and the way back of the first and last eighth, and of every third layer, more bits.
  const eighth = Math.floor(nLayer / 8);
  const isFine = (i: number): boolean => i < eighth || i >= nLayer - eighth || (i - eighth) % 3 === 2;
  const layers = Array.from({ length: nLayer }, (_, i) => {
    const type = isFine(i) ? finer : dtype;
    return [
      norm(`blk.${i}.attn_norm`),
      matrix(`blk.${i}.attn_q`, nEmbd, nEmbd),
      matrix(`blk.${i}.attn_k`, nKv, nEmbd),
      matrix(`blk.${i}.attn_v`, nKv, nEmbd, type),
      matrix(`blk.${i}.attn_output`, nEmbd, nEmbd),
      norm(`blk.${i}.ffn_norm`),
      matrix(`blk.${i}.ffn_gate`, nFf, nEmbd),
      matrix(`blk.${i}.ffn_up`, nFf, nEmbd),
      matrix(`blk.${i}.ffn_down`, nEmbd, nFf, type),
    ];
  });
  const head = [matrix('token_embd', nVocab, nEmbd, isTied ? finer : dtype), norm('output_norm')];
  return [...head, ...(isTied ? [] : [matrix('output', nVocab, nEmbd, finer)]), ...layers.flat()];
}

const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });
const text = (value: string): MetadataEntry => ({ type: 'string', value });

function metadataOf(name: string, s: Shape): [key: string, entry: MetadataEntry][] {
  const { tokens, types } = vocabulary(s.nVocab);
  const scores = Float32Array.from(tokens, (_, i) => -i);
  return [
    ['general.architecture', text('llama')],
    ['general.name', text(name)],
    ['llama.block_count', u32(s.nLayer)],
    ['llama.context_length', u32(s.nCtx)],
    ['llama.embedding_length', u32(s.nEmbd)],
    ['llama.feed_forward_length', u32(s.nFf)],
    ['llama.attention.head_count', u32(s.nHead)],
    ['llama.attention.head_count_kv', u32(s.nHeadKv)],
    ['llama.attention.layer_norm_rms_epsilon', f32(1e-5)],
    ['llama.rope.dimension_count', u32(s.nEmbd / s.nHead)],
    ['llama.rope.freq_base', f32(s.freqBase)],
    ['llama.vocab_size', u32(s.nVocab)],
    ['tokenizer.ggml.model', text('llama')],
    ['tokenizer.ggml.tokens', { type: 'array', elementType: 'string', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'array', elementType: 'f32', value: scores }],
    ['tokenizer.ggml.token_type', { type: 'array', elementType: 'i32', value: types }],
    ['tokenizer.ggml.bos_token_id', u32(1)],
    ['tokenizer.ggml.eos_token_id', u32(2)],
    ['tokenizer.ggml.unknown_token_id', u32(0)],
    ['tokenizer.ggml.add_bos_token', { type: 'bool', value: true }],
  ];
}

/** Control tokens, bytes, and pieces that say nothing. Types are those of tokenizer.ggml.token_type. */
function vocabulary(nVocab: number): { tokens: string[]; types: Int32Array } {
  const byteName = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
  const tokens = ['<unk>', '<s>', '</s>', ...Array.from({ length: 256 }, (_, byte) => byteName(byte))];
  const types = new Int32Array(nVocab).fill(1);
  types.set([2, 3, 3]);
  types.fill(6, 3, 259);
  for (let i = 0; tokens.length < nVocab; i++) tokens.push(`\u2581${i.toString(36)}`);
  return { tokens, types };
}

/** Bytes that a token's step reads of a model: all matrices but the embedding table, unless it is the output, too. */
export function bytesReadAToken(tensors: Iterable<TensorDescriptor>): number {
  const all = [...tensors].filter(({ shape: dims }) => dims.length === 2);
  const isTied = !all.some(({ name }) => name === 'output.weight');
  return all
    .filter(({ name }) => isTied || name !== 'token_embd.weight')
    .reduce((sum, { dtype, shape: [nOut, nIn] }) => sum + nOut! * rowBytes(dtype, nIn!), 0);
}
