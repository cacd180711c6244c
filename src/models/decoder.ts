// What most architectures are: a stack of layers of attention and a feed-forward part, which differ in the few things
// that `Differences` names. An architecture's own file says which of them it has, as data.

import { GgufError } from '../base/errors.ts';
import { stepInputs } from '../graph/step.ts';
import type { OutputKind, ProgramLimits } from '../graph/step.ts';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Gguf } from '../gguf/reader.ts';
import { MultiHeadAttention } from '../nn/attention.ts';
import type { QkNorm } from '../nn/attention.ts';
import { MixtureOfExperts } from '../nn/experts.ts';
import type { ExpertsConfig } from '../nn/experts.ts';
import { Embedding, Linear } from '../nn/linear.ts';
import { GatedMLP, MLP } from '../nn/mlp.ts';
import { LayerNorm, RMSNorm } from '../nn/norm.ts';
import type { RopeConfig } from '../nn/rope.ts';
import { asMatrices, asVectors, requireOutput, splitRows, weightsOf } from './model.ts';
import type { Architecture, ModelDefinition, ParameterReader } from './model.ts';
import { readTransformer, unsupported } from './parameters.ts';
import type { TransformerParameters } from './parameters.ts';

/** All have defaults: llama's. */
export interface Differences {
  /** LayerNorm has a key of its own for its epsilon. Default RMSNorm. */
  readonly norm?: 'rms' | 'layer';
  /** Whether LayerNorm has biases. Default true. */
  readonly hasNormBias?: boolean;
  /** Where norms are: before attention and the feed-forward part, behind them, or both. Default `before`. */
  readonly norms?: 'before' | 'behind' | 'both';
  /** The feed-forward part reads what attention reads (`shared`), or with a norm of its own. Default: after it. */
  readonly parallel?: 'shared' | 'ownNorm';
  /** Pairs of rotary positions. Default `interleaved`. */
  readonly pairing?: RopeConfig['pairing'];
  /** Norm of queries and keys (nn/attention.ts). Default none. */
  readonly qkNorm?: QkNorm | undefined;
  /** Default `silu`. */
  readonly activation?: 'silu' | 'gelu';
  /** Whether the feed-forward part has a gate. Default true. */
  readonly isGated?: boolean;
  /** Of a mixture of experts: as `ExpertsConfig` has it. Default normalised. Counts are the file's. */
  readonly experts?: Partial<Pick<ExpertsConfig, 'isNormalised' | 'activation'>>;
  /** The file's names for the norms before attention and the feed-forward part. Default `attn_norm`, `ffn_norm`. */
  readonly attnNorm?: string;
  readonly ffnNorm?: string;
  /** Of scores. Default 1 / √headDim. */
  readonly attentionScale?: number;
  /** Scores are capped to ± this, softly. Default not at all. */
  readonly attentionSoftcap?: number;
  /** Heads have sinks (nn/attention.ts). */
  readonly hasSinks?: boolean;
  readonly logitSoftcap?: number;
  /** What embeddings, the parts that a layer adds, and logits are multiplied by. Default 1. */
  readonly embeddingScale?: number;
  readonly residualScale?: number;
  readonly logitScale?: number;
  /** The rotation of a layer, given the file's. undefined: this layer does not see positions. Default: the file's. */
  readonly ropeOf?: (layer: number, rope: RopeConfig) => RopeConfig | undefined;
  /** Positions that a layer sees, the present one included. undefined: all. */
  readonly windowOf?: (layer: number) => number | undefined;
}

/** What a file's metadata makes of them. */
export type DifferencesOf = (p: TransformerParameters, read: ParameterReader, gguf: Gguf) => Differences;

/** An architecture that is a decoder with these differences. */
export function decoder(differencesOf: DifferencesOf = () => ({})): Architecture {
  return async (file) => {
    const p = await readTransformer(file, true);
    const differences = differencesOf(p, p.read, file);
    const gguf = shapedForGraph(file, p, differences);
    const experts = expertsOf(gguf, p, differences);
    const normEps = p.read.nonNegative(`attention.layer_norm_${differences.norm === 'layer' ? '' : 'rms_'}epsilon`);
    const definition: ModelDefinition = {
      hyperParameters: p.hyperParameters,
      gguf,
      buildGraph: (limits, output) => buildDecoder(gguf, p, { ...differences, normEps, experts }, limits, output),
    };
    return definition;
  };
}

/** Tensors as the graph has them: projections that some files hold in one matrix apart, norms of heads as vectors. */
function shapedForGraph(
  file: Gguf,
  { hyperParameters: p }: TransformerParameters,
  { isGated = true, qkNorm }: Differences,
): Gguf {
  const nKv = p.nHeadKv * p.headDim;
  const apart = splitRows(file, 'attn_qkv', { attn_q: p.nHead * p.headDim, attn_k: nKv, attn_v: nKv });
  const isOfHeads = qkNorm === 'ownHead';
  const gguf = isOfHeads
    ? asVectors(apart, { attn_q_norm: [p.nHead, p.headDim], attn_k_norm: [p.nHeadKv, p.headDim] })
    : apart;
  if (gguf.tensors.has('blk.0.ffn_gate_inp.weight')) return asMatrices(gguf, 'ffn_gate_inp_shexp');
  const hasGate = !isGated || gguf.tensors.has('blk.0.ffn_gate.weight');
  return hasGate ? gguf : splitRows(gguf, 'ffn_up', { ffn_gate: p.nFf, ffn_up: p.nFf });
}

