// The gpt2 architecture (GPT-2, DistilGPT-2, what is trained here …): learned positions, pre-norm blocks of attention
// and a plain MLP with GELU, LayerNorm, biases everywhere, and an output matrix that may be the embedding table.

import { GgufError } from '../base/errors.ts';
import type { Gguf } from '../gguf/reader.ts';
import { stepInputs } from '../graph/step.ts';
import type { OutputKind, ProgramLimits } from '../graph/step.ts';
import { Graph } from '../graph/tensor.ts';
import { MultiHeadAttention } from '../nn/attention.ts';
import { Embedding, Linear } from '../nn/linear.ts';
import { MLP } from '../nn/mlp.ts';
import { LayerNorm } from '../nn/norm.ts';
import { parametersOf, requireOutput, requireTrainedPositions, splitRows, weightsOf } from './model.ts';
import type { HyperParameters, ModelDefinition } from './model.ts';

interface Gpt2Parameters extends HyperParameters {
  readonly normEps: number;
}

/** The file has queries, keys and values in one matrix; the graph has them apart. */
export async function gpt2(file: Gguf): Promise<ModelDefinition> {
  const hyperParameters = readParameters(file);
  const { nEmbd, nHeadKv, headDim } = hyperParameters;
  const nKv = nHeadKv * headDim;
  const gguf = splitRows(file, 'attn_qkv', { attn_q: nEmbd, attn_k: nKv, attn_v: nKv });
  return { hyperParameters, gguf, buildGraph: (...how) => buildGraph(gguf, hyperParameters, ...how) };
}

function readParameters(gguf: Gguf): Gpt2Parameters {
  const { count, nonNegative } = parametersOf(gguf, 'gpt2');
  const nEmbd = count('embedding_length');
  const nHead = count('attention.head_count');
  const nHeadKv = count('attention.head_count_kv', nHead);
  if (nEmbd % nHead !== 0 || nHead % nHeadKv !== 0) {
    throw new GgufError(
      'GGUF_INVALID',
      `${gguf.source.name}: heads do not divide: embedding ${nEmbd}, heads ${nHead}, key-value heads ${nHeadKv}`,
    );
  }
  return {
    architecture: 'gpt2',
    nVocab: gguf.tensors.get('token_embd.weight')?.shape[0] ?? count('vocab_size'),
    nEmbd,
    nLayer: count('block_count'),
    nHead,
    nHeadKv,
    headDim: nEmbd / nHead,
    nFf: count('feed_forward_length'),
    nCtxTrain: count('context_length'),
    isCausal: gguf.metadata.getBoolean('gpt2.attention.causal', true),
    normEps: nonNegative('attention.layer_norm_epsilon'),
  };
}

function buildGraph(gguf: Gguf, p: Gpt2Parameters, limits: ProgramLimits, kind: OutputKind = 'logits'): Graph {
  requireOutput(kind, p);
  requireTrainedPositions(limits.nCtx, p);
  const graph = new Graph();
  const weights = weightsOf(gguf, graph);
  const step = stepInputs(graph, limits);
  const norm = (name: string): LayerNorm => new LayerNorm(weights.scope(name), p.nEmbd, p.normEps);

  const tokens = new Embedding(weights.scope('token_embd'), p.nVocab, p.nEmbd).forward(step.tokens, 'embedding');
  const table = new Embedding(weights.scope('position_embd'), p.nCtxTrain, p.nEmbd);
  let x = graph.apply('add', [tokens, table.forward(step.positions, 'positionEmbedding')], {}, 'embedded');
  for (let layer = 0; layer < p.nLayer; layer++) {
    const name = `blk.${layer}`;
    const scope = weights.scope(name);
    const attended = new MultiHeadAttention(scope, { ...p, bias: true }, limits.nCtx).forward(
      norm(`${name}.attn_norm`).forward(x, `${name}.attnNorm`),
      step,
      { layer: p.isCausal ? layer : 0, limits },
      name,
    );
    x = graph.apply('add', [attended, x], {}, `${name}.attnResidual`);
    const fed = new MLP(scope, p.nEmbd, p.nFf, { bias: true }).forward(
      norm(`${name}.ffn_norm`).forward(x, `${name}.ffnNorm`),
      name,
    );
    x = graph.apply('add', [fed, x], {}, `${name}.residual`);
  }
  const wanted = graph.apply('gatherRows', [x, step.outputRows], {}, 'wanted');
  const normed = norm('output_norm').forward(wanted, 'outputNorm');
  if (kind === 'hidden') {
    graph.output(normed);
    return graph;
  }
  const output = weights.has('output.weight') ? 'output' : 'token_embd';
  graph.output(new Linear(weights.scope(output), p.nEmbd, p.nVocab, { bias: false }).forward(normed, 'logits'));
  return graph;
}
