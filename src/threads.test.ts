// The default number of threads: of machines, and of models.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { platform } from '#platform';
import { randomLlamaGguf } from '../test/random-model.ts';
import { loadModel } from './index.ts';
import { chooseThreads } from './threads.ts';

const MEGABYTE = 1e6;
const cores = (nLogical: number, nPhysical: number, nFast = nPhysical) => ({ nLogical, nPhysical, nFast });

test('a model gets a thread for each fast core, eight at most', () => {
  assert.deepEqual(chooseThreads(500 * MEGABYTE, cores(2, 2)), { threads: 2, reason: 'one for each core' });
  assert.deepEqual(chooseThreads(500 * MEGABYTE, cores(8, 4)), { threads: 4, reason: 'one for each core' });
  assert.deepEqual(chooseThreads(500 * MEGABYTE, cores(20, 14, 6)), { threads: 6, reason: 'one for each fast core' });
  assert.deepEqual(chooseThreads(500 * MEGABYTE, cores(128, 64)), {
    threads: 8,
    reason: 'the most that are started unasked',
  });
});

test('a small model gets fewer, and at least one', () => {
  const threadsOf = (weightBytes: number): number => chooseThreads(weightBytes, cores(16, 16)).threads;
  assert.deepEqual(
    [0, 1, 3, 4, 8, 100].map((n) => threadsOf(n * MEGABYTE)),
    [1, 1, 1, 2, 4, 8],
  );
  assert.match(chooseThreads(3 * MEGABYTE, cores(16, 16)).reason, /so small a model/);
});

const SHAPE = { seed: 1, dtype: 'F32', nLayer: 2, nEmbd: 64, nHead: 4, nHeadKv: 2, nFf: 64, nCtx: 64 } as const;

test('what is read in a step counts, not what is looked up, and what is asked for is obeyed', async () => {
  const threadsOf = async (shape: { nVocab: number; tied: boolean }, threads?: number): Promise<number> => {
    await using model = await loadModel(randomLlamaGguf({ ...SHAPE, ...shape }), { thread: 'inline', threads });
    return model.info.threads;
  };
  // 0.2 MB of layers, and 2 MB each of embedding and output matrix: with both it would be two threads.
  const small = { nVocab: 8000, tied: false };
  assert.equal(await threadsOf(small), 1);
  assert.equal(await threadsOf(small, 3), 3);
  // 4 MB, which are both.
  assert.equal(await threadsOf({ nVocab: 16_000, tied: true }), Math.min(platform.cores().nFast, 2));
});
