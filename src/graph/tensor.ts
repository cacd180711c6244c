// Tensors of the graph: nodes that name an operation, its operands and the shape that follows. A tensor holds no
// numbers; executors give it memory. A graph is the list of tensors in the order in which they were built, which is a
// valid order of evaluation.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { assert } from '../base/errors.ts';
import type { OpParams } from './operation.ts';
import type { OpName } from './operations.ts';
import { OPERATIONS } from './operations.ts';

/** A dimension that varies by step. Executors read its present value from memory when an instruction starts. */
export interface RowCount {
  readonly name: string;
  /** Upper bound, by which memory is planned. */
  readonly max: number;
}

export type Dim = number | RowCount;

/** Row-major; the last dimension is contiguous. */
export type Shape = readonly Dim[];

/**
 * Activations quantised to 8 bits on the fly. A row of n values is n/32 blocks: f32 scale, two i16 with the sums of the
 * first and of the last 16 quants, two with the sums of the last eight of each 16, and 32 quants: signed bytes in
 * `Q8A`, in an order that the kernels choose, i16 in `Q8W`.
 */
export type ActivationDType = 'Q8A' | 'Q8W';

/** ggml's types, and those of quantised activations. */
export type TensorDType = DType | ActivationDType;

/** Where a tensor's bytes live. Only `arena` is planned; the rest lasts as long as the program. */
export type Region = 'weights' | 'constants' | 'inputs' | 'state' | 'arena';

export interface Tensor {
  readonly id: number;
  readonly op: OpName;
  readonly inputs: readonly Tensor[];
  readonly params: OpParams;
  readonly shape: Shape;
  readonly dtype: TensorDType;
  /** Names a leaf in its region (a GGUF tensor name, an input), or an intermediate for people. */
  readonly name: string;
}

export const ACTIVATION_HEADER_BYTES = 12;
export const ACTIVATION_BLOCK_BYTES = { Q8A: 44, Q8W: 76 } as const satisfies Record<ActivationDType, number>;

export const dimMax = (dim: Dim): number => (typeof dim === 'number' ? dim : dim.max);

/** Columns of a tensor: the size of its last dimension, which never varies by step. */
export function columnsOf(tensor: Tensor): number {
  const last = tensor.shape.at(-1);
  assert(typeof last === 'number', `the last dimension of "${tensor.name}" varies`);
  return last;
}

/** Rows of a matrix, of a vector (1), or of all the matrices in a tensor of more dimensions, which must not vary. */
export function rowsOf(tensor: Tensor): Dim {
  const leading = tensor.shape.slice(0, -1);
  if (leading.length === 1) return leading[0]!;
  return leading.reduce<number>((n, d) => {
    assert(typeof d === 'number', `leading dimensions of "${tensor.name}" vary`);
    return n * d;
  }, 1);
}

/** Element count at the upper bounds of the dimensions. */
export const elementsMax = (tensor: Tensor): number => tensor.shape.reduce<number>((n, d) => n * dimMax(d), 1);

/** Bytes at the upper bounds of the dimensions. */
export function sizeBytesMax(tensor: Tensor): number {
  const elements = elementsMax(tensor);
  if (tensor.dtype === 'Q8A' || tensor.dtype === 'Q8W') return (elements / 32) * ACTIVATION_BLOCK_BYTES[tensor.dtype];
  const { blockElements, blockBytes } = BLOCK_FORMATS[tensor.dtype];
  return Math.ceil(elements / blockElements) * blockBytes;
}

/** A graph under construction. Layers in `nn/` append to it through the functions below. */
export class Graph {
  readonly nodes: Tensor[] = [];
  readonly outputs: Tensor[] = [];
  readonly #leaves = new Map<string, Tensor>();
  /** Contents of `constant` leaves by name. */
  readonly constants = new Map<string, () => Float32Array>();

  /** A leaf of the region that `op` names; the same name gives the same tensor. */
  leaf(op: 'weight' | 'constant' | 'input' | 'state', name: string, dtype: DType, shape: Shape): Tensor {
    const key = `${op} ${name}`;
    const known = this.#leaves.get(key);
    if (known) return known;
    const tensor = this.append({ op, inputs: [], params: {}, shape, dtype, name });
    this.#leaves.set(key, tensor);
    return tensor;
  }

  /** @param values  computed once, when somebody wants them: a plan does not */
  constant(name: string, shape: readonly number[], values: () => Float32Array): Tensor {
    if (!this.constants.has(name)) this.constants.set(name, once(values));
    return this.leaf('constant', name, 'F32', shape);
  }

  /** Appends an operation; the table checks operands and infers shape and dtype. */
  apply(op: OpName, inputs: readonly Tensor[], params: OpParams = {}, name = ''): Tensor {
    const { shape, dtype = 'F32' } = OPERATIONS[op].infer(inputs, params);
    return this.append({ op, inputs, params, shape, dtype, name: name || `${op}.${this.nodes.length}` });
  }

  output(tensor: Tensor): void {
    this.outputs.push(tensor);
  }

  /** Appends a node as it is; for rewriting passes, which have checked it before. */
  append(node: Omit<Tensor, 'id'>): Tensor {
    const tensor = { id: this.nodes.length, ...node };
    this.nodes.push(tensor);
    return tensor;
  }
}

function once<T>(compute: () => T): () => T {
  let value: T | undefined;
  return () => (value ??= compute());
}
