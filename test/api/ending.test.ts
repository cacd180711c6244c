// How a text ends before its time: by an AbortSignal, by `stop`, by leaving the loop, by closing the model. Whatever
// the way, the caller gets the reason it gave, the engine is free at once, and nothing is left over.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { SmallMindError, loadModel } from '../../src/index.ts';
import type { Generation, Model } from '../../src/index.ts';
import { THREADS, smallModel } from './small-model.ts';

/** A context that takes some 15 seconds to fill: whoever waits for such a text has not stopped it. */
const N_CTX = 32_768;
const LONG = { temperature: 0, maxTokens: N_CTX } as const;
/** Far less than a long text takes, far more than a short one. */
const MILLISECONDS_MAX = 4000;
const REASON = { why: 'a reason of any kind' };
const isReason = (error: unknown): boolean => error === REASON;

async function readSome(run: Generation, nPieces: number): Promise<void> {
  let n = 0;
  for await (const _ of run) if (++n === nPieces) return;
}

async function drain(run: Generation): Promise<void> {
  for await (const _ of run);
}

for (const thread of THREADS) {
  describe(`in thread: ${thread}`, () => {
    let model: Model;
    beforeEach(async () => {
      model = await loadModel(smallModel(), { thread, threads: 1, nCtx: N_CTX });
    });
    afterEach(() => model.close());

    /** That nothing runs any more: a short text is generated at once, well before a long one could end. */
    const assertFree = async (): Promise<void> => {
      const startMs = performance.now();
      assert.equal((await model.generate('1', { temperature: 0, maxTokens: 3 }).result).tokens.length, 3);
      assert.ok(performance.now() - startMs < MILLISECONDS_MAX);
    };

    test('a signal that is aborted already rejects iteration and result with its reason', async () => {
      const run = model.generate('1', { ...LONG, signal: AbortSignal.abort(REASON) });
      await assert.rejects(drain(run), isReason);
      await assert.rejects(run.result, isReason);
      await assertFree();
    });

    test('a signal aborted before the first token rejects both with its reason', async () => {
      const abort = new AbortController();
      const run = model.generate('1', { ...LONG, signal: abort.signal });
      abort.abort(REASON);
      await assert.rejects(drain(run), isReason);
      await assert.rejects(run.result, isReason);
      await assertFree();
    });

    test('a signal aborted while pieces come rejects both with its reason', async () => {
      const abort = new AbortController();
      const run = model.generate('1', { ...LONG, signal: abort.signal });
      let nPieces = 0;
      await assert.rejects(async () => {
        for await (const _ of run) if (++nPieces === 3) abort.abort(REASON);
      }, isReason);
      await assert.rejects(run.result, isReason);
      assert.ok(nPieces >= 3);
      await assertFree();
    });

    test('a signal aborted while a long prompt is read rejects before the first token', async () => {
      const prompt = Array.from({ length: N_CTX - 1 }, (_, i) => 3 + (i % 250));
      const abort = new AbortController();
      const run = model.generate(prompt, { ...LONG, signal: abort.signal });
      // By then some of its chunks are evaluated.
      await sleep(20);
      abort.abort(REASON);
      await assert.rejects(drain(run), isReason);
      await assert.rejects(run.result, isReason);
      await assertFree();
    });

    test('a signal without a reason rejects with an AbortError, one with a timeout with a TimeoutError', async () => {
      const abort = new AbortController();
      const run = model.generate('1', { ...LONG, signal: abort.signal });
      abort.abort();
      await assert.rejects(run.result, { name: 'AbortError' });
      const late = model.generate('1', { ...LONG, signal: AbortSignal.timeout(30) });
      await assert.rejects(late.result, { name: 'TimeoutError' });
      await assertFree();
    });

    test('a signal aborted after the end changes nothing', async () => {
      const abort = new AbortController();
      const run = model.generate('1', { temperature: 0, maxTokens: 3, signal: abort.signal });
      const result = await run.result;
      abort.abort(REASON);
      await drain(run);
      assert.equal(await run.result, result);
      assert.equal(result.finishReason, 'length');
    });

    test('a text that waits for another one can be aborted, too', async () => {
      const first = model.generate('1', LONG);
      const abort = new AbortController();
      const second = model.generate('2', { ...LONG, signal: abort.signal });
      await sleep(20);
      abort.abort(REASON);
      await assert.rejects(second.result, isReason);
      first.stop();
      assert.equal((await first.result).finishReason, 'abort');
      await assertFree();
    });

    test('stop() ends a text with what there is', async () => {
      const run = model.generate('1', LONG);
      let streamed = '';
      for await (const piece of run) {
        streamed += piece;
        if (streamed.length > 5) run.stop();
      }
      const { text, finishReason, tokens } = await run.result;
      assert.deepEqual([text, finishReason], [streamed, 'abort']);
      assert.ok(tokens.length < N_CTX / 2);
      await assertFree();
    });

    test('leaving the loop ends the text, by break and by an error', async () => {
      const run = model.generate('1', LONG);
      await readSome(run, 2);
      await assertFree();
      assert.equal((await run.result).finishReason, 'abort');
      const other = model.generate('1', LONG);
      await assert.rejects(async () => {
        for await (const _ of other) throw REASON;
      }, isReason);
      assert.equal((await other.result).finishReason, 'abort');
    });

    test('closing the model ends its texts with MODEL_CLOSED, those that wait, too', async () => {
      const runs = [model.generate('1', LONG), model.generate('2', LONG)];
      await sleep(20);
      const reading = drain(runs[0]!);
      await Promise.all([
        model.close(),
        assert.rejects(reading, { code: 'MODEL_CLOSED' }),
        ...runs.map((run) => assert.rejects(run.result, { name: 'SmallMindError', code: 'MODEL_CLOSED' })),
      ]);
    });

    test('closing at any moment of several texts on several threads ends them all, and the next model works', async () => {
      for (let round = 0; round < 12; round++) {
        const busy = await loadModel(smallModel(), { thread, threads: 3, parallel: 2, nCtx: N_CTX });
        const prompt = Array.from({ length: 300 * (round % 3) + 1 }, (_, i) => 3 + (i % 250));
        const runs = [1, 2, 3].map((i) => busy.generate([...prompt, i + 5], LONG));
        await sleep(round);
        const endings = runs.map((run) => assert.rejects(drain(run), { code: 'MODEL_CLOSED' }));
        await Promise.all([busy.close(), ...endings]);
      }
      await assertFree();
    });

    test('a closed model refuses everything with MODEL_CLOSED, except to be closed again', async () => {
      await Promise.all([model.close(), model.close()]);
      await model.close();
      const closed = (error: unknown): boolean => error instanceof SmallMindError && error.code === 'MODEL_CLOSED';
      const run = model.generate('1');
      await assert.rejects(drain(run), closed);
      await assert.rejects(run.result, closed);
      await assert.rejects(model.tokenize('1'), closed);
      await assert.rejects(model.detokenize([5]), closed);
      await assert.rejects(model.logits([5]), closed);
      assert.equal(model.info.architecture, 'llama');
    });

    test('await using closes the model at the end of the block', async () => {
      let used: Model;
      {
        await using inner = await loadModel(smallModel(), { thread });
        used = inner;
        assert.equal((await inner.generate('1', { maxTokens: 2, temperature: 0 }).result).tokens.length, 2);
      }
      await assert.rejects(used.tokenize('1'), { code: 'MODEL_CLOSED' });
    });
  });
}
