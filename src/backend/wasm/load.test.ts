// Loading: how pieces are read and in what order, what is said of those that fail, and what is left of it all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { rowBytes } from '../../base/dtype.ts';
import { GgufError } from '../../base/errors.ts';
import { Graph } from '../../graph/tensor.ts';
import type { WeightSource } from '../executor.ts';
import { WasmExecutor } from './executor.ts';

const N_IN = 512;
const N_OUT = 40_000;

/** One matrix of 22 MB, several pieces, times ones. */
function product(): Graph {
  const graph = new Graph();
  const ones = graph.constant('x', [1, N_IN], () => new Float32Array(N_IN).fill(1));
  graph.output(graph.apply('matmul', [ones, graph.leaf('weight', 'w', 'Q8_0', [N_OUT, N_IN])]));
  return graph;
}

const create = (source: WeightSource, nThreads = 2): Promise<WasmExecutor> =>
  WasmExecutor.create(product(), source, { kernels: 'auto', activations: 'f32', nThreads });

/** Every row has scales of 1 and a 1 in its first column for each unit of its index modulo 32. */
function fill(offsetBytes: number, target: Uint8Array): void {
  target.fill(0);
  const size = rowBytes('Q8_0', N_IN);
  for (let start = 0; start < target.length; start += size) {
    const row = (offsetBytes + start) / size;
    target.set([0x00, 0x3c, row % 32], start);
  }
}

test('pieces are read two at a time, whichever is there first, and every row finds its place', async () => {
  let nReading = 0;
  let nReadingMax = 0;
  let nRead = 0;
  const source: WeightSource = {
    async read(_, offsetBytes, target) {
      nReadingMax = Math.max(nReadingMax, ++nReading);
      // The second of a pair comes before the first.
      await sleep(nRead++ % 2 === 0 ? 20 : 1);
      fill(offsetBytes, target);
      nReading--;
    },
  };
  for (const nThreads of [1, 3]) {
    const executor = await create(source, nThreads);
    assert.equal(nReadingMax, 2);
    assert.ok(executor.arena().every((value) => value === 0));
    executor.run();
    const out = executor.output(0);
    assert.ok(out.every((value, row) => value === row % 32));
    await executor.close();
  }
});

test('the piece that fails first in the file is what is reported, and nobody waits for the others', async () => {
  let nRead = 0;
  const source: WeightSource = {
    async read(_, offsetBytes, target) {
      const i = nRead++;
      if (i === 2) {
        await sleep(20);
        throw new GgufError('GGUF_TRUNCATED', 'cut off');
      }
      if (i === 3) throw new Error('this one fails sooner');
      fill(offsetBytes, target);
    },
  };
  await assert.rejects(create(source), { code: 'GGUF_TRUNCATED', message: 'cut off' });
  assert.equal(nRead, 4);

  nRead = 0;
  const stuck: WeightSource = {
    read: (_, offsetBytes) => (offsetBytes === 0 ? Promise.reject(new Error('unplugged')) : new Promise(() => {})),
  };
  await assert.rejects(create(stuck), /unplugged/);
});

test('a damaged scale in a later piece is found on any thread, and the tensor is named', async () => {
  const badRow = N_OUT - 3;
  const badAt = badRow * rowBytes('Q8_0', N_IN) + 34;
  const source: WeightSource = {
    async read(_, offsetBytes, target) {
      fill(offsetBytes, target);
      if (badAt >= offsetBytes && badAt < offsetBytes + target.length) target[badAt - offsetBytes + 1] = 0x7c;
    },
  };
  for (const nThreads of [1, 2]) {
    await assert.rejects(create(source, nThreads), {
      code: 'GGUF_INVALID',
      message: /tensor "w" has a NaN or an infinity/,
      details: { tensor: 'w' },
    });
  }
});
