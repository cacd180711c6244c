// Normalisation layers.

import type { Tensor } from '../graph/tensor.ts';
import { Module, ONES, ZEROS } from './module.ts';
import type { WeightScope } from './module.ts';

/** RMSNorm (arXiv:1910.07467). Weight `weight` [nEmbd]. */
export class RMSNorm extends Module {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;
  readonly #eps: number;

  constructor(scope: WeightScope, nEmbd: number, eps: number) {
    super();
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nEmbd], ONES);
    this.#eps = eps;
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name = ''): Tensor {
    return this.#scope.graph.apply('rmsNorm', [x, this.#weight], { eps: this.#eps }, name);
  }
}

/**
 * LayerNorm (arXiv:1607.06450), of whole rows or of each of `nRuns` equal parts of them. Weights `weight` and, unless
 * it has none, `bias` [nEmbd].
 */
export class LayerNorm extends Module {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #params: Readonly<Record<'eps' | 'nRuns', number>>;

  constructor(scope: WeightScope, nEmbd: number, eps: number, hasBias = true, nRuns = 1) {
    super();
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nEmbd], ONES);
    this.#bias = hasBias
      ? scope.weight('bias', [nEmbd], ZEROS)
      : scope.graph.constant(`noBias.${nEmbd}`, [nEmbd], () => new Float32Array(nEmbd));
    this.#params = { eps, nRuns };
  }

  /** x: f32[rows, nEmbd] → the same shape */
  forward(x: Tensor, name = ''): Tensor {
    return this.#scope.graph.apply('layerNorm', [x, this.#weight, this.#bias], this.#params, name);
  }
}
