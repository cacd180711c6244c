// Encoders, which make embeddings: every token attends to all of its text. BERT and its kin have LayerNorm behind the
// embeddings, and behind each part of a layer with what it has read added; no output matrix. What differs is data.

import { stepInputs } from '../graph/step.ts';
import type { OutputKind, ProgramLimits } from '../graph/step.ts';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Gguf } from '../gguf/reader.ts';
import { MultiHeadAttention } from '../nn/attention.ts';
import { Embedding } from '../nn/linear.ts';
import { GatedMLP, MLP } from '../nn/mlp.ts';
import { LayerNorm } from '../nn/norm.ts';
import { firstRowOf, requireOutput, requireTrainedPositions, splitRows, weightsOf } from './model.ts';
import type { Architecture } from './model.ts';
import { readTransformer, unsupported } from './parameters.ts';
import type { TransformerParameters } from './parameters.ts';

interface Differences {
  /** How positions enter: a learned table, or rotary, in pairs of halves. */
  readonly positions: 'learned' | 'rotary';
  /** `gated`: SiLU. `plain`: GELU. */
  readonly ffn: 'gated' | 'plain';
}

export const bert = encoder({ positions: 'learned', ffn: 'plain' });
export const nomicBert = encoder({ positions: 'rotary', ffn: 'gated' });
export const jinaBertV3 = encoder({ positions: 'rotary', ffn: 'plain' });

function encoder(differences: Differences): Architecture {
  return async (file) => {
    const p = await readTransformer(file, false);
    const { nHead, nHeadKv, headDim, isCausal } = p.hyperParameters;
    const [nQ, nKv] = [nHead * headDim, nHeadKv * headDim];
    if (isCausal) throw unsupported(file, 'an encoder that is causal', 'one whose tokens see all of a text is');
    if (file.tensors.has('blk.0.attn_q_norm.weight')) {
      throw unsupported(file, 'an encoder with a norm of queries and keys', 'one without is');
    }
    // All tokens are of the first type: the first sentence of what once were two.
    const gguf = firstRowOf(
      splitRows(file, 'attn_qkv', { attn_q: nQ, attn_k: nKv, attn_v: nKv }),
      'token_types.weight',
    );
    const normEps = p.read.nonNegative('attention.layer_norm_epsilon');
    return {
      hyperParameters: p.hyperParameters,
      gguf,
      buildGraph: (limits, output) => buildEncoder(gguf, p, { ...differences, normEps }, limits, output),
    };
  };
}

function buildEncoder(
  gguf: Gguf,
  { hyperParameters: p, ropeFor }: TransformerParameters,
  d: Differences & { readonly normEps: number },
  limits: ProgramLimits,
  output: OutputKind = 'logits',
): Graph {
  requireOutput(output, p);
  const graph = new Graph();
  const weights = weightsOf(gguf, graph);
  const step = stepInputs(graph, limits);
  const add = (a: Tensor, b: Tensor, name: string): Tensor => graph.apply('add', [a, b], {}, name);
  const norm = (x: Tensor, weight: string, name: string): Tensor =>
    new LayerNorm(weights.scope(weight), p.nEmbd, d.normEps).forward(x, name);

  let x = new Embedding(weights.scope('token_embd'), p.nVocab, p.nEmbd).forward(step.tokens, 'embedding');
  if (weights.has('token_types.weight')) x = add(x, weights.weight('token_types.weight', [p.nEmbd]), 'typed');
  if (d.positions === 'learned') {
    requireTrainedPositions(limits.nCtx, p);
    const table = new Embedding(weights.scope('position_embd'), p.nCtxTrain, p.nEmbd);
    x = add(table.forward(step.positions, 'positionEmbedding'), x, 'embedded');
  }
  x = norm(x, 'token_embd_norm', 'embeddingNorm');

  const rope = d.positions === 'rotary' ? { ...ropeFor(limits.nCtx), pairing: 'halves' as const } : undefined;
  for (let layer = 0; layer < p.nLayer; layer++) {
    const name = `blk.${layer}`;
    const scope = weights.scope(name);
    const attention = new MultiHeadAttention(scope, { ...p, rope }, limits.nCtx);
    // A layer's keys and values are read in the same step and never again.
    const attended = attention.forward(x, step, { layer: 0, limits }, name);
    const between = norm(add(attended, x, `${name}.attnResidual`), `${name}.attn_output_norm`, `${name}.attnNorm`);
    const mlp =
      d.ffn === 'gated' ? new GatedMLP(scope, p.nEmbd, p.nFf) : new MLP(scope, p.nEmbd, p.nFf, { bias: 'auto' });
    const fed = mlp.forward(between, name);
    x = norm(add(fed, between, `${name}.residual`), `${name}.layer_output_norm`, `${name}.ffnNorm`);
  }
  graph.output(graph.apply('gatherRows', [x, step.outputRows], {}, 'hidden'));
  return graph;
}
