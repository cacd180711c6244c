// Linear maps: y = x · Wᵀ + b, and the embedding table, which is the same matrix read by rows.

import type { Tensor } from '../graph/tensor.ts';
import type { WeightScope } from './module.ts';

/** y = x · Wᵀ (+ b). Weights `weight` [nOut, nIn] and, where the file has one, `bias` [nOut]. */
export class Linear {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;
  readonly #bias: Tensor | undefined;

  constructor(scope: WeightScope, nIn: number, nOut: number) {
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nOut, nIn]);
    this.#bias = scope.has('bias') ? scope.weight('bias', [nOut]) : undefined;
  }

  /** x: f32[rows, nIn] → f32[rows, nOut] */
  forward(x: Tensor, name = ''): Tensor {
    const { graph } = this.#scope;
    const y = graph.apply('matmul', [x, this.#weight], {}, name);
    return this.#bias ? graph.apply('add', [y, this.#bias]) : y;
  }
}

/** Rows of a table by token id. Weight `weight` [nVocab, nEmbd]. */
export class Embedding {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;

  constructor(scope: WeightScope, nVocab: number, nEmbd: number) {
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nVocab, nEmbd]);
  }

  /** ids: i32[rows] → f32[rows, nEmbd] */
  forward(ids: Tensor, name = ''): Tensor {
    return this.#scope.graph.apply('embed', [this.#weight, ids], {}, name);
  }
}
