// The llama architecture (Llama, Mistral, SmolLM, TinyLlama …): pre-norm blocks of rotary attention with grouped heads
// and a gated MLP, RMSNorm, and an output matrix that may be the embedding table.

import { GgufError, UnsupportedError } from '../base/errors.ts';
import type { Gguf } from '../gguf/reader.ts';
import { stepInputs } from '../graph/step.ts';
import type { ProgramLimits } from '../graph/step.ts';
import { Graph } from '../graph/tensor.ts';
import { MultiHeadAttention } from '../nn/attention.ts';
import { Embedding, Linear } from '../nn/linear.ts';
import { GatedMLP } from '../nn/mlp.ts';
import { RMSNorm } from '../nn/norm.ts';
import type { RopeConfig } from '../nn/rope.ts';
import { weightsOf } from './model.ts';
import type { HyperParameters, ModelDefinition } from './model.ts';

interface LlamaParameters extends HyperParameters {
  readonly normEps: number;
  readonly rope: RopeConfig;
}

export function llama(gguf: Gguf): ModelDefinition {
  const hyperParameters = readParameters(gguf);
  return { hyperParameters, buildGraph: (limits) => buildGraph(gguf, hyperParameters, limits) };
}

function readParameters(gguf: Gguf): LlamaParameters {
  const { metadata } = gguf;
  const number = (key: string, expected: string, fits: (value: number) => boolean, fallback?: number): number => {
    const value = metadata.getNumber(`llama.${key}`, fallback);
    if (fits(value)) return value;
    throw new GgufError('GGUF_INVALID', `${gguf.source.name}: "llama.${key}" expected ${expected}, got ${value}`);
  };
  const count = (key: string, fallback?: number): number =>
    number(key, 'a positive integer', (n) => Number.isInteger(n) && n > 0, fallback);
  const positive = (key: string, fallback?: number): number =>
    number(key, 'a positive number', (x) => x > 0 && x < Infinity, fallback);
  const nEmbd = count('embedding_length');
  const nHead = count('attention.head_count');
  const nHeadKv = count('attention.head_count_kv', nHead);
  const headDim = count('attention.key_length', Math.ceil(nEmbd / nHead));
  const nRot = count('rope.dimension_count', headDim);
  const scaling = metadata.getString('llama.rope.scaling.type', 'none');
  refuseWhatIsNotBuilt(gguf, { nEmbd, nHead, nHeadKv, headDim, nRot });
  return {
    architecture: 'llama',
    nVocab: gguf.tensors.get('token_embd.weight')?.shape[0] ?? count('vocab_size'),
    nEmbd,
    nLayer: count('block_count'),
    nHead,
    nHeadKv,
    headDim,
    nFf: count('feed_forward_length'),
    nCtxTrain: count('context_length'),
    normEps: number('attention.layer_norm_rms_epsilon', 'a number from 0 on', (x) => x >= 0 && x < Infinity),
    rope: {
      headDim,
      nRot,
      freqBase: positive('rope.freq_base', 10000),
      freqScale: scaling === 'linear' ? 1 / positive('rope.scaling.factor') : 1,
      pairing: 'interleaved',
    },
  };
}

function refuseWhatIsNotBuilt(
  gguf: Gguf,
  p: { nEmbd: number; nHead: number; nHeadKv: number; headDim: number; nRot: number },
): void {
  const { metadata, source } = gguf;
  const isSplitEvenly = metadata.has('llama.attention.key_length') || p.nEmbd % p.nHead === 0;
  const refuse = (what: string): never => {
    throw new UnsupportedError('UNSUPPORTED_FEATURE', `${source.name}: ${what} is not supported yet`);
  };
  if (p.nHead % p.nHeadKv !== 0 || !isSplitEvenly || p.nRot > p.headDim || p.nRot % 2 !== 0) {
    throw new GgufError(
      'GGUF_INVALID',
      `${source.name}: heads do not divide: embedding ${p.nEmbd}, heads ${p.nHead}, key-value heads ${p.nHeadKv}, ` +
        `rotary dimensions ${p.nRot}`,
    );
  }
  if (metadata.getNumber('llama.expert_count', 0) > 0) refuse('a mixture of experts');
  const scaling = metadata.getString('llama.rope.scaling.type', 'none');
  if (scaling !== 'none' && scaling !== 'linear') refuse(`RoPE scaling "${scaling}" (none and linear are)`);
  if (gguf.tensors.has('rope_freqs.weight')) refuse('RoPE with frequency factors (Llama 3.1 and later)');
}

function buildGraph(gguf: Gguf, p: LlamaParameters, limits: ProgramLimits): Graph {
  const graph = new Graph();
  const weights = weightsOf(gguf, graph);
  const step = stepInputs(graph, limits);

  let x = new Embedding(weights.scope('token_embd'), p.nVocab, p.nEmbd).forward(step.tokens, 'embedding');
  for (let layer = 0; layer < p.nLayer; layer++) {
    const name = `blk.${layer}`;
    const scope = weights.scope(name);
    const attended = new MultiHeadAttention(scope, p, limits.nCtx).forward(
      new RMSNorm(scope.scope('attn_norm'), p.nEmbd, p.normEps).forward(x, `${name}.attnNorm`),
      step,
      { layer, limits },
      name,
    );
    x = graph.apply('add', [attended, x], {}, `${name}.attnResidual`);
    const fed = new GatedMLP(scope, p.nEmbd, p.nFf).forward(
      new RMSNorm(scope.scope('ffn_norm'), p.nEmbd, p.normEps).forward(x, `${name}.ffnNorm`),
      name,
    );
    x = graph.apply('add', [fed, x], {}, `${name}.residual`);
  }
  const wanted = graph.apply('gatherRows', [x, step.outputRows], {}, 'wanted');
  const normed = new RMSNorm(weights.scope('output_norm'), p.nEmbd, p.normEps).forward(wanted, 'outputNorm');
  const output = weights.has('output.weight') ? 'output' : 'token_embd';
  graph.output(new Linear(weights.scope(output), p.nEmbd, p.nVocab).forward(normed, 'logits'));
  return graph;
}
