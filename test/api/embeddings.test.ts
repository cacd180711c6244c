// Vectors of texts, from encoders and from models that generate text, in the worker and inline: what comes back, how it
// is pooled, what is refused, and that texts beside each other do not touch. What is right, peers/ says.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { cosineSimilarity, loadModel } from '../../src/index.ts';
import type { EmbedOptions, LoadOptions, Model } from '../../src/index.ts';
import { FILE_KINDS, randomDecoderGguf } from '../random-decoder.ts';
import { CLS, ENCODER_KINDS, SEP, randomEncoderGguf } from '../random-encoder.ts';
import type { EncoderShape } from '../random-encoder.ts';
import { u32 } from '../random-model.ts';
import { BOS, N_CTX, THREADS, smallModel } from './small-model.ts';

const SHAPE: EncoderShape = { seed: 2, dtype: 'Q8_0', nLayer: 2, nEmbd: 64, nHead: 2, nFf: 96, nVocab: 300, nCtx: 64 };
const bert = (shape: Partial<EncoderShape> = {}): Uint8Array =>
  randomEncoderGguf(ENCODER_KINDS['bert']!, { ...SHAPE, ...shape });
const nomic = (): Uint8Array => randomEncoderGguf(ENCODER_KINDS['nomic-bert']!, SHAPE);
const TEXTS = ['A cat sleeps.', 'a b c', '', 'dogs 1 2 3 and 4 5 6, or not?', 'A cat sleeps.'];
/** The same bits whatever runs beside it. */
const STRICT: LoadOptions = { thread: 'inline', kernels: 'strict', threads: 1 };

async function vectors(model: Model, texts: Parameters<Model['embed']>[0], options?: EmbedOptions) {
  return (await model.embed(texts, options)).data.map(({ embedding }) => embedding);
}

const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

for (const thread of THREADS) {
  describe(`in thread: ${thread}`, () => {
    let model: Model;
    before(async () => void (model = await loadModel(bert(), { ...STRICT, thread })));
    after(() => model.close());

    test('every text has a vector of length 1 and its count of tokens, in order', async () => {
      const { data, usage, pooling } = await model.embed(TEXTS);
      assert.equal(pooling, 'mean');
      assert.deepEqual(
        data.map(({ index }) => index),
        [0, 1, 2, 3, 4],
      );
      const counts = await Promise.all(TEXTS.map(async (text) => (await model.tokenize(text)).length));
      assert.deepEqual(
        data.map(({ promptTokens }) => promptTokens),
        counts,
      );
      assert.equal(counts[2], 2, '[CLS] and [SEP] around nothing');
      const total = counts.reduce((a, b) => a + b);
      assert.deepEqual(usage, { promptTokens: total, totalTokens: total });
      for (const { embedding, isTruncated } of data) {
        assert.ok(embedding instanceof Float32Array && embedding.length === SHAPE.nEmbd && !isTruncated);
        assert.ok(Math.abs(dot(embedding, embedding) - 1) < 1e-6);
      }
      assert.deepEqual(data[4]!.embedding, data[0]!.embedding);
      assert.ok(cosineSimilarity(data[0]!.embedding, data[3]!.embedding) < 0.9999);
    });

    test('one text alone, as a string or as its tokens, has the bits that it has among others', async () => {
      const all = await vectors(model, TEXTS);
      for (const [i, text] of TEXTS.entries()) {
        assert.deepEqual(await vectors(model, text), [all[i]]);
        assert.deepEqual(await vectors(model, [await model.tokenize(text)]), [all[i]]);
      }
    });

    test('far more texts than a step holds come back in order', async () => {
      const texts = Array.from({ length: 150 }, (_, i) => `${i} ${'a '.repeat(i % 40)}`);
      const all = await vectors(model, texts);
      assert.equal(all.length, 150);
      for (const i of [0, 39, 77, 149]) assert.deepEqual(all[i], (await vectors(model, texts[i]!))[0]);
    });

    test('an abort ends it with the reason, and the model goes on', async () => {
      const texts = Array.from({ length: 10_000 }, (_, i) => `${i} ${'a '.repeat(50)}`);
      const controller = new AbortController();
      const running = model.embed(texts, { signal: controller.signal });
      void setTimeout(30).then(() => controller.abort(new Error('enough')));
      await assert.rejects(running, /^Error: enough$/);
      await assert.rejects(model.embed('a', { signal: AbortSignal.abort(new Error('before')) }), /before/);
      assert.equal((await model.embed('a')).data.length, 1);
    });

    test('a text that the context does not hold is refused with both lengths, or cut where that is allowed', async () => {
      const long = 'b '.repeat(90);
      await assert.rejects(model.embed(['a', long]), {
        code: 'CONTEXT_FULL',
        message: /"texts\[1\]" has 92 tokens, the context holds 64; .*"truncate"/,
      });
      const { data } = await model.embed(['a', long], { truncate: true });
      assert.deepEqual(
        data.map(({ promptTokens, isTruncated }) => [promptTokens, isTruncated]),
        [
          [3, false],
          [64, true],
        ],
      );
      const cut = (await model.tokenize(long)).slice(0, 63);
      assert.deepEqual((await vectors(model, [[...cut, SEP]]))[0], data[1]!.embedding);
    });

    test('an encoder generates nothing, and says what it is for', async () => {
      const refused = { code: 'UNSUPPORTED_FEATURE', message: /"bert".*model\.embed\(\)/ };
      await assert.rejects(model.generate('a').result, refused);
      await assert.rejects(model.logits([CLS, SEP]), refused);
      await assert.rejects(model.chat({ template: 'chatml' }).send('a').result, refused);
      assert.equal(model.info.canGenerate, false);
    });

    test('what is no text and no option is refused by name', async () => {
      const embed = (texts: unknown, options: unknown = {}) => model.embed(texts as string, options as EmbedOptions);
      for (const [texts, options, message] of [
        [7, {}, /"texts" expected a text or an array of texts/],
        [['a', 7], {}, /"texts\[1\]" expected a text, or an array of token ids/],
        [['a', [1, -1]], {}, /"texts\[1\]\[1\]" expected a token id, an integer from 0 on, got -1/],
        [[[]], {}, /"texts\[0\]" is empty/],
        ['a', { pooling: 'max' }, /"pooling" expected one of mean, cls, last, got "max"/],
        ['a', { normalize: 1 }, /"normalize"/],
        ['a', { truncate: 'yes' }, /"truncate"/],
        ['a', { signal: {} }, /"signal"/],
      ] as const) {
        await assert.rejects(embed(texts, options), { code: 'INVALID_OPTION', message });
      }
      const unknown = { code: 'INVALID_OPTION', message: /"texts\[1\]": token 1 expected an id of 0\.\.299, got 300/ };
      await assert.rejects(embed(['a', [CLS, 300, SEP]]), unknown);
      const none = { data: [], usage: { promptTokens: 0, totalTokens: 0 }, pooling: 'mean' };
      assert.deepEqual(await embed([]), none);
    });
  });
}

