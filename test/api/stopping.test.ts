// What decides which token comes next and when a text ends: stop strings, biases, bans and functions for logits, time
// limits, several texts of one prompt, a context that shifts. In the worker and inline.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import type { GenerateOptions, GenerateResult, Model } from '../../src/index.ts';
import { N_CTX, N_VOCAB, THREADS, smallModel } from './small-model.ts';

const EOS = 2;
/** Single bytes that are no characters: without them every token has its text at once. And nothing ends by itself. */
const bannedTokens = [EOS, ...Array.from({ length: 128 }, (_, i) => 3 + 128 + i)];
const GREEDY: GenerateOptions = { temperature: 0, maxTokens: 40, bannedTokens };
const ENDLESS: GenerateOptions = { temperature: 0, contextFull: 'shift', bannedTokens };

async function stream(model: Model, options: GenerateOptions): Promise<{ pieces: string[]; result: GenerateResult }> {
  const run = model.generate('1 2 3', options);
  const pieces: string[] = [];
  for await (const piece of run) pieces.push(piece);
  return { pieces, result: await run.result };
}

for (const thread of THREADS) {
  describe(`in thread: ${thread}`, () => {
    let model: Model;
    let plain: GenerateResult;
    before(async () => {
      model = await loadModel(smallModel(), { thread, threads: 1, kernels: 'strict' });
      plain = (await stream(model, GREEDY)).result;
    });
    after(() => model.close());

    test('a stop string ends the text before it, wherever it begins and however many tokens it takes', async () => {
      const prompt = await model.tokenize('1 2 3');
      const textOf = async (tokens: readonly number[]): Promise<string> =>
        (await model.detokenize([...prompt, ...tokens])).slice('1 2 3'.length);
      assert.equal(await textOf(plain.tokens), plain.text);
      for (const [from, length] of [
        [0, 1],
        [1, 3],
        [4, 9],
        [7, 1],
      ] as const) {
        const stop = plain.text.slice(from, from + length);
        const { pieces, result } = await stream(model, { ...GREEDY, stop: ['never said', stop] });
        assert.equal(result.text, plain.text.slice(0, plain.text.indexOf(stop)));
        assert.equal(pieces.join(''), result.text);
        assert.deepEqual([result.finishReason, result.stoppedBy], ['stop', stop]);
        // The tokens are all that were needed to complete it, and no more.
        assert.deepEqual(result.tokens, plain.tokens.slice(0, result.tokens.length));
        assert.ok((await textOf(result.tokens)).includes(stop));
        assert.ok(!(await textOf(result.tokens.slice(0, -1))).includes(stop));
      }
    });

    test('what is not said changes nothing, and what was held back for it comes out', async () => {
      const stop = `${plain.text.slice(-2)}never said`;
      const { pieces, result } = await stream(model, { ...GREEDY, stop });
      assert.equal(pieces.join(''), plain.text);
      assert.deepEqual([result.text, result.finishReason, result.stoppedBy], [plain.text, 'length', undefined]);
    });

    test('a token that ends the text is named', async () => {
      const stopToken = plain.tokens[4]!;
      const { result } = await stream(model, { ...GREEDY, stopTokens: [stopToken] });
      assert.deepEqual([result.finishReason, result.stoppedBy], ['stop', stopToken]);
    });

    test('log-probabilities come for every token, also for those of the stop string', async () => {
      const { result } = await stream(model, { ...GREEDY, stop: plain.text.slice(4, 9), logprobs: 1 });
      assert.deepEqual(
        result.logprobs!.map((entry) => entry.token),
        result.tokens,
      );
    });

    test('a bias forces a token, a ban excludes it, and neither changes log-probabilities', async () => {
      const forced = await stream(model, { ...GREEDY, maxTokens: 5, logitBias: { 300: 100 }, logprobs: 0 });
      assert.deepEqual(forced.result.tokens, [300, 300, 300, 300, 300]);
      const [first] = plain.tokens as [number];
      for (const ban of [{ bannedTokens: [first] }, { logitBias: { [first]: -Infinity } }]) {
        assert.ok(!(await stream(model, { ...GREEDY, ...ban })).result.tokens.includes(first));
      }
      const { logprobs } = (await stream(model, { ...GREEDY, maxTokens: 1, logprobs: 1 })).result;
      const biased = (await stream(model, { ...GREEDY, maxTokens: 1, logprobs: 1, logitBias: { 300: 100 } })).result;
      assert.deepEqual(biased.logprobs![0]!.top, logprobs![0]!.top);
    });

    test('a bias or a ban for a token that the vocabulary does not have is refused', async () => {
      const expected = { code: 'INVALID_OPTION', message: /token ids of 0\.\.319, got 320/ };
      await assert.rejects(model.generate('1', { logitBias: { [N_VOCAB]: 1 } }).result, expected);
      await assert.rejects(model.generate('1', { bannedTokens: [N_VOCAB] }).result, expected);
    });

    test('banning every token is an error that names the cause, and the model goes on', async () => {
      const all = Array.from({ length: N_VOCAB }, (_, id) => id);
      await assert.rejects(model.generate('1', { bannedTokens: all }).result, {
        code: 'NUMERIC',
        message: /a logit bias forbids too much/,
      });
      assert.deepEqual((await stream(model, GREEDY)).result.tokens, plain.tokens);
    });

    test('a text ends when its time is over, with what there is', async () => {
      const startMs = performance.now();
      const { pieces, result } = await stream(model, { ...ENDLESS, maxTimeMs: 300 });
      assert.ok(performance.now() - startMs < 5000);
      assert.deepEqual([result.finishReason, result.stoppedBy], ['time', undefined]);
      assert.ok(result.tokens.length > 0);
      assert.equal(pieces.join(''), result.text);
    });

    test('the time of a text that waits for its turn passes, too', async () => {
      const long = model.generate('1', ENDLESS);
      const { finishReason, tokens } = await model.generate('2', { maxTimeMs: 30 }).result;
      assert.deepEqual([finishReason, tokens], ['time', []]);
      long.stop();
      assert.equal((await long.result).finishReason, 'abort');
    });

    test('a context that shifts goes on as a text that begins with what is left', async () => {
      const keep = 3;
      const prompt = await model.tokenize('a prompt');
      const nFull = N_CTX - prompt.length;
      const options: GenerateOptions = { ...ENDLESS, contextKeep: keep };
      const { tokens, finishReason } = await model.generate(prompt, { ...options, maxTokens: 3 * N_CTX }).result;
      assert.deepEqual([tokens.length, finishReason], [3 * N_CTX, 'length']);
      const stopped = await model.generate(prompt, { temperature: 0, bannedTokens }).result;
      assert.deepEqual([stopped.finishReason, stopped.tokens], ['context', tokens.slice(0, nFull)]);
      // What the model sees from there on, as a prompt of its own.
      const full = [...prompt, ...tokens.slice(0, nFull)];
      const nDropped = Math.floor((N_CTX - keep) / 2);
      const left = [...full.slice(0, keep), ...full.slice(keep + nDropped)];
      await using fresh = await loadModel(smallModel(), { thread, threads: 1, kernels: 'strict' });
      const next = await fresh.generate(left, { temperature: 0, bannedTokens, maxTokens: nDropped }).result;
      assert.deepEqual(tokens.slice(nFull, nFull + nDropped), next.tokens);
    });

    test('a shift that would keep too much is refused', async () => {
      const run = model.generate('1', { contextFull: 'shift', contextKeep: N_CTX / 2 + 1 });
      await assert.rejects(run.result, { code: 'INVALID_OPTION', message: /"contextKeep" .* 128 tokens, got 129/ });
    });

    for (const parallel of [1, 4]) {
      test(`several texts of one prompt are those of their seeds, and read it once, ${parallel} at a time`, async () => {
        const prompt = 'a text of more than thirty-two tokens, since single letters are tokens here';
        const options = { temperature: 1.2, maxTokens: 20, seed: 70 };
        await using many = await loadModel(smallModel(), { thread, threads: 1, kernels: 'strict', parallel });
        const runs = many.generateMany(prompt, { ...options, n: 4 });
        const results = await Promise.all(runs.map((run) => run.result));
        const [first, ...others] = results.map(({ promptTokens, cachedTokens }) => promptTokens - cachedTokens);
        assert.ok(first! > 32);
        for (const nRead of others) assert.ok(nRead <= 32, `${nRead} tokens of the prompt read again`);
        assert.equal(new Set(results.map(({ text }) => text)).size, 4);
        for (const [i, { seed, tokens }] of results.entries()) {
          assert.equal(seed, 70 + i);
          assert.deepEqual((await model.generate(prompt, { ...options, seed }).result).tokens, tokens);
        }
      });
    }

    test('several texts without a seed have seeds of their own, and n is checked at the call', async () => {
      const runs = model.generateMany('1', { n: 3, maxTokens: 2 });
      const seeds = await Promise.all(runs.map(async (run) => (await run.result).seed));
      assert.equal(new Set(seeds).size, 3);
      assert.equal(model.generateMany('1', { maxTokens: 1 }).length, 1);
      for (const n of [0, 65, 1.5, '2'] as number[]) {
        assert.throws(() => model.generateMany('1', { n }), {
          code: 'INVALID_OPTION',
          message: /"n" expected .* 1 to 64/,
        });
      }
    });
  });
}

