// Self-attention with grouped heads, in two forms: fused over the paged key-value cache, causal or not as the step says
// (generation, embeddings); and unfused over whole sequences, causal (training, and the benchmark of its workspaces):
// split, scores, softmax, sum, merge.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import { UnsupportedError } from '../base/errors.ts';
import { KV_BLOCK_SIZE } from '../graph/step.ts';
import type { KvDtype, ProgramLimits, StepInputs } from '../graph/step.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';
import { Dropout } from './dropout.ts';
import type { DropoutRng } from './dropout.ts';
import { Linear } from './linear.ts';
import type { LinearOptions } from './linear.ts';
import { Module } from './module.ts';
import type { WeightScope } from './module.ts';
import { LayerNorm, RMSNorm } from './norm.ts';
import { Rope } from './rope.ts';
import type { RopeConfig } from './rope.ts';

export type QkNorm = 'head' | 'row' | 'ownHead';

export interface AttentionConfig {
  readonly nEmbd: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly headDim: number;
  /** Absent: positions enter elsewhere (learned embeddings). */
  readonly rope?: RopeConfig;
  /** One matrix `attn_qkv` for all three projections, as GPT-2 has it. Default false. */
  readonly isQkvFused?: boolean;
  /** Biases of the projections. Default: where the file has them. */
  readonly bias?: boolean | 'auto';
  /**
   * Norm of queries and keys before they are rotated: RMSNorm of each head (`head`) or of the whole row (`row`), or
   * LayerNorm of each head with weights of its own (`ownHead`). Default none.
   */
  readonly qkNorm?: { readonly kind: QkNorm; readonly eps: number };
  /** Of scores. Default 1 / √headDim. */
  readonly scale?: number;
  /** Scores are capped to ± this, softly; only over the paged cache. Default not at all. */
  readonly softcap?: number;
  /** Positions that a token sees, its own included; only over the paged cache. Default all. */
  readonly window?: number;
  /** A score of nothing for each head, weight `attn_sinks`; only over the paged cache. Default false. */
  readonly hasSinks?: boolean;
  /** How the map back to the residual stream begins. */
  readonly output?: LinearOptions;
  /** Probability of dropping an attention weight while training. Default 0. */
  readonly dropout?: number;
  readonly rng?: DropoutRng;
}

/** The key-value cache of one layer. */
export interface PagedCache {
  /** Layers of the same number have the same memory: enough where nothing is read in a later step. */
  readonly layer: number;
  readonly limits: ProgramLimits;
}

/** A batch of whole sequences of equal length, one after the other. */
export interface Packed {
  readonly nSeq: number;
  /** i32[nSeq · nPositions] */
  readonly positions: Tensor;
}

/** Heads of a projection: the columns of `rows` from `column` on. */
interface Projection {
  readonly rows: Tensor;
  readonly column: number;
  readonly nHead: number;
}

/** Weights `attn_q`, `attn_k`, `attn_v` (or `attn_qkv`) and `attn_output`; `attn_q_norm`, `attn_k_norm` if wanted. */
export class MultiHeadAttention extends Module {
  readonly #graph: Graph;
  readonly #config: AttentionConfig;
  readonly #projections: readonly Linear[];
  readonly #out: Linear;
  readonly #dropout: Dropout;
  readonly #rope: Rope | undefined;
  readonly #sinks: Tensor | undefined;
  /** Of queries and keys. */
  readonly #norms: readonly (RMSNorm | LayerNorm)[];

  /** @param nCtx  positions that rotary tables are made for */
  constructor(scope: WeightScope, config: AttentionConfig, nCtx: number) {
    super();
    const { nEmbd, nHead, nHeadKv, headDim, isQkvFused = false, bias = 'auto', output = {} } = config;
    this.#graph = scope.graph;
    this.#config = config;
    const [nQ, nKv] = [nHead * headDim, nHeadKv * headDim];
    const sizes: readonly (readonly [string, number])[] = isQkvFused
      ? [['attn_qkv', nQ + 2 * nKv]]
      : [
          ['attn_q', nQ],
          ['attn_k', nKv],
          ['attn_v', nKv],
        ];
    this.#projections = sizes.map(([name, nOut]) => this.adopt(new Linear(scope.scope(name), nEmbd, nOut, { bias })));
    this.#out = this.adopt(new Linear(scope.scope('attn_output'), nQ, nEmbd, { bias, ...output }));
    this.#dropout = this.adopt(new Dropout(config.dropout ?? 0, config.rng));
    this.#rope = config.rope && new Rope(scope.graph, config.rope, nCtx);
    this.#sinks = config.hasSinks ? scope.weight('attn_sinks.weight', [nHead]) : undefined;
    const { qkNorm } = config;
    const normOf = (name: string, n: number, { kind, eps }: NonNullable<AttentionConfig['qkNorm']>) => {
      const weights = scope.scope(name);
      if (kind === 'ownHead') return new LayerNorm(weights, n, eps, false, n / headDim);
      return new RMSNorm(weights, kind === 'head' ? headDim : n, eps);
    };
    this.#norms = qkNorm
      ? [normOf('attn_q_norm', nQ, qkNorm), normOf('attn_k_norm', nKv, qkNorm)].map((norm) => this.adopt(norm))
      : [];
  }

