// Mixture of experts: a feed-forward layer of many gated MLPs, of which a router chooses a few for each token, and
// perhaps one that all tokens go through.

import type { Graph, Tensor } from '../graph/tensor.ts';
import { Linear } from './linear.ts';
import { GatedMLP } from './mlp.ts';
import { Module } from './module.ts';
import type { WeightScope } from './module.ts';

export interface ExpertsConfig {
  readonly nExpert: number;
  /** Experts that a token goes through. */
  readonly nExpertUsed: number;
  /** Width of an expert. */
  readonly nFf: number;
  /** Whether what the chosen experts count for adds up to 1; otherwise it is their share of all. */
  readonly isNormalised: boolean;
  /** How an expert's gate and up become one. Default `silu`, silu(gate) · up. */
  readonly activation?: 'silu' | 'swigluOai';
  /** Width of the expert of all tokens, whose gate, if there is one, is a sigmoid. 0: there is none. */
  readonly nFfShared: number;
}

/** A linear map for each expert. Weights `weight` [nExpert, nOut, nIn], and perhaps `bias` [nExpert, nOut]. */
class ExpertLinear extends Module {
  readonly #graph: Graph;
  readonly #weight: Tensor;
  readonly #bias: Tensor | undefined;

  constructor(scope: WeightScope, nExpert: number, nIn: number, nOut: number) {
    super();
    this.#graph = scope.graph;
    this.#weight = scope.weight('weight', [nExpert, nOut, nIn]);
    this.#bias = scope.has('bias') ? scope.weight('bias', [nExpert, nOut]) : undefined;
  }

  /** x: f32[rows, nIn] or [rows, k · nIn], ids: i32[rows, k] → f32[rows, k · nOut] */
  forward(x: Tensor, ids: Tensor, name: string): Tensor {
    const y = this.#graph.apply('expertMatmul', [x, this.#weight, ids], {}, name);
    if (!this.#bias) return y;
    const bias = this.#graph.apply('embed', [this.#bias, ids], {}, `${name}.bias`);
    return this.#graph.apply('add', [y, bias], {}, `${name}.biased`);
  }
}

/**
 * Σ weight · down(silu(gate(x)) · up(x)) over the chosen experts (arXiv:2401.04088). Weights `ffn_gate_inp`;
 * `ffn_gate_exps`, `ffn_up_exps`, `ffn_down_exps` [nExpert, nOut, nIn], perhaps with biases [nExpert, nOut]; of the
 * shared expert `ffn_gate_shexp`, `ffn_up_shexp`, `ffn_down_shexp` and perhaps `ffn_gate_inp_shexp` [1, nEmbd].
 */
export class MixtureOfExperts extends Module {
  readonly #graph: Graph;
  readonly #config: ExpertsConfig;
  readonly #router: Linear;
  readonly #gate: ExpertLinear;
  readonly #up: ExpertLinear;
  readonly #down: ExpertLinear;
  readonly #shared: GatedMLP | undefined;
  readonly #sharedGate: Linear | undefined;

  constructor(scope: WeightScope, nEmbd: number, config: ExpertsConfig) {
    super();
    const { nExpert, nFf, nFfShared } = config;
    this.#graph = scope.graph;
    this.#config = config;
    this.#router = this.adopt(new Linear(scope.scope('ffn_gate_inp'), nEmbd, nExpert));
    this.#gate = this.adopt(new ExpertLinear(scope.scope('ffn_gate_exps'), nExpert, nEmbd, nFf));
    this.#up = this.adopt(new ExpertLinear(scope.scope('ffn_up_exps'), nExpert, nEmbd, nFf));
    this.#down = this.adopt(new ExpertLinear(scope.scope('ffn_down_exps'), nExpert, nFf, nEmbd));
    if (nFfShared === 0) return;
    this.#shared = this.adopt(new GatedMLP(scope, nEmbd, nFfShared, {}, 'silu', '_shexp'));
    const gate = scope.scope('ffn_gate_inp_shexp');
    this.#sharedGate = gate.has('weight') ? this.adopt(new Linear(gate, nEmbd, 1)) : undefined;
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const graph = this.#graph;
    const { nExpertUsed: k, isNormalised } = this.#config;
    const logits = this.#router.forward(x, `${name}.expertLogits`);
    const ids = graph.apply('topK', [logits], { k }, `${name}.expertIds`);
    const params = { isNormalised: isNormalised ? 1 : 0 };
    const weights = graph.apply('expertWeights', [logits, ids], params, `${name}.expertWeights`);
    const hidden = this.#hidden(
      this.#gate.forward(x, ids, `${name}.gate`),
      this.#up.forward(x, ids, `${name}.up`),
      name,
    );
    const down = this.#down.forward(hidden, ids, `${name}.down`);
    const chosen = graph.apply('expertSum', [down, weights], {}, `${name}.experts`);
    return this.#shared ? graph.apply('add', [chosen, this.#forwardShared(x, name)], {}, `${name}.allExperts`) : chosen;
  }

  #hidden(gate: Tensor, up: Tensor, name: string): Tensor {
    const graph = this.#graph;
    if (this.#config.activation === 'swigluOai') return graph.apply('swigluOai', [gate, up], {}, `${name}.hidden`);
    const activated = graph.apply('silu', [gate], {}, `${name}.activated`);
    return graph.apply('mul', [activated, up], {}, `${name}.hidden`);
  }

  #forwardShared(x: Tensor, name: string): Tensor {
    const graph = this.#graph;
    const y = this.#shared!.forward(x, `${name}.shared`);
    if (!this.#sharedGate) return y;
    const logit = this.#sharedGate.forward(x, `${name}.sharedLogit`);
    const gate = graph.apply('sigmoid', [logit], {}, `${name}.sharedGate`);
    return graph.apply('expertSum', [y, gate], {}, `${name}.sharedGated`);
  }
}
