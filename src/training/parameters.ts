// Parameters as one flat state: every parameter is a view at a fixed offset, matrices first, since only they decay. So
// the optimiser's step, its moments and the gradients are flat arrays, too, and a checkpoint is a few of them.

import { Random } from '../base/random.ts';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ZEROS } from '../nn/module.ts';
import type { Initial, WeightScope } from '../nn/module.ts';

export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly initial: Initial;
  /** In elements, a multiple of 16. */
  readonly offset: number;
  readonly size: number;
}

export interface ParameterLayout {
  readonly parameters: readonly Parameter[];
  /** Elements of the flat state, gaps included. */
  readonly size: number;
  /** Elements from the start that weight decay applies to: those of matrices. */
  readonly nDecayed: number;
  /** Parameters without the gaps. */
  readonly nParameters: number;
}

/** Kernels work on runs of so many elements. */
const ALIGNMENT = 16;

const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Lets `build` construct a model once, to learn its parameters, and gives each its place. */
export function layOutParameters(build: (scope: WeightScope) => void): ParameterLayout {
  const declared = new Map<string, Pick<Parameter, 'name' | 'shape' | 'initial'>>();
  const graph = new Graph();
  const scopeOf = (prefix: string): WeightScope => ({
    graph,
    weight(name, shape, initial = ZEROS) {
      const full = prefix + name;
      if (!declared.has(full)) declared.set(full, { name: full, shape, initial });
      return graph.leaf('weight', full, 'F32', shape);
    },
    has: () => true,
    scope: (inner) => scopeOf(`${prefix}${inner}.`),
  });
  build(scopeOf(''));

  const parameters: Parameter[] = [];
  let size = 0;
  const place = (isMatrix: boolean): void => {
    for (const p of declared.values()) {
      if (p.shape.length > 1 !== isMatrix) continue;
      parameters.push({ ...p, offset: size, size: sizeOf(p.shape) });
      size = Math.ceil((size + sizeOf(p.shape)) / ALIGNMENT) * ALIGNMENT;
    }
  };
  place(true);
  const nDecayed = size;
  place(false);
  return { parameters, size, nDecayed, nParameters: parameters.reduce((n, p) => n + p.size, 0) };
}

/** The flat state `name` of a layout, and the view of each parameter in it. */
export class ParameterViews {
  readonly state: Tensor;
  readonly #graph: Graph;
  readonly #layout: ParameterLayout;
  readonly #views = new Map<string, Tensor>();

  constructor(graph: Graph, layout: ParameterLayout, name: string) {
    this.#graph = graph;
    this.#layout = layout;
    this.state = graph.leaf('state', name, 'F32', [layout.size]);
  }

  get(name: string): Tensor {
    let view = this.#views.get(name);
    if (!view) {
      const { shape, offset } = this.#layout.parameters.find((p) => p.name === name)!;
      const [rows, columns] = shape.length === 1 ? [0, shape[0]!] : [shape[0]!, shape[1]!];
      view = this.#graph.apply('view', [this.state], { offset, rows, columns }, `${this.state.name}.${name}`);
      this.#views.set(name, view);
    }
    return view;
  }

  /** The views as weights of modules. */
  scope(prefix = ''): WeightScope {
    return {
      graph: this.#graph,
      weight: (name) => this.get(prefix + name),
      has: (name) => this.#layout.parameters.some((p) => p.name === prefix + name),
      scope: (inner) => this.scope(`${prefix}${inner}.`),
    };
  }
}

/** Fills `state` with what the parameters begin with. Each has its own stream of random numbers. */
export function initialize(layout: ParameterLayout, state: Float32Array | Float64Array, seed: number): void {
  layout.parameters.forEach(({ initial, offset, size }, stream) => {
    const values = state.subarray(offset, offset + size);
    if (initial.kind === 'normal') new Random(seed, stream).fillNormal(values, 0, initial.std);
    else values.fill(initial.kind === 'ones' ? 1 : 0);
  });
}
