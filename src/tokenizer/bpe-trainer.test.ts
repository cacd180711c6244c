// The trainer against a published reference and against the definition of BPE: count all pairs, merge the best, begin
// again. And what is trained, as a vocabulary, in and out of a GGUF file.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { memorySource } from '../base/byte-source.ts';
import { OptionError, UnsupportedError } from '../base/errors.ts';
import { readGguf } from '../gguf/reader.ts';
import { writeGguf } from '../gguf/writer.ts';
import { trainBpe, vocabularyOfBpe, type TrainedBpe } from './bpe-trainer.ts';
import { spellBytes } from './bpe.ts';
import { createTokenizer } from './tokenizer.ts';
import { readVocabulary, vocabularyEntries } from './vocabulary.ts';
import { threadMs } from '../../test/thread-time.ts';

const shared = needsShared();
const END = '<|endoftext|>';
const readText = (...path: string[]): string => readFileSync(sharedPath(...path), 'utf8');

test('the reference corpus gives the merges and the vocabulary of the reference, in order', shared, () => {
  const trained = trainBpe(readText('bpe-train', 'corpus.en'), { vocabSize: 500, specialTokens: [END] });
  assert.deepEqual(trained.merges, readText('bpe-train', 'reference-merges.txt').trimEnd().split('\n'));
  const expected = JSON.parse(readText('bpe-train', 'reference-vocab.json')) as Record<string, number>;
  assert.deepEqual(Object.fromEntries(trained.tokens.map((token, id) => [token, id])), expected);
});

/** A pair's sides as bytes, a character each, for comparing. */
type Row = string[];

function trainByDefinition(words: readonly string[], nMerges: number, minFrequency: number): string[] {
  const rows: Row[] = words.map((word) => Array.from(new TextEncoder().encode(word), (b) => String.fromCharCode(b)));
  const merges: string[] = [];
  const spell = (bytes: string): string => spellBytes(Array.from(bytes, (char) => char.charCodeAt(0)));
  while (merges.length < nMerges) {
    const counts = new Map<string, { left: string; right: string; count: number }>();
    for (const row of rows) {
      for (let i = 0; i + 1 < row.length; i++) {
        const key = JSON.stringify([row[i], row[i + 1]]);
        const entry = counts.get(key) ?? { left: row[i]!, right: row[i + 1]!, count: 0 };
        counts.set(key, { ...entry, count: entry.count + 1 });
      }
    }
    const [best] = [...counts.values()].sort(
      (a, b) => b.count - a.count || compare(b.left, a.left) || compare(b.right, a.right),
    );
    if (!best || best.count < minFrequency) break;
    merges.push(`${spell(best.left)} ${spell(best.right)}`);
    for (const row of rows) {
      for (let i = 0; i + 1 < row.length; i++) {
        if (row[i] === best.left && row[i + 1] === best.right) row.splice(i, 2, best.left + best.right);
      }
    }
  }
  return merges;
}
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

test('training gives the merges that counting everything anew after each would give', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'é', 'ÿ', '日'), minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(fc.array(word, { maxLength: 15 }), fc.integer({ min: 1, max: 3 }), (words, minFrequency) => {
      const { merges, tokens } = trainBpe(words, { vocabSize: 256 + 40, minFrequency });
      assert.deepEqual(merges, trainByDefinition(words, 40, minFrequency));
      assert.equal(new Set(tokens).size, 256 + merges.length, 'each merge makes another token');
    }),
    { seed: 9, numRuns: 2000 },
  );
});

test('a special token that is spelled like learnt bytes keeps its place, and both stay apart', () => {
  const trained = trainBpe('at at at', { vocabSize: 300, specialTokens: ['Ġat'] });
  assert.deepEqual(trained.merges, ['a t', 'Ġ at']);
  assert.equal(new Set(trained.tokens).size, trained.tokens.length);
  const tokenizer = createTokenizer(vocabularyOfBpe(trained));
  assert.equal(tokenizer.decode(tokenizer.encode(' at')), ' at');
  assert.deepEqual(tokenizer.encode('Ġat', { parseSpecial: true }), [0]);
});

test('a special token goes first, is never part of a merge, and what stands around it does not join', () => {
  const { tokens, merges } = trainBpe('ab<x>ab<x>ab<x>', { vocabSize: 300, specialTokens: ['<x>'] });
  assert.equal(tokens[0], '<x>');
  assert.equal(tokens.length, 1 + 256 + 1);
  assert.deepEqual(merges, ['a b']);
});

test('several texts count together, and nothing merges across them', () => {
  assert.deepEqual(trainBpe(['ab', 'ab'], { vocabSize: 300 }).merges, ['a b']);
  assert.deepEqual(trainBpe(['a', 'b', 'a', 'b'], { vocabSize: 300 }).merges, []);
});

