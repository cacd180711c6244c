// A model that is loaded to be measured: contexts filled without evaluation, and several sequences at once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BenchmarkModel } from '../src/benchmark.ts';
import { smallModel } from './cli/command.ts';

for (const kvType of ['F16', 'F32'] as const) {
  test(`behind a filled context of ${kvType} all runs find it in the cache and evaluate the prompt alone`, async () => {
    await using model = await BenchmarkModel.load(smallModel, { threads: 1, nCtx: 128, kvType });
    model.fillContext(64);
    for (let seed = 0; seed < 10; seed++) {
      const { prefill, decode } = await model.run(model.workload(8, 16, seed));
      assert.ok(prefill > 0 && decode > 0);
    }
    // A step for the prompt, and one for each further token.
    assert.equal((await model.profile(model.workload(8, 16, 11))).nSteps, 17);
    assert.throws(() => model.fillContext(40), /ends within a block/);
  });
}

test('a prompt that the cache holds already is no measurement', async () => {
  await using model = await BenchmarkModel.load(smallModel, { threads: 1, nCtx: 64 });
  const workload = model.workload(40, 2, 1);
  await model.run(workload);
  await assert.rejects(model.run(workload), /the cache does not hold the 0 tokens before the prompt, and no others/);
});

test('several sequences run in one batch, each with a prompt of its own', async () => {
  await using model = await BenchmarkModel.load(smallModel, { threads: 1, nCtx: 64, parallel: 8 });
  const workload = model.workload(16, 10, 1, 8);
  assert.equal(new Set(workload.prompts.map(String)).size, 8);
  assert.equal((await model.profile(workload)).nSteps, 11);
  const { prefill, decode } = await model.run(model.workload(16, 10, 2, 8));
  assert.ok(prefill > 0 && decode > 0);
});
