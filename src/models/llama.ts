// The llama architecture (Llama, Mistral, SmolLM, TinyLlama …): pre-norm blocks of rotary attention with grouped heads
// and a gated MLP, RMSNorm, and an output matrix that may be the embedding table.

import { GgufError, UnsupportedError } from '../base/errors.ts';
import { readTensorBytes } from '../gguf/reader.ts';
import type { Gguf } from '../gguf/reader.ts';
import { stepInputs } from '../graph/step.ts';
import type { ProgramLimits } from '../graph/step.ts';
import { Graph } from '../graph/tensor.ts';
import { MultiHeadAttention } from '../nn/attention.ts';
import { Embedding, Linear } from '../nn/linear.ts';
import { GatedMLP } from '../nn/mlp.ts';
import { RMSNorm } from '../nn/norm.ts';
import type { RopeConfig } from '../nn/rope.ts';
import { parametersOf, tensorOf, weightsOf } from './model.ts';
import type { HyperParameters, ModelDefinition } from './model.ts';

interface LlamaParameters extends HyperParameters {
  readonly normEps: number;
  readonly rope: RopeConfig;
}

export async function llama(gguf: Gguf): Promise<ModelDefinition> {
  const hyperParameters = await readParameters(gguf);
  return { hyperParameters, gguf, buildGraph: (limits) => buildGraph(gguf, hyperParameters, limits) };
}

async function readParameters(gguf: Gguf): Promise<LlamaParameters> {
  const { count, nonNegative } = parametersOf(gguf, 'llama');
  const nEmbd = count('embedding_length');
  const nHead = count('attention.head_count');
  const nHeadKv = count('attention.head_count_kv', nHead);
  const headDim = count('attention.key_length', Math.ceil(nEmbd / nHead));
  const nRot = count('rope.dimension_count', headDim);
  requireEvenHeads(gguf, { nEmbd, nHead, nHeadKv, headDim, nRot });
  if (gguf.metadata.getNumber('llama.expert_count', 0) > 0) throw unsupported(gguf, 'a mixture of experts');
  const nCtxTrain = count('context_length');
  return {
    architecture: 'llama',
    nVocab: gguf.tensors.get('token_embd.weight')?.shape[0] ?? count('vocab_size'),
    nEmbd,
    nLayer: count('block_count'),
    nHead,
    nHeadKv,
    headDim,
    nFf: count('feed_forward_length'),
    nCtxTrain,
    normEps: nonNegative('attention.layer_norm_rms_epsilon'),
    rope: await readRope(gguf, headDim, nRot, nCtxTrain),
  };
}

function unsupported(gguf: Gguf, what: string): UnsupportedError {
  return new UnsupportedError('UNSUPPORTED_FEATURE', `${gguf.source.name}: ${what} is not supported yet`);
}

function requireEvenHeads(
  { metadata, source }: Gguf,
  p: { nEmbd: number; nHead: number; nHeadKv: number; headDim: number; nRot: number },
): void {
  const isSplitEvenly = metadata.has('llama.attention.key_length') || p.nEmbd % p.nHead === 0;
  if (p.nHead % p.nHeadKv === 0 && isSplitEvenly && p.nRot <= p.headDim && p.nRot % 2 === 0) return;
  throw new GgufError(
    'GGUF_INVALID',
    `${source.name}: heads do not divide: embedding ${p.nEmbd}, heads ${p.nHead}, key-value heads ${p.nHeadKv}, ` +
      `rotary dimensions ${p.nRot}`,
  );
}

/** As in llama.cpp, a file that names a factor and no kind of scaling means linear. */
async function readRope(gguf: Gguf, headDim: number, nRot: number, nCtxTrain: number): Promise<RopeConfig> {
  const { count, positive } = parametersOf(gguf, 'llama');
  const scaling = gguf.metadata.getString('llama.rope.scaling.type', 'linear');
  if (!['none', 'linear', 'yarn'].includes(scaling)) {
    throw unsupported(gguf, `RoPE scaling "${scaling}" (none, linear and yarn are)`);
  }
  // The key of a factor in old files.
  const factor = scaling === 'none' ? 1 : positive('rope.scaling.factor', positive('rope.scale_linear', 1));
  return {
    headDim,
    nRot,
    freqBase: positive('rope.freq_base', 10000),
    freqScale: 1 / factor,
    pairing: 'interleaved',
    attnFactor: positive('rope.scaling.attn_factor', 1),
    yarn: scaling === 'yarn' ? { nCtxOrig: count('rope.scaling.original_context_length', nCtxTrain) } : undefined,
    freqFactors: await readFreqFactors(gguf, nRot / 2),
  };
}

/** What Llama 3.1 and later divide each frequency by, where the file has it. */
async function readFreqFactors(gguf: Gguf, nPair: number): Promise<Float32Array | undefined> {
  const name = 'rope_freqs.weight';
  if (!gguf.tensors.has(name)) return undefined;
  const info = tensorOf(gguf, name, [nPair]);
  if (info.dtype !== 'F32') throw unsupported(gguf, `tensor "${name}" in ${info.dtype} (F32 is)`);
  const view = new DataView((await readTensorBytes(gguf, info)).buffer);
  const factors = Float32Array.from({ length: nPair }, (_, pair) => view.getFloat32(4 * pair, true));
  const bad = factors.find((factor) => !(factor > 0 && factor < Infinity));
  if (bad === undefined) return factors;
  const message = `${gguf.source.name}: tensor "${name}" expected positive numbers, got ${bad}`;
  throw new GgufError('GGUF_INVALID', message, { tensor: name });
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
