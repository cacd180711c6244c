// Dropout (Srivastava et al. 2014) that costs nothing where it does nothing: in eval mode, or with p = 0, `forward`
// returns the very tensor it was given, no node is built, and no random numbers are drawn.

import type { Graph, Tensor } from '../graph/tensor.ts';
import { Module } from './module.ts';

/**
 * Where a graph's dropout layers get their masks from: counters, not a sequence, so that masks do not depend on threads
 * or order. A mask is a function of the seed and the step (input `rng`, i32[4]: seed low, seed high, step, 0), the
 * layer's stream and the element's index.
 */
export class DropoutRng {
  readonly graph: Graph;
  readonly counters: Tensor;
  #nStreams = 0;

  constructor(graph: Graph) {
    this.graph = graph;
    this.counters = graph.leaf('input', 'rng', 'I32', [4]);
  }

  /** Streams handed out so far. */
  get nStreams(): number {
    return this.#nStreams;
  }

  nextStream(): number {
    return this.#nStreams++;
  }
}

export class Dropout extends Module {
  readonly p: number;
  readonly #rng: DropoutRng | undefined;

  /**
   * @param p    probability that an element is dropped, 0..1; the others are scaled by 1 / (1 − p)
   * @param rng  may be left out where the layer never trains
   * @throws {RangeError} for p outside 0..1
   */
  constructor(p: number, rng?: DropoutRng) {
    super();
    if (!(p >= 0 && p <= 1)) throw new RangeError(`"p" expected a number from 0 to 1, got ${p}`);
    this.p = p;
    this.#rng = rng;
  }

  /** x: any shape → the same; in eval mode, or with p = 0, the same tensor */
  forward(x: Tensor, name = ''): Tensor {
    const rng = this.#rng;
    if (!this.isTraining || this.p === 0 || rng === undefined) return x;
    return rng.graph.apply('dropout', [x, rng.counters], { p: this.p, stream: rng.nextStream() }, name);
  }
}
