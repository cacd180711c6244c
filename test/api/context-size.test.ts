// Contexts and memory: what `inspectModel` says is what loading takes; the largest context that fits is found, by
// `nCtx: 'fit'` and in the error of a context that does not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { estimateMemory, inspectModel, loadModel } from '../../src/index.ts';
import type { LoadOptions, SmallMindError } from '../../src/index.ts';
import { smallModel } from './small-model.ts';

const BLOCK = 32;
const MODEL = smallModel({ nCtx: 65536 });
const OPTIONS: LoadOptions = { thread: 'inline', threads: 1, kernels: 'simd' };

const neededBytes = async (nCtx: number): Promise<number> =>
  (await inspectModel(MODEL, { ...OPTIONS, nCtx })).memory!.totalBytes;

test('inspectModel says to the byte what loading takes', async () => {
  for (const nCtx of [BLOCK, 1000, 4096]) {
    await using model = await loadModel(MODEL, { ...OPTIONS, nCtx });
    assert.equal(model.info.memoryBytes, await neededBytes(nCtx));
  }
});

test("nCtx: 'fit' takes the largest context that nine tenths of the free memory hold", async (t) => {
  const freeBytes = 2 * (await neededBytes(4096));
  t.mock.method(process, 'availableMemory', () => freeBytes);
  await using model = await loadModel(MODEL, { ...OPTIONS, nCtx: 'fit' });
  const { nCtx } = model.info;
  assert.ok(nCtx > 4096 && nCtx % BLOCK === 0, `${nCtx}`);
  assert.ok((await neededBytes(nCtx)) <= 0.9 * freeBytes);
  assert.ok((await neededBytes(nCtx + BLOCK)) > 0.9 * freeBytes);
  assert.equal((await inspectModel(MODEL, { ...OPTIONS, nCtx: 'fit' })).memory!.nCtx, nCtx);
});

test('estimateMemory tells what each context takes with each type of the cache, and the largest that fits', async (t) => {
  const freeBytes = 2 * (await neededBytes(4096));
  t.mock.method(process, 'availableMemory', () => freeBytes);
  const estimate = await estimateMemory(MODEL, OPTIONS);
  assert.deepEqual(JSON.parse(JSON.stringify(estimate)), estimate);
  assert.deepEqual(
    [estimate.nCtxTrain, estimate.nThreads, estimate.fittingBytes],
    [65536, 1, Math.floor(0.9 * freeBytes)],
  );
  const sizes = [2048, 8192, 32768, 65536];
  assert.deepEqual(
    estimate.caches.map(({ kvType, contexts }) => [kvType, contexts.map(({ nCtx }) => nCtx)]),
    [
      ['F16', sizes],
      ['F32', sizes],
      // Its heads are too narrow.
      ['Q8_0', []],
    ],
  );
  assert.deepEqual(
    estimate.caches.map(({ problem }) => problem?.slice(0, 26)),
    [undefined, undefined, 'a key-value cache in Q8_0 '],
  );
  for (const { kvType, contexts, nCtxFit } of estimate.caches) {
    for (const { fits, ...needs } of contexts) {
      const { memory } = await inspectModel(MODEL, { ...OPTIONS, kvType, nCtx: needs.nCtx });
      assert.deepEqual(needs, memory);
      assert.equal(fits, needs.nCtx <= nCtxFit);
    }
    const { memory } = await inspectModel(MODEL, { ...OPTIONS, kvType, nCtx: 'fit' });
    assert.equal(nCtxFit, memory?.nCtx ?? 0);
  }
  const fitting = (await estimateMemory(MODEL, { ...OPTIONS, nCtx: 'fit' })).caches;
  assert.deepEqual(
    fitting.map(({ contexts }) => contexts.map(({ nCtx, fits }) => [nCtx, fits])),
    estimate.caches.map(({ nCtxFit, problem }) => (problem === undefined ? [[nCtxFit, true]] : [])),
  );
  const [only, ...others] = (await estimateMemory(MODEL, { ...OPTIONS, nCtx: 100, kvType: 'F32' })).caches;
  assert.deepEqual([only!.kvType, only!.contexts.map(({ nCtx }) => nCtx), others], ['F32', [100], []]);
});

test('a context beyond what WebAssembly can hold has its numbers all the same, and does not fit', async () => {
  const [cache] = (await estimateMemory(MODEL, { ...OPTIONS, nCtx: 2 ** 20, parallel: 64, kvType: 'F32' })).caches;
  const { totalBytes, weightsBytes, kvBytes, fits } = cache!.contexts[0]!;
  assert.ok(totalBytes > 2 ** 34 && weightsBytes + kvBytes <= totalBytes);
  assert.equal(fits, false);
});

test('no context is chosen that could not be asked for, whatever a file says that the model was trained for', async (t) => {
  t.mock.method(process, 'availableMemory', () => 2 ** 40);
  const bytes = smallModel({ nCtx: 2 ** 31 });
  const { caches, nCtxTrain } = await estimateMemory(bytes, { ...OPTIONS, kvType: 'F16' });
  assert.deepEqual([caches[0]!.contexts.at(-1)!.nCtx, caches[0]!.nCtxFit, nCtxTrain], [2 ** 20, 2 ** 20, 2 ** 31]);
  assert.equal((await inspectModel(bytes, { ...OPTIONS, nCtx: 'fit' })).memory!.nCtx, 2 ** 20);
});

test('with room enough it is what the model was trained for; with none it is an error', async (t) => {
  await using model = await loadModel(smallModel({ nCtx: 1000 }), { ...OPTIONS, nCtx: 'fit' });
  assert.equal(model.info.nCtx, 1000);
  t.mock.method(process, 'availableMemory', () => 1 << 16);
  await assert.rejects(loadModel(MODEL, { ...OPTIONS, nCtx: 'fit' }), (error: SmallMindError) => {
    assert.equal(error.code, 'OUT_OF_MEMORY');
    assert.match(error.message, /not even a context of 32 tokens/);
    return true;
  });
});

test('a context that the machine has no memory for is refused with the largest that fits', async (t) => {
  const machineBytes = await neededBytes(8192);
  t.mock.method(process, 'constrainedMemory', () => machineBytes);
  await assert.rejects(loadModel(MODEL, { ...OPTIONS, nCtx: 8193 }), (error: SmallMindError) => {
    assert.equal(error.code, 'OUT_OF_MEMORY');
    assert.match(
      error.message,
      /needs \d+ MiB.*this machine has \d+ MiB.*The largest context that fits is 8192 tokens$/,
    );
    assert.deepEqual([error.details['limitBytes'], error.details['nCtx']], [machineBytes, 8192]);
    return true;
  });
  await using model = await loadModel(MODEL, { ...OPTIONS, nCtx: 8192 });
  assert.equal(model.info.nCtx, 8192);
});
