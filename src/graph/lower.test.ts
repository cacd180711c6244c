// Lowering: what is fused, what is quantised, what is dropped, and that nothing else changes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DType } from '../base/dtype.ts';
import { lower } from './lower.ts';
import type { LoweringRules } from './lower.ts';
import { Graph } from './tensor.ts';
import type { Tensor } from './tensor.ts';

const PLAIN: LoweringRules = { siluMul: false, matmulAdd: false, activationType: () => undefined };
const FUSING: LoweringRules = { ...PLAIN, siluMul: true, matmulAdd: true };
const QUANTIZING: LoweringRules = { ...PLAIN, activationType: (dtype) => (dtype === 'Q8_0' ? 'Q8A' : undefined) };

const opsOf = (graph: Graph): string[] => graph.nodes.filter((n) => n.inputs.length > 0).map((n) => n.op);

function start(): { graph: Graph; a: Tensor; b: Tensor } {
  const graph = new Graph();
  const leaf = (name: string): Tensor => graph.constant(name, [2, 32], () => new Float32Array(64));
  return { graph, a: leaf('a'), b: leaf('b') };
}

test('silu(a) · b becomes one operation that keeps the name of the product', () => {
  const { graph, a, b } = start();
  graph.output(graph.apply('mul', [graph.apply('silu', [a]), b], {}, 'hidden'));
  const lowered = lower(graph, FUSING);
  assert.deepEqual(opsOf(lowered), ['siluMul']);
  const [output] = lowered.outputs;
  assert.equal(output!.name, 'hidden');
  assert.deepEqual(
    output!.inputs.map((t) => t.name),
    ['a', 'b'],
  );
});

test('matmul and embed of what is no weight, and so not packed, become the operations on plain matrices', () => {
  const { graph, a } = start();
  const state = graph.leaf('state', 's', 'F32', [100]);
  const view = graph.apply('view', [state], { offset: 16, rows: 2, columns: 32 });
  const ids = graph.leaf('input', 'ids', 'I32', [3]);
  const weight = graph.leaf('weight', 'w', 'F32', [2, 32]);
  for (const table of [view, weight]) {
    graph.output(graph.apply('matmul', [a, table], {}, 'y'));
    graph.output(graph.apply('embed', [table, ids], {}, 'rows'));
  }
  const lowered = lower(graph, PLAIN);
  assert.deepEqual(
    lowered.outputs.map(({ op, name, shape }) => [op, name, ...shape]),
    [
      ['matmulNT', 'y', 2, 2],
      ['gatherRows', 'rows', 3, 32],
      ['matmul', 'y', 2, 2],
      ['embed', 'rows', 3, 32],
    ],
  );
});

test('what lasts over steps is changed though nothing reads it', () => {
  const { graph, a } = start();
  graph.apply('accumulateGradient', [graph.leaf('state', 's', 'F32', [2, 32]), graph.apply('silu', [a])]);
  graph.apply('silu', [a]);
  assert.deepEqual(opsOf(lower(graph, PLAIN)), ['silu', 'accumulateGradient']);
});

test('nothing is fused where the backend has no fused operation', () => {
  const { graph, a, b } = start();
  graph.output(graph.apply('mul', [graph.apply('silu', [a]), b]));
  assert.deepEqual(opsOf(lower(graph, PLAIN)), ['silu', 'mul']);
});

test('a matmul of packed weights takes in the bias and the residual stream that are added to it alone', () => {
  const { graph, a, b } = start();
  const w = graph.leaf('weight', 'w', 'F32', [32, 32]);
  const bias = graph.leaf('weight', 'bias', 'F32', [32]);
  const biased = graph.apply('add', [graph.apply('matmul', [a, w]), bias]);
  const first = graph.apply('add', [biased, b], {}, 'first');
  // The stream is on the left here, and stays it: only the fused operand goes.
  const second = graph.apply('add', [first, graph.apply('matmul', [first, w])], {}, 'second');
  const third = graph.apply('add', [second, graph.apply('silu', [second])], {}, 'third');
  graph.output(third);
  const lowered = lower(graph, FUSING);
  assert.deepEqual(
    lowered.nodes.filter((n) => n.inputs.length > 0).map((n) => [n.op, n.name, ...n.inputs.map((t) => t.name)]),
    [
      ['matmul', 'first', 'a', 'w', 'bias', 'b'],
      ['matmul', 'second', 'first', 'w', 'first'],
      ['silu', lowered.nodes.at(-2)!.name, 'second'],
      ['add', 'third', 'second', lowered.nodes.at(-2)!.name],
    ],
  );
  assert.deepEqual(opsOf(lower(graph, PLAIN)), ['matmul', 'add', 'add', 'matmul', 'add', 'silu', 'add']);
});

