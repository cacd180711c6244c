// The operations in float64, one function each, written to be obviously right: the definition that every kernel is
// compared with. Operands are dense row-major arrays; `columns` is the size of the last dimension.

import { assert } from '../../base/errors.ts';
import type { OpParams } from '../../graph/operation.ts';
import { SWIGLU_OAI } from '../../graph/operations-experts.ts';
import type { OpName } from '../../graph/operations.ts';
import { TRAINING_EVALUATIONS } from './training-operations.ts';
import { at, build } from './value.ts';
import type { Value } from './value.ts';

/** @param shape  of the result */
export type Evaluate = (inputs: readonly Value[], params: OpParams, shape: readonly number[]) => Value;

/** The row of `b` that meets row `row` of the other operand, when `b` may be a single row. */
const broadcastRow = (b: Value, row: number): number => (b.rows === 1 ? 0 : row);
const silu = (x: number): number => x / (1 + Math.exp(-x));

function dot(a: Value, aRow: number, b: Value, bRow: number): number {
  let sum = 0;
  for (let c = 0; c < a.columns; c++) sum += at(a, aRow, c) * at(b, bRow, c);
  return sum;
}

const selectRows: (table: Value, ids: Value) => Value = (table, ids) =>
  build(ids.data.length, table.columns, (r, c) => at(table, ids.data[r]!, c));

/** Each run of the row that is as long as the weight is a row of its own. */
const rmsNorm: Evaluate = ([x, weight], { eps }) => {
  const n = weight!.data.length;
  const runs: Value = { data: x!.data, rows: x!.data.length / n, columns: n };
  const scale = Array.from({ length: runs.rows }, (_, r) => 1 / Math.sqrt(dot(runs, r, runs, r) / n + eps!));
  const normed = build(runs.rows, n, (r, c) => at(runs, r, c) * scale[r]! * weight!.data[c]!);
  return { ...normed, rows: x!.rows, columns: x!.columns };
};

const softcap = (x: number, cap: number): number => cap * Math.tanh(x / cap);

const rope: Evaluate = ([x, positions, angles], params) => {
  const {
    headDim,
    nRot,
    neox,
    inverse = 0,
  } = params as { headDim: number; nRot: number; neox: number; inverse?: number };
  return build(x!.rows, x!.columns, (r, c) => {
    const i = c % headDim;
    if (i >= nRot) return at(x!, r, c);
    const half = nRot / 2;
    const pair = neox ? i % half : i >> 1;
    const isSecond = neox ? i >= half : i % 2 === 1;
    const partner = neox ? (isSecond ? c - half : c + half) : isSecond ? c - 1 : c + 1;
    const cosine = at(angles!, positions!.data[r]!, 2 * pair);
    const sine = (inverse ? -1 : 1) * at(angles!, positions!.data[r]!, 2 * pair + 1);
    return at(x!, r, c) * cosine + at(x!, r, partner) * (isSecond ? sine : -sine);
  });
};

const kvWrite: Evaluate = ([state, rows, slots]) => {
  for (let r = 0; r < rows!.rows; r++) {
    state!.data.set(rows!.data.subarray(r * rows!.columns, (r + 1) * rows!.columns), slots!.data[r]! * rows!.columns);
  }
  return state!;
};

const attention: Evaluate = ([q, keys, values, lastSeen, sequences, blockTables, sinks], params) => {
  const { nHead, nHeadKv, headDim, blockSize, scale, softcap: cap = 0, window = 0 } = params as Record<string, number>;
  const out = new Float64Array(q!.data.length);
  for (let r = 0; r < q!.rows; r++) {
    const nKeys = lastSeen!.data[r]! + 1;
    const firstSeen = window ? Math.max(0, nKeys - window) : 0;
    const cacheRow = (p: number): number =>
      at(blockTables!, sequences!.data[r]!, Math.floor(p / blockSize!)) * blockSize! + (p % blockSize!);
    for (let head = 0; head < nHead!; head++) {
      const kvColumn = Math.floor(head / (nHead! / nHeadKv!)) * headDim!;
      const qColumn = head * headDim!;
      const scores = Array.from({ length: nKeys }, (_, p) => {
        if (p < firstSeen) return -Infinity;
        let sum = 0;
        for (let i = 0; i < headDim!; i++) sum += at(q!, r, qColumn + i) * at(keys!, cacheRow(p), kvColumn + i);
        return cap ? softcap(sum * scale!, cap) : sum * scale!;
      });
      const sink = sinks ? at(sinks, 0, head) : -Infinity;
      const max = scores.reduce((a, b) => Math.max(a, b), sink);
      const weights = scores.map((s) => Math.exp(s - max));
      const total = weights.reduce((a, b) => a + b, Math.exp(sink - max));
      weights.forEach((w, p) => {
        const base = cacheRow(p) * values!.columns + kvColumn;
        for (let i = 0; i < headDim!; i++) out[r * q!.columns + qColumn + i]! += (w / total) * values!.data[base + i]!;
      });
    }
  }
  return { data: out, rows: q!.rows, columns: q!.columns };
};

