// Several texts at once, on one model and on several: each is the text it would be alone.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import type { Model } from '../../src/index.ts';
import { THREADS, smallModel } from './small-model.ts';

const N_TEXTS = 6;

async function tell(model: Model, i: number): Promise<string> {
  const run = model.generate(`prompt ${i}`, { seed: i, maxTokens: 20 + 5 * i });
  let text = '';
  for await (const piece of run) text += piece;
  return text;
}

async function tellSerially(model: Model): Promise<string[]> {
  const texts: string[] = [];
  for (let i = 0; i < N_TEXTS; i++) texts.push(await tell(model, i));
  return texts;
}

const tellAtOnce = (model: Model): Promise<string[]> =>
  Promise.all(Array.from({ length: N_TEXTS }, (_, i) => tell(model, i)));

for (const thread of THREADS) {
  describe(`in thread: ${thread}`, () => {
    for (const parallel of [1, 4]) {
      test(`texts asked for at once are those asked for one by one, ${parallel} at a time`, async () => {
        await using model = await loadModel(smallModel(), { thread, threads: 2, kernels: 'strict', parallel });
        const serial = await tellSerially(model);
        assert.equal(new Set(serial).size, N_TEXTS);
        await using fresh = await loadModel(smallModel(), { thread, threads: 2, kernels: 'strict', parallel });
        assert.deepEqual(await tellAtOnce(fresh), serial);
        assert.deepEqual(await tellAtOnce(model), serial);
      });
    }

    test('with parallel: 1 a text waits for the one before, with 2 it does not', async () => {
      for (const parallel of [1, 2]) {
        await using model = await loadModel(smallModel(), { thread, threads: 1, parallel });
        const ended: string[] = [];
        const long = model.generate('1', { temperature: 0, maxTokens: 200 }).result.then(() => ended.push('long'));
        const short = model.generate('2', { temperature: 0, maxTokens: 2 }).result.then(() => ended.push('short'));
        await Promise.all([long, short]);
        assert.deepEqual(ended, parallel === 1 ? ['long', 'short'] : ['short', 'long']);
      }
    });

    test('two models, and the same model twice, do not disturb each other', async () => {
      await using first = await loadModel(smallModel(), { thread, threads: 2, kernels: 'strict' });
      const alone = await tellSerially(first);
      await using twin = await loadModel(smallModel(), { thread, threads: 3, kernels: 'strict' });
      await using other = await loadModel(smallModel({ seed: 6, dtype: 'Q8_0' }), { thread, threads: 2 });
      const [fromFirst, fromTwin, fromOther] = await Promise.all([first, twin, other].map(tellAtOnce));
      assert.deepEqual(fromFirst, alone);
      assert.deepEqual(fromTwin, alone);
      assert.notDeepEqual(fromOther, alone);
      await other.close();
      assert.deepEqual(await tellSerially(twin), alone);
    });

    test('a long text holds up no other request', async () => {
      const nCtx = 30_000;
      await using model = await loadModel(smallModel({ nCtx }), { thread, threads: 1, nCtx });
      const long = model.generate('long', { temperature: 0 });
      let isDone = false;
      long.result.finally(() => (isDone = true)).catch(() => {});
      assert.equal(await model.detokenize(await model.tokenize('a text')), 'a text');
      await using other = await loadModel(smallModel({ seed: 6 }), { thread, threads: 1 });
      assert.ok((await tell(other, 1)).length > 0);
      assert.equal(isDone, false);
      long.stop();
      const { tokens } = await long.result;
      assert.ok(tokens.length > 0 && tokens.length < nCtx / 2, `${tokens.length} tokens`);
    });

    test('a model can be loaded and closed again and again, also at the same time', async () => {
      for (let round = 0; round < 3; round++) {
        const models = await Promise.all([1, 2, 3].map((threads) => loadModel(smallModel(), { thread, threads })));
        const texts = await Promise.all(models.map((model) => tell(model, round)));
        assert.equal(new Set(texts).size, 1);
        await Promise.all(models.map((model) => model.close()));
      }
    });
  });
}

test('the worker and inline work side by side', async () => {
  await using remote = await loadModel(smallModel(), { thread: 'worker', kernels: 'strict' });
  await using local = await loadModel(smallModel(), { thread: 'inline', kernels: 'strict' });
  const [a, b] = await Promise.all([tellAtOnce(remote), tellAtOnce(local)]);
  assert.deepEqual(a, b);
});
