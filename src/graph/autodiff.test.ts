// Derivatives against central finite differences: every operation that has a gradient, on the reference executor in
// float64. Operands are views of one flat state, so that each of their numbers can be moved a little.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReferenceExecutor } from '../backend/reference/executor.ts';
import { Random } from '../base/random.ts';
import { differentiate } from './autodiff.ts';
import type { OpName } from './operations.ts';
import { OPERATIONS } from './operations.ts';
import { Graph, columnsOf, elementsMax, rowsOf } from './tensor.ts';
import type { Tensor } from './tensor.ts';

const STATE_SIZE = 1024;
const TOLERANCE = 1e-6;
const NO_WEIGHTS = { read: () => Promise.reject(new Error('there are no weights')) };

/** A graph with operands that can be moved, and the contents of its inputs. */
class Rig {
  readonly graph = new Graph();
  readonly operands: Tensor[] = [];
  readonly inputs = new Map<string, readonly number[]>();
  readonly #state = this.graph.leaf('state', 'x', 'F32', [STATE_SIZE]);
  readonly #random = new Random(7);
  #size = 0;

  /** f32[rows, columns], or f32[columns] with rows 0, that the loss is differentiated by. */
  operand(rows: number, columns: number): Tensor {
    const params = { offset: this.#size, rows, columns };
    this.#size += Math.max(rows, 1) * columns;
    const view = this.graph.apply('view', [this.#state], params, `operand.${this.operands.length}`);
    this.operands.push(view);
    return view;
  }

  /** [nSeq, nHead, nPositions, headDim] */
  heads(nSeq: number, nHead: number, nPositions: number, headDim: number): Tensor {
    const rows = this.operand(nSeq * nPositions, nHead * headDim);
    return this.apply('splitHeads', [rows], { nSeq, nHead, headDim, column: 0 });
  }

  ids(...values: number[]): Tensor {
    const name = `ids.${this.inputs.size}`;
    this.inputs.set(name, values);
    return this.graph.leaf('input', name, 'I32', [values.length]);
  }

  constant(...shape: number[]): Tensor {
    const name = `constant.${this.graph.nodes.length}`;
    const values = new Float32Array(shape.reduce((n, d) => n * d, 1));
    this.#random.fillNormal(values);
    return this.graph.constant(name, shape, () => values);
  }

  apply(op: OpName, inputs: readonly Tensor[], params: Readonly<Record<string, number>> = {}): Tensor {
    return this.graph.apply(op, inputs, params);
  }

  /** Σ y · w with fixed random weights w. */
  weightedSumOf(y: Tensor): Tensor {
    if (elementsMax(y) === 1) return y;
    const [nSeq, nHead] = y.shape as [number, number];
    const merged = { nSeq, columns: nHead * columnsOf(y), column: 0 };
    const matrix = y.shape.length === 4 ? this.apply('mergeHeads', [y], merged) : y;
    const [rows, columns] = [rowsOf(matrix) as number, columnsOf(matrix)];
    const ones = (n: number): Tensor => this.graph.constant(`ones.${n}`, [1, n], () => new Float32Array(n).fill(1));
    const weighted = this.apply('mul', [matrix, this.constant(rows, columns)]);
    const byRow = this.apply('matmulNT', [ones(columns), weighted]);
    return this.apply('matmulNT', [byRow, ones(rows)]);
  }

  async execute(): Promise<{ executor: ReferenceExecutor; state: Float64Array }> {
    const executor = await ReferenceExecutor.create(this.graph, NO_WEIGHTS);
    for (const [name, values] of this.inputs) executor.input(name).set(values);
    const state = executor.state('x') as Float64Array;
    new Random(11).fillNormal(state.subarray(0, this.#size));
    return { executor, state };
  }
}

/** The operations of the forward graphs below. */
const covered = new Set<OpName>();

/** Defines the test that derivatives of Σ y · w by all operands are what moving their numbers does to it. */
function matchesDifferences(name: string, build: (rig: Rig) => Tensor): void {
  const rig = new Rig();
  const loss = rig.weightedSumOf(build(rig));
  for (const { op } of rig.graph.nodes) covered.add(op);
  test(`${name}: derivatives match finite differences`, async () => {
    const gradients = differentiate(rig.graph, loss, rig.operands);
    const { executor, state } = await rig.execute();
    executor.run();
    const derivatives = gradients.map((g) => executor.value(g.name).slice());
    const lossAt = (index: number, value: number): number => {
      const before = state[index]!;
      state[index] = value;
      executor.run();
      state[index] = before;
      return executor.value(loss.name)[0]!;
    };
    let index = 0;
    rig.operands.forEach((operand, n) => {
      const actual = derivatives[n]!;
      assert.equal(actual.length, elementsMax(operand));
      const size = actual.reduce((max, d) => Math.max(max, Math.abs(d)), 0);
      assert.ok(size > 1e-3, `operand ${n} has no influence`);
      actual.forEach((derivative, i) => {
        const [x, h] = [state[index]!, 1e-5];
        const expected = (lossAt(index, x + h) - lossAt(index, x - h)) / (2 * h);
        index++;
        const isNear = Math.abs(derivative - expected) <= TOLERANCE * size;
        assert.ok(isNear, `operand ${n}, element ${i}: expected ${expected}, got ${derivative}`);
      });
    });
  });
}

matchesDifferences('add', (r) => r.apply('add', [r.operand(3, 5), r.operand(3, 5)]));
matchesDifferences('add of one row to all', (r) => r.apply('add', [r.operand(4, 5), r.operand(0, 5)]));
matchesDifferences('add of a tensor to itself', (r) => {
  const x = r.operand(3, 4);
  return r.apply('add', [x, x]);
});
matchesDifferences('mul', (r) => r.apply('mul', [r.operand(3, 5), r.operand(3, 5)]));
matchesDifferences('mul by one row', (r) => r.apply('mul', [r.operand(4, 5), r.operand(0, 5)]));
matchesDifferences('mul of a tensor by itself', (r) => {
  const x = r.operand(3, 4);
  return r.apply('mul', [x, x]);
});
matchesDifferences('mul of a row by one row', (r) => r.apply('mul', [r.operand(1, 5), r.operand(0, 5)]));
matchesDifferences('scale', (r) => r.apply('scale', [r.operand(3, 7)], { factor: -1.5 }));
matchesDifferences('silu', (r) => r.apply('silu', [r.operand(3, 7)]));
matchesDifferences('gelu', (r) => r.apply('gelu', [r.operand(3, 7)]));
matchesDifferences('silu(a) · b', (r) => r.apply('mul', [r.apply('silu', [r.operand(3, 5)]), r.operand(3, 5)]));

for (const eps of [1e-5, 0.5]) {
  matchesDifferences(`rmsNorm, eps ${eps}`, (r) => r.apply('rmsNorm', [r.operand(3, 5), r.operand(0, 5)], { eps }));
  matchesDifferences(`layerNorm, eps ${eps}`, (r) =>
    r.apply('layerNorm', [r.operand(3, 5), r.operand(0, 5), r.operand(0, 5)], { eps }),
  );
}

for (const neox of [0, 1]) {
  for (const inverse of [0, 1]) {
    const pairs = `pairs ${neox ? 'of halves' : 'of neighbours'}`;
    matchesDifferences(`rope of parts of heads, ${pairs}${inverse ? ', turned back' : ''}`, (r) => {
      const x = r.operand(4, 3 * 6);
      return r.apply('rope', [x, r.ids(5, 0, 2, 5), r.constant(6, 4)], { headDim: 6, nRot: 4, neox, inverse });
    });
  }
}

matchesDifferences('embed with repeated and unused ids', (r) =>
  r.apply('embed', [r.operand(5, 3), r.ids(4, 1, 1, 0, 4, 1)]),
);
matchesDifferences('an embedding that is also the output matrix', (r) => {
  const table = r.operand(5, 4);
  const x = r.apply('gelu', [r.apply('embed', [table, r.ids(3, 3, 0)])]);
  return r.apply('matmul', [x, table]);
});

matchesDifferences('matmul', (r) => r.apply('matmul', [r.operand(3, 4), r.operand(5, 4)]));
matchesDifferences('matmulNT', (r) => r.apply('matmulNT', [r.operand(3, 4), r.operand(5, 4)]));
matchesDifferences('matmulNT of heads', (r) => r.apply('matmulNT', [r.heads(2, 2, 3, 4), r.heads(2, 2, 5, 4)]));
matchesDifferences('matmulNT of four heads that share two', (r) =>
  r.apply('matmulNT', [r.heads(2, 4, 3, 2), r.heads(2, 2, 5, 2)], { group: 2 }),
);
matchesDifferences('weightedSum of matrices', (r) => r.apply('weightedSum', [r.operand(3, 4), r.operand(4, 5)]));
matchesDifferences('weightedSum of six heads that share two', (r) =>
  r.apply('weightedSum', [r.heads(1, 6, 2, 3), r.heads(1, 2, 3, 4)], { group: 3 }),
);

matchesDifferences('splitHeads from a column on', (r) =>
  r.apply('splitHeads', [r.operand(6, 9)], { nSeq: 2, nHead: 2, headDim: 3, column: 2 }),
);
matchesDifferences('mergeHeads from a column on', (r) =>
  r.apply('mergeHeads', [r.heads(2, 2, 3, 2)], { nSeq: 2, columns: 7, column: 3 }),
);
matchesDifferences('three sets of heads out of the same rows', (r) => {
  const rows = r.operand(4, 8);
  const heads = (column: number, nHead: number): Tensor =>
    r.apply('splitHeads', [rows], { nSeq: 2, nHead, headDim: 2, column });
  const scores = r.apply('matmulNT', [heads(0, 2), heads(4, 1)], { group: 2 });
  return r.apply('weightedSum', [scores, heads(6, 1)], { group: 2 });
});
matchesDifferences('causalSoftmax', (r) => r.apply('causalSoftmax', [r.heads(2, 2, 5, 5)], { scale: 0.7 }));

for (const p of [0.1, 0.5, 0.9]) {
  matchesDifferences(`dropout, p ${p}`, (r) => {
    const rng = r.ids(123, -45, 6, 0);
    return r.apply('dropout', [r.operand(7, 9), rng], { p, stream: 3 });
  });
}

const IGNORE = -1;
matchesDifferences('crossEntropy with ignored targets, rows of different weight', (r) => {
  const targets = r.ids(2, IGNORE, 0, 4, IGNORE, 2);
  const losses = r.apply('crossEntropy', [r.operand(6, 5), targets], { ignore: IGNORE });
  const weighted = r.apply('mul', [losses, r.constant(6)]);
  // A mean over all rows: those that are ignored have a weight, too, and must be ignored all the same.
  return r.apply('meanLoss', [weighted, r.ids(0, 0, 0, 0, 0, 0)], { ignore: IGNORE });
});
matchesDifferences('the mean cross-entropy with ignored targets', (r) => {
  const targets = r.ids(2, IGNORE, 0, 4, IGNORE, 2);
  const losses = r.apply('crossEntropy', [r.operand(6, 5), targets], { ignore: IGNORE });
  return r.apply('meanLoss', [losses, targets], { ignore: IGNORE });
});

test('every operation with a gradient is among those above', () => {
  const all = Object.entries(OPERATIONS).filter(([, operation]) => operation.gradient);
  assert.ok(all.length > 15);
  assert.deepEqual(
    all.map(([op]) => op).filter((op) => !covered.has(op as OpName)),
    [],
  );
});

/** Values of gradients by name, after one run. */
async function evaluate(rig: Rig, tensors: readonly Tensor[]): Promise<number[][]> {
  const { executor } = await rig.execute();
  executor.run();
  return tensors.map((t) => [...executor.value(t.name)]);
}

test('derivatives are scaled as asked, each time anew', async () => {
  const rig = new Rig();
  const x = rig.operand(2, 3);
  const loss = rig.weightedSumOf(rig.apply('silu', [x]));
  const [once] = differentiate(rig.graph, loss, [x]);
  const [quarter] = differentiate(rig.graph, loss, [x], { scale: 0.25 });
  const [plain, scaled] = await evaluate(rig, [once!, quarter!]);
  assert.deepEqual(
    scaled,
    plain!.map((d) => d / 4),
  );
});

test('a tensor and one that is made of it can both be asked for', async () => {
  const rig = new Rig();
  const x = rig.operand(2, 3);
  const y = rig.apply('mul', [x, x]);
  const loss = rig.weightedSumOf(rig.apply('add', [y, x]));
  const [ofBoth, ofY] = differentiate(rig.graph, loss, [x, y]);
  const [alone] = differentiate(rig.graph, loss, [x]);
  const [dx, dy, expected, values] = await evaluate(rig, [ofBoth!, ofY!, alone!, x]);
  assert.deepEqual(dx, expected);
  dx!.forEach((d, i) => assert.ok(Math.abs(d - dy![i]! * (2 * values![i]! + 1)) < 1e-12));
});

test('what does not lead to the tensors asked for is not differentiated', async () => {
  const rig = new Rig();
  const x = rig.operand(2, 3);
  // gatherRows has no gradient, and needs none.
  const gathered = rig.apply('gatherRows', [rig.constant(4, 3), rig.ids(1, 3)]);
  const weights = rig.constant(2, 3);
  const weighted = rig.apply('mul', [rig.apply('mul', [x, gathered]), weights]);
  const ones = rig.graph.constant('ones', [1, 3], () => new Float32Array(3).fill(1));
  const byRow = rig.apply('matmulNT', [ones, weighted]);
  const loss = rig.apply('matmulNT', [byRow, rig.graph.constant('two ones', [1, 2], () => Float32Array.of(1, 1))]);
  const [dx, factors, outer] = await evaluate(rig, [...differentiate(rig.graph, loss, [x]), gathered, weights]);
  assert.deepEqual(
    dx,
    factors!.map((factor, i) => factor * outer![i]!),
  );
});

test('losses of several numbers, operations without a gradient and tensors without influence are our own mistakes', () => {
  const rig = new Rig();
  const [x, other] = [rig.operand(2, 3), rig.operand(2, 3)];
  const y = rig.apply('silu', [x]);
  assert.throws(() => differentiate(rig.graph, y, [x]), { code: 'INTERNAL', message: /must be one number/ });
  const loss = rig.weightedSumOf(y);
  assert.throws(() => differentiate(rig.graph, loss, [other]), { code: 'INTERNAL', message: /depend on "operand.1"/ });
  const gathered = rig.weightedSumOf(rig.apply('gatherRows', [x, rig.ids(0)]));
  assert.throws(() => differentiate(rig.graph, gathered, [x]), { code: 'INTERNAL', message: /"gatherRows" has no/ });
});

test('derivatives are the same when forward values are computed again on the way back', async () => {
  const gradientsOf = async (recomputes: boolean): Promise<number[][]> => {
    const rig = new Rig();
    const [x, w] = [rig.operand(3, 4), rig.operand(4, 4)];
    const rng = rig.ids(1, 2, 3, 0);
    let y = x;
    for (let stream = 0; stream < 3; stream++) {
      y = rig.apply('gelu', [rig.apply('matmul', [y, w])]);
      y = rig.apply('dropout', [y, rng], { p: 0.4, stream });
    }
    const options = { recomputes: ({ op }: Tensor) => recomputes && (op === 'gelu' || op === 'dropout') };
    const nForward = rig.graph.nodes.length;
    const gradients = differentiate(rig.graph, rig.weightedSumOf(y), [x, w], options);
    const nAgain = rig.graph.nodes.slice(nForward).filter((n) => n.op === 'gelu').length;
    assert.equal(nAgain > 0, recomputes);
    return evaluate(rig, gradients);
  };
  assert.deepEqual(await gradientsOf(true), await gradientsOf(false));
});
