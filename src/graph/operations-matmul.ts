// Matrix products. `matmul` is the layer's; the others are the same for plain matrices with any number of leading batch
// dimensions, named after which operand is transposed. With `group` g, batch i of the larger operand meets batch i/g of
// the smaller one: query heads that share a key head.

import { assert } from '../base/errors.ts';
import type { Operation, OpParams } from './operation.ts';
import { expect, operands } from './operation.ts';
import type { Shape, Tensor } from './tensor.ts';
import { columnsOf, dimMax, elementsMax, rowsOf } from './tensor.ts';

const rowCount = (t: Tensor): number => dimMax(t.shape.at(-2)!);
const batchCount = (t: Tensor): number => elementsMax(t) / (rowCount(t) * columnsOf(t));
const isRow = (t: Tensor): boolean => t.shape.length === 1;
const groupOf = (params: OpParams): number => params['group'] ?? 1;

function checkInner(op: string, inputs: readonly Tensor[], innerA: number, innerB: number): void {
  expect(innerA === innerB, op, inputs, 'inner sizes must be equal');
}

/** [batch of a, rows, columns] */
function shapeLike(a: Tensor, rows: number, columns: number): Shape {
  return [...a.shape.slice(0, -2), rows === rowCount(a) ? a.shape.at(-2)! : rows, columns];
}

export type MatmulOp = 'matmul' | 'matmulNT' | 'matmulNN' | 'matmulTN' | 'weightedSum';

export const MATMUL_OPERATIONS: Readonly<Record<MatmulOp, Operation>> = {
  /**
   * y = x · Wᵀ, x [rows, nIn], W [nOut, nIn], plus up to two further operands, in their order: each a row f32[nOut], a
   * bias, or of the result's shape, the residual stream. Layers give none; lowering puts them in.
   */
  matmul: {
    write: 'store',
    infer(inputs) {
      const [x, w, ...addends] = inputs as [Tensor, Tensor, ...Tensor[]];
      assert(inputs.length >= 2 && inputs.length <= 4, `matmul takes 2 to 4 operands, got ${inputs.length}`);
      expect(w.shape.length === 2 && columnsOf(x) === columnsOf(w), 'matmul', inputs, 'inner sizes must be equal');
      const shape = [rowsOf(x), w.shape[0]!];
      for (const addend of addends) {
        const fits = columnsOf(addend) === dimMax(shape[1]!) && (isRow(addend) || rowsOf(addend) === shape[0]);
        expect(fits, 'matmul', inputs, 'what is added must be a row or have the shape of the result');
      }
      return { shape };
    },
    gradient: (g, { inputs }, dOut) => [
      g.apply('matmulNN', [dOut, inputs[1]!]),
      g.apply('matmulTN', [dOut, inputs[0]!]),
    ],
  },

  /** a · bᵀ: [.., M, K] · [.., N, K]ᵀ → [.., M, N]; b may have fewer batches. Params: group. */
  matmulNT: {
    write: 'store',
    infer(inputs, params) {
      const [a, b] = operands(inputs, 2, 'matmulNT') as [Tensor, Tensor];
      checkInner('matmulNT', inputs, columnsOf(a), columnsOf(b));
      expect(batchCount(a) === batchCount(b) * groupOf(params), 'matmulNT', inputs, 'batches must match');
      return { shape: shapeLike(a, rowCount(a), rowCount(b)) };
    },
    gradient: (g, { inputs, params }, dOut) => [
      g.apply('matmulNN', [dOut, inputs[1]!], params),
      g.apply('matmulTN', [dOut, inputs[0]!], params),
    ],
  },

  /** a · b: [.., M, K] · [.., K, N] → [.., M, N]; b may have fewer batches. Params: group. */
  matmulNN: {
    write: 'store',
    infer(inputs, params) {
      const [a, b] = operands(inputs, 2, 'matmulNN') as [Tensor, Tensor];
      checkInner('matmulNN', inputs, columnsOf(a), rowCount(b));
      expect(batchCount(a) === batchCount(b) * groupOf(params), 'matmulNN', inputs, 'batches must match');
      return { shape: shapeLike(a, rowCount(a), columnsOf(b)) };
    },
  },

  /** aᵀ · b: [.., K, M]ᵀ · [.., K, N] → [.., M, N], summed over the `group` batches that share a result. */
  matmulTN: {
    write: 'store',
    infer(inputs, params) {
      const [a, b] = operands(inputs, 2, 'matmulTN') as [Tensor, Tensor];
      checkInner('matmulTN', inputs, rowCount(a), rowCount(b));
      expect(batchCount(a) === batchCount(b), 'matmulTN', inputs, 'batches must match');
      const matrix = [columnsOf(a), columnsOf(b)];
      if (a.shape.length === 2) return { shape: matrix };
      const [nSeq, nHead] = a.shape as readonly number[];
      return { shape: [nSeq!, nHead! / groupOf(params), ...matrix] };
    },
  },

  /** As matmulNN, but adds rows of b, weighted by a row of a, into its result: attention's P · V. Params: group. */
  weightedSum: {
    write: 'accumulate',
    infer(inputs, params) {
      const [p, v] = operands(inputs, 2, 'weightedSum') as [Tensor, Tensor];
      checkInner('weightedSum', inputs, columnsOf(p), rowCount(v));
      expect(batchCount(p) === batchCount(v) * groupOf(params), 'weightedSum', inputs, 'batches must match');
      return { shape: shapeLike(p, rowCount(p), columnsOf(v)) };
    },
    gradient: (g, { inputs, params }, dOut) => [
      g.apply('matmulNT', [dOut, inputs[1]!], params),
      g.apply('matmulTN', [inputs[0]!, dOut], params),
    ],
  },
};
