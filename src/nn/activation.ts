// Activation functions as layers without weights.

import type { Graph, Tensor } from '../graph/tensor.ts';
import { Module } from './module.ts';

/** GELU in GPT-2's tanh form (arXiv:1606.08415). */
export class GELU extends Module {
  readonly #graph: Graph;

  constructor(graph: Graph) {
    super();
    this.#graph = graph;
  }

  forward(x: Tensor, name = ''): Tensor {
    return this.#graph.apply('gelu', [x], {}, name);
  }
}

/** x · sigmoid(x) (arXiv:1702.03118). */
export class SiLU extends Module {
  readonly #graph: Graph;

  constructor(graph: Graph) {
    super();
    this.#graph = graph;
  }

  forward(x: Tensor, name = ''): Tensor {
    return this.#graph.apply('silu', [x], {}, name);
  }
}

export type ActivationName = 'gelu' | 'silu';
export type Activation = GELU | SiLU;

export function createActivation(name: ActivationName, graph: Graph): Activation {
  return name === 'gelu' ? new GELU(graph) : new SiLU(graph);
}
