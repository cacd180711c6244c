// Layers: the weights they ask for, by GGUF's names, and the operations they append.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KV_BLOCK_SIZE, stepInputs } from '../graph/step.ts';
import type { ProgramLimits } from '../graph/step.ts';
import { Graph, dimMax } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import { MultiHeadAttention } from './attention.ts';
import { Embedding, Linear } from './linear.ts';
import { GatedMLP } from './mlp.ts';
import type { WeightScope } from './module.ts';
import { RMSNorm } from './norm.ts';
import { Rope, ropeAngles } from './rope.ts';

const LIMITS: ProgramLimits = { nTokensMax: 8, nOutputMax: 2, nSeqMax: 2, nCtx: 50, nKvBlock: 5, kvDtype: 'F16' };

/** Weights of any name and shape; `biases` are the prefixes that have one. */
function scopeOf(graph: Graph, biases: readonly string[] = [], prefix = ''): WeightScope {
  return {
    graph,
    weight: (name, shape) => graph.leaf('weight', prefix + name, 'F32', shape),
    has: (name) => biases.includes(prefix + name),
    scope: (inner) => scopeOf(graph, biases, `${prefix}${inner}.`),
  };
}

const opsOf = (graph: Graph): string[] => graph.nodes.filter((n) => n.inputs.length > 0).map((n) => n.op);
const weightsOf = (graph: Graph): Record<string, readonly number[]> =>
  Object.fromEntries(graph.nodes.filter((n) => n.op === 'weight').map((n) => [n.name, n.shape.map(dimMax)]));
const input = (graph: Graph, columns: number): Tensor =>
  graph.constant('x', [3, columns], () => new Float32Array(3 * columns));

test('a linear layer multiplies by [nOut, nIn], and adds a bias where the file has one', () => {
  const graph = new Graph();
  const scope = scopeOf(graph, ['b.bias']);
  const plain = new Linear(scope.scope('a'), 6, 4).forward(input(graph, 6), 'y');
  assert.deepEqual([plain.op, plain.name, ...plain.shape], ['matmul', 'y', 3, 4]);
  assert.equal(new Linear(scope.scope('b'), 6, 4).forward(input(graph, 6)).op, 'add');
  assert.deepEqual(weightsOf(graph), { 'a.weight': [4, 6], 'b.weight': [4, 6], 'b.bias': [4] });
});

test('an embedding takes rows, and a norm keeps the shape', () => {
  const graph = new Graph();
  const scope = scopeOf(graph);
  const { tokens } = stepInputs(graph, LIMITS);
  const x = new Embedding(scope.scope('e'), 100, 16).forward(tokens);
  const y = new RMSNorm(scope.scope('n'), 16, 1e-6).forward(x);
  assert.deepEqual(x.shape.map(dimMax), [8, 16]);
  assert.deepEqual([y.op, y.params['eps'], ...y.shape.map(dimMax)], ['rmsNorm', 1e-6, 8, 16]);
  assert.deepEqual(weightsOf(graph), { 'e.weight': [100, 16], 'n.weight': [16] });
});

test('the gated MLP multiplies silu(gate) with up', () => {
  const graph = new Graph();
  const y = new GatedMLP(scopeOf(graph), 6, 10).forward(input(graph, 6), 'mlp');
  assert.deepEqual(opsOf(graph), ['matmul', 'silu', 'matmul', 'mul', 'matmul']);
  assert.deepEqual(y.shape, [3, 6]);
  const [silu, up] = y.inputs[0]!.inputs;
  assert.equal(silu!.inputs[0]!.inputs[1]!.name, 'ffn_gate.weight');
  assert.equal(up!.inputs[1]!.name, 'ffn_up.weight');
  assert.deepEqual(weightsOf(graph), {
    'ffn_gate.weight': [10, 6],
    'ffn_up.weight': [10, 6],
    'ffn_down.weight': [6, 10],
  });
});

test('attention rotates queries and keys but not values, writes before it reads, and scales by 1/√headDim', () => {
  const graph = new Graph();
  const rope = { headDim: 4, nRot: 4, freqBase: 10_000, freqScale: 1, pairing: 'interleaved' } as const;
  const config = { nEmbd: 12, nHead: 6, nHeadKv: 2, headDim: 4, rope };
  const step = stepInputs(graph, LIMITS);
  const x = new Embedding(scopeOf(graph), 9, 12).forward(step.tokens);
  const y = new MultiHeadAttention(scopeOf(graph), config, LIMITS.nCtx).forward(
    x,
    step,
    { layer: 7, limits: LIMITS },
    'blk.7',
  );
  assert.deepEqual(y.shape.map(dimMax), [8, 12]);
  const attended = y.inputs[0]!;
  const [q, keys, values, ...rest] = attended.inputs as [Tensor, Tensor, Tensor];
  const off = { softcap: 0, window: 0 };
  assert.deepEqual(attended.params, { nHead: 6, nHeadKv: 2, headDim: 4, blockSize: KV_BLOCK_SIZE, scale: 0.5, ...off });
  assert.deepEqual([q.op, keys.op, values.op], ['rope', 'kvWrite', 'kvWrite']);
  assert.deepEqual([keys.inputs[1]!.op, values.inputs[1]!.op], ['rope', 'matmul']);
  assert.deepEqual([keys.inputs[0]!.name, values.inputs[0]!.name], ['keys.7', 'values.7']);
  assert.deepEqual(keys.shape, [5 * KV_BLOCK_SIZE, 8]);
  assert.deepEqual(rest, [step.lastSeen, step.sequences, step.blockTables]);
  assert.equal(keys.inputs[2], step.kvSlots);
  const { weight: _, ...matrices } = weightsOf(graph);
  assert.deepEqual(matrices, {
    'attn_q.weight': [24, 12],
    'attn_k.weight': [8, 12],
    'attn_v.weight': [8, 12],
    'attn_output.weight': [12, 24],
  });
});

