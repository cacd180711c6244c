// Perplexity of models whose logits are known, so that every figure can be worked out by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { charVocabulary } from '../tokenizer/char.ts';
import { createTokenizer } from '../tokenizer/tokenizer.ts';
import type { Vocabulary } from '../tokenizer/vocabulary.ts';
import { measurePerplexity } from './perplexity.ts';
import type { PerplexityResult } from './perplexity.ts';

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-9 * Math.max(1, Math.abs(expected)), `${actual}, expected ${expected}`);

/** Measures with logits by context token: after token t, `logitsAfter(t)`. Remembers the windows. */
async function measure(
  vocabulary: Vocabulary,
  text: string,
  nCtx: number,
  logitsAfter: (token: number) => ArrayLike<number>,
): Promise<{ result: PerplexityResult; windows: number[][] }> {
  const tokenizer = createTokenizer(vocabulary);
  const windows: number[][] = [];
  const logits = async (tokens: readonly number[]): Promise<Float32Array> => {
    windows.push([...tokens]);
    return Float32Array.from(tokens.flatMap((token) => Array.from(logitsAfter(token))));
  };
  return { result: await measurePerplexity({ tokenizer, logits }, text, { nCtx }), windows };
}

// Ids: a 0, b 1, c 2, d 3, end of text 4.
const abcd = charVocabulary('abcd');
const abcdWithBos: Vocabulary = { ...abcd, addBos: true };
const uniform = (): number[] => [0, 0, 0, 0, 0];

test('a model that knows nothing has a perplexity of its vocabulary', async () => {
  const { result } = await measure(abcdWithBos, 'abcdabcd', 5, uniform);
  near(result.perplexity, 5);
  near(result.meanNll, Math.log(5));
  near(result.bitsPerByte, Math.log2(5));
  assert.deepEqual([result.nTokens, result.nPredicted, result.nBytes, result.nUnknownBytes], [8, 8, 8, 0]);
});

test('a model that is certain and right has a perplexity of 1', async () => {
  const next = (token: number): number[] => [0, 1, 2, 3].map((id) => (id === (token + 1) % 4 ? 1000 : 0)).concat(0);
  const { result } = await measure(abcd, 'abcdabcd', 4, next);
  near(result.perplexity, 1);
  // The first token, which nothing is before, counts as it is.
  near(result.bitsPerByte, 1);
  assert.deepEqual([result.nTokens, result.nPredicted], [8, 7]);
});

test('logits far from 0 do not overflow', async () => {
  for (const shift of [1e4, -1e4]) {
    const { result } = await measure(abcdWithBos, 'ab', 5, () => uniform().map((logit) => logit + shift));
    near(result.perplexity, 5);
  }
});

test('with BOS each window begins with it, and every token is predicted once', async () => {
  const { windows, result } = await measure(abcdWithBos, 'abcdabcda', 5, uniform);
  assert.deepEqual(windows, [[4, 0, 1, 2], [4, 0, 1, 2], [4]]);
  assert.equal(result.nPredicted, 9);
});

test('without BOS a window begins with the last token of the one before', async () => {
  const { windows, result } = await measure(abcd, 'abcdabcda', 5, uniform);
  assert.deepEqual(windows, [
    [0, 1, 2, 3],
    [0, 1, 2, 3],
  ]);
  assert.equal(result.nPredicted, 8);
  near(result.bitsPerByte, (8 * Math.log2(5) + 8) / 9);
});

test('a character that the vocabulary does not have counts as its bytes at 8 bits each', async () => {
  const vocabulary: Vocabulary = { ...charVocabulary('ab c', { unknown: 'map' }), addBos: true };
  const six = (): number[] => [0, 0, 0, 0, 0, 0];
  for (const [text, nUnknownBytes] of [
    ['aéb', 2],
    ['€', 3],
    [' a 😀€ b', 7],
    ['é a', 2],
    ['a é', 2],
  ] as const) {
    const { result } = await measure(vocabulary, text, 16, six);
    const nKnown = [...text].filter((char) => 'ab c'.includes(char)).length;
    assert.deepEqual([result.nUnknownBytes, result.nBytes], [nUnknownBytes, nKnown + nUnknownBytes], text);
    near(result.bitsPerByte, (nKnown * Math.log2(6) + 8 * nUnknownBytes) / result.nBytes);
    // Per token it is a token as any other.
    near(result.perplexity, 6);
  }
});

test('the space that SentencePiece puts before a text is no byte of it', async () => {
  const tokens = ['<unk>', '<s>', '</s>', '\u2581', 'a', '\u2581a'];
  const vocabulary: Vocabulary = {
    model: 'llama',
    tokens,
    scores: [0, 0, 0, -1, -2, 0],
    tokenTypes: [2, 3, 3, 1, 1, 1],
    bosId: 1,
    eosId: 2,
    unknownId: 0,
    addBos: true,
    addEos: false,
    addSpacePrefix: true,
  };
  for (const [text, nUnknownBytes] of [
    ['aé', 2],
    [' aé', 2],
    ['é', 2],
    ['  é a', 2],
    ['a', 0],
  ] as const) {
    const { result } = await measure(vocabulary, text, 16, () => tokens.map(() => 0));
    assert.equal(result.nUnknownBytes, nUnknownBytes, JSON.stringify(text));
  }
});

test('rejects a text with nothing to predict, and a window without room', async () => {
  await assert.rejects(measure(abcd, 'a', 8, uniform), /no token to predict/);
  await assert.rejects(measure(abcdWithBos, '', 8, uniform), /no token to predict/);
  await assert.rejects(measure(abcd, 'ab', 1, uniform), /"nCtx" expected an integer from 2, got 1/);
});
