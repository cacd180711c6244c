// Feed-forward layers.

import type { Tensor } from '../graph/tensor.ts';
import { GELU, SiLU } from './activation.ts';
import { Linear } from './linear.ts';
import type { LinearOptions } from './linear.ts';
import { Module } from './module.ts';
import type { WeightScope } from './module.ts';

/** down(gelu(up(x))), GPT-2's. Weights `ffn_up`, `ffn_down`. */
export class MLP extends Module {
  readonly #up: Linear;
  readonly #gelu: GELU;
  readonly #down: Linear;

  /** @param output  of the map back to the residual stream */
  constructor(scope: WeightScope, nEmbd: number, nFf: number, output: LinearOptions = {}) {
    super();
    this.#up = this.adopt(new Linear(scope.scope('ffn_up'), nEmbd, nFf, { bias: output.bias }));
    this.#gelu = this.adopt(new GELU(scope.graph));
    this.#down = this.adopt(new Linear(scope.scope('ffn_down'), nFf, nEmbd, output));
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const up = this.#up.forward(x, `${name}.up`);
    return this.#down.forward(this.#gelu.forward(up, `${name}.gelu`), `${name}.down`);
  }
}

/** down(silu(gate(x)) · up(x)) (SwiGLU, arXiv:2002.05202). Weights `ffn_gate`, `ffn_up`, `ffn_down`. */
export class GatedMLP extends Module {
  readonly #scope: WeightScope;
  readonly #gate: Linear;
  readonly #up: Linear;
  readonly #silu: SiLU;
  readonly #down: Linear;

  /** @param output  of the map back to the residual stream */
  constructor(scope: WeightScope, nEmbd: number, nFf: number, output: LinearOptions = {}) {
    super();
    this.#scope = scope;
    this.#gate = this.adopt(new Linear(scope.scope('ffn_gate'), nEmbd, nFf, { bias: output.bias }));
    this.#up = this.adopt(new Linear(scope.scope('ffn_up'), nEmbd, nFf, { bias: output.bias }));
    this.#silu = this.adopt(new SiLU(scope.graph));
    this.#down = this.adopt(new Linear(scope.scope('ffn_down'), nFf, nEmbd, output));
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name: string): Tensor {
    const gate = this.#silu.forward(this.#gate.forward(x, `${name}.gate`), `${name}.silu`);
    const up = this.#up.forward(x, `${name}.up`);
    const hidden = this.#scope.graph.apply('mul', [gate, up], {}, `${name}.hidden`);
    return this.#down.forward(hidden, `${name}.down`);
  }
}
