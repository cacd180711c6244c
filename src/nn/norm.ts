// Normalisation layers.

import type { Tensor } from '../graph/tensor.ts';
import type { WeightScope } from './module.ts';

/** RMSNorm (arXiv:1910.07467). Weight `weight` [nEmbd]. */
export class RMSNorm {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;
  readonly #eps: number;

  constructor(scope: WeightScope, nEmbd: number, eps: number) {
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nEmbd]);
    this.#eps = eps;
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name = ''): Tensor {
    return this.#scope.graph.apply('rmsNorm', [x, this.#weight], { eps: this.#eps }, name);
  }
}
