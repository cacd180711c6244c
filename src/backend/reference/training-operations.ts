// The operations of training in float64, as operations.ts has those of inference: layers that only training uses, the
// loss, derivatives, the optimiser.

import { philox } from '../../base/random.ts';
import type { OpName } from '../../graph/operations.ts';
import { HYPER, SUM_SEGMENT_COUNT } from '../../graph/operations-training.ts';
import type { Evaluate } from './operations.ts';
import { at, build, map, sum } from './value.ts';
import type { Value } from './value.ts';

const product = (sizes: readonly number[]): number => sizes.reduce((n, d) => n * d, 1);

/** A batched matrix product: element (row, column) of batch `batch` of the result. */
function batched(shape: readonly number[], element: (batch: number, row: number, column: number) => number): Value {
  const [nRows, nColumns] = shape.slice(-2) as [number, number];
  const rows = product(shape.slice(0, -1));
  return build(rows, nColumns, (r, c) => element(Math.floor(r / nRows), r % nRows, c));
}

/** Rows of a matrix in `v` when the inner or outer size is known. */
const matrixRows = (v: Value, nBatch: number): number => v.rows / nBatch;

const matmulNT: Evaluate = ([a, b], { group = 1 }, shape) => {
  const nBatch = product(shape.slice(0, -2));
  const rowsB = matrixRows(b!, nBatch / group);
  return batched(shape, (batch, row, column) => {
    const aRow = batch * shape.at(-2)! + row;
    const bRow = Math.floor(batch / group) * rowsB + column;
    return sum(a!.columns, (k) => at(a!, aRow, k) * at(b!, bRow, k));
  });
};

const matmulNN: Evaluate = ([a, b], { group = 1 }, shape) =>
  batched(shape, (batch, row, column) => {
    const aRow = batch * shape.at(-2)! + row;
    const bRow = Math.floor(batch / group) * a!.columns;
    return sum(a!.columns, (k) => at(a!, aRow, k) * at(b!, bRow + k, column));
  });

const matmulTN: Evaluate = ([a, b], { group = 1 }, shape) => {
  const nInner = matrixRows(a!, product(shape.slice(0, -2)) * group);
  return batched(shape, (batch, row, column) =>
    sum(group * nInner, (i) => {
      const inner = batch * group * nInner + i;
      return at(a!, inner, row) * at(b!, inner, column);
    }),
  );
};

const splitHeads: Evaluate = ([x], { column }, [, nHead, nPositions, headDim]) =>
  build(product([x!.rows, nHead!]), headDim!, (r, c) => {
    const position = r % nPositions!;
    const head = Math.floor(r / nPositions!) % nHead!;
    const sequence = Math.floor(r / (nPositions! * nHead!));
    return at(x!, sequence * nPositions! + position, column! + head * headDim! + c);
  });

const mergeHeads: Evaluate = ([x], { nSeq, column }, [nRows, columns]) => {
  const headDim = x!.columns;
  const nPositions = nRows! / nSeq!;
  const nHead = x!.rows / nRows!;
  return build(nRows!, columns!, (r, c) => {
    const [sequence, position] = [Math.floor(r / nPositions), r % nPositions];
    const head = Math.floor((c - column!) / headDim);
    if (head < 0 || head >= nHead) return 0;
    return at(x!, (sequence * nHead + head) * nPositions + position, (c - column!) % headDim);
  });
};

const causalSoftmax: Evaluate = ([scores], { scale }) => {
  const n = scores!.columns;
  const out = new Float64Array(scores!.data.length);
  for (let r = 0; r < scores!.rows; r++) {
    const nSeen = (r % n) + 1;
    let max = -Infinity;
    for (let c = 0; c < nSeen; c++) max = Math.max(max, at(scores!, r, c) * scale!);
    const total = sum(nSeen, (c) => Math.exp(at(scores!, r, c) * scale! - max));
    for (let c = 0; c < nSeen; c++) out[r * n + c] = Math.exp(at(scores!, r, c) * scale! - max) / total;
  }
  return { ...scores!, data: out };
};

