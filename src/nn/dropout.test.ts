// Dropout: the same tensor where it does nothing, a node with its own stream where it works. What the node computes is
// for the conformance suites; the proofs of the whole path are in test/seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Graph } from '../graph/tensor.ts';
import { Dropout, DropoutRng } from './dropout.ts';

function setUp(p: number) {
  const graph = new Graph();
  const rng = new DropoutRng(graph);
  const x = graph.constant('x', [2, 3], () => new Float32Array(6));
  return { graph, rng, x, dropout: new Dropout(p, rng) };
}

test('p must be a number from 0 to 1', () => {
  for (const p of [-0.001, 1.001, NaN, Infinity, -Infinity]) {
    assert.throws(() => new Dropout(p), { name: 'RangeError', message: new RegExp(`"p" .* 0 to 1, got ${p}`) });
  }
  for (const p of [0, 0.5, 1]) assert.equal(new Dropout(p).p, p);
});

test('starts in training mode, and appends a node', () => {
  const { graph, rng, x, dropout } = setUp(0.25);
  assert.equal(dropout.isTraining, true);
  const y = dropout.forward(x, 'dropped');
  assert.deepEqual([y.op, y.name, y.params], ['dropout', 'dropped', { p: 0.25, stream: 0 }]);
  assert.deepEqual(y.inputs, [x, rng.counters]);
  assert.equal(graph.nodes.at(-1), y);
});

test('every use has a stream of its own, over all layers of a graph', () => {
  const { rng, x, dropout } = setUp(0.25);
  const other = new Dropout(0.5, rng);
  const streams = [dropout, other, dropout].map((layer) => layer.forward(x).params['stream']);
  assert.deepEqual(streams, [0, 1, 2]);
  assert.equal(rng.nStreams, 3);
});

test('goes to eval mode and back', () => {
  const { x, dropout } = setUp(0.5);
  assert.equal(dropout.eval().forward(x), x);
  assert.equal(dropout.train().forward(x).op, 'dropout');
});

test('without random numbers it hands on what it gets', () => {
  const { x } = setUp(0.5);
  assert.equal(new Dropout(0.5).forward(x), x);
});
