// Causal self-attention with grouped heads over the paged key-value cache.

import type { DType } from '../base/dtype.ts';
import { KV_BLOCK_SIZE } from '../graph/step.ts';
import type { ProgramLimits, StepInputs } from '../graph/step.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';
import { Linear } from './linear.ts';
import type { WeightScope } from './module.ts';
import { Rope } from './rope.ts';
import type { RopeConfig } from './rope.ts';

export interface AttentionConfig {
  readonly nEmbd: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly headDim: number;
  readonly rope: RopeConfig;
}

/** Weights `attn_q`, `attn_k`, `attn_v`, `attn_output`. */
export class Attention {
  readonly #graph: Graph;
  readonly #config: AttentionConfig;
  readonly #q: Linear;
  readonly #k: Linear;
  readonly #v: Linear;
  readonly #out: Linear;
  readonly #rope: Rope;
  readonly #keys: Tensor;
  readonly #values: Tensor;

  constructor(scope: WeightScope, config: AttentionConfig, layer: number, limits: ProgramLimits) {
    const { nEmbd, nHead, nHeadKv, headDim } = config;
    this.#graph = scope.graph;
    this.#config = config;
    this.#q = new Linear(scope.scope('attn_q'), nEmbd, nHead * headDim);
    this.#k = new Linear(scope.scope('attn_k'), nEmbd, nHeadKv * headDim);
    this.#v = new Linear(scope.scope('attn_v'), nEmbd, nHeadKv * headDim);
    this.#out = new Linear(scope.scope('attn_output'), nHead * headDim, nEmbd);
    this.#rope = new Rope(scope.graph, config.rope, limits.nCtx);
    const cache = [limits.nKvBlock * KV_BLOCK_SIZE, nHeadKv * headDim];
    const kvDtype: DType = limits.kvDtype;
    this.#keys = scope.graph.leaf('state', `keys.${layer}`, kvDtype, cache);
    this.#values = scope.graph.leaf('state', `values.${layer}`, kvDtype, cache);
  }

  /** x: f32[nTokens, nEmbd] → the same shape */
  forward(x: Tensor, step: StepInputs, name: string): Tensor {
    const graph = this.#graph;
    const { nHead, nHeadKv, headDim } = this.#config;
    const q = this.#q.forward(x, `${name}.q`);
    const k = this.#k.forward(x, `${name}.k`);
    const v = this.#v.forward(x, `${name}.v`);
    const qRotated = this.#rope.forward(q, step.positions, `${name}.qRotated`);
    const kRotated = this.#rope.forward(k, step.positions, `${name}.kRotated`);
    const values = graph.apply('kvWrite', [this.#values, v, step.kvSlots], {}, `${name}.values`);
    const keys = graph.apply('kvWrite', [this.#keys, kRotated, step.kvSlots], {}, `${name}.keys`);
    const params = { nHead, nHeadKv, headDim, blockSize: KV_BLOCK_SIZE, scale: 1 / Math.sqrt(headDim) };
    const operands = [qRotated, keys, values, step.positions, step.sequences, step.blockTables];
    const attended = graph.apply('attention', operands, params, `${name}.attended`);
    return this.#out.forward(attended, `${name}.out`);
  }
}