test('a matmul that is read twice, or is an output, or adds more than two stays as it is', () => {
  const { graph, a, b } = start();
  const w = graph.leaf('weight', 'w', 'F32', [32, 32]);
  const shared = graph.apply('matmul', [a, w]);
  graph.output(graph.apply('add', [shared, shared]));
  const wanted = graph.apply('matmul', [b, w]);
  graph.output(wanted);
  graph.output(graph.apply('add', [wanted, a]));
  let sum = graph.apply('matmul', [a, w]);
  for (let i = 0; i < 3; i++) sum = graph.apply('add', [sum, b]);
  graph.output(sum);
  assert.deepEqual(opsOf(lower(graph, FUSING)), ['matmul', 'add', 'matmul', 'add', 'matmul', 'add']);
});

test('a silu that is read twice, or is an output, or is the second operand stays', () => {
  const twice = start();
  const shared = twice.graph.apply('silu', [twice.a]);
  twice.graph.output(twice.graph.apply('add', [twice.graph.apply('mul', [shared, twice.b]), shared]));
  assert.deepEqual(opsOf(lower(twice.graph, FUSING)), ['silu', 'mul', 'add']);

  const squared = start();
  const root = squared.graph.apply('silu', [squared.a]);
  squared.graph.output(squared.graph.apply('mul', [root, root]));
  assert.deepEqual(opsOf(lower(squared.graph, FUSING)), ['silu', 'mul']);

  const wanted = start();
  const silu = wanted.graph.apply('silu', [wanted.a]);
  wanted.graph.output(wanted.graph.apply('mul', [silu, wanted.b]));
  wanted.graph.output(silu);
  assert.deepEqual(opsOf(lower(wanted.graph, FUSING)), ['silu', 'mul']);

  const second = start();
  second.graph.output(second.graph.apply('mul', [second.b, second.graph.apply('silu', [second.a])]));
  assert.deepEqual(opsOf(lower(second.graph, FUSING)), ['silu', 'mul']);
});

test('readers that are dropped decide nothing about fusion', () => {
  const { graph, a, b } = start();
  const silu = graph.apply('silu', [a]);
  graph.apply('mul', [silu, b], {}, 'dead');
  graph.output(graph.apply('add', [silu, b]));
  assert.deepEqual(opsOf(lower(graph, FUSING)), ['silu', 'add']);

  const other = start();
  const gate = other.graph.apply('silu', [other.a]);
  other.graph.apply('add', [gate, other.b], {}, 'dead');
  other.graph.output(other.graph.apply('mul', [gate, other.b]));
  assert.deepEqual(opsOf(lower(other.graph, FUSING)), ['siluMul']);
});

test('matmuls with weights that want 8 bits share one quantised operand, others take it as it is', () => {
  const { graph, a } = start();
  const weight = (name: string, dtype: DType): Tensor => graph.leaf('weight', name, dtype, [8, 32]);
  const q = graph.apply('matmul', [a, weight('q', 'Q8_0')], {}, 'q');
  const k = graph.apply('matmul', [a, weight('k', 'Q8_0')], {}, 'k');
  const v = graph.apply('matmul', [a, weight('v', 'F16')], {}, 'v');
  for (const t of [q, k, v]) graph.output(t);
  const lowered = lower(graph, QUANTIZING);
  assert.deepEqual(opsOf(lowered), ['quantize', 'matmul', 'matmul', 'matmul']);
  const [lq, lk, lv] = lowered.outputs;
  assert.equal(lq!.inputs[0], lk!.inputs[0]);
  assert.deepEqual([lq!.inputs[0]!.dtype, lq!.inputs[0]!.name], ['Q8A', 'a.q8']);
  assert.equal(lv!.inputs[0]!.name, 'a');
  assert.deepEqual(lq!.shape, [2, 8]);
});

