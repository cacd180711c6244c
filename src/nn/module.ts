// The base of all layers: a module takes its weights by name from a `WeightScope` when it is constructed, and appends
// its operations to the graph when `forward` is called. It holds no numbers and knows no file format; whoever made the
// scope knows what the weights are: tensors of a file, or parameters that are being trained.

import type { Graph, Tensor } from '../graph/tensor.ts';

/** How a parameter begins. `std` is the standard deviation of a normal distribution around 0. */
export type Initial =
  | { readonly kind: 'zeros' }
  | { readonly kind: 'ones' }
  | { readonly kind: 'normal'; readonly std: number };

export const ZEROS: Initial = { kind: 'zeros' };
export const ONES: Initial = { kind: 'ones' };
export const normal = (std: number): Initial => ({ kind: 'normal', std });

/** Gives weights by name; the names are GGUF's, relative to the scope. */
export interface WeightScope {
  readonly graph: Graph;
  /**
   * The weight of this name.
   * @param shape    row-major, [nOut, nIn] for a matrix
   * @param initial  how it begins where it is trained; files do not care
   * @throws {GgufError} GGUF_MISSING, {ShapeError} when it has another shape
   */
  weight(name: string, shape: readonly number[], initial?: Initial): Tensor;
  /** Whether a weight that a file may lack is there. */
  has(name: string): boolean;
  /** The weights whose names begin with `prefix` and a dot. */
  scope(prefix: string): WeightScope;
}

/** A layer. `train()` and `eval()` switch it and everything in it; it starts in training mode. */
export abstract class Module {
  #isTraining = true;
  readonly #children: Module[] = [];

  get isTraining(): boolean {
    return this.#isTraining;
  }

  train(): this {
    return this.#switch(true);
  }

  eval(): this {
    return this.#switch(false);
  }

  /** Makes `child` follow this module's mode. */
  protected adopt<T extends Module>(child: T): T {
    this.#children.push(child);
    return child;
  }

  #switch(isTraining: boolean): this {
    this.#isTraining = isTraining;
    for (const child of this.#children) child.#switch(isTraining);
    return this;
  }
}
