// Modules: modes that reach every layer, weights by name and scope.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import { MultiHeadAttention } from './attention.ts';
import { Dropout, DropoutRng } from './dropout.ts';
import { Embedding, Linear } from './linear.ts';
import { GatedMLP, MLP } from './mlp.ts';
import { Module } from './module.ts';
import type { Initial, WeightScope } from './module.ts';
import { LayerNorm, RMSNorm } from './norm.ts';

class Inner extends Module {
  readonly dropout = this.adopt(new Dropout(0.5));
}

class Outer extends Module {
  readonly inner = this.adopt(new Inner());
  readonly other = this.adopt(new Dropout(0.5));
  readonly apart = new Dropout(0.5);
}

test('train and eval reach what was adopted, at any depth, and nothing else', () => {
  const outer = new Outer();
  const modes = () => [outer, outer.inner, outer.inner.dropout, outer.other, outer.apart].map((m) => m.isTraining);
  assert.deepEqual(modes(), [true, true, true, true, true]);
  assert.equal(outer.eval(), outer);
  assert.deepEqual(modes(), [false, false, false, false, true]);
  outer.inner.train();
  assert.deepEqual(modes(), [false, true, true, false, true]);
  assert.equal(outer.train(), outer);
  assert.deepEqual(modes(), [true, true, true, true, true]);
});

/** A scope that remembers what it was asked for. `lacking` names are those that it does not have. */
function recordingScope(lacking: readonly string[] = []) {
  const graph = new Graph();
  const asked: [name: string, shape: string, initial: string][] = [];
  const describe = (initial: Initial | undefined): string =>
    initial === undefined ? 'none' : initial.kind === 'normal' ? `normal ${initial.std}` : initial.kind;
  const scopeOf = (prefix: string): WeightScope => ({
    graph,
    weight(name, shape, initial) {
      asked.push([prefix + name, shape.join('×'), describe(initial)]);
      return graph.leaf('weight', prefix + name, 'F32', shape);
    },
    has: (name) => !lacking.includes(prefix + name),
    scope: (inner) => scopeOf(`${prefix}${inner}.`),
  });
  return { scope: scopeOf(''), asked, graph };
}

const matrix = (graph: Graph, rows: number, columns: number): Tensor =>
  graph.constant(`x${rows}×${columns}`, [rows, columns], () => new Float32Array(rows * columns));

test('a linear map has a bias where the scope has one, or as it is told', () => {
  const namesOf = (lacking: readonly string[], bias: boolean | 'auto'): string[] => {
    const { scope, asked, graph } = recordingScope(lacking);
    const y = new Linear(scope.scope('up'), 4, 6, { bias }).forward(matrix(graph, 3, 4), 'y');
    assert.deepEqual(y.shape, [3, 6]);
    assert.equal(y.op, asked.length === 2 ? 'add' : 'matmul');
    return asked.map(([name, shape]) => `${name} ${shape}`);
  };
  assert.deepEqual(namesOf([], 'auto'), ['up.weight 6×4', 'up.bias 6']);
  assert.deepEqual(namesOf(['up.bias'], 'auto'), ['up.weight 6×4']);
  assert.deepEqual(namesOf(['up.bias'], true), ['up.weight 6×4', 'up.bias 6']);
  assert.deepEqual(namesOf([], false), ['up.weight 6×4']);
});

test('weights begin as the layers say: GPT-2s deviation, norms as identities, biases at 0', () => {
  const { scope, asked } = recordingScope();
  void new Embedding(scope.scope('token_embd'), 9, 4);
  void new LayerNorm(scope.scope('norm'), 4, 0);
  void new RMSNorm(scope.scope('rms'), 4, 0);
  void new Linear(scope.scope('out'), 4, 2, { initial: { kind: 'normal', std: 0.5 } });
  assert.deepEqual(asked, [
    ['token_embd.weight', '9×4', 'normal 0.02'],
    ['norm.weight', '4', 'ones'],
    ['norm.bias', '4', 'zeros'],
    ['rms.weight', '4', 'ones'],
    ['out.weight', '2×4', 'normal 0.5'],
    ['out.bias', '2', 'zeros'],
  ]);
});

test('the MLPs have the names of GGUF and keep the shape', () => {
  const { scope, asked, graph } = recordingScope();
  const x = matrix(graph, 3, 4);
  assert.deepEqual(new MLP(scope, 4, 8, { bias: false }).forward(x, 'mlp').shape, [3, 4]);
  assert.deepEqual(new GatedMLP(scope, 4, 8, { bias: false }).forward(x, 'gated').shape, [3, 4]);
  assert.deepEqual(
    asked.map(([name, shape]) => `${name} ${shape}`),
    ['ffn_up.weight 8×4', 'ffn_down.weight 4×8', 'ffn_gate.weight 8×4', 'ffn_up.weight 8×4', 'ffn_down.weight 4×8'],
  );
});

test('unfused attention builds the tensors that the workspaces are named after', () => {
  const { scope, graph } = recordingScope();
  const [nSeq, nPositions, nEmbd] = [2, 5, 24];
  const config = { nEmbd, nHead: 6, nHeadKv: 2, headDim: 4, bias: false, dropout: 0.1, rng: new DropoutRng(graph) };
  const attention = new MultiHeadAttention(scope, config, 8);
  const positions = graph.leaf('input', 'positions', 'I32', [nSeq * nPositions]);
  const packed = { nSeq, positions };
  const nodeOf = (name: string): Tensor => graph.nodes.find((n) => n.name === name)!;
  attention.forwardUnfused(matrix(graph, nSeq * nPositions, nEmbd), packed, 'a');
  for (const [name, op, shape] of [
    ['a.qHeads', 'splitHeads', [2, 6, 5, 4]],
    ['a.kHeads', 'splitHeads', [2, 2, 5, 4]],
    ['a.vHeads', 'splitHeads', [2, 2, 5, 4]],
    ['a.scores', 'matmulNT', [2, 6, 5, 5]],
    ['a.probs', 'causalSoftmax', [2, 6, 5, 5]],
    ['a.dropped', 'dropout', [2, 6, 5, 5]],
    ['a.summed', 'weightedSum', [2, 6, 5, 4]],
    ['a.merged', 'mergeHeads', [10, 24]],
    ['a.out', 'matmul', [10, 24]],
  ] as const) {
    assert.deepEqual([nodeOf(name).op, nodeOf(name).shape], [op, shape], name);
  }
});

test('queries, keys and values of one matrix are its columns, in this order', () => {
  const { scope, asked, graph } = recordingScope();
  const config = { nEmbd: 12, nHead: 3, nHeadKv: 1, headDim: 4, bias: true, isQkvFused: true };
  const positions = graph.leaf('input', 'positions', 'I32', [4]);
  new MultiHeadAttention(scope, config, 8).forwardUnfused(matrix(graph, 4, 12), { nSeq: 1, positions }, 'a');
  assert.deepEqual(
    asked.map(([name, shape]) => `${name} ${shape}`),
    ['attn_qkv.weight 20×12', 'attn_qkv.bias 20', 'attn_output.weight 12×12', 'attn_output.bias 12'],
  );
  const heads = graph.nodes.filter((n) => n.op === 'splitHeads');
  assert.deepEqual(
    heads.map((n) => [n.params['column'], n.params['nHead']]),
    [
      [0, 3],
      [12, 1],
      [16, 1],
    ],
  );
});
