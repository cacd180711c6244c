// Feed-forward layers.

import type { Tensor } from '../graph/tensor.ts';
import { createActivation } from './activation.ts';
import type { Activation, ActivationName } from './activation.ts';
import { Linear } from './linear.ts';
import type { LinearOptions } from './linear.ts';
import { Module } from './module.ts';
import type { WeightScope } from './module.ts';

/** down(act(up(x))), with GELU GPT-2's. Weights `ffn_up`, `ffn_down`. */
export class MLP extends Module {
  readonly #up: Linear;
  readonly #activation: Activation;
  readonly #down: Linear;

  /** @param output  of the map back to the residual stream */
  constructor(
    scope: WeightScope,
    nEmbd: number,
    nFf: number,
    output: LinearOptions = {},
    activation: ActivationName = 'gelu',
  ) {
    super();
    this.#up = this.adopt(new Linear(scope.scope('ffn_up'), nEmbd, nFf, { bias: output.bias }));
    this.#activation = this.adopt(createActivation(activation, scope.graph));
    this.#down = this.adopt(new Linear(scope.scope('ffn_down'), nFf, nEmbd, output));
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const up = this.#up.forward(x, `${name}.up`);
    return this.#down.forward(this.#activation.forward(up, `${name}.activated`), `${name}.down`);
  }
}

/**
 * down(act(gate(x)) · up(x)) (SwiGLU, GeGLU, arXiv:2002.05202). Weights `ffn_gate`, `ffn_up`, `ffn_down`, each with
 * `suffix`.
 */
export class GatedMLP extends Module {
  readonly #scope: WeightScope;
  readonly #gate: Linear;
  readonly #up: Linear;
  readonly #activation: Activation;
  readonly #down: Linear;

  /** @param output  of the map back to the residual stream */
  constructor(
    scope: WeightScope,
    nEmbd: number,
    nFf: number,
    output: LinearOptions = {},
    activation: ActivationName = 'silu',
    suffix = '',
  ) {
    super();
    this.#scope = scope;
    this.#gate = this.adopt(new Linear(scope.scope(`ffn_gate${suffix}`), nEmbd, nFf, { bias: output.bias }));
    this.#up = this.adopt(new Linear(scope.scope(`ffn_up${suffix}`), nEmbd, nFf, { bias: output.bias }));
    this.#activation = this.adopt(createActivation(activation, scope.graph));
    this.#down = this.adopt(new Linear(scope.scope(`ffn_down${suffix}`), nFf, nEmbd, output));
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const gate = this.#activation.forward(this.#gate.forward(x, `${name}.gate`), `${name}.activated`);
    const up = this.#up.forward(x, `${name}.up`);
    const hidden = this.#scope.graph.apply('mul', [gate, up], {}, `${name}.hidden`);
    return this.#down.forward(hidden, `${name}.down`);
  }
}
