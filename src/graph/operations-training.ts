// Operations that only training needs: the loss, the derivatives of what has no simpler expression, dropout, the
// accumulation of gradients and the optimiser's step.

import type { Operation } from './operation.ts';
import { expect, operands, sameAsFirst } from './operation.ts';
import type { Tensor } from './tensor.ts';
import { columnsOf, dimMax, elementsMax } from './tensor.ts';

/** Segments into which `sumSquares` divides its operand: fixed, so that the sum does not depend on threads. */
export const SUM_SEGMENT_COUNT = 64;

/** Order of the values in the optimiser's `hyper` input. */
export const HYPER = {
  learningRate: 0,
  beta1: 1,
  beta2: 2,
  eps: 3,
  weightDecay: 4,
  maxNorm: 5,
  correction1: 6,
  correction2: 7,
};

export type TrainingOp =
  | 'dropout'
  | 'crossEntropy'
  | 'crossEntropyGradient'
  | 'meanLoss'
  | 'meanLossGradient'
  | 'embedGradient'
  | 'sumRows'
  | 'normalize'
  | 'normGradient'
  | 'siluGradient'
  | 'geluGradient'
  | 'softmaxGradient'
  | 'accumulateGradient'
  | 'sumSquares'
  | 'adamW';

export const TRAINING_OPERATIONS: Readonly<Record<TrainingOp, Operation>> = {
  /**
   * Keeps an element with probability 1 − p and scales it by 1 / (1 − p). The mask is a pure function of the element's
   * index, `stream`, and rng = i32[4] (seed low, seed high, step, 0): backward draws the same one. Params: p, stream.
   */
  dropout: {
    write: 'inPlace',
    infer(inputs, { p }) {
      const [x, rng] = operands(inputs, 2, 'dropout') as [Tensor, Tensor];
      expect(rng.dtype === 'I32' && elementsMax(rng) === 4, 'dropout', inputs, 'rng must be i32[4]');
      expect(p! > 0 && p! <= 1, 'dropout', inputs, 'p must be above 0 and at most 1');
      return { shape: x.shape };
    },
    gradient: (g, node, dOut) => [g.apply('dropout', [dOut, node.inputs[1]!], node.params), undefined],
  },

  /**
   * −log softmax(logits)[target], a value a row; 0 where the target is `ignore`. Operands: logits, targets i32[rows].
   */
  crossEntropy: {
    write: 'store',
    infer(inputs) {
      const [logits, targets] = operands(inputs, 2, 'crossEntropy') as [Tensor, Tensor];
      const isPerRow = targets.dtype === 'I32' && targets.shape.length === 1 && targets.shape[0] === logits.shape[0];
      expect(isPerRow, 'crossEntropy', inputs, 'targets must be i32[rows]');
      return { shape: [dimMax(logits.shape[0]!)] };
    },
    gradient: (g, node, dOut) => [g.apply('crossEntropyGradient', [...node.inputs, dOut], node.params), undefined],
  },

  /** (softmax(logits) − one-hot(target)) · dLoss[row]; zeros where the target is `ignore`. */
  crossEntropyGradient: { write: 'inPlace', infer: sameAsFirst('crossEntropyGradient', 3) },

  /** Mean of a row of losses over the targets that are not `ignore`; 0 if there are none. Result f32[1]. */
  meanLoss: {
    write: 'store',
    infer(inputs) {
      operands(inputs, 2, 'meanLoss');
      return { shape: [1] };
    },
    gradient: (g, node, dOut) => [g.apply('meanLossGradient', [dOut, node.inputs[1]!], node.params), undefined],
  },

  /** dLoss / n for each of the n rows that count, 0 for the others. Operands: dLoss f32[1], targets. */
  meanLossGradient: {
    write: 'store',
    infer: (inputs) => ({ shape: [dimMax(inputs[1]!.shape[0]!)] }),
  },

  /** Row sums by token: out[ids[i]] += dOut[i]. Params: nRows of the table. Operands: dOut, ids. */
  embedGradient: {
    write: 'accumulate',
    infer(inputs, { nRows }) {
      const [dOut] = operands(inputs, 2, 'embedGradient') as [Tensor, Tensor];
      return { shape: [nRows!, columnsOf(dOut)] };
    },
  },

  /** Sum of the rows: f32[columns]. */
  sumRows: {
    write: 'store',
    infer(inputs) {
      const [x] = operands(inputs, 1, 'sumRows') as unknown as [Tensor];
      return { shape: [columnsOf(x)] };
    },
  },

  /**
   * x̂, what a norm multiplies by its weight. Params: eps, centred (1: LayerNorm; 0: RMSNorm, which keeps the mean).
   */
  normalize: { write: 'inPlace', infer: sameAsFirst('normalize', 1) },

  /** Derivative of weight · x̂ by x. Operands dOut, x, weight. Params: eps, centred. */
  normGradient: { write: 'inPlace', infer: sameAsFirst('normGradient', 3) },

  /** dOut · f′(x), element by element. Operands: dOut, x. */
  siluGradient: { write: 'inPlace', infer: sameAsFirst('siluGradient', 2) },
  geluGradient: { write: 'inPlace', infer: sameAsFirst('geluGradient', 2) },

  /** scale · p · (dP − Σ p·dP), row by row: softmax backwards. Operands: dP, p. Params: scale. */
  softmaxGradient: { write: 'inPlace', infer: sameAsFirst('softmaxGradient', 2) },

  /** gradient += d. Operand 0 lasts over steps; the optimiser clears it. */
  accumulateGradient: {
    write: 'accumulateKeep',
    infer(inputs) {
      const [gradient, d] = operands(inputs, 2, 'accumulateGradient') as [Tensor, Tensor];
      const isSame = elementsMax(gradient) === elementsMax(d);
      expect(isSame, 'accumulateGradient', inputs, 'both must have the same number of elements');
      return { shape: gradient.shape };
    },
  },

  /** Sums of squares of equal segments of a state: f32[SUM_SEGMENT_COUNT]. */
  sumSquares: { write: 'store', infer: () => ({ shape: [SUM_SEGMENT_COUNT] }) },

  /**
   * One step of AdamW (arXiv:1711.05101) on flat arrays, with the gradient scaled down to the norm hyper.maxNorm
   * (0: not at all); clears the gradients. Does nothing at all where that norm is not finite. Operands: parameters,
   * moments 1 and 2, gradients, sumSquares of the gradients, hyper f32[8] (see HYPER). Params: nDecayed, the elements
   * from the start that weight decay applies to.
   */
  adamW: { write: 'stateful', infer: sameAsFirst('adamW', 6) },
};
