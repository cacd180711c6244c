// The base of all layers: a module takes its weights by name from a `WeightScope` when it is constructed, and appends
// its operations to the graph when `forward` is called. It holds no numbers and knows no file format.

import type { Graph, Tensor } from '../graph/tensor.ts';

/** Gives weights by name; the names are GGUF's, relative to the scope. */
export interface WeightScope {
  readonly graph: Graph;
  /**
   * The weight of this name as a leaf of the graph.
   * @param shape row-major, [nOut, nIn] for a matrix
   * @throws {GgufError} GGUF_MISSING, {ShapeError} when it has another shape
   */
  weight(name: string, shape: readonly number[]): Tensor;
  has(name: string): boolean;
  /** The weights whose names begin with `prefix` and a dot. */
  scope(prefix: string): WeightScope;
}
