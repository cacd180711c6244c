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
  /** Width of the expert of all tokens, whose gate, if there is one, is a sigmoid. 0: there is none. */
  readonly nFfShared: number;
}

/**
 * Σ weight · down(silu(gate(x)) · up(x)) over the chosen experts (arXiv:2401.04088). Weights `ffn_gate_inp`;
 * `ffn_gate_exps`, `ffn_up_exps`, `ffn_down_exps` [nExpert, nOut, nIn]; of the shared expert `ffn_gate_shexp`,
 * `ffn_up_shexp`, `ffn_down_shexp` and perhaps `ffn_gate_inp_shexp` [1, nEmbd].
 */
export class MixtureOfExperts extends Module {
  readonly #graph: Graph;
  readonly #config: ExpertsConfig;
  readonly #router: Linear;
  readonly #gate: Tensor;
  readonly #up: Tensor;
  readonly #down: Tensor;
  readonly #shared: GatedMLP | undefined;
  readonly #sharedGate: Linear | undefined;

  constructor(scope: WeightScope, nEmbd: number, config: ExpertsConfig) {
    super();
    const { nExpert, nFf, nFfShared } = config;
    this.#graph = scope.graph;
    this.#config = config;
    this.#router = this.adopt(new Linear(scope.scope('ffn_gate_inp'), nEmbd, nExpert));
    this.#gate = scope.weight('ffn_gate_exps.weight', [nExpert, nFf, nEmbd]);
    this.#up = scope.weight('ffn_up_exps.weight', [nExpert, nFf, nEmbd]);
    this.#down = scope.weight('ffn_down_exps.weight', [nExpert, nEmbd, nFf]);
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
    const product = (rows: Tensor, weight: Tensor, kind: string): Tensor =>
      graph.apply('expertMatmul', [rows, weight, ids], {}, `${name}.${kind}`);
    const gate = graph.apply('silu', [product(x, this.#gate, 'gate')], {}, `${name}.activated`);
    const hidden = graph.apply('mul', [gate, product(x, this.#up, 'up')], {}, `${name}.hidden`);
    const down = product(hidden, this.#down, 'down');
    const chosen = graph.apply('expertSum', [down, weights], {}, `${name}.experts`);
    return this.#shared ? graph.apply('add', [chosen, this.#forwardShared(x, name)], {}, `${name}.allExperts`) : chosen;
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