test('the mean is that of all tokens, which each see the whole text', async () => {
  await using model = await loadModel(nomic(), STRICT);
  const ids = [CLS, 40, 41, 42, SEP];
  const embed = async (tokens: number[], pooling: EmbedOptions['pooling']): Promise<Float32Array> =>
    (await vectors(model, [tokens], { pooling, normalize: false }))[0]!;
  const [first, last, mean] = [await embed(ids, 'cls'), await embed(ids, 'last'), await embed(ids, 'mean')];
  assert.notDeepEqual(first, last);
  assert.notDeepEqual(await embed([CLS, 40, 41, 43, SEP], 'cls'), first, 'the first token sees a later one');
  assert.deepEqual(await vectors(model, [ids], { pooling: 'mean', normalize: false }), [mean]);
  const normalised = (await vectors(model, [ids], { pooling: 'mean' }))[0]!;
  const length = Math.hypot(...mean);
  normalised.forEach((x, i) => assert.ok(Math.abs(x - mean[i]! / length) < 1e-6));
});

test('a causal model pools states of which each sees what is before it', async () => {
  await using model = await loadModel(smallModel(), { ...STRICT, prefillChunk: 16, parallel: 3 });
  assert.deepEqual([model.info.pooling, model.info.canGenerate], ['last', true]);
  const ids = [BOS, ...Array.from({ length: 39 }, (_, i) => 260 + i)];
  const raw = { normalize: false } as const;
  const [last] = await vectors(model, [ids], raw);
  const states = await vectors(
    model,
    ids.map((_, i) => ids.slice(0, i + 1)),
    raw,
  );
  assert.deepEqual(states.at(-1), last);
  assert.deepEqual(await vectors(model, [ids], { ...raw, pooling: 'cls' }), [states[0]]);
  const [mean] = await vectors(model, [ids], { ...raw, pooling: 'mean' });
  mean!.forEach((x, i) => {
    const expected = states.reduce((sum, state) => sum + state[i]!, 0) / states.length;
    assert.ok(Math.abs(x - expected) < 1e-6);
  });
});

