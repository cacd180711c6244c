// Linear maps: y = x · Wᵀ + b, and the embedding table, which is the same matrix read by rows.

import type { Tensor } from '../graph/tensor.ts';
import { Module, ZEROS, normal } from './module.ts';
import type { Initial, WeightScope } from './module.ts';

export interface LinearOptions {
  /** `auto`: where the scope has one, as files say. Default `auto`. */
  readonly bias?: boolean | 'auto';
  /** Default: normal with standard deviation 0.02, GPT-2's. */
  readonly initial?: Initial;
}

/** y = x · Wᵀ (+ b). Weights `weight` [nOut, nIn] and `bias` [nOut]. */
export class Linear extends Module {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;
  readonly #bias: Tensor | undefined;

  constructor(scope: WeightScope, nIn: number, nOut: number, options: LinearOptions = {}) {
    super();
    const { bias = 'auto', initial = normal(0.02) } = options;
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nOut, nIn], initial);
    const hasBias = bias === 'auto' ? scope.has('bias') : bias;
    this.#bias = hasBias ? scope.weight('bias', [nOut], ZEROS) : undefined;
  }

  /** x: f32[rows, nIn] → f32[rows, nOut] */
  forward(x: Tensor, name = ''): Tensor {
    const { graph } = this.#scope;
    const y = graph.apply('matmul', [x, this.#weight], {}, name);
    return this.#bias ? graph.apply('add', [y, this.#bias], {}, name && `${name}.biased`) : y;
  }
}

/** Rows of a table by token id. Weight `weight` [nVocab, nEmbd]. */
export class Embedding extends Module {
  readonly #scope: WeightScope;
  readonly #weight: Tensor;

  constructor(scope: WeightScope, nVocab: number, nEmbd: number, initial: Initial = normal(0.02)) {
    super();
    this.#scope = scope;
    this.#weight = scope.weight('weight', [nVocab, nEmbd], initial);
  }

  /** ids: i32[rows] → f32[rows, nEmbd] */
  forward(ids: Tensor, name = ''): Tensor {
    return this.#scope.graph.apply('embed', [this.#weight, ids], {}, name);
  }
}
