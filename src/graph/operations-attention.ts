// Attention: the paged form for generation, and the unfused parts over [sequence, head, position, …] for training.

import type { Operation } from './operation.ts';
import { expect, operands, sameAsFirst } from './operation.ts';
import type { Tensor } from './tensor.ts';
import { columnsOf, elementsMax } from './tensor.ts';

export type AttentionOp = 'kvWrite' | 'attention' | 'splitHeads' | 'mergeHeads' | 'causalSoftmax';

export const ATTENTION_OPERATIONS: Readonly<Record<AttentionOp, Operation>> = {
  /**
   * Writes rows of keys or values into the cache: state[slots[i]] = rows[i]. Operands: state, rows, slots i32[rows].
   * Params: headDim, isKeys. Only `attention` reads it: how the numbers lie in the state is the backend's affair.
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
   * Attention over the paged cache. Operands: q [rows, nHead·headDim], keys and values (written state)
   * [nBlock·blockSize, nHeadKv·headDim], lastSeen i32[rows], sequences i32[rows], blockTables i32[nSeq, nBlockPerSeq],
   * and perhaps sinks f32[nHead], a score of nothing that takes its share of each head's softmax.
   * Row i of sequence s attends to its positions 0..lastSeen[i], with a window to the last `window` of them: its own
   * position makes it causal, that of the last row bidirectional. Within a run of rows of one sequence lastSeen never
   * falls. Position p lies in row blockTables[s][p / blockSize]·blockSize + p % blockSize. Params: nHead, nHeadKv,
   * headDim, blockSize, scale, softcap (scores become softcap · tanh(score / softcap)), window; both 0 or absent: none.
   */
  attention: {
    write: 'store',
    sharesScratch: true,
    infer(inputs, params) {
      const [q, keys, values] = operands(inputs, inputs.length === 7 ? 7 : 6, 'attention') as unknown as [
        Tensor,
        Tensor,
        Tensor,
      ];
      const sinks = inputs[6];
      const { nHead, nHeadKv, headDim } = params as { nHead: number; nHeadKv: number; headDim: number };
      expect(columnsOf(q) === nHead * headDim, 'attention', inputs, 'q has nHead · headDim columns');
      expect(!sinks || elementsMax(sinks) === nHead, 'attention', inputs, 'there is a sink for each head');
      expect(columnsOf(keys) === nHeadKv * headDim, 'attention', inputs, 'keys have nHeadKv · headDim columns');
      expect(columnsOf(values) === columnsOf(keys) && nHead % nHeadKv === 0, 'attention', inputs, 'heads must divide');
      return { shape: q.shape };
    },
  },

  /**
   * Heads out of rows: f32[B·T, columns] → f32[B, H, T, headDim], from column `column` on. Params: nSeq (B), nHead (H),
   * headDim, column.
   */
  splitHeads: {
    write: 'store',
    infer(inputs, { nSeq, nHead, headDim, column }) {
      const [x] = operands(inputs, 1, 'splitHeads') as unknown as [Tensor];
      const nPositions = elementsMax(x) / columnsOf(x) / nSeq!;
      expect(Number.isInteger(nPositions), 'splitHeads', inputs, 'rows must be a multiple of nSeq');
      expect(
        column! + nHead! * headDim! <= columnsOf(x),
        'splitHeads',
        inputs,
        'the heads must lie within the columns',
      );
      return { shape: [nSeq!, nHead!, nPositions, headDim!] };
    },
    gradient: (g, { inputs, params }, dOut) => {
      const { nSeq, column } = params as { nSeq: number; column: number };
      return [g.apply('mergeHeads', [dOut], { nSeq, column, columns: columnsOf(inputs[0]!) })];
    },
  },

  /**
   * Heads back into rows: f32[B, H, T, headDim] → f32[B·T, columns], from column `column` on; other columns are 0.
   * Params: nSeq (B), column, columns.
   */
  mergeHeads: {
    write: 'store',
    infer(inputs, { columns, column }) {
      const [x] = operands(inputs, 1, 'mergeHeads') as unknown as [Tensor];
      const [nSeq, nHead, nPositions, headDim] = x.shape as readonly number[];
      expect(column! + nHead! * headDim! <= columns!, 'mergeHeads', inputs, 'the heads must fit into the columns');
      return { shape: [nSeq! * nPositions!, columns!] };
    },
    gradient: (g, { inputs, params }, dOut) => {
      const [nSeq, nHead, , headDim] = inputs[0]!.shape as [number, number, number, number];
      return [g.apply('splitHeads', [dOut], { nSeq, nHead, headDim, column: params['column']! })];
    },
  },

  /**
   * softmax(scale · scores) over positions up to the row's own; later ones get 0. Scores [B, H, T, T]. Params: scale.
   */
  causalSoftmax: {
    write: 'inPlace',
    infer: sameAsFirst('causalSoftmax', 1),
    gradient: (g, node, dOut) => [g.apply('softmaxGradient', [dOut, node], node.params)],
  },
};