/** The k largest by value, then by their place, which sorting keeps. */
const topK: Evaluate = ([x], { k }) => {
  const chosen = Array.from({ length: x!.rows }, (_, r) => {
    const row = Array.from(x!.data.subarray(r * x!.columns, (r + 1) * x!.columns), (value, column) => ({
      value,
      column,
    }));
    return row.sort((a, b) => b.value - a.value).slice(0, k);
  });
  return build(x!.rows, k!, (r, c) => chosen[r]![c]!.column);
};

const expertWeights: Evaluate = ([logits, ids], { isNormalised }) => {
  return build(ids!.rows, ids!.columns, (r, c) => {
    const [nAll, nChosen] = [logits!.columns, ids!.columns];
    const all = Array.from({ length: nAll }, (_, i) => at(logits!, r, i));
    const chosen = Array.from({ length: nChosen }, (_, i) => at(logits!, r, at(ids!, r, i)));
    const max = all.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = (isNormalised ? chosen : all).reduce((a, b) => a + Math.exp(b - max), 0);
    return Math.exp(chosen[c]! - max) / total;
  });
};

/** Of w all experts' rows follow each other. */
const expertMatmul: Evaluate = ([x, w, ids], _, [rows, columns]) => {
  const k = ids!.columns;
  const nOut = columns! / k;
  const runs: Value = { data: x!.data, rows: x!.data.length / w!.columns, columns: w!.columns };
  return build(rows!, columns!, (r, c) => {
    const run = Math.floor(c / nOut);
    const xRow = runs.rows === rows! ? r : r * k + run;
    return dot(runs, xRow, w!, at(ids!, r, run) * nOut + (c % nOut));
  });
};

const expertSum: Evaluate = ([x, weights], _, [rows, columns]) =>
  build(rows!, columns!, (r, c) => {
    let total = 0;
    for (let run = 0; run < weights!.columns; run++) total += at(weights!, r, run) * at(x!, r, run * columns! + c);
    return total;
  });

const swigluOai: Evaluate = ([a, b]) => {
  const { slope, limit } = SWIGLU_OAI;
  return build(a!.rows, a!.columns, (r, c) => {
    const gate = Math.min(at(a!, r, c), limit);
    const up = Math.max(-limit, Math.min(limit, at(b!, r, c)));
    return (gate / (1 + Math.exp(-slope * gate))) * (up + 1);
  });
};

const EVALUATIONS: Partial<Record<OpName, Evaluate>> = {
  embed: ([weight, ids], _, [rows, columns]) => ({
    ...selectRows(weight!, ids!),
    rows: rows!,
    columns: columns!,
  }),
  gatherRows: ([x, rows]) => selectRows(x!, rows!),
  matmul: ([x, w, ...addends]) => {
    return build(x!.rows, w!.rows, (r, c) =>
      addends.reduce((sum, b) => sum + at(b, broadcastRow(b, r), c), dot(x!, r, w!, c)),
    );
  },
  rmsNorm,
  add: ([a, b]) => build(a!.rows, a!.columns, (r, c) => at(a!, r, c) + at(b!, broadcastRow(b!, r), c)),
  mul: ([a, b]) => build(a!.rows, a!.columns, (r, c) => at(a!, r, c) * at(b!, broadcastRow(b!, r), c)),
  scale: ([x], { factor }) => build(x!.rows, x!.columns, (r, c) => at(x!, r, c) * factor!),
  softcap: ([x], { cap }) => build(x!.rows, x!.columns, (r, c) => softcap(at(x!, r, c), cap!)),
  sigmoid: ([x]) => build(x!.rows, x!.columns, (r, c) => 1 / (1 + Math.exp(-at(x!, r, c)))),
  silu: ([x]) => build(x!.rows, x!.columns, (r, c) => silu(at(x!, r, c))),
  siluMul: ([a, b]) => build(a!.rows, a!.columns, (r, c) => silu(at(a!, r, c)) * at(b!, broadcastRow(b!, r), c)),
  rope,
  kvWrite,
  attention,
  topK,
  expertWeights,
  expertMatmul,
  expertSum,
  swigluOai,
  ...TRAINING_EVALUATIONS,
};

/**
 * Evaluates one operation in float64. Operations that change a state change their first operand; all others return
 * fresh memory.
 */
export function evaluateOperation(
  op: OpName,
  inputs: readonly Value[],
  params: OpParams,
  shape: readonly number[],
): Value {
  const evaluate = EVALUATIONS[op];
  assert(evaluate, `the reference executor has no operation "${op}"`);
  return evaluate(inputs, params, shape);
}