test('texts are generated and embedded at the same time, and each is what it is alone', async () => {
  const prompt = [BOS, ...Array.from({ length: 40 }, (_, i) => 259 + i)];
  const generate = (model: Model) => model.generate(prompt, { temperature: 0, maxTokens: 30, stopTokens: [] }).result;
  await using alone = await loadModel(smallModel(), STRICT);
  const { tokens } = await generate(alone);
  const texts = [prompt, [...prompt, 270], [BOS, 300]];
  const expected = await vectors(alone, texts);
  await using model = await loadModel(smallModel(), { ...STRICT, parallel: 2, prefillChunk: 8 });
  const [result, embedded] = await Promise.all([generate(model), vectors(model, texts, { pooling: 'last' })]);
  assert.deepEqual([result.tokens, embedded], [tokens, expected]);
});

test('how a file wants it pooled counts, and a way that is not supported is refused until another is named', async () => {
  for (const [poolingType, pooling] of [
    [0, 'mean'],
    [1, 'mean'],
    [2, 'cls'],
    [3, 'last'],
  ] as const) {
    await using model = await loadModel(bert({ poolingType }), STRICT);
    assert.equal(model.info.pooling, pooling);
    assert.equal((await model.embed('a')).pooling, pooling);
  }
  await using reranker = await loadModel(bert({ poolingType: 4 }), STRICT);
  assert.equal(reranker.info.pooling, undefined);
  const message = /reranker.*supported: mean, cls, last, with the option "pooling"/;
  await assert.rejects(reranker.embed('a'), { code: 'UNSUPPORTED_FEATURE', message });
  assert.equal((await reranker.embed('a', { pooling: 'cls' })).pooling, 'cls');
});

test('a decoder whose file says that it is not causal is an encoder', async () => {
  const metadata = { 'attention.causal': { type: 'bool', value: false }, pooling_type: u32(2) } as const;
  const shape = { ...SHAPE, dtype: 'F32', nHeadKv: 1, headDim: 32 } as const;
  // The second has windows when it is deeper.
  for (const kind of [{ architecture: 'qwen2' }, FILE_KINDS['exaone4']!]) {
    const bytes = randomDecoderGguf({ ...kind, metadata: () => metadata }, shape);
    await using model = await loadModel(bytes, STRICT);
    const embed = async (last: number) => (await vectors(model, [[BOS, 270, last]]))[0];
    assert.notDeepEqual(await embed(280), await embed(281), 'the first token sees the last');
    await assert.rejects(model.generate('a').result, { code: 'UNSUPPORTED_FEATURE' });
  }
  const windowed = randomDecoderGguf({ ...FILE_KINDS['gemma2']!, metadata: () => metadata }, shape);
  await assert.rejects(loadModel(windowed, STRICT), { code: 'UNSUPPORTED_FEATURE', message: /window .* not causal/ });
});

test('an encoder whose file says that it is causal is refused, since nobody has one', async () => {
  const error = await loadModel(bert({ isCausal: true }), STRICT).catch((reason) => reason);
  assert.deepEqual(
    [error.code, /encoder that is causal is not supported/.test(error.message)],
    ['UNSUPPORTED_FEATURE', true],
  );
});

test('the context may be smaller than was learned, but not larger', async () => {
  await using model = await loadModel(bert(), { ...STRICT, nCtx: 20 });
  const { code, message } = await model.embed('c '.repeat(30)).catch((error) => error);
  assert.deepEqual([code, /32 tokens, the context holds 20/.test(message)], ['CONTEXT_FULL', true]);
  await assert.rejects(loadModel(bert(), { ...STRICT, nCtx: 65 }), { code: 'INVALID_OPTION', message: /at most 64/ });
});

for (const thread of THREADS) {
  test(`a model that is closed meanwhile ends the texts that wait, in thread: ${thread}`, async () => {
    // While texts become tokens, and while they are evaluated.
    for (const waitMs of [0, 50]) {
      const model = await loadModel(smallModel(), { ...STRICT, thread });
      const running = model.embed(Array.from({ length: 10_000 }, () => 'a '.repeat(N_CTX / 4)));
      running.catch(() => {});
      await setTimeout(waitMs);
      await model.close();
      const ended = await Promise.race([
        running.catch((error) => error.code),
        setTimeout(5000, 'never', { ref: false }),
      ]);
      assert.equal(ended, 'MODEL_CLOSED');
      await assert.rejects(model.embed('a'), { code: 'MODEL_CLOSED' });
    }
  });
}

test('cosine similarity is 1, 0 and -1 for the same, a right angle and the opposite, and 0 beside nothing', () => {
  assert.equal(cosineSimilarity([3, 4], [6, 8]), 1);
  assert.equal(cosineSimilarity([1, 0], [0, 2]), 0);
  assert.equal(cosineSimilarity([1, 1], [-1, -1]).toFixed(9), '-1.000000000');
  assert.equal(cosineSimilarity([0, 0], [1, 2]), 0);
  assert.throws(() => cosineSimilarity([1], [1, 2]), { code: 'SHAPE_MISMATCH', message: /got 1 and 2/ });
});
