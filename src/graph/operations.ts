// The operation table. For each operation: how shape and dtype follow from the operands, and how its kernel writes.
// Everything that an executor, the planner or the lowering needs to know about an operation stands here once.

import { ShapeError, assert } from '../base/errors.ts';
import type { Shape, Tensor, TensorDType } from './tensor.ts';
import { columnsOf, rowsOf } from './tensor.ts';

/**
 * How an operation writes its result:
 * - `store`: every element exactly once, from operands elsewhere: nothing needs clearing.
 * - `inPlace`: as `store`, element by element or row by row, so the result may take the memory of operand 0.
 * - `accumulate`: adds into its result, which is cleared first.
 * - `accumulateKeep`: adds into memory that lasts over steps (gradients); never cleared by the plan.
 * - `stateful`: changes rows of its operand 0 (a `state` leaf); the result is that same memory.
 * - `leaf`: no instruction at all.
 * An operation without a declared mode is treated as `accumulate`.
 */
export type WriteMode = 'store' | 'inPlace' | 'accumulate' | 'accumulateKeep' | 'stateful' | 'leaf';

export type OpParams = Readonly<Record<string, number>>;

export interface Inferred {
  readonly shape: Shape;
  readonly dtype?: TensorDType;
}

export interface Operation {
  readonly write?: WriteMode;
  infer(inputs: readonly Tensor[], params: OpParams): Inferred;
}

const describe = (t: Tensor): string =>
  `${t.dtype.toLowerCase()}[${t.shape.map((d) => (typeof d === 'number' ? d : d.name)).join(', ')}]`;

function expect(condition: boolean, op: string, inputs: readonly Tensor[], rule: string): asserts condition {
  if (condition) return;
  throw new ShapeError(`${op}(${inputs.map((t) => `"${t.name}" ${describe(t)}`).join(', ')}): ${rule}`);
}

function operands<N extends number>(inputs: readonly Tensor[], n: N, op: string): readonly Tensor[] & { length: N } {
  assert(inputs.length === n, `${op} takes ${n} operands, got ${inputs.length}`);
  return inputs as readonly Tensor[] & { length: N };
}

const leaf: Operation = {
  write: 'leaf',
  infer() {
    throw new Error('leaves carry their own shape');
  },
};

const sameAsFirst = (op: string, n: number): Operation['infer'] => {
  return (inputs) => {
    const first = operands(inputs, n, op)[0]!;
    return { shape: first.shape };
  };
};

function inferElementwise(op: string): Operation['infer'] {
  return (inputs) => {
    const [a, b] = operands(inputs, 2, op) as [Tensor, Tensor];
    const broadcast = b.shape.length === 1;
    expect(columnsOf(a) === columnsOf(b), op, inputs, 'columns must be equal');
    expect(broadcast || rowsOf(a) === rowsOf(b), op, inputs, 'rows must be equal, or the second be one row');
    return { shape: a.shape };
  };
}

