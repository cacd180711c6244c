// Creating an executor: what is read and reported while weights load, what is refused, and that the smallest of graphs
// work. What kernels compute is for the conformance suites.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DType } from '../../base/dtype.ts';
import type { KvDtype } from '../../graph/step.ts';
import { Graph } from '../../graph/tensor.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { quantize } from '../../quant/codecs.ts';
import type { WeightSource } from '../executor.ts';
import { WasmExecutor } from './executor.ts';
import type { WasmOptions } from './executor.ts';

const OPTIONS: WasmOptions = { kernels: 'simd', nThreads: 1, activations: 'f32' };

/** Reads from `bytes` by name, and remembers what was asked for. */
function sourceOf(bytes: Readonly<Record<string, Uint8Array>>): WeightSource & { reads: [string, number, number][] } {
  const reads: [string, number, number][] = [];
  return {
    reads,
    async read(name, offsetBytes, target) {
      reads.push([name, offsetBytes, target.length]);
      target.set(bytes[name]!.subarray(offsetBytes, offsetBytes + target.length));
    },
  };
}

const row = (graph: Graph, columns: number): Tensor =>
  graph.constant(`x${columns}`, [1, columns], () => new Float32Array(columns).fill(1));

const product = (graph: Graph, name: string, dtype: DType, nOut: number, nIn: number): void =>
  graph.output(graph.apply('matmul', [row(graph, nIn), graph.leaf('weight', name, dtype, [nOut, nIn])]));

test('a matrix smaller than a group of eight rows loads, though it is all there is', { timeout: 10_000 }, async () => {
  for (const [nOut, nIn] of [
    [1, 1],
    [3, 5],
    [7, 2],
  ] as const) {
    const graph = new Graph();
    product(graph, 'w', 'F32', nOut, nIn);
    const source = sourceOf({ w: quantize('F32', new Float32Array(nOut * nIn).fill(2)) });
    const executor = await WasmExecutor.create(graph, source, OPTIONS);
    executor.run();
    assert.deepEqual(
      [...executor.output(0)],
      Array.from({ length: nOut }, () => 2 * nIn),
    );
    await executor.close();
  }
});

test('weights are read once, in whole groups of rows, and progress ends at all of the bytes', async () => {
  const graph = new Graph();
  // 6 MB, more than is held at once.
  const [nOut, nIn] = [3001, 512];
  product(graph, 'large', 'F32', nOut, nIn);
  product(graph, 'small', 'F16', 9, 4);
  const normed = graph.apply('rmsNorm', [row(graph, 6), graph.leaf('weight', 'norm', 'F32', [6])], { eps: 0 });
  graph.output(normed);
  const values = Float32Array.from({ length: nOut * nIn }, (_, i) => (i % nIn === 0 ? Math.floor(i / nIn) : 0));
  const bytes = {
    large: quantize('F32', values),
    small: quantize('F16', new Float32Array(36).fill(1)),
    norm: quantize('F32', Float32Array.of(1, 2, 3, 4, 5, 6)),
  };
  const source = sourceOf(bytes);
  const progress: number[] = [];
  const totalBytes = Object.values(bytes).reduce((n, b) => n + b.length, 0);
  const executor = await WasmExecutor.create(graph, source, {
    ...OPTIONS,
    onProgress(done, total) {
      assert.equal(total, totalBytes);
      progress.push(done);
    },
  });
  for (const [name, all] of Object.entries(bytes)) {
    const reads = source.reads.filter(([n]) => n === name);
    let next = 0;
    for (const [, offset, length] of reads) {
      assert.equal(offset, next);
      next += length;
    }
    assert.equal(next, all.length, name);
  }
  assert.ok(source.reads.filter(([n]) => n === 'large').length > 1);
  assert.deepEqual(
    progress,
    [...progress].sort((a, b) => a - b),
  );
  assert.deepEqual([progress[0], progress.at(-1)], [0, totalBytes]);

  executor.run();
  assert.deepEqual(
    executor.output(0),
    Float32Array.from({ length: nOut }, (_, i) => i),
  );
  await executor.close();
});

test('a damaged weight is refused while it loads, and leaves nothing behind', async () => {
  for (const nThreads of [1, 3]) {
    const graph = new Graph();
    product(graph, 'w', 'F32', 9, 4);
    const source = sourceOf({ w: quantize('F32', new Float32Array(36).fill(NaN)) });
    await assert.rejects(WasmExecutor.create(graph, source, { ...OPTIONS, nThreads }), {
      code: 'GGUF_INVALID',
      message: /"w"/,
    });
  }
});

test('an error of the source is handed on', async () => {
  const graph = new Graph();
  product(graph, 'w', 'F32', 9, 4);
  const source: WeightSource = { read: () => Promise.reject(new Error('unplugged')) };
  await assert.rejects(WasmExecutor.create(graph, source, { ...OPTIONS, nThreads: 2 }), /unplugged/);
});

test('shapes that the kernels have no code for are refused, never computed wrongly', async () => {
  const attend = (headDim: number, blockSize: number, kvDtype: KvDtype = 'F16'): Graph => {
    const graph = new Graph();
    const ids = graph.leaf('input', 'ids', 'I32', [1]);
    const cache = graph.leaf('state', 'cache', kvDtype, [blockSize, headDim]);
    const tables = graph.leaf('input', 'tables', 'I32', [1, 1]);
    const operands = [row(graph, headDim), cache, cache, ids, ids, tables];
    graph.output(graph.apply('attention', operands, { nHead: 1, nHeadKv: 1, headDim, blockSize, scale: 1 }));
    return graph;
  };
  const creating = (graph: Graph) => WasmExecutor.create(graph, sourceOf({}), OPTIONS);
  await assert.rejects(creating(attend(6, 32)), { code: 'UNSUPPORTED_FEATURE', message: /heads of 6 elements/ });
  await assert.rejects(creating(attend(8, 16)), { code: 'INTERNAL', message: /blocks of 32 positions/ });
  await assert.rejects(creating(attend(48, 32, 'Q8_0')), { code: 'INTERNAL', message: /heads of 48 elements/ });
});

test('a matrix is never read in another layout than its own', async () => {
  const plain = new Graph();
  plain.output(plain.apply('matmulNT', [row(plain, 4), plain.leaf('weight', 'w', 'F32', [2, 4])]));
  await assert.rejects(WasmExecutor.create(plain, sourceOf({}), OPTIONS), { code: 'INTERNAL', message: /"w"/ });

  const added = new Graph();
  added.output(added.apply('add', [row(added, 4), added.leaf('weight', 'w', 'F32', [1, 4])]));
  await assert.rejects(WasmExecutor.create(added, sourceOf({}), OPTIONS), { code: 'INTERNAL', message: /"w"/ });
});

test('an executor says what it is', async () => {
  const graph = new Graph();
  graph.output(graph.apply('silu', [row(graph, 4)]));
  const one = await WasmExecutor.create(graph, sourceOf({}), OPTIONS);
  const three = await WasmExecutor.create(graph, sourceOf({}), { ...OPTIONS, kernels: 'strict', nThreads: 3 });
  assert.equal(one.description, 'wasm simd (i16), 1 thread');
  assert.equal(three.description, 'wasm strict (i16), 3 threads');
  assert.deepEqual([one.nThreads, three.nThreads], [1, 3]);
  assert.ok(one.memoryBytes > 0);
  assert.throws(() => one.input('nothing'), { code: 'INTERNAL', message: /"nothing"/ });
  await one.close();
  await three.close();
});
