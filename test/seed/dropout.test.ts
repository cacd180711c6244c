// Proofs 1 to 6 of the hot path: dropout hands on the very tensor where it does nothing, and does what it says where it
// works. The numbers are the proofs'.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import { differentiate } from '../../src/graph/autodiff.ts';
import { Graph } from '../../src/graph/tensor.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { Dropout, DropoutRng } from '../../src/nn/dropout.ts';
import { TransformerModel } from '../../src/nn/transformer.ts';
import { ParameterViews, layOutParameters } from '../../src/training/parameters.ts';
import { assertSameNumbers } from '../same-numbers.ts';
import { CONFIGS, NO_WEIGHTS, OPTIONS } from './models.ts';

function layerOn(n: number, p: number, valueOf: (i: number) => number = (i) => Math.sin(0.001 * i) + 2) {
  const graph = new Graph();
  const rng = new DropoutRng(graph);
  const x = graph.constant('x', [n / 64, 64], () => Float32Array.from({ length: n }, (_, i) => valueOf(i)));
  return { graph, rng, x, dropout: new Dropout(p, rng) };
}

/** Values of the graph's outputs, with the masks of `seed`. */
async function evaluate(graph: Graph, seed: number, nThreads = 1): Promise<Float32Array[]> {
  const executor = await WasmExecutor.create(graph, NO_WEIGHTS, { ...OPTIONS, nThreads });
  executor.input('rng')[0] = seed;
  executor.run();
  const values = graph.outputs.map((_, i) => executor.output(i).slice());
  await executor.close();
  return values;
}

describe('1. eval returns the input object', () => {
  for (const p of [0, 0.1, 0.5, 1]) {
    test(`with p ${p}`, () => {
      const { graph, x, dropout } = layerOn(64, p);
      const nNodes = graph.nodes.length;
      assert.equal(dropout.eval().forward(x), x);
      assert.equal(graph.nodes.length, nNodes);
    });
  }
});

test('2. repeated eval calls return the input object, also after training', () => {
  const { graph, x, dropout } = layerOn(64, 0.5);
  const dropped = dropout.forward(x);
  dropout.eval();
  const nNodes = graph.nodes.length;
  for (let i = 0; i < 10; i++) assert.equal(dropout.forward(x), x);
  assert.equal(dropout.forward(dropped), dropped);
  assert.equal(graph.nodes.length, nNodes);
});

test('3. p = 0 returns the input object in training, too', () => {
  const { graph, rng, x, dropout } = layerOn(64, 0);
  const nNodes = graph.nodes.length;
  assert.equal(dropout.isTraining, true);
  for (let i = 0; i < 3; i++) assert.equal(dropout.forward(x), x);
  assert.equal(graph.nodes.length, nNodes);
  assert.equal(rng.nStreams, 0);
});

describe('4. training returns another tensor, of which 1 − p is kept and scaled exactly', () => {
  const n = 4 * 128 * 768;
  for (const p of [0.01, 0.1, 0.5, 0.9]) {
    test(`with p ${p}: the keep rate is within 4 σ for three seeds`, async () => {
      const { graph, x, dropout } = layerOn(n, p);
      const y = dropout.forward(x);
      assert.notEqual(y, x);
      graph.output(y);
      const sigma = Math.sqrt((p * (1 - p)) / n);
      const scale = Math.fround(1 / (1 - p));
      const inputs = graph.constants.get('x')!();
      for (const seed of [42, 43, 44]) {
        const [values] = await evaluate(graph, seed);
        const nKept = values!.reduce((count, value) => count + (value === 0 ? 0 : 1), 0);
        const rate = nKept / n;
        assert.ok(Math.abs(rate - (1 - p)) <= 4 * sigma, `${rate} of ${1 - p} ± ${4 * sigma}`);
        const wrong = values!.findIndex((value, i) => value !== 0 && value !== Math.fround(inputs[i]! * scale));
        assert.equal(wrong, -1);
      }
    });
  }

  test('kept and dropped elements do not stand in rows or columns', async () => {
    const { graph, x, dropout } = layerOn(64 * 256, 0.5, () => 1);
    graph.output(dropout.forward(x));
    const [values] = await evaluate(graph, 7);
    const nOf = (indices: number[]): number => indices.filter((i) => values![i] !== 0).length;
    const range = (length: number): number[] => Array.from({ length }, (_, i) => i);
    // Of n elements that are kept or not with even odds, within 5 σ.
    for (const row of range(256)) assert.ok(Math.abs(nOf(range(64).map((c) => 64 * row + c)) - 32) <= 20);
    for (const column of range(64)) assert.ok(Math.abs(nOf(range(256).map((r) => 64 * r + column)) - 128) <= 40);
  });

  test('p = 1 gives zeros, also of infinities and NaN', async () => {
    const values = [NaN, Infinity, -Infinity, 0, -0, 3e38];
    const { graph, x, dropout } = layerOn(128, 1, (i) => values[i % values.length]!);
    graph.output(dropout.forward(x));
    const [out] = await evaluate(graph, 42);
    assert.ok(out!.every((value) => value === 0));
  });

  test('the same seed gives the same mask on any number of threads, another seed another', async () => {
    const { graph, x, dropout } = layerOn(64 * 33, 0.5);
    graph.output(dropout.forward(x));
    const [mask] = await evaluate(graph, 1);
    for (const nThreads of [2, 3]) assertSameNumbers(await evaluate(graph, 1, nThreads), [mask!]);
    assert.notDeepEqual(await evaluate(graph, 2), [mask]);
  });
});