test('norms and silu(a) · b are quantised where they are made, if nothing reads them otherwise', () => {
  const rules = { ...QUANTIZING, siluMul: true };
  const build = (others: (graph: Graph, x: Tensor, weight: (dtype: DType) => Tensor) => void): string[] => {
    const { graph, a, b } = start();
    const weight = (dtype: DType): Tensor => graph.leaf('weight', `w${graph.nodes.length}`, dtype, [8, 32]);
    const gain = graph.constant('gain', [32], () => new Float32Array(32));
    const made = [
      graph.apply('rmsNorm', [a, gain], { eps: 0 }, 'normed'),
      graph.apply('mul', [graph.apply('silu', [a]), b], {}, 'hidden'),
    ];
    for (const x of made) {
      for (let n = 0; n < 2; n++) graph.output(graph.apply('matmul', [x, weight('Q8_0')]));
      others(graph, x, weight);
    }
    const lowered = lower(graph, rules);
    const quantized = lowered.nodes.filter((n) => n.dtype === 'Q8A');
    assert.deepEqual(
      quantized.map((n) => n.name),
      ['normed.q8', 'hidden.q8'],
    );
    return quantized.map((n) => n.op);
  };
  assert.deepEqual(
    build(() => {}),
    ['rmsNorm', 'siluMul'],
  );
  const separate = ['quantize', 'quantize'];
  assert.deepEqual(
    build((graph, x) => graph.output(x)),
    separate,
  );
  assert.deepEqual(
    build((graph, x, weight) => graph.output(graph.apply('matmul', [x, weight('F16')]))),
    separate,
  );
});

test('rows that are no whole number of blocks are not quantised', () => {
  const graph = new Graph();
  const x = graph.constant('x', [2, 48], () => new Float32Array(96));
  graph.output(graph.apply('matmul', [x, graph.leaf('weight', 'w', 'Q8_0', [8, 48])]));
  assert.deepEqual(opsOf(lower(graph, QUANTIZING)), ['matmul']);
});

test('what nothing reads is dropped, leaves included; writes into state stay', () => {
  const { graph, a, b } = start();
  const ids = graph.leaf('input', 'ids', 'I32', [2]);
  const state = graph.leaf('state', 'cache', 'F16', [32, 32]);
  graph.apply('kvWrite', [state, a, ids]);
  graph.apply('mul', [graph.apply('silu', [b]), graph.leaf('weight', 'unused', 'F32', [2, 32])]);
  graph.output(graph.apply('add', [a, a]));
  const lowered = lower(graph, FUSING);
  assert.deepEqual(opsOf(lowered), ['kvWrite', 'add']);
  const leaves = lowered.nodes.filter((n) => n.inputs.length === 0).map((n) => n.name);
  assert.deepEqual(leaves, ['a', 'ids', 'cache']);
});

test('outputs keep their order, also where one is a leaf or comes twice', () => {
  const { graph, a, b } = start();
  const sum = graph.apply('add', [a, b], {}, 'sum');
  for (const t of [sum, b, sum]) graph.output(t);
  const { outputs, constants } = lower(graph, PLAIN);
  assert.deepEqual(
    outputs.map((t) => t.name),
    ['sum', 'b', 'sum'],
  );
  assert.deepEqual([...constants.keys()], ['a', 'b']);
});

test('the graph itself is not changed', () => {
  const { graph, a, b } = start();
  graph.output(graph.apply('mul', [graph.apply('silu', [a]), b]));
  const before = [...graph.nodes];
  lower(graph, FUSING);
  assert.deepEqual(graph.nodes, before);
});
