// What `generate` promises: pieces that add up to the text, finish reasons, seeds, log-probabilities, prompts as text
// and as tokens; and the calls beside it, `tokenize`, `detokenize` and `logits`. In the worker and inline alike.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import type { GenerateOptions, Generation, Model } from '../../src/index.ts';
import { BOS, N_CTX, N_VOCAB, THREADS, smallModel } from './small-model.ts';

const GREEDY: GenerateOptions = { temperature: 0, maxTokens: 12 };

async function readAll(run: Generation): Promise<string> {
  let text = '';
  for await (const piece of run) text += piece;
  return text;
}

function indexOfGreatest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

for (const thread of THREADS) {
  describe(`a model in thread: ${thread}`, () => {
    let model: Model;
    before(async () => {
      model = await loadModel(smallModel(), { thread, threads: 2 });
    });
    after(() => model.close());

    test('streams pieces that are the text, none of them empty or half a character', async () => {
      for (let seed = 0; seed < 10; seed++) {
        const run = model.generate('1 2 3', { maxTokens: 40, seed, temperature: 2 });
        const pieces: string[] = [];
        for await (const piece of run) pieces.push(piece);
        const { text, tokens } = await run.result;
        assert.equal(pieces.join(''), text);
        assert.ok(pieces.every((piece) => piece !== '' && piece.isWellFormed()));
        assert.ok(tokens.length > 0);
      }
    });

    test('gives the same pieces to whoever reads late, and the result to whoever reads none', async () => {
      const run = model.generate('1 2 3', GREEDY);
      const { text } = await run.result;
      assert.equal(await readAll(run), text);
      assert.ok(text.length > 0);
    });

    test('counts tokens and time, and says where each comes from', async () => {
      const { tokens, promptTokens, cachedTokens, timings } = await model.generate('never seen', GREEDY).result;
      assert.equal(promptTokens, (await model.tokenize('never seen')).length);
      assert.deepEqual([tokens.length, cachedTokens], [12, 0]);
      assert.ok(Object.values(timings).every((value) => Number.isFinite(value) && value > 0));
    });

    test('ends with length, context or stop', async () => {
      assert.equal((await model.generate('1', GREEDY).result).finishReason, 'length');
      const full = await model.generate('1', { temperature: 0 }).result;
      assert.equal(full.finishReason, 'context');
      assert.equal(full.promptTokens + full.tokens.length, N_CTX);
      const stopped = await model.generate('1', { temperature: 0, stopTokens: [full.tokens[5]!] }).result;
      assert.equal(stopped.finishReason, 'stop');
      assert.deepEqual(stopped.tokens, full.tokens.slice(0, full.tokens.indexOf(full.tokens[5]!)));
    });

    test('generates nothing for maxTokens 0', async () => {
      const { text, tokens, finishReason } = await model.generate('1', { maxTokens: 0 }).result;
      assert.deepEqual([text, tokens, finishReason], ['', [], 'length']);
    });

    test('says which seed it drew, and draws the same text from it', async () => {
      const options = { maxTokens: 30, temperature: 1.5 };
      const first = await model.generate('1', options).result;
      const again = await model.generate('1', { ...options, seed: first.seed }).result;
      assert.deepEqual([again.text, again.tokens, again.seed], [first.text, first.tokens, first.seed]);
      const other = await model.generate('1', { ...options, seed: first.seed + 1 }).result;
      assert.notDeepEqual(other.tokens, first.tokens);
    });

    test('reads a prompt as text or as its tokens', async () => {
      const tokens = await model.tokenize('1 2 3');
      assert.equal(tokens[0], BOS);
      const [asText, asTokens] = [
        await model.generate('1 2 3', GREEDY).result,
        await model.generate(tokens, GREEDY).result,
      ];
      assert.deepEqual(asTokens.tokens, asText.tokens);
      const bare = await model.generate('1 2 3', { ...GREEDY, addSpecial: false }).result;
      assert.equal(bare.promptTokens, tokens.length - 1);
    });

    test('reads </s> in a prompt as text unless told otherwise', async () => {
      const options = { maxTokens: 1, addSpecial: false };
      const plain = await model.generate('</s>', options).result;
      const parsed = await model.generate('</s>', { ...options, parseSpecial: true }).result;
      assert.ok(plain.promptTokens > 1);
      assert.equal(parsed.promptTokens, 1);
    });

    test('begins with BOS for an empty text, and refuses no tokens at all', async () => {
      const { promptTokens, tokens } = await model.generate('', GREEDY).result;
      assert.deepEqual([promptTokens, tokens.length], [1, 12]);
      await assert.rejects(model.generate([], GREEDY).result, {
        name: 'OptionError',
        code: 'INVALID_OPTION',
        message: /empty/,
      });
      await assert.rejects(model.generate('', { addSpecial: false }).result, {
        code: 'INVALID_OPTION',
        message: /empty/,
      });
    });

    test('refuses a prompt that leaves no room, and takes the longest that does', async () => {
      const prompt = Array.from({ length: N_CTX }, () => 300);
      await assert.rejects(model.generate(prompt).result, (error) => {
        assert.deepEqual(
          [(error as { code: string }).code, (error as { details: object }).details],
          ['CONTEXT_FULL', { promptTokens: N_CTX, nCtx: N_CTX }],
        );
        assert.match(String(error), /has 256 tokens, the context holds 256; shorten the prompt/);
        return true;
      });
      const { tokens, finishReason } = await model.generate(prompt.slice(1), { temperature: 0 }).result;
      assert.deepEqual([tokens.length, finishReason], [1, 'context']);
    });

    test('refuses tokens that the vocabulary does not have', async () => {
      const expected = { name: 'OptionError', code: 'INVALID_OPTION', message: /0\.\.319, got 320/ };
      await assert.rejects(model.generate([BOS, N_VOCAB]).result, expected);
      await assert.rejects(model.logits([N_VOCAB]), expected);
      await assert.rejects(model.detokenize([N_VOCAB]), expected);
    });

    test('reports log-probabilities: the chosen token first at temperature 0, and sums below 1', async () => {
      const { tokens, logprobs } = await model.generate('1', { ...GREEDY, logprobs: 5 }).result;
      assert.deepEqual(
        logprobs!.map((entry) => entry.token),
        tokens,
      );
      for (const { token, logprob, top } of logprobs!) {
        assert.equal(top.length, 5);
        assert.deepEqual([top[0]!.token, top[0]!.logprob], [token, logprob]);
        assert.deepEqual(
          top.map((t) => t.logprob),
          top.map((t) => t.logprob).sort((a, b) => b - a),
        );
        const sum = top.reduce((total, t) => total + Math.exp(t.logprob), 0);
        assert.ok(sum > 0 && sum <= 1);
      }
      assert.equal((await model.generate('1', GREEDY).result).logprobs, undefined);
      const only = await model.generate('1', { ...GREEDY, logprobs: 0 }).result;
      assert.deepEqual(
        only.logprobs!.map((entry) => [entry.token, entry.top.length]),
        tokens.map((t) => [t, 0]),
      );
    });

    test('gives log-probabilities that are those of its logits', async () => {
      const prompt = await model.tokenize('1 2');
      const { logprobs } = await model.generate(prompt, { ...GREEDY, maxTokens: 1, logprobs: 20 }).result;
      const logits = await model.logits(prompt);
      const norm = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
      for (const { token, logprob } of logprobs![0]!.top) assert.ok(Math.abs(logprob - (logits[token]! - norm)) < 1e-5);
    });

    test('gives the logits of the last or of all positions, which agree', async () => {
      const tokens = await model.tokenize('1 2 3 4 5');
      const [last, all] = [await model.logits(tokens), await model.logits(tokens, { all: true })];
      assert.deepEqual([last.length, all.length], [N_VOCAB, tokens.length * N_VOCAB]);
      assert.deepEqual(all.slice(-N_VOCAB), last);
      const firstRow = await model.logits(tokens.slice(0, 1));
      assert.equal(indexOfGreatest(all.slice(0, N_VOCAB)), indexOfGreatest(firstRow));
      const { tokens: next } = await model.generate(tokens, { temperature: 0, maxTokens: 1 }).result;
      assert.equal(next[0], indexOfGreatest(last));
    });

    test('gives logits for as many tokens as the context holds, and no more', async () => {
      const tokens = Array.from({ length: N_CTX }, (_, i) => i);
      assert.equal((await model.logits(tokens, { all: true })).length, N_CTX * N_VOCAB);
      await assert.rejects(model.logits([...tokens, 1], { all: true }), { code: 'CONTEXT_FULL' });
      await assert.rejects(model.logits([]), { code: 'INVALID_OPTION' });
    });

    test('turns text into tokens and back', async () => {
      const text = '12 ab\n\u00e9\u20ac\u{1f600}';
      const tokens = await model.tokenize(text);
      assert.equal(await model.detokenize(tokens), text);
      assert.deepEqual(await model.tokenize(text, { addSpecial: false }), tokens.slice(1));
      assert.deepEqual(await model.tokenize('</s>', { addSpecial: false, parseSpecial: true }), [2]);
      assert.equal(await model.detokenize([]), '');
    });

    test('describes itself', () => {
      const { architecture, name, nParameters, nVocab, nCtx, nLayer, threads, executor, memoryBytes } = model.info;
      assert.deepEqual([architecture, name, nVocab, nCtx, nLayer], ['llama', 'random F32 5', N_VOCAB, N_CTX, 2]);
      assert.deepEqual([threads, nParameters > 100_000, memoryBytes > 4 * nParameters], [2, true, true]);
      assert.match(executor, /^wasm \w+ \(\w+\), 2 threads$/);
    });
  });
}