describe('functions that change logits', () => {
  test('are called where the model is, with the prompt and what was generated', async () => {
    await using model = await loadModel(smallModel(), { thread: 'inline', threads: 1 });
    const prompt = await model.tokenize('1 2');
    const seen: (readonly number[])[] = [];
    const only = (logits: Float64Array, tokens: readonly number[]): void => {
      seen.push([...tokens]);
      const next = 290 + seen.length;
      logits.fill(-Infinity);
      logits[next] = 0;
    };
    const { tokens } = await model.generate(prompt, { logitsProcessors: [only], maxTokens: 3 }).result;
    assert.deepEqual(tokens, [291, 292, 293]);
    assert.deepEqual(seen, [prompt, [...prompt, 291], [...prompt, 291, 292]]);
  });

  test('that throw end their own text with their error', async () => {
    await using model = await loadModel(smallModel(), { thread: 'inline', threads: 1, parallel: 2 });
    const reason = new Error('mine');
    const bad = model.generate('1', {
      maxTokens: 9,
      temperature: 0,
      logitsProcessors: [
        (_, { length }) => {
          if (length > 4) throw reason;
        },
      ],
    });
    const good = model.generate('2', { maxTokens: 9, temperature: 0 });
    await assert.rejects(bad.result, (error) => error === reason);
    assert.equal((await good.result).tokens.length, 9);
  });

  test('are refused at the call by a model in a worker', async () => {
    await using model = await loadModel(smallModel(), { thread: 'worker', threads: 1 });
    const generate = (): unknown => model.generate('1', { logitsProcessors: [() => {}] });
    assert.throws(generate, { code: 'INVALID_OPTION', message: /"logitsProcessors" expected .* thread: 'inline'/ });
    assert.equal(
      (await model.generate('1', { maxTokens: 2, temperature: 0, logitsProcessors: [] }).result).tokens.length,
      2,
    );
  });
});
