// Matrices so large that addresses, and distances within them, pass 2^31 and 2^32: every row is where it belongs.

import assert from 'node:assert/strict';
import { totalmem } from 'node:os';
import { test } from 'node:test';
import { rowBytes } from '../../base/dtype.ts';
import { Graph } from '../../graph/tensor.ts';
import type { WeightSource } from '../executor.ts';
import { WasmExecutor } from './executor.ts';

const N_IN = 2048;
const ROW_BYTES = rowBytes('Q8_0', N_IN);
/** Row values repeat after so many rows. */
const PERIOD = 120;

/** Row r: the scale 1, and in the first column r modulo the period. */
const ROWS = new Uint8Array(PERIOD * ROW_BYTES);
for (let row = 0; row < PERIOD; row++) ROWS.set([0x00, 0x3c, row], row * ROW_BYTES);

const source: WeightSource = {
  async read(_, offsetBytes, target) {
    for (let done = 0; done < target.length;) {
      const at = (offsetBytes + done) % ROWS.length;
      const part = ROWS.subarray(at, at + target.length - done);
      target.set(part, done);
      done += part.length;
    }
  },
};

for (const sizeGiB of [3.5, 4.75]) {
  const enough = totalmem() > 2 * sizeGiB * 2 ** 30;
  const options = { timeout: 240_000, skip: enough ? false : 'needs more memory than this machine has' };
  test(`a matrix of ${sizeGiB} GiB is loaded and multiplied, row for row`, options, async () => {
    const nOut = Math.floor((sizeGiB * 2 ** 30) / ROW_BYTES);
    const graph = new Graph();
    const ones = graph.constant('x', [1, N_IN], () => new Float32Array(N_IN).fill(1));
    graph.output(graph.apply('matmul', [ones, graph.leaf('weight', 'w', 'Q8_0', [nOut, N_IN])]));
    const executor = await WasmExecutor.create(graph, source, { kernels: 'auto', activations: 'q8', nThreads: 2 });
    executor.run();
    const wrong = executor.output(0).findIndex((value, row) => Math.abs(value - (row % PERIOD)) > 1e-3);
    assert.equal(wrong, -1);
    await executor.close();
  });
}