const softmaxGradient: Evaluate = ([dP, p], { scale }) => {
  const inner = Array.from({ length: p!.rows }, (_, r) => sum(p!.columns, (c) => at(p!, r, c) * at(dP!, r, c)));
  return build(p!.rows, p!.columns, (r, c) => scale! * at(p!, r, c) * (at(dP!, r, c) - inner[r]!));
};

/** Mean, and 1 / sqrt(variance + eps), of a row. `centred` false: mean 0, as RMSNorm has it. */
function rowStatistics(x: Value, row: number, eps: number, centred: boolean): { mean: number; inverse: number } {
  const mean = centred ? sum(x.columns, (c) => at(x, row, c)) / x.columns : 0;
  const variance = sum(x.columns, (c) => (at(x, row, c) - mean) ** 2) / x.columns;
  return { mean, inverse: 1 / Math.sqrt(variance + eps) };
}

const layerNorm: Evaluate = ([x, weight, bias], { eps, nRuns = 1 }) => {
  const runs: Value = { data: x!.data, rows: x!.rows * nRuns, columns: x!.columns / nRuns };
  const statistics = Array.from({ length: runs.rows }, (_, r) => rowStatistics(runs, r, eps!, true));
  return build(x!.rows, x!.columns, (r, c) => {
    const { mean, inverse } = statistics[r * nRuns + Math.floor(c / runs.columns)]!;
    return (at(x!, r, c) - mean) * inverse * weight!.data[c]! + bias!.data[c]!;
  });
};

const normalize: Evaluate = ([x], { eps, centred }) => {
  const rows = Array.from({ length: x!.rows }, (_, r) => rowStatistics(x!, r, eps!, centred === 1));
  return build(x!.rows, x!.columns, (r, c) => (at(x!, r, c) - rows[r]!.mean) * rows[r]!.inverse);
};

/** dx = inverse · (g − mean(g) − x̂ · mean(g · x̂)) with g = dOut · weight; without centring there is no mean(g). */
const normGradient: Evaluate = ([dOut, x, weight], { eps, centred }) => {
  const n = x!.columns;
  const data = new Float64Array(x!.data.length);
  for (let r = 0; r < x!.rows; r++) {
    const { mean, inverse } = rowStatistics(x!, r, eps!, centred === 1);
    const hat = (c: number): number => (at(x!, r, c) - mean) * inverse;
    const g = (c: number): number => at(dOut!, r, c) * weight!.data[c]!;
    const meanG = centred === 1 ? sum(n, g) / n : 0;
    const meanGHat = sum(n, (c) => g(c) * hat(c)) / n;
    for (let c = 0; c < n; c++) data[r * n + c] = inverse * (g(c) - meanG - hat(c) * meanGHat);
  }
  return { ...x!, data };
};

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3)));
function geluDerivative(x: number): number {
  const t = Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU_SCALE * (1 + 3 * 0.044715 * x * x);
}
function siluDerivative(x: number): number {
  const sigmoid = 1 / (1 + Math.exp(-x));
  return sigmoid * (1 + x * (1 - sigmoid));
}

const dropout: Evaluate = ([x, rng], { p, stream }) => {
  const [seedLow, seedHigh, step] = rng!.data;
  const key = Uint32Array.of(seedLow! >>> 0, seedHigh! >>> 0);
  const out = new Uint32Array(4);
  return map(x!, (value, i) => {
    philox(Uint32Array.of(i >>> 2, stream!, step! >>> 0, 0), key, out);
    return out[i & 3]! >= p! * 2 ** 32 ? value / (1 - p!) : 0;
  });
};

const crossEntropy: Evaluate = ([logits, targets], { ignore }) => {
  const data = new Float64Array(logits!.rows);
  for (let r = 0; r < logits!.rows; r++) {
    const target = targets!.data[r]!;
    if (target !== ignore) data[r] = logSumExp(logits!, r) - at(logits!, r, target);
  }
  return { data, rows: 1, columns: logits!.rows };
};

function logSumExp(x: Value, row: number): number {
  let max = -Infinity;
  for (let c = 0; c < x.columns; c++) max = Math.max(max, at(x, row, c));
  return max + Math.log(sum(x.columns, (c) => Math.exp(at(x, row, c) - max)));
}

