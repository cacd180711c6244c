// Same seed, same text: `strict` kernels give the same bits whatever the number of threads, the size of the prefill
// chunk, the neighbours in the batch, and whether the beginning was found in the cache.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import type { LoadOptions, Model, ModelSource } from '../../src/index.ts';
import { needsShared, sharedPath } from '../shared-data.ts';
import { randomLlamaGguf } from '../random-model.ts';
import { BOS, smallModel } from './small-model.ts';

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

/** Keeps the threads of the pool alive between models: starting seven takes half a second. */
let holder: Model;
before(async () => void (holder = await load(smallModel(), { threads: 7 })));
after(() => holder.close());

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
  /** More than the largest chunk, and 17 key-value blocks, the last one begun. */
  const tokens = Array.from({ length: 530 }, (_, i) => 3 + ((i * 37) % 250));
  const COMMON = { seed: 11, nLayer: 1, nVocab: 263, nCtx: 640, tied: false } as const;
  /** Three queries a key; sizes that fill no vector, tile or group of rows, as far as the type's blocks allow. */
  const ODD = { nEmbd: 99, nHead: 9, nHeadKv: 3, headDim: 20, nFf: 101 };
  const BLOCKS_OF_32 = { nEmbd: 96, nHead: 9, nHeadKv: 3, headDim: 32, nFf: 160 };
  const BLOCKS_OF_256 = { nEmbd: 256, nHead: 12, nHeadKv: 4, headDim: 64, nFf: 256 };
  const MODELS = [
    { dtype: 'F32', ...ODD },
    { dtype: 'F16', ...ODD },
    { dtype: 'Q8_0', ...BLOCKS_OF_32 },
    { dtype: 'Q4_0', ...BLOCKS_OF_32 },
    { dtype: 'Q4_K', ...BLOCKS_OF_256 },
  ] as const;

  for (const shape of MODELS) {
    const bytes = randomLlamaGguf({ ...COMMON, ...shape });
    let expected: Buffer;
    before(async () => {
      await using model = await load(bytes);
      expected = await logitsOf(model);
    });
    for (const threads of [1, 2, 3, 7]) {
      test(`on ${threads} thread(s), for chunks of 1, 7, 64 and 512, alone and beside others: ${shape.dtype}`, async () => {
        for (const prefillChunk of [1, 7, 64, 512]) {
          await using model = await load(bytes, { threads, prefillChunk, parallel: 3 });
          assert.equal(model.info.threads, threads);
          assert.ok((await logitsOf(model)).equals(expected), `alone, chunks of ${prefillChunk}`);
          // One that is reading its prompt and one that is writing, so that chunks begin elsewhere.
          const neighbours = [tokens.slice(0, 100), [BOS]].map((prompt) => model.generate(prompt, { maxTokens: 20 }));
          assert.ok((await logitsOf(model)).equals(expected), `beside others, chunks of ${prefillChunk}`);
          for (const { result } of neighbours) await result;
        }
      });
    }
  }

  async function logitsOf(model: Model): Promise<Buffer> {
    const logits = await model.logits(tokens, { all: true });
    assert.ok(logits.every((logit) => logit !== 0 && Number.isFinite(logit)));
    return Buffer.from(logits.buffer);
  }
});