const table = {
  weight: leaf,
  constant: leaf,
  input: leaf,
  state: leaf,

  /** Rows of a table: out[i] = weight[ids[i]]. */
  embed: {
    write: 'store',
    infer(inputs) {
      const [weight, ids] = operands(inputs, 2, 'embed') as [Tensor, Tensor];
      expect(ids.shape.length === 1 && ids.dtype === 'I32', 'embed', inputs, 'ids must be i32[n]');
      return { shape: [ids.shape[0]!, columnsOf(weight)] };
    },
  },

  /** out[i] = x[rows[i]]: the rows whose logits are wanted. */
  gatherRows: {
    write: 'store',
    infer(inputs) {
      const [x, rows] = operands(inputs, 2, 'gatherRows') as [Tensor, Tensor];
      expect(rows.shape.length === 1 && rows.dtype === 'I32', 'gatherRows', inputs, 'rows must be i32[n]');
      return { shape: [rows.shape[0]!, columnsOf(x)] };
    },
  },

  /** y = x · Wᵀ, x [rows, nIn], W [nOut, nIn]. */
  matmul: {
    write: 'store',
    infer(inputs) {
      const [x, w] = operands(inputs, 2, 'matmul') as [Tensor, Tensor];
      expect(w.shape.length === 2 && columnsOf(x) === columnsOf(w), 'matmul', inputs, 'inner sizes must be equal');
      return { shape: [rowsOf(x), w.shape[0]!] };
    },
  },

  /** x / sqrt(mean(x²) + eps) · weight, row by row. Params: eps. */
  rmsNorm: {
    write: 'inPlace',
    infer(inputs, params) {
      const [x, weight] = operands(inputs, 2, 'rmsNorm') as [Tensor, Tensor];
      expect(weight.shape.length === 1 && columnsOf(weight) === columnsOf(x), 'rmsNorm', inputs, 'weight is one row');
      expect(params['eps']! >= 0, 'rmsNorm', inputs, 'eps must not be negative');
      return { shape: x.shape };
    },
  },

  /** a + b; b may be one row, added to every row of a. */
  add: { write: 'inPlace', infer: inferElementwise('add') },
  /** a · b, element by element; b may be one row. */
  mul: { write: 'inPlace', infer: inferElementwise('mul') },
  /** x · sigmoid(x). */
  silu: { write: 'inPlace', infer: sameAsFirst('silu', 1) },

  /**
   * Rotary positions on [rows, nHead · headDim]. Operands: x, positions i32[rows], table f32[nCtx, nRot] of
   * (cos, sin) pairs. Params: headDim, nRot, neox (0: pairs (2i, 2i+1); 1: pairs (i, i + nRot/2)).
   */
  rope: {
    write: 'inPlace',
    infer(inputs, params) {
      const [x, positions, angles] = operands(inputs, 3, 'rope') as [Tensor, Tensor, Tensor];
      const { headDim, nRot } = params as { headDim: number; nRot: number };
      expect(positions.dtype === 'I32', 'rope', inputs, 'positions must be i32');
      expect(columnsOf(angles) === nRot && nRot % 2 === 0 && nRot <= headDim, 'rope', inputs, 'table is [nCtx, nRot]');
      expect(columnsOf(x) % headDim === 0, 'rope', inputs, 'columns must be a multiple of headDim');
      return { shape: x.shape };
    },
  },

  /**
   * Writes rows of keys or values into the cache: state[slots[i]] = rows[i]. Operands: state, rows, slots i32[rows].
   */
  kvWrite: {
    write: 'stateful',
    infer(inputs) {
      const [state, rows, slots] = operands(inputs, 3, 'kvWrite') as [Tensor, Tensor, Tensor];
      expect(slots.dtype === 'I32' && columnsOf(state) === columnsOf(rows), 'kvWrite', inputs, 'columns must be equal');
      return { shape: state.shape, dtype: state.dtype };
    },
  },

  /**
   * Causal attention over the paged cache. Operands: q [rows, nHead·headDim], keys and values (written state)
   * [nBlock·blockSize, nHeadKv·headDim], positions i32[rows], sequences i32[rows], blockTables i32[nSeq, nBlockPerSeq].
   * Row i of sequence s attends to its positions 0..positions[i]; position p lies in row
   * blockTables[s][p / blockSize]·blockSize + p % blockSize. Params: nHead, nHeadKv, headDim, blockSize, scale.
   */
  attention: {
    write: 'store',
    infer(inputs, params) {
      const [q, keys, values] = operands(inputs, 6, 'attention') as unknown as [Tensor, Tensor, Tensor];
      const { nHead, nHeadKv, headDim } = params as { nHead: number; nHeadKv: number; headDim: number };
      expect(columnsOf(q) === nHead * headDim, 'attention', inputs, 'q has nHead · headDim columns');
      expect(columnsOf(keys) === nHeadKv * headDim, 'attention', inputs, 'keys have nHeadKv · headDim columns');
      expect(columnsOf(values) === columnsOf(keys) && nHead % nHeadKv === 0, 'attention', inputs, 'heads must divide');
      return { shape: q.shape };
    },
  },

  /** silu(a) · b: what lowering makes of the two. */
  siluMul: { write: 'inPlace', infer: inferElementwise('siluMul') },

  /** Activations to 8 bits, by blocks of 32 (see Q8A): what lowering puts before an integer matmul. */
  quantize: {
    write: 'store',
    infer(inputs) {
      const [x] = operands(inputs, 1, 'quantize') as unknown as [Tensor];
      expect(columnsOf(x) % 32 === 0, 'quantize', inputs, 'columns must be a multiple of 32');
      return { shape: x.shape, dtype: 'Q8A' };
    },
  },

  /** Zeroes operand 0's memory: what the plan puts before an accumulating instruction. */
  clear: { write: 'stateful', infer: sameAsFirst('clear', 1) },
} as const satisfies Record<string, Operation>;

export type OpName = keyof typeof table;

export const OPERATIONS: Readonly<Record<OpName, Operation>> = table;