const crossEntropyGradient: Evaluate = ([logits, targets, dLoss], { ignore }) => {
  const sums = Array.from({ length: logits!.rows }, (_, r) => logSumExp(logits!, r));
  return build(logits!.rows, logits!.columns, (r, c) => {
    const target = targets!.data[r]!;
    if (target === ignore) return 0;
    return (Math.exp(at(logits!, r, c) - sums[r]!) - (c === target ? 1 : 0)) * dLoss!.data[r]!;
  });
};

const countOf = (targets: Value, ignore: number): number => targets.data.filter((t) => t !== ignore).length;

const meanLoss: Evaluate = ([losses, targets], { ignore }) => {
  const n = Math.max(1, countOf(targets!, ignore!));
  return build(1, 1, () => sum(losses!.columns, (i) => losses!.data[i]!) / n);
};

const meanLossGradient: Evaluate = ([dLoss, targets], { ignore }) => {
  const n = Math.max(1, countOf(targets!, ignore!));
  return build(1, targets!.data.length, (_, c) => (targets!.data[c] === ignore ? 0 : dLoss!.data[0]! / n));
};

const embedGradient: Evaluate = ([dOut, ids], { nRows }) => {
  const data = new Float64Array(nRows! * dOut!.columns);
  ids!.data.forEach((id, r) => {
    for (let c = 0; c < dOut!.columns; c++) data[id * dOut!.columns + c]! += at(dOut!, r, c);
  });
  return { data, rows: nRows!, columns: dOut!.columns };
};

const accumulateGradient: Evaluate = ([gradient, d]) => {
  d!.data.forEach((value, i) => (gradient!.data[i]! += value));
  return gradient!;
};

const sumSquares: Evaluate = ([x]) => {
  const segment = Math.ceil(x!.data.length / SUM_SEGMENT_COUNT);
  return build(1, SUM_SEGMENT_COUNT, (_, c) =>
    x!.data.subarray(c * segment, (c + 1) * segment).reduce((total, v) => total + v * v, 0),
  );
};

const adamW: Evaluate = ([parameters, moment1, moment2, gradients, squares, hyper], { nDecayed }) => {
  const h = (name: keyof typeof HYPER): number => hyper!.data[HYPER[name]]!;
  const norm = Math.sqrt(sum(SUM_SEGMENT_COUNT, (i) => squares!.data[i]!));
  if (!Number.isFinite(norm)) return parameters!;
  const clip = h('maxNorm') > 0 && norm > h('maxNorm') ? h('maxNorm') / norm : 1;
  for (let i = 0; i < parameters!.data.length; i++) {
    const g = gradients!.data[i]! * clip;
    const m = (moment1!.data[i] = h('beta1') * moment1!.data[i]! + (1 - h('beta1')) * g);
    const v = (moment2!.data[i] = h('beta2') * moment2!.data[i]! + (1 - h('beta2')) * g * g);
    const decay = i < nDecayed! ? h('learningRate') * h('weightDecay') * parameters!.data[i]! : 0;
    const update = m / h('correction1') / (Math.sqrt(v / h('correction2')) + h('eps'));
    parameters!.data[i]! -= decay + h('learningRate') * update;
    gradients!.data[i] = 0;
  }
  return parameters!;
};

export const TRAINING_EVALUATIONS: Partial<Record<OpName, Evaluate>> = {
  matmulNT,
  matmulNN,
  matmulTN,
  weightedSum: matmulNN,
  splitHeads,
  mergeHeads,
  causalSoftmax,
  softmaxGradient,
  layerNorm,
  normalize,
  normGradient,
  gelu: ([x]) => map(x!, gelu),
  geluGradient: ([dOut, x]) => map(dOut!, (d, i) => d * geluDerivative(x!.data[i]!)),
  siluGradient: ([dOut, x]) => map(dOut!, (d, i) => d * siluDerivative(x!.data[i]!)),
  dropout,
  crossEntropy,
  crossEntropyGradient,
  meanLoss,
  meanLossGradient,
  embedGradient,
  sumRows: ([x]) => build(1, x!.columns, (_, c) => sum(x!.rows, (r) => at(x!, r, c))),
  accumulateGradient,
  sumSquares,
  adamW,
};
