// Mixture of experts: each row goes through the k of n matrices that a router chose for it. What belongs to the chosen
// experts of a row stands side by side in its columns, k runs of equal length, so that what works element by element
// needs to know nothing of it.

import type { Operation } from './operation.ts';
import { expect, inferElementwise, operands } from './operation.ts';
import type { Tensor } from './tensor.ts';
import { columnsOf, rowsOf } from './tensor.ts';

export type ExpertOp = 'topK' | 'expertWeights' | 'expertMatmul' | 'expertSum' | 'swigluOai';

/** Constants of `swigluOai`. */
export const SWIGLU_OAI = { slope: 1.702, limit: 7 };

export const EXPERT_OPERATIONS: Readonly<Record<ExpertOp, Operation>> = {
  /**
   * Columns of the k largest values of each row, the largest first, of equal ones the first first: i32[rows, k].
   * Params: k.
   */
  topK: {
    write: 'store',
    infer(inputs, { k }) {
      const [x] = operands(inputs, 1, 'topK') as unknown as [Tensor];
      expect(k! >= 1 && k! <= columnsOf(x), 'topK', inputs, 'k is at least 1 and at most the columns');
      return { shape: [rowsOf(x), k!], dtype: 'I32' };
    },
  },

  /**
   * What the chosen experts count for: softmax(logits)[ids], f32[rows, k]. Operands: logits [rows, n], ids
   * i32[rows, k]. Params: isNormalised (1: the softmax is over the chosen ones only, whose sum is then 1).
   */
  expertWeights: {
    write: 'store',
    infer(inputs) {
      const [logits, ids] = operands(inputs, 2, 'expertWeights') as [Tensor, Tensor];
      expect(
        ids.dtype === 'I32' && rowsOf(ids) === rowsOf(logits),
        'expertWeights',
        inputs,
        'ids must be i32[rows, k]',
      );
      return { shape: ids.shape };
    },
  },

  /**
   * Run j of row i is x[i] · W[ids[i, j]]ᵀ. Operands: x [rows, nIn], or [rows, k · nIn] with a run for each expert; W
   * [nExpert, nOut, nIn], nOut a multiple of 8; ids i32[rows, k], each below nExpert. Result f32[rows, k · nOut].
   */
  expertMatmul: {
    write: 'store',
    infer(inputs) {
      const [x, w, ids] = operands(inputs, 3, 'expertMatmul') as [Tensor, Tensor, Tensor];
      expect(ids.dtype === 'I32' && rowsOf(ids) === rowsOf(x), 'expertMatmul', inputs, 'ids must be i32[rows, k]');
      const [k, nOut] = [columnsOf(ids), w.shape[1] as number];
      const nRuns = columnsOf(x) / columnsOf(w);
      expect(w.shape.length === 3, 'expertMatmul', inputs, 'weights must be [nExpert, nOut, nIn]');
      expect(nRuns === 1 || nRuns === k, 'expertMatmul', inputs, 'inner sizes must be equal, once or for each expert');
      expect(nOut % 8 === 0, 'expertMatmul', inputs, 'rows of an expert must be a multiple of 8');
      return { shape: [rowsOf(x), k * nOut] };
    },
  },

  /** Σ over the runs of a row, each times its weight. Operands: x [rows, k · n], weights [rows, k]. */
  expertSum: {
    write: 'store',
    infer(inputs) {
      const [x, weights] = operands(inputs, 2, 'expertSum') as [Tensor, Tensor];
      const n = columnsOf(x) / columnsOf(weights);
      expect(rowsOf(x) === rowsOf(weights), 'expertSum', inputs, 'rows must be equal');
      expect(Number.isInteger(n), 'expertSum', inputs, 'columns must be a multiple of those of the weights');
      return { shape: [rowsOf(x), n] };
    },
  },

  /** g · sigmoid(slope · g) · (u + 1), g = min(gate, limit), u = up within ± limit. Operands: gate, up. */
  swigluOai: { write: 'inPlace', infer: inferElementwise('swigluOai') },
};
