// Random-weight files of the architectures that are decoders (src/models/decoder.ts), which llama.cpp loads too. What
// a file of each has that others have not stands here as data, apart from what the code that reads it believes.

import { writeGguf } from '../src/gguf/writer.ts';
import type { MetadataEntry } from '../src/gguf/value-types.ts';
import type { DType } from '../src/base/dtype.ts';
import { f32, generalEntries, randomTensorsOf, text, u32, vocabularyOf } from './random-model.ts';
import type { Entries } from './random-model.ts';

export interface DecoderShape {
  readonly seed: number;
  readonly dtype: DType;
  readonly nLayer: number;
  readonly nEmbd: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly headDim: number;
  readonly nFf: number;
  readonly nVocab: number;
  readonly nCtx: number;
  /** Every token goes through all experts: where values are rounded coarsely, a choice is another one now and then. */
  readonly usesAllExperts?: boolean;
}

export interface FileKind {
  readonly architecture: string;
  readonly isTied?: boolean;
  /** Kinds of norms before and behind: `layer` has biases. */
  readonly norm?: 'rms' | 'layer' | 'layerWithoutBias';
  /** Names of a layer's norms of nEmbd. */
  readonly layerNorms?: readonly string[];
  /** Width of the norms of queries and keys; those of each head may be `ownHead`, weights for each, without biases. */
  readonly qkNorm?: 'head' | 'row' | 'ownHead';
  readonly biases?: readonly string[];
  /** Of matrices whose name ends so, instead of the shape's. */
  readonly dtypes?: Readonly<Record<string, DType>>;
  /** One matrix for queries, keys and values; one for gate and up. */
  readonly isQkvFused?: boolean;
  readonly ffn?: 'gated' | 'fused' | 'plain';
  /** A mixture of experts. The shared one has a gate unless it is said to have none. */
  readonly experts?: { readonly shared?: 'gated' | 'plain'; readonly hasBiases?: boolean };
  /** Every head has keys of its own, whatever the shape says. */
  readonly hasOwnKeys?: boolean;
  /** Nearly another kind: one shape tells enough. Default false. */
  readonly isBrief?: boolean;
  /** Layers, whatever the shape says. */
  readonly nLayer?: number;
  /** A sink for each head. */
  readonly hasSinks?: boolean;
  /** Part of a head that is rotated. Default all. */
  readonly rotated?: number;
  /** Keys after the architecture's name. */
  readonly metadata?: (shape: DecoderShape) => Readonly<Record<string, MetadataEntry>>;
  /** Short and long factors of rotary frequencies. */
  readonly hasRopeFactors?: boolean;
}

const PARTS = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'] as const;
const QKV_BIASES = ['attn_q', 'attn_k', 'attn_v'];
const ALL_NORMS = ['attn_norm', 'post_attention_norm', 'ffn_norm', 'post_ffw_norm'];
const WINDOW = u32(40);
const [N_EXPERT, N_EXPERT_USED, N_FF_EXPERT] = [5, 2, 64];

const GPT_OSS: FileKind = {
  architecture: 'gpt-oss',
  layerNorms: ['attn_norm', 'post_attention_norm'],
  biases: PARTS,
  experts: { hasBiases: true },
  hasSinks: true,
  metadata: () => ({
    'attention.sliding_window': WINDOW,
    'rope.scaling.type': text('yarn'),
    'rope.scaling.factor': f32(4),
    'rope.scaling.original_context_length': u32(64),
  }),
};

