// The transformer of training and of the benchmark: GPT-style (learned positions, LayerNorm, GELU) or llama-style
// (rotary positions, RMSNorm, gated MLP), pre-norm, over batches of whole sequences. Weight names are GGUF's, so that
// what is trained is written as it is.

import { OptionError } from '../base/errors.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';
import { MultiHeadAttention } from './attention.ts';
import type { Packed } from './attention.ts';
import { Dropout } from './dropout.ts';
import type { DropoutRng } from './dropout.ts';
import { Embedding, Linear } from './linear.ts';
import { GatedMLP, MLP } from './mlp.ts';
import { Module, normal } from './module.ts';
import type { WeightScope } from './module.ts';
import { LayerNorm, RMSNorm } from './norm.ts';

/** Sizes of a transformer, in GGML's words. */
export interface TransformerConfig {
  readonly architecture: 'gpt2' | 'llama';
  /** Tokens of the vocabulary. */
  readonly nVocab: number;
  /** Longest sequence, in tokens. */
  readonly nCtx: number;
  /** Width of the residual stream. */
  readonly nEmbd: number;
  /** Layers. */
  readonly nLayer: number;
  /** Attention heads. */
  readonly nHead: number;
  /** Heads of keys and values. */
  readonly nHeadKv: number;
  /** Width of the feed-forward layers. */
  readonly nFf: number;
  /** The output matrix is the embedding table. */
  readonly isTied: boolean;
  /** Probability of dropping an activation while training. */
  readonly dropout: number;
  /** Added to the variance in norms. */
  readonly normEps: number;
  /** Base of the rotary frequencies (llama). */
  readonly ropeFreqBase: number;
}

/** Defaults: GPT-2's or llama's customs. Llama's nFf is 8/3 · nEmbd, rounded up to a multiple of 32. */
export function transformerConfig(
  partial: Partial<TransformerConfig> & Pick<TransformerConfig, 'nVocab' | 'nCtx' | 'nEmbd' | 'nLayer' | 'nHead'>,
): TransformerConfig {
  const { architecture = 'llama', nEmbd, nHead } = partial;
  const config = {
    nHeadKv: nHead,
    nFf: architecture === 'gpt2' ? 4 * nEmbd : 32 * Math.ceil((8 * nEmbd) / 3 / 32),
    isTied: architecture === 'llama',
    dropout: 0,
    normEps: 1e-5,
    ropeFreqBase: 10000,
    ...partial,
    architecture,
  };
  checkConfig(config);
  return config;
}

function checkConfig(config: TransformerConfig): void {
  const { nEmbd, nHead, nHeadKv, dropout } = config;
  for (const name of ['nVocab', 'nCtx', 'nEmbd', 'nLayer', 'nHead', 'nHeadKv', 'nFf'] as const) {
    if (Number.isInteger(config[name]) && config[name] > 0) continue;
    throw new OptionError(`"${name}" expected a positive integer, got ${config[name]}`, { option: name });
  }
  const refuse = (what: string): never => {
    throw new OptionError(what);
  };
  if (nEmbd % nHead !== 0) refuse(`"nEmbd" ${nEmbd} is not a multiple of "nHead" ${nHead}`);
  if (nHead % nHeadKv !== 0) refuse(`"nHead" ${nHead} is not a multiple of "nHeadKv" ${nHeadKv}`);
  if ((nEmbd / nHead) % 4 !== 0) refuse(`heads are ${nEmbd / nHead} wide; their width must be a multiple of 4`);
  if (!(dropout >= 0 && dropout < 1)) refuse(`"dropout" expected a number from 0 to below 1, got ${dropout}`);
}

/** x + attention(norm(x)), then x + mlp(norm(x)). */
export class TransformerBlock extends Module {
  readonly #graph: Graph;
  readonly #attentionNorm: LayerNorm | RMSNorm;
  readonly #attention: MultiHeadAttention;
  readonly #mlpNorm: LayerNorm | RMSNorm;
  readonly #mlp: MLP | GatedMLP;
  readonly #dropout: Dropout;

