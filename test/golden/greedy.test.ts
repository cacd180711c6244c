// The story that stories260K is known to tell: 200 greedy tokens from BOS, documented upstream, word for word from
// every executor, kernel set, thread count and type of the key-value cache.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { LoadOptions } from '../../src/index.ts';
import { needsShared } from '../shared-data.ts';
import { STORIES_F32, goldenCases, greedyStory, loadGolden } from './golden-data.ts';

const shared = needsShared();
const BOS = 1;

const WAYS: readonly LoadOptions[] = [
  { kernels: 'reference' },
  ...(['relaxed', 'simd', 'strict'] as const).flatMap((kernels) =>
    [1, 2, 3].flatMap((threads) => (['F16', 'F32'] as const).map((kvType) => ({ kernels, threads, kvType }))),
  ),
];

const nameOf = ({ kernels, threads, kvType }: LoadOptions): string =>
  kernels === 'reference' ? 'the reference' : `wasm ${kernels}, ${threads} thread(s), a ${kvType} cache`;

describe('stories260K tells its story', shared, () => {
  for (const way of WAYS) {
    test(`on ${nameOf(way)}`, async () => {
      const story = greedyStory();
      await using model = await loadGolden(STORIES_F32, way);
      const { text, tokens, promptTokens, finishReason } = await model.generate(story.prompt, {
        maxTokens: story.tokens,
        temperature: 0,
      }).result;
      assert.equal(text, story.text);
      assert.deepEqual([tokens.length, promptTokens, finishReason], [200, 1, 'length']);
    });
  }

  test('from the token BOS as from the empty text, and from the worker as inline', async () => {
    const story = greedyStory();
    await using model = await loadGolden(STORIES_F32, { thread: 'worker' });
    const { text } = await model.generate([BOS], { maxTokens: story.tokens, temperature: 0 }).result;
    assert.equal(text, story.text);
  });
});

describe('greedy continuations on F32 weights', shared, () => {
  for (const kernels of ['reference', 'relaxed', 'simd', 'strict'] as const) {
    test(`are those of exact arithmetic and of llama.cpp on ${kernels}`, async () => {
      const cases = goldenCases().filter((c) => c.exact_greedy_tokens !== undefined);
      assert.equal(cases.length, 3);
      await using model = await loadGolden(STORIES_F32, { kernels });
      for (const { prompt, exact_greedy_tokens: exact, llama_cpp_greedy_tokens: llamaCpp } of cases) {
        const { tokens } = await model.generate(prompt, { maxTokens: exact!.length, temperature: 0 }).result;
        assert.deepEqual(tokens, exact, prompt);
        assert.deepEqual(tokens, llamaCpp, prompt);
      }
    });
  }
});