/** By what the test calls it: the architecture, and which of its variants. */
export const FILE_KINDS: Readonly<Record<string, FileKind>> = {
  qwen2: { architecture: 'qwen2', biases: QKV_BIASES },
  'qwen2, tied': { architecture: 'qwen2', biases: QKV_BIASES, isTied: true },
  qwen3: { architecture: 'qwen3', qkNorm: 'head' },
  'llama with experts': { architecture: 'llama', experts: {} },
  qwen2moe: { architecture: 'qwen2moe', biases: QKV_BIASES, experts: { shared: 'gated' } },
  qwen3moe: { architecture: 'qwen3moe', qkNorm: 'head', experts: {} },
  olmoe: { architecture: 'olmoe', qkNorm: 'row', hasOwnKeys: true, experts: {} },
  granitemoe: { architecture: 'granitemoe', metadata: graniteScales, experts: { shared: 'plain' } },
  'gpt-oss': GPT_OSS,
  'gpt-oss with MXFP4 experts': {
    ...GPT_OSS,
    dtypes: { ffn_gate_exps: 'MXFP4', ffn_up_exps: 'MXFP4', ffn_down_exps: 'MXFP4' },
  },
  gemma: { architecture: 'gemma', isTied: true },
  gemma2: {
    architecture: 'gemma2',
    isTied: true,
    layerNorms: ALL_NORMS,
    metadata: () => ({
      'attention.sliding_window': WINDOW,
      attn_logit_softcapping: f32(2),
      final_logit_softcapping: f32(3),
    }),
  },
  gemma3: {
    architecture: 'gemma3',
    isTied: true,
    layerNorms: ALL_NORMS,
    qkNorm: 'head',
    metadata: () => ({
      'attention.sliding_window': WINDOW,
      'rope.freq_base': f32(1e6),
      'rope.scaling.type': text('linear'),
      'rope.scaling.factor': f32(8),
    }),
  },
  'phi3 beyond its original context': {
    architecture: 'phi3',
    isQkvFused: true,
    ffn: 'fused',
    hasRopeFactors: true,
    metadata: () => ({
      'attention.sliding_window': WINDOW,
      'rope.scaling.original_context_length': u32(64),
      'rope.scaling.attn_factor': f32(1.2),
    }),
  },
  'phi3 within its original context': {
    architecture: 'phi3',
    isQkvFused: true,
    ffn: 'fused',
    hasRopeFactors: true,
    rotated: 0.75,
    metadata: () => ({ 'rope.scaling.original_context_length': u32(4096) }),
  },
  stablelm: { architecture: 'stablelm', norm: 'layer', rotated: 0.25, biases: QKV_BIASES },
  'stablelm in parallel': { architecture: 'stablelm', norm: 'layer', rotated: 0.25, layerNorms: ['attn_norm'] },
  'stablelm with norms of heads (Stable LM 2 12B)': {
    architecture: 'stablelm',
    norm: 'layer',
    rotated: 0.25,
    layerNorms: ['attn_norm'],
    qkNorm: 'ownHead',
  },
  starcoder2: { architecture: 'starcoder2', norm: 'layer', ffn: 'plain', biases: PARTS },
  olmo2: { architecture: 'olmo2', qkNorm: 'row', layerNorms: ['post_attention_norm', 'post_ffw_norm'] },
  'olmo2 with windows (OLMo 3)': {
    architecture: 'olmo2',
    qkNorm: 'row',
    layerNorms: ['post_attention_norm', 'post_ffw_norm'],
    metadata: () => ({
      'attention.sliding_window': WINDOW,
      'rope.scaling.type': text('yarn'),
      'rope.scaling.factor': f32(4),
      'rope.scaling.original_context_length': u32(64),
    }),
  },
  granite: { architecture: 'granite', metadata: graniteScales },
  glm4: { architecture: 'glm4', layerNorms: ALL_NORMS, ffn: 'fused', rotated: 0.5, biases: QKV_BIASES },
  minicpm: {
    architecture: 'minicpm',
    metadata: () => ({ embedding_scale: f32(12), residual_scale: f32(0.25), logit_scale: f32(1.5) }),
  },
  'minicpm that names no scales': { architecture: 'minicpm', isBrief: true },
  exaone: { architecture: 'exaone', isBrief: true },
  exaone4: { architecture: 'exaone4', qkNorm: 'head', layerNorms: ['post_attention_norm', 'post_ffw_norm'] },
  'exaone4 with windows': {
    architecture: 'exaone4',
    nLayer: 64,
    isBrief: true,
    qkNorm: 'head',
    layerNorms: ['post_attention_norm', 'post_ffw_norm'],
    metadata: () => ({ 'attention.sliding_window': WINDOW }),
  },
  'command-r': {
    architecture: 'command-r',
    isTied: true,
    norm: 'layerWithoutBias',
    layerNorms: ['attn_norm'],
    metadata: () => ({ logit_scale: f32(0.5) }),
  },
  // llama.cpp looks for the norms from 64 layers on.
  'command-r with norms of heads (Command R+)': {
    architecture: 'command-r',
    isTied: true,
    norm: 'layerWithoutBias',
    layerNorms: ['attn_norm'],
    qkNorm: 'ownHead',
    nLayer: 64,
    isBrief: true,
    metadata: () => ({ logit_scale: f32(0.5) }),
  },
  cohere2: {
    architecture: 'cohere2',
    isTied: true,
    norm: 'layerWithoutBias',
    layerNorms: ['attn_norm'],
    metadata: () => ({ logit_scale: f32(0.5), 'attention.sliding_window': WINDOW }),
  },
  falcon: {
    architecture: 'falcon',
    isBrief: true,
    norm: 'layer',
    ffn: 'plain',
    layerNorms: ['attn_norm'],
    isQkvFused: true,
  },
  'falcon with two norms (Falcon 40B)': {
    architecture: 'falcon',
    isBrief: true,
    norm: 'layer',
    ffn: 'plain',
    layerNorms: ['attn_norm', 'attn_norm_2'],
    isQkvFused: true,
  },
  orion: { architecture: 'orion', norm: 'layer', isBrief: true },
  seed_oss: {
    architecture: 'seed_oss',
    isBrief: true,
    layerNorms: ['attn_norm', 'post_attention_norm'],
    biases: QKV_BIASES,
  },
  internlm2: { architecture: 'internlm2', isBrief: true },
  ernie4_5: { architecture: 'ernie4_5', isBrief: true },
  xverse: { architecture: 'xverse', isBrief: true },
  smollm3: { architecture: 'smollm3' },
  phi2: {
    architecture: 'phi2',
    norm: 'layer',
    ffn: 'plain',
    rotated: 0.5,
    layerNorms: ['attn_norm'],
    biases: [...PARTS, 'output'],
    isQkvFused: true,
  },
  gptneox: {
    architecture: 'gptneox',
    norm: 'layer',
    ffn: 'plain',
    rotated: 0.25,
    biases: PARTS,
    isQkvFused: true,
    metadata: () => ({ use_parallel_residual: { type: 'bool', value: true } }),
  },
  'gptneox in sequence': {
    architecture: 'gptneox',
    norm: 'layer',
    ffn: 'plain',
    rotated: 0.25,
    biases: PARTS,
    isQkvFused: true,
    metadata: () => ({ use_parallel_residual: { type: 'bool', value: false } }),
  },
};