describe('5. eval draws nothing from the random numbers', () => {
  for (const [name, config] of Object.entries(CONFIGS)) {
    test(`the model ${name} in eval mode draws no stream and reads no counters; in training mode it does`, () => {
      assert.ok(config.dropout > 0);
      const layout = layOutParameters((scope) => void new TransformerModel(scope, config, new DropoutRng(scope.graph)));
      for (const isTraining of [false, true]) {
        const graph = new Graph();
        const rng = new DropoutRng(graph);
        const model = new TransformerModel(new ParameterViews(graph, layout, 'p').scope(), config, rng);
        if (!isTraining) model.eval();
        const input = (inputName: string): Tensor => graph.leaf('input', inputName, 'I32', [8]);
        graph.output(model.forward(input('tokens'), { nSeq: 2, positions: input('positions') }));
        // After the embedding, and in each layer on the probabilities and both branches.
        assert.equal(rng.nStreams, isTraining ? 1 + 3 * config.nLayer : 0);
        const readers = graph.nodes.filter((n) => n.inputs.includes(rng.counters));
        assert.equal(readers.length, rng.nStreams);
      }
    });
  }

  test('the counters of a layer stay where they were', () => {
    const { rng, x, dropout } = layerOn(64, 0.5);
    dropout.forward(x);
    assert.equal(rng.nStreams, 1);
    dropout.eval();
    for (let i = 0; i < 5; i++) dropout.forward(x);
    assert.equal(rng.nStreams, 1);
    dropout.train().forward(x);
    assert.equal(rng.nStreams, 2);
  });
});

describe('6. the gradient matches finite differences and includes the scale', () => {
  for (const p of [0.1, 0.75, 1]) {
    test(`with p ${p}: dx = dy · mask · scale, and a kept zero is kept`, async () => {
      const n = 64 * 9;
      // Every third element is 0: whether it was kept shows only in the derivative.
      const valueOf = (i: number): number => (i % 3 === 0 ? 0 : 1 + i);
      const { graph, rng, x, dropout } = layerOn(n, p, valueOf);
      const y = dropout.forward(x);
      const weights = graph.constant('w', [n / 64, 64], () => Float32Array.from({ length: n }, (_, i) => i - 100.5));
      const ones = (k: number): Tensor => graph.constant(`ones ${k}`, [1, k], () => new Float32Array(k).fill(1));
      const byRow = graph.apply('matmulNT', [ones(64), graph.apply('mul', [y, weights])]);
      const loss = graph.apply('matmulNT', [byRow, ones(n / 64)]);
      const [dx] = differentiate(graph, loss, [x]);
      // The same layer on x + 1: what an element's step of 1 does to the result is its mask times the scale.
      const moved = graph.constant('moved', [n / 64, 64], () =>
        Float32Array.from({ length: n }, (_, i) => valueOf(i) + 1),
      );
      for (const tensor of [dx!, y, graph.apply('dropout', [moved, rng.counters], y.params)]) graph.output(tensor);
      const [derivative, before, after] = (await evaluate(graph, 42)) as [Float32Array, Float32Array, Float32Array];
      const scale = p === 1 ? 0 : 1 / (1 - p);
      let nKeptZeros = 0;
      derivative.forEach((d, i) => {
        const difference = after[i]! - before[i]!;
        assert.ok(difference === 0 || Math.abs(difference - scale) < 1e-3 * scale, `${difference} at ${i}`);
        const mask = difference === 0 ? 0 : 1;
        const expected = (i - 100.5) * mask * scale;
        assert.ok(Math.abs(d - expected) <= 1e-6 * Math.abs(expected), `[${i}] expected ${expected}, got ${d}`);
        if (i % 3 === 0 && d !== 0) nKeptZeros++;
      });
      assert.equal(nKeptZeros > 0, p < 1);
    });
  }
});

test('p below 0, above 1 or no number is a RangeError', () => {
  for (const p of [-1e-9, -1, 1 + 1e-9, 2, NaN, Infinity]) assert.throws(() => new Dropout(p), RangeError, `${p}`);
});