test('pairs below the minimum frequency are not merged, and the vocabulary stays smaller', () => {
  const text = 'ab ab ab cd cd';
  assert.deepEqual(trainBpe(text, { vocabSize: 300, minFrequency: 3 }).merges, ['a b']);
  assert.equal(trainBpe(text, { vocabSize: 257, minFrequency: 1 }).tokens.length, 257);
  assert.deepEqual(trainBpe('', { vocabSize: 300 }).merges, []);
});

test('no token grows longer than a vocabulary may hold', () => {
  const { tokens } = trainBpe('a'.repeat(100_000), { vocabSize: 300, minFrequency: 1 });
  assert.ok(tokens.every((token) => token.length <= 1024));
  assert.ok(tokens.includes('a'.repeat(1024)));
});

test('rejects options out of range', () => {
  const rejects = (options: Partial<Parameters<typeof trainBpe>[1]>, message: RegExp): void => {
    assert.throws(
      () => trainBpe('text', { vocabSize: 300, ...options }),
      (error: unknown) => error instanceof OptionError && message.test(error.message),
    );
  };
  for (const vocabSize of [255, 300.5, Number.NaN, 2 ** 25]) rejects({ vocabSize }, /"vocabSize" expected/);
  rejects({ vocabSize: 257, specialTokens: ['<a>', '<b>'] }, /from 258/);
  for (const minFrequency of [0, 1.5]) rejects({ minFrequency }, /"minFrequency" expected/);
  for (const specialTokens of [['<a>', '<a>'], [''], ['a']]) rejects({ specialTokens }, /"specialTokens" expected/);
  assert.throws(() => trainBpe('text', { vocabSize: 300, preTokenizer: 'nonsense' }), UnsupportedError);
});

test('a megabyte becomes 2,048 tokens in seconds, the same ones every time', shared, (t) => {
  const text = readText('text', 'tinyshakespeare.txt');
  const start = threadMs();
  const trained = trainBpe(text, { vocabSize: 2048 });
  const elapsedMs = threadMs() - start;
  t.diagnostic(`${text.length} characters to 2048 tokens: ${elapsedMs.toFixed(0)} ms`);
  assert.equal(trained.tokens.length, 2048);
  assert.deepEqual(trainBpe(text, { vocabSize: 2048 }), trained);
  assert.ok(elapsedMs < 10_000);
  const ids = createTokenizer(vocabularyOfBpe(trained)).encode(text);
  t.diagnostic(`${(text.length / ids.length).toFixed(2)} characters a token`);
  assert.ok(ids.length < text.length / 2.5);
});

const small = (): TrainedBpe =>
  trainBpe('the cat and the hat and the rat', { vocabSize: 270, specialTokens: [END, '<|pad|>'] });

test('the end of text is BOS and EOS of the vocabulary, control like all special tokens, and not added', () => {
  const tokenizer = createTokenizer(vocabularyOfBpe(small()));
  const { bosId, eosId, addBos, addEos } = tokenizer;
  assert.deepEqual([bosId, eosId, addBos, addEos], [0, 0, false, false]);
  assert.deepEqual([0, 1, 2].map(tokenizer.isControl), [true, true, false]);
  assert.equal(vocabularyOfBpe(small(), { endOfText: '<|pad|>', addBos: true }).bosId, 1);
  assert.equal(vocabularyOfBpe(trainBpe('', { vocabSize: 256 })).eosId, undefined);
});

test('rejects an end of text that is not among the special tokens', () => {
  assert.throws(() => vocabularyOfBpe(small(), { endOfText: '<end>' }), /"endOfText".*got <end>/);
  assert.throws(() => vocabularyOfBpe(trainBpe('', { vocabSize: 256 }), { addBos: true }), OptionError);
});

test('a trained vocabulary comes back from a GGUF file and encodes the same', async () => {
  const vocabulary = vocabularyOfBpe(small(), { addBos: true });
  const bytes = writeGguf({ metadata: vocabularyEntries(vocabulary), tensors: [] });
  const read = readVocabulary((await readGguf(memorySource(bytes))).metadata);
  const text = `the cat${END}a naïve 🙂 rat's hat\n`;
  for (const parseSpecial of [false, true]) {
    const ids = createTokenizer(vocabulary).encode(text, { parseSpecial });
    assert.deepEqual(createTokenizer(read).encode(text, { parseSpecial }), ids);
    assert.equal(createTokenizer(read).decode(ids, { skipSpecial: false }), END + text);
  }
  assert.deepEqual([read.preTokenizer, read.bosId, read.eosId, read.addBos], ['gpt-2', 0, 0, true]);
});