/** The experts, if the file has them. Their widths are the tensors': keys for them are missing from some files. */
function expertsOf(gguf: Gguf, { read, hyperParameters: p }: TransformerParameters, d: Differences) {
  const nExpert = read.natural('expert_count', 0);
  if (nExpert === 0) return undefined;
  if (gguf.tensors.has('blk.0.ffn_gate.0.weight')) {
    const what = 'a tensor for each expert, as in files from before April 2024,';
    throw unsupported(gguf, what, 'convert the model again');
  }
  if (gguf.tensors.has('blk.0.ffn_gate_up_exps.weight')) {
    const what = 'one tensor for what experts gate and what they let through, "ffn_gate_up_exps",';
    throw unsupported(gguf, what, 'convert the model with the two apart');
  }
  const nExpertUsed = read.count('expert_used_count');
  if (nExpertUsed > nExpert) {
    throw new GgufError('GGUF_INVALID', `${gguf.source.name}: ${nExpertUsed} experts used, of ${nExpert}`);
  }
  const rows = (part: string): number | undefined => gguf.tensors.get(`blk.0.${part}.weight`)?.shape.at(-2);
  const [nFf, nFfShared] = [rows('ffn_up_exps') ?? p.nFf, rows('ffn_up_shexp') ?? 0];
  return { isNormalised: true, ...d.experts, nExpert, nExpertUsed, nFf, nFfShared };
}

function buildDecoder(
  gguf: Gguf,
  { hyperParameters: p, ropeFor }: TransformerParameters,
  d: Omit<Differences, 'experts'> & { readonly normEps: number; readonly experts: ExpertsConfig | undefined },
  limits: ProgramLimits,
  output: OutputKind = 'logits',
): Graph {
  requireOutput(output, p);
  const graph = new Graph();
  const weights = weightsOf(gguf, graph);
  const step = stepInputs(graph, limits);
  const { norms = 'before', isGated = true } = d;
  const Norm = d.norm === 'layer' ? LayerNorm : RMSNorm;
  const norm = (x: Tensor, weight: string, name: string): Tensor =>
    new Norm(weights.scope(weight), p.nEmbd, d.normEps, d.hasNormBias).forward(x, name);
  const scaled = (x: Tensor, factor: number | undefined, name: string): Tensor =>
    factor === undefined || factor === 1 ? x : graph.apply('scale', [x], { factor }, name);
  const rope = { pairing: 'interleaved', ...(d.pairing && { pairing: d.pairing }), ...ropeFor(limits.nCtx) } as const;

  const embedding = new Embedding(weights.scope('token_embd'), p.nVocab, p.nEmbd).forward(step.tokens, 'embedding');
  let x = scaled(embedding, d.embeddingScale, 'embeddingScaled');
  for (let layer = 0; layer < p.nLayer; layer++) {
    const name = `blk.${layer}`;
    const scope = weights.scope(name);
    /** What a part of the layer adds to the residual stream. */
    const added = (part: Tensor, weight: string, kind: string): Tensor => {
      const normed = norms === 'before' ? part : norm(part, `${name}.${weight}`, `${name}.${kind}PostNorm`);
      return scaled(normed, d.residualScale, `${name}.${kind}Scaled`);
    };
    const window = d.windowOf?.(layer);
    if (window !== undefined && !p.isCausal) {
      throw unsupported(gguf, 'a window of attention that is not causal', 'attention to all of a text is');
    }
    const attention = new MultiHeadAttention(
      scope,
      {
        ...p,
        rope: d.ropeOf ? d.ropeOf(layer, rope) : rope,
        qkNorm: d.qkNorm && { kind: d.qkNorm, eps: d.normEps },
        scale: d.attentionScale,
        softcap: d.attentionSoftcap,
        hasSinks: d.hasSinks,
        window,
      },
      limits.nCtx,
    );
    const seen = norms === 'behind' ? x : norm(x, `${name}.${d.attnNorm ?? 'attn_norm'}`, `${name}.attnNorm`);
    const cache = { layer: p.isCausal ? layer : 0, limits };
    const attended = added(attention.forward(seen, step, cache, name), 'post_attention_norm', 'attn');
    const between = graph.apply('add', [attended, x], {}, `${name}.attnResidual`);

    const read = d.parallel ? x : between;
    const isNormed = d.parallel !== 'shared' && norms !== 'behind';
    const input = isNormed
      ? norm(read, `${name}.${d.ffnNorm ?? 'ffn_norm'}`, `${name}.ffnNorm`)
      : d.parallel
        ? seen
        : read;
    const mlp = d.experts
      ? new MixtureOfExperts(scope, p.nEmbd, d.experts)
      : new (isGated ? GatedMLP : MLP)(scope, p.nEmbd, p.nFf, {}, d.activation ?? (isGated ? 'silu' : 'gelu'));
    x = graph.apply('add', [added(mlp.forward(input, name), 'post_ffw_norm', 'ffn'), between], {}, `${name}.residual`);
  }
  if (!graph.nodes.some(({ op }) => op === 'rope')) {
    throw unsupported(gguf, 'a model of which no layer has rotary positions', 'one with some is');
  }
  const wanted = graph.apply('gatherRows', [x, step.outputRows], {}, 'wanted');
  const normed = norm(wanted, 'output_norm', 'outputNorm');
  if (output === 'hidden') {
    graph.output(normed);
    return graph;
  }
  const last = new Linear(weights.scope(weights.has('output.weight') ? 'output' : 'token_embd'), p.nEmbd, p.nVocab);
  const { logitSoftcap: cap } = d;
  const hasMore = cap || (d.logitScale ?? 1) !== 1;
  const logits = scaled(last.forward(normed, hasMore ? 'rawLogits' : 'logits'), d.logitScale, 'logitsScaled');
  graph.output(cap ? graph.apply('softcap', [logits], { cap }, 'logits') : logits);
  return graph;
}
