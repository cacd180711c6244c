// The operations in float64, one function each, written to be obviously right: the definition that every kernel is
// compared with. Operands are dense row-major arrays; `columns` is the size of the last dimension.

import { assert } from '../../base/errors.ts';
import type { OpParams } from '../../graph/operation.ts';
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

const attention: Evaluate = ([q, keys, values, positions, sequences, blockTables], params) => {
  const { nHead, nHeadKv, headDim, blockSize, scale, softcap: cap = 0, window = 0 } = params as Record<string, number>;
  const out = new Float64Array(q!.data.length);
  for (let r = 0; r < q!.rows; r++) {
    const nKeys = positions!.data[r]! + 1;
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
      const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = scores.map((s) => Math.exp(s - max));
      const total = weights.reduce((a, b) => a + b, 0);
      weights.forEach((w, p) => {
        const base = cacheRow(p) * values!.columns + kvColumn;
        for (let i = 0; i < headDim!; i++) out[r * q!.columns + qColumn + i]! += (w / total) * values!.data[base + i]!;
      });
    }
  }
  return { data: out, rows: q!.rows, columns: q!.columns };
};

const EVALUATIONS: Partial<Record<OpName, Evaluate>> = {
  embed: ([weight, ids]) => selectRows(weight!, ids!),
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
  silu: ([x]) => build(x!.rows, x!.columns, (r, c) => silu(at(x!, r, c))),
  siluMul: ([a, b]) => build(a!.rows, a!.columns, (r, c) => silu(at(a!, r, c)) * at(b!, broadcastRow(b!, r), c)),
  rope,
  kvWrite,
  attention,
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