function graniteScales(): Readonly<Record<string, MetadataEntry>> {
  return {
    embedding_scale: f32(12),
    residual_scale: f32(0.22),
    'attention.scale': f32(0.1),
    logit_scale: f32(1.5),
  };
}

/** The bytes of a file. */
export function randomDecoderGguf(kind: FileKind, wanted: DecoderShape): Uint8Array<ArrayBuffer> {
  const { nLayer = wanted.nLayer, hasOwnKeys } = kind;
  const shape = { ...wanted, nLayer, nHeadKv: hasOwnKeys ? wanted.nHead : wanted.nHeadKv };
  return writeGguf({ metadata: metadataOf(kind, shape), tensors: tensorsOf(kind, shape) });
}

const rotatedOf = ({ rotated = 1 }: FileKind, { headDim }: DecoderShape): number =>
  2 * Math.round((headDim * rotated) / 2);

function metadataOf(kind: FileKind, shape: DecoderShape): Entries {
  const { architecture, norm } = kind;
  const own: Record<string, MetadataEntry> = {
    block_count: u32(shape.nLayer),
    context_length: u32(shape.nCtx),
    embedding_length: u32(shape.nEmbd),
    feed_forward_length: u32(shape.nFf),
    'attention.head_count': u32(shape.nHead),
    'attention.head_count_kv': u32(shape.nHeadKv),
    [`attention.layer_norm_${norm?.startsWith('layer') ? '' : 'rms_'}epsilon`]: f32(1e-5),
    'rope.dimension_count': u32(rotatedOf(kind, shape)),
    'rope.freq_base': f32(10_000),
    ...kind.metadata?.(shape),
    ...(kind.experts && {
      expert_count: u32(N_EXPERT),
      expert_used_count: u32(shape.usesAllExperts ? N_EXPERT : N_EXPERT_USED),
      expert_feed_forward_length: u32(expertWidth(kind, shape)),
      expert_shared_feed_forward_length: u32(kind.experts.shared ? shape.nFf : 0),
    }),
  };
  if (shape.headDim * shape.nHead !== shape.nEmbd) {
    own['attention.key_length'] = u32(shape.headDim);
    own['attention.value_length'] = u32(shape.headDim);
  }
  return [
    ...generalEntries(architecture, shape),
    ...Object.entries(own).map(([key, entry]): Entries[number] => [`${architecture}.${key}`, entry]),
    ...vocabularyOf(shape),
  ];
}