  constructor(scope: WeightScope, config: TransformerConfig, rng: DropoutRng) {
    super();
    const { architecture, nEmbd, nHead, nHeadKv, nLayer, nFf, nCtx, dropout, normEps, ropeFreqBase } = config;
    const isGpt = architecture === 'gpt2';
    const headDim = nEmbd / nHead;
    const Norm = isGpt ? LayerNorm : RMSNorm;
    // Maps back to the residual stream begin smaller, since 2 · nLayer of them add up (GPT-2).
    const output = { bias: isGpt, initial: normal(0.02 / Math.sqrt(2 * nLayer)) };
    const rope = { headDim, nRot: headDim, freqBase: ropeFreqBase, freqScale: 1, pairing: 'interleaved' } as const;
    const attention = { nEmbd, nHead, nHeadKv, headDim, isQkvFused: isGpt, bias: isGpt, output, dropout, rng };
    this.#graph = scope.graph;
    this.#attentionNorm = this.adopt(new Norm(scope.scope('attn_norm'), nEmbd, normEps));
    this.#attention = this.adopt(new MultiHeadAttention(scope, isGpt ? attention : { ...attention, rope }, nCtx));
    this.#mlpNorm = this.adopt(new Norm(scope.scope('ffn_norm'), nEmbd, normEps));
    this.#mlp = this.adopt(new (isGpt ? MLP : GatedMLP)(scope, nEmbd, nFf, output));
    this.#dropout = this.adopt(new Dropout(dropout, rng));
  }

  /** x: f32[nSeq · T, nEmbd] → the same shape */
  forward(x: Tensor, packed: Packed, name: string): Tensor {
    const normed = this.#attentionNorm.forward(x, `${name}.attnNorm`);
    const attended = this.#attention.forwardUnfused(normed, packed, name);
    const between = this.#add(this.#dropout.forward(attended, `${name}.attnDropped`), x, `${name}.attnResidual`);
    const fed = this.#mlp.forward(this.#mlpNorm.forward(between, `${name}.ffnNorm`), name);
    return this.#add(this.#dropout.forward(fed, `${name}.ffnDropped`), between, `${name}.residual`);
  }

  #add(a: Tensor, b: Tensor, name: string): Tensor {
    return this.#graph.apply('add', [a, b], {}, name);
  }
}

/**
 * Token ids to logits. Weights: `token_embd`, `position_embd` (gpt2), `blk.N…`, `output_norm`, `output` unless tied.
 */
export class TransformerModel extends Module {
  readonly config: TransformerConfig;
  readonly #graph: Graph;
  readonly #tokens: Embedding;
  readonly #positions: Embedding | undefined;
  readonly #dropout: Dropout;
  readonly #blocks: readonly TransformerBlock[];
  readonly #norm: LayerNorm | RMSNorm;
  readonly #output: Linear;

  constructor(scope: WeightScope, config: TransformerConfig, rng: DropoutRng) {
    super();
    const { architecture, nVocab, nCtx, nEmbd, nLayer, isTied, dropout, normEps } = config;
    const isGpt = architecture === 'gpt2';
    this.config = config;
    this.#graph = scope.graph;
    this.#tokens = this.adopt(new Embedding(scope.scope('token_embd'), nVocab, nEmbd));
    this.#positions = isGpt ? this.adopt(new Embedding(scope.scope('position_embd'), nCtx, nEmbd)) : undefined;
    this.#dropout = this.adopt(new Dropout(dropout, rng));
    this.#blocks = Array.from({ length: nLayer }, (_, layer) =>
      this.adopt(new TransformerBlock(scope.scope(`blk.${layer}`), config, rng)),
    );
    this.#norm = this.adopt(new (isGpt ? LayerNorm : RMSNorm)(scope.scope('output_norm'), nEmbd, normEps));
    this.#output = this.adopt(
      new Linear(scope.scope(isTied ? 'token_embd' : 'output'), nEmbd, nVocab, { bias: false }),
    );
  }

  /** tokens: i32[nSeq · T] → f32[nSeq · T, nVocab] */
  forward(tokens: Tensor, packed: Packed): Tensor {
    let x = this.#tokens.forward(tokens, 'embedding');
    if (this.#positions) {
      const positions = this.#positions.forward(packed.positions, 'positionEmbedding');
      x = this.#graph.apply('add', [x, positions], {}, 'embedded');
    }
    x = this.#dropout.forward(x, 'embeddedDropped');
    this.#blocks.forEach((block, layer) => (x = block.forward(x, packed, `blk.${layer}`)));
    return this.#output.forward(this.#norm.forward(x, 'outputNorm'), 'logits');
  }
}