test('a cache in blocks refuses heads that are no multiple of them, and says what works', () => {
  for (const [headDim, isTaken] of [
    [32, true],
    [96, true],
    [4, false],
    [48, false],
  ] as const) {
    const graph = new Graph();
    const step = stepInputs(graph, LIMITS);
    const config = { nEmbd: headDim, nHead: 1, nHeadKv: 1, headDim };
    const attention = new MultiHeadAttention(scopeOf(graph), config, LIMITS.nCtx);
    const x = new Embedding(scopeOf(graph), 9, headDim).forward(step.tokens);
    const forward = () => attention.forward(x, step, { layer: 0, limits: { ...LIMITS, kvDtype: 'Q8_0' } }, 'blk.0');
    const expected = { code: 'UNSUPPORTED_FEATURE', message: /Q8_0.*multiple of 32.*F16/ };
    if (isTaken) assert.equal(forward().op, 'matmul');
    else assert.throws(forward, expected);
  }
});

test('angles are position · base^(−2i / nRot), scaled, to float32', () => {
  const config = { headDim: 8, nRot: 6, freqBase: 500_000, freqScale: 0.25, pairing: 'halves' } as const;
  const angles = ropeAngles(config, 9);
  assert.equal(angles.length, 9 * 6);
  for (let position = 0; position < 9; position++) {
    for (let pair = 0; pair < 3; pair++) {
      const angle = 0.25 * position * 500_000 ** (-pair / 3);
      assert.ok(Math.abs(angles[position * 6 + 2 * pair]! - Math.cos(angle)) < 1e-7);
      assert.ok(Math.abs(angles[position * 6 + 2 * pair + 1]! - Math.sin(angle)) < 1e-7);
    }
  }
});

const YARN = { headDim: 8, nRot: 8, freqBase: 10_000, freqScale: 0.25, pairing: 'interleaved' } as const;

test('YaRN keeps fast frequencies, divides slow ones by the factor, and has a ramp between', () => {
  // Over 4,000 positions the pairs turn 637, 64, 6.4 and 0.64 times. 32 turns, the upper end of the ramp, lie after
  // pair 1, and 1 turn, the lower end, before pair 3.
  const angles = ropeAngles({ ...YARN, yarn: { nCtxOrig: 4000 } }, 2);
  const kept = [1, 1, 1 / 2, 0];
  kept.forEach((share, pair) => {
    const angle = 10 ** -pair * (share + 0.25 * (1 - share));
    const magnitude = 1 + 0.1 * Math.log(4);
    assert.ok(Math.abs(angles[8 + 2 * pair]! - magnitude * Math.cos(angle)) < 2e-7, `pair ${pair}`);
    assert.ok(Math.abs(angles[8 + 2 * pair + 1]! - magnitude * Math.sin(angle)) < 2e-7, `pair ${pair}`);
  });
});

test('rotated vectors are multiplied by the attention factor, and YaRN without scaling changes nothing', () => {
  const plain = ropeAngles({ ...YARN, freqScale: 1 }, 9);
  assert.deepEqual(ropeAngles({ ...YARN, freqScale: 1, yarn: { nCtxOrig: 100 } }, 9), plain);
  assert.deepEqual(
    ropeAngles({ ...YARN, freqScale: 1, attnFactor: 0.5 }, 9),
    plain.map((x) => x / 2),
  );
});

test('frequency factors divide frequencies', () => {
  const freqFactors = Float32Array.of(1, 2, 4, 8);
  const angles = ropeAngles({ ...YARN, freqScale: 1, freqFactors }, 2);
  freqFactors.forEach((factor, pair) => {
    assert.ok(Math.abs(angles[8 + 2 * pair + 1]! - Math.sin(10 ** -pair / factor)) < 1e-7);
  });
});

test('all layers share one table of angles', () => {
  const graph = new Graph();
  const config = { headDim: 4, nRot: 4, freqBase: 10_000, freqScale: 1, pairing: 'halves' } as const;
  const { positions } = stepInputs(graph, LIMITS);
  const x = new Embedding(scopeOf(graph), 9, 8).forward(positions);
  const [a, b] = [0, 1].map(() => new Rope(graph, config, 50).forward(x, positions));
  assert.equal(a!.inputs[2], b!.inputs[2]);
  assert.equal(a!.params['neox'], 1);
  assert.equal(graph.constants.size, 1);
});