/** llama.cpp takes that of a file's other layers in some architectures. */
const expertWidth = ({ architecture }: FileKind, { nFf }: DecoderShape): number =>
  /^(qwen|gpt-oss)/.test(architecture) ? N_FF_EXPERT : nFf;

function tensorsOf(kind: FileKind, shape: DecoderShape) {
  const { nEmbd, nHead, nHeadKv, headDim, nFf, nVocab, nLayer } = shape;
  const { biases = [], layerNorms = ['attn_norm', 'ffn_norm'], ffn = 'gated' } = kind;
  const { tensors, matrix, vector } = randomTensorsOf({ ...shape, dtypes: kind.dtypes });
  const norm = (name: string, n = nEmbd, type: FileKind['norm'] = kind.norm): void => {
    vector(`${name}.weight`, n, 1);
    if (type === 'layer') vector(`${name}.bias`, n, 0);
  };
  const linear = (name: string, part: string, nOut: number, nIn: number): void => {
    matrix(name, nOut, nIn);
    if (biases.includes(part)) vector(`${name}.bias`, nOut, 0);
  };
  const stack = (name: string, nOut: number, nIn: number): void => {
    matrix(name, N_EXPERT * nOut, nIn);
    tensors.push({ ...tensors.pop()!, shape: [N_EXPERT, nOut, nIn] });
    if (!kind.experts?.hasBiases) return;
    vector(`${name}.bias`, N_EXPERT * nOut, 0);
    tensors.push({ ...tensors.pop()!, shape: [N_EXPERT, nOut] });
  };
  const experts = (name: string, { shared, hasBiases }: NonNullable<FileKind['experts']>): void => {
    const width = expertWidth(kind, shape);
    matrix(`${name}_gate_inp`, N_EXPERT, nEmbd, 'F32');
    if (hasBiases) vector(`${name}_gate_inp.bias`, N_EXPERT, 0);
    stack(`${name}_gate_exps`, width, nEmbd);
    stack(`${name}_up_exps`, width, nEmbd);
    stack(`${name}_down_exps`, nEmbd, width);
    if (!shared) return;
    if (shared === 'gated') vector(`${name}_gate_inp_shexp.weight`, nEmbd, 0);
    matrix(`${name}_gate_shexp`, nFf, nEmbd);
    matrix(`${name}_up_shexp`, nFf, nEmbd);
    matrix(`${name}_down_shexp`, nEmbd, nFf);
  };
  const [nQ, nKv] = [nHead * headDim, nHeadKv * headDim];
  matrix('token_embd', nVocab, nEmbd);
  for (let layer = 0; layer < nLayer; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    for (const each of layerNorms) norm(name(each));
    if (kind.isQkvFused) {
      linear(name('attn_qkv'), 'attn_q', nQ + 2 * nKv, nEmbd);
    } else {
      linear(name('attn_q'), 'attn_q', nQ, nEmbd);
      linear(name('attn_k'), 'attn_k', nKv, nEmbd);
      linear(name('attn_v'), 'attn_v', nKv, nEmbd);
    }
    if (kind.qkNorm) {
      for (const [part, n] of [
        ['attn_q_norm', nHead],
        ['attn_k_norm', nHeadKv],
      ] as const) {
        norm(name(part), kind.qkNorm === 'head' ? headDim : n * headDim, 'rms');
        if (kind.qkNorm === 'ownHead') tensors.push({ ...tensors.pop()!, shape: [n, headDim] });
      }
    }
    linear(name('attn_output'), 'attn_output', nEmbd, nQ);
    if (kind.hasSinks) vector(name('attn_sinks.weight'), nHead, 1);
    if (kind.experts) {
      experts(name('ffn'), kind.experts);
      continue;
    }
    if (ffn === 'gated') linear(name('ffn_gate'), 'ffn_gate', nFf, nEmbd);
    linear(name('ffn_up'), 'ffn_up', ffn === 'fused' ? 2 * nFf : nFf, nEmbd);
    linear(name('ffn_down'), 'ffn_down', nEmbd, nFf);
  }
  norm('output_norm');
  if (!kind.isTied) linear('output', 'output', nVocab, nEmbd);
  if (kind.hasRopeFactors) {
    const n = rotatedOf(kind, shape) / 2;
    vector('rope_factors_short.weight', n, 1.3);
    vector('rope_factors_long.weight', n, 3);
  }
  return tensors;
}
