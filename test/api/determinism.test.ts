// Same seed, same text: `strict` kernels give the same bits whatever the number of threads, the size of the prefill
// chunk, the neighbours in the batch, and whether the beginning was found in the cache.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import type { LoadOptions, Model, ModelSource } from '../../src/index.ts';
import { needsShared, sharedPath } from '../shared-data.ts';
import { smallModel } from './small-model.ts';

const STRICT: LoadOptions = { thread: 'inline', kernels: 'strict', threads: 1 };

/** Files whose kernels differ, small enough for seven threads on two cores. */
const RANDOM = [
  ['F32', () => smallModel()],
  ['F16', () => smallModel({ dtype: 'F16', tied: true })],
  ['Q8_0', () => smallModel({ dtype: 'Q8_0' })],
  ['Q4_0', () => smallModel({ dtype: 'Q4_0', nHeadKv: 4 })],
] as const;

const load = (source: ModelSource, options: LoadOptions = {}): Promise<Model> =>
  loadModel(source, { ...STRICT, ...options });

async function tell(model: Model, prompt: string, seed = 42, maxTokens = 32): Promise<readonly number[]> {
  return (await model.generate(prompt, { seed, maxTokens, temperature: 0.8 }).result).tokens;
}

describe('strict kernels give the same text', () => {
  for (const [dtype, bytes] of RANDOM) {
    test(`on 1, 2, 3 and 7 threads (${dtype}, random weights)`, async () => {
      const texts: (readonly number[])[] = [];
      for (const threads of [1, 2, 3, 7]) {
        await using model = await load(bytes(), { threads });
        texts.push(await tell(model, 'the same'));
      }
      assert.equal(texts[0]!.length, 32);
      for (const text of texts) assert.deepEqual(text, texts[0]);
    });
  }

  test('on 1, 2, 3 and 7 threads (real models)', needsShared(), async () => {
    const files = [
      ['stories260K', 'stories260K-f32.gguf'],
      ['tinystories-656k', 'TinyStories-656K-q4_0.gguf'],
    ] as const;
    for (const [folder, file] of files) {
      const texts: string[] = [];
      for (const threads of [1, 2, 3, 7]) {
        await using model = await load(sharedPath('models', folder, file), { threads });
        const run = model.generate('Once upon a time', { seed: 7, maxTokens: 60, temperature: 0.8 });
        texts.push((await run.result).text);
      }
      assert.deepEqual([...new Set(texts)], [texts[0]]);
    }
  });

  test('in the worker and inline', async () => {
    const texts: (readonly number[])[] = [];
    for (const thread of ['worker', 'inline'] as const) {
      await using model = await load(smallModel(), { thread });
      texts.push(await tell(model, 'the same'));
    }
    assert.deepEqual(texts[1], texts[0]);
  });

  test('whether its beginning is found in the cache or not', async () => {
    const prompt = 'a text of more than thirty-two tokens, since single letters are tokens here';
    await using model = await load(smallModel());
    const run = (): Promise<{ tokens: readonly number[]; cachedTokens: number }> =>
      model.generate(prompt, { seed: 3, maxTokens: 60, temperature: 0.8 }).result;
    const [miss, hit] = [await run(), await run()];
    assert.equal(miss.cachedTokens, 0);
    assert.ok(hit.cachedTokens >= 32, `${hit.cachedTokens} cached`);
    assert.deepEqual(hit.tokens, miss.tokens);
    const longer = await model.generate(`${prompt} and on`, { seed: 3, maxTokens: 60, temperature: 0.8 }).result;
    await using fresh = await load(smallModel());
    assert.ok(longer.cachedTokens >= 32);
    assert.deepEqual(longer.tokens, await tell(fresh, `${prompt} and on`, 3, 60));
  });
});

describe('strict kernels give the same bits', () => {
  const tokens = Array.from({ length: 150 }, (_, i) => 3 + ((i * 37) % 310));

  for (const [dtype, bytes] of RANDOM) {
    test(`for prefill chunks of 1, 7 and 64, on any number of threads (${dtype})`, async () => {
      const logits: Float32Array[] = [];
      for (const [prefillChunk, threads] of [
        [1, 1],
        [7, 1],
        [64, 1],
        [7, 3],
        [64, 2],
      ] as const) {
        await using model = await load(bytes(), { prefillChunk, threads });
        logits.push(await model.logits(tokens, { all: true }));
      }
      for (const other of logits) assert.ok(Buffer.from(other.buffer).equals(Buffer.from(logits[0]!.buffer)));
    });
  }

  test('alone and beside others', async () => {
    await using model = await load(smallModel({ dtype: 'Q8_0' }), { parallel: 4, threads: 2 });
    const alone = await model.logits(tokens, { all: true });
    const neighbours = [0, 1, 2].map((seed) => model.generate(`neighbour ${seed}`, { seed, maxTokens: 100 }).result);
    const beside = await model.logits(tokens, { all: true });
    assert.ok(Buffer.from(beside.buffer).equals(Buffer.from(alone.buffer)));
    for (const { tokens: text } of await Promise.all(neighbours)) assert.equal(text.length, 100);
  });
});
