// The flat state: where parameters lie in it, that modules see them as their weights, and how they begin.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameNumbers } from '../../test/same-numbers.ts';
import { Graph } from '../graph/tensor.ts';
import { Linear } from '../nn/linear.ts';
import { ONES, normal } from '../nn/module.ts';
import { ParameterViews, initialize, layOutParameters } from './parameters.ts';

/** Matrices and vectors by turns, sizes of which none fills a run of 16. */
const layout = layOutParameters((scope) => {
  scope.weight('a', [3, 5], normal(0.5));
  scope.weight('b', [7], ONES);
  const inner = scope.scope('inner').scope('most');
  inner.weight('c', [40, 30], normal(2));
  inner.weight('d', [1]);
  scope.weight('a', [3, 5], normal(0.5));
  scope.weight('e', [1, 16], normal(0.5));
});

test('matrices come first, each at a multiple of 16, and only they decay', () => {
  assert.deepEqual(
    layout.parameters.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['a', 0, 15],
      ['inner.most.c', 16, 1200],
      ['e', 1216, 16],
      ['b', 1232, 7],
      ['inner.most.d', 1248, 1],
    ],
  );
  assert.equal(layout.nDecayed, 1232);
  assert.equal(layout.size, 1264);
});

test('a weight that is used twice is one parameter, and gaps are none', () => {
  assert.equal(layout.parameters.length, 5);
  assert.equal(layout.nParameters, 15 + 1200 + 16 + 7 + 1);
});

test('modules get views of the state as their weights, the same view each time', () => {
  const graph = new Graph();
  const views = new ParameterViews(graph, layout, 'parameters');
  const scope = views.scope();
  const c = scope.scope('inner').scope('most').weight('c', [40, 30]);
  assert.deepEqual([c.op, c.shape, c.params], ['view', [40, 30], { offset: 16, rows: 40, columns: 30 }]);
  assert.equal(c.inputs[0], graph.leaf('state', 'parameters', 'F32', [layout.size]));
  assert.equal(scope.weight('inner.most.c', [40, 30]), c);
  const b = views.get('b');
  assert.deepEqual([b.shape, b.params['offset']], [[7], 1232]);
  assert.deepEqual([scope.has('a'), scope.has('inner'), scope.scope('inner.most').has('d')], [true, false, true]);
});

test('a bias is there where the model was built with it, and not where it was not', () => {
  for (const bias of [true, false]) {
    const built = layOutParameters((scope) => void new Linear(scope.scope('up'), 4, 6, { bias }));
    assert.equal(built.parameters.length, bias ? 2 : 1);
    const scope = new ParameterViews(new Graph(), built, 'parameters').scope('up.');
    assert.equal(scope.has('bias'), bias);
  }
});

test('parameters begin as they say, gaps stay as they are', () => {
  const state = new Float32Array(layout.size).fill(-1);
  initialize(layout, state, 7);
  const of = (name: string): Float32Array => {
    const { offset, size } = layout.parameters.find((p) => p.name === name)!;
    return state.subarray(offset, offset + size);
  };
  assert.deepEqual(
    [...of('b')],
    Array.from({ length: 7 }, () => 1),
  );
  assert.deepEqual([...of('inner.most.d')], [0]);
  const c = of('inner.most.c');
  const mean = c.reduce((a, x) => a + x, 0) / c.length;
  const deviation = Math.sqrt(c.reduce((a, x) => a + (x - mean) ** 2, 0) / c.length);
  // Of 1,200 numbers: within four standard errors.
  assert.ok(Math.abs(mean) < (4 * 2) / Math.sqrt(1200), `mean ${mean}`);
  assert.ok(Math.abs(deviation - 2) < (4 * 2) / Math.sqrt(2400), `deviation ${deviation}`);
  assert.ok([...of('a')].every((x) => x !== -1 && Math.abs(x) < 3));
  assert.deepEqual([state[15], state[1239], state[1249], state[1263]], [-1, -1, -1, -1]);
});

test('the same seed gives the same numbers, another seed others, and no two parameters the same', () => {
  const begin = (seed: number): Float64Array => {
    const state = new Float64Array(layout.size);
    initialize(layout, state, seed);
    return state;
  };
  assertSameNumbers(begin(1), begin(1));
  assert.notDeepEqual(begin(1), begin(2));
  const state = begin(1);
  assert.notDeepEqual(
    [...state.subarray(0, 15)].map((x) => x * 4),
    [...state.subarray(16, 31)],
  );
});
