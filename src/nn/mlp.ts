// Feed-forward layers.

import type { Tensor } from '../graph/tensor.ts';
import { Linear } from './linear.ts';
import type { WeightScope } from './module.ts';

/** down(silu(gate(x)) · up(x)) (SwiGLU, arXiv:2002.05202). Weights `ffn_gate`, `ffn_up`, `ffn_down`. */
export class GatedMLP {
  readonly #scope: WeightScope;
  readonly #gate: Linear;
  readonly #up: Linear;
  readonly #down: Linear;

  constructor(scope: WeightScope, nEmbd: number, nFf: number) {
    this.#scope = scope;
    this.#gate = new Linear(scope.scope('ffn_gate'), nEmbd, nFf);
    this.#up = new Linear(scope.scope('ffn_up'), nEmbd, nFf);
    this.#down = new Linear(scope.scope('ffn_down'), nFf, nEmbd);
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const { graph } = this.#scope;
    const gate = graph.apply('silu', [this.#gate.forward(x, `${name}.gate`)], {}, `${name}.silu`);
    const up = this.#up.forward(x, `${name}.up`);
    const hidden = graph.apply('mul', [gate, up], {}, `${name}.hidden`);
    return this.#down.forward(hidden, `${name}.down`);
  }
}