  /**
   * Over the paged cache. x: f32[nTokens, nEmbd] → the same shape
   * @throws {UnsupportedError} UNSUPPORTED_FEATURE for a cache in blocks that heads are no multiple of
   */
  forward(x: Tensor, step: StepInputs, cache: PagedCache, name: string): Tensor {
    const graph = this.#graph;
    const { nHead, nHeadKv, headDim } = this.#config;
    const [q, k, v] = this.#project(x, step.positions, name).map(({ rows }) => rows) as [Tensor, Tensor, Tensor];
    const { layer, limits } = cache;
    requireWholeBlocks(limits.kvDtype, headDim);
    const shape = [limits.nKvBlock * KV_BLOCK_SIZE, nHeadKv * headDim];
    const store = (kind: 'keys' | 'values', rows: Tensor): Tensor => {
      const state = graph.leaf('state', `${kind}.${layer}`, limits.kvDtype, shape);
      const params = { headDim, isKeys: kind === 'keys' ? 1 : 0 };
      return graph.apply('kvWrite', [state, rows, step.kvSlots], params, `${name}.${kind}`);
    };
    const values = store('values', v);
    const keys = store('keys', k);
    const { scale = 1 / Math.sqrt(headDim), softcap = 0, window: said = 0 } = this.#config;
    // One that no text leaves is none: a file may name any number.
    const window = said < limits.nCtx ? said : 0;
    const params = { nHead, nHeadKv, headDim, blockSize: KV_BLOCK_SIZE, scale, softcap, window };
    const operands = [q, keys, values, step.lastSeen, step.sequences, step.blockTables];
    if (this.#sinks) operands.push(this.#sinks);
    const attended = graph.apply('attention', operands, params, `${name}.attended`);
    return this.#out.forward(attended, `${name}.out`);
  }

  /** Over whole sequences, every intermediate a tensor of its own. x: f32[nSeq · T, nEmbd] → the same shape */
  forwardUnfused(x: Tensor, { nSeq, positions }: Packed, name: string): Tensor {
    const graph = this.#graph;
    const { nHead, nHeadKv, headDim } = this.#config;
    const [q, k, v] = this.#project(x, positions, name).map(({ rows, column, nHead: n }, i) => {
      return graph.apply('splitHeads', [rows], { nSeq, nHead: n, headDim, column }, `${name}.${'qkv'[i]}Heads`);
    }) as [Tensor, Tensor, Tensor];
    const group = nHead / nHeadKv;
    const scores = graph.apply('matmulNT', [q, k], { group }, `${name}.scores`);
    const { scale = 1 / Math.sqrt(headDim) } = this.#config;
    const probs = graph.apply('causalSoftmax', [scores], { scale }, `${name}.probs`);
    const dropped = this.#dropout.forward(probs, `${name}.dropped`);
    const summed = graph.apply('weightedSum', [dropped, v], { group }, `${name}.summed`);
    const columns = nHead * headDim;
    const merged = graph.apply('mergeHeads', [summed], { nSeq, columns, column: 0 }, `${name}.merged`);
    return this.#out.forward(merged, `${name}.out`);
  }

  /** Queries, keys and values, rotated where that is how positions enter. */
  #project(x: Tensor, positions: Tensor, name: string): readonly Projection[] {
    const { nHead, nHeadKv, headDim } = this.#config;
    const heads = [nHead, nHeadKv, nHeadKv];
    if (this.#projections.length === 1) {
      const rows = this.#projections[0]!.forward(x, `${name}.qkv`);
      return heads.map((n, i) => ({ rows, column: headDim * (i === 0 ? 0 : nHead + (i - 1) * nHeadKv), nHead: n }));
    }
    const [q, k, v] = this.#projections.map((p, i) => p.forward(x, `${name}.${'qkv'[i]}`)) as [Tensor, Tensor, Tensor];
    const place = (rows: Tensor, i: 0 | 1): Tensor => {
      const normed = this.#norms[i]?.forward(rows, `${name}.${'qk'[i]}Norm`) ?? rows;
      return this.#rope?.forward(normed, positions, `${name}.${'qk'[i]}Rotated`) ?? normed;
    };
    return [place(q, 0), place(k, 1), v].map((rows, i) => ({ rows, column: 0, nHead: heads[i]! }));
  }
}

function requireWholeBlocks(dtype: KvDtype, headDim: number): void {
  const { blockElements } = BLOCK_FORMATS[dtype];
  if (headDim % blockElements === 0) return;
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `a key-value cache in ${dtype} takes heads of a multiple of ${blockElements} elements, this model's have ` +
      `${headDim}; use the kvType F16 or F32`,
    { kvType: dtype, headDim },
  );
}
