// Character tokenizers: ids by code point, refusal or mapping of strangers, and the way through a GGUF file.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { memorySource } from '../base/byte-source.ts';
import { OptionError } from '../base/errors.ts';
import { readGguf } from '../gguf/reader.ts';
import { writeGguf } from '../gguf/writer.ts';
import { charVocabulary, createCharTokenizer } from './char.ts';
import { createTokenizer } from './tokenizer.ts';
import { readVocabulary, vocabularyEntries } from './vocabulary.ts';
import { threadMs } from '../../test/thread-time.ts';

test('each character is one token, numbered by code point, and the end of text comes last', () => {
  const tokenizer = createCharTokenizer('banana\n é日🙂');
  const sorted = ['\n', ' ', 'a', 'b', 'n', 'é', '日', '🙂'];
  assert.equal(tokenizer.nVocab, sorted.length + 1);
  assert.deepEqual(tokenizer.encode(sorted.join('')), [...sorted.keys()]);
  assert.deepEqual(tokenizer.encode('🙂 ban'), [7, 1, 3, 2, 4]);
  assert.equal(tokenizer.decode([7, 1, 3, 2, 4]), '🙂 ban');
  assert.deepEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.addBos], [8, 8, false]);
});

test("TinyShakespeare has nanoGPT's 65 characters with nanoGPT's ids", needsShared(), (t) => {
  const text = readFileSync(sharedPath('text', 'tinyshakespeare.txt'), 'utf8');
  const start = threadMs();
  const tokenizer = createCharTokenizer(text);
  const ids = tokenizer.encode(text);
  t.diagnostic(`${text.length} characters: ${(threadMs() - start).toFixed(0)} ms`);
  assert.equal(tokenizer.nVocab, 65 + 1);
  const alphabet = [...new Set(text)].sort();
  assert.equal(ids.length, text.length);
  assert.ok(ids.every((id, i) => alphabet[id] === text[i]));
  assert.equal(tokenizer.decode(ids) === text, true);
});

test('a character outside the alphabet is refused, also one that shares bytes with a known one', () => {
  const tokenizer = createCharTokenizer('aé日');
  assert.throws(
    () => tokenizer.encode('abc'),
    (error: unknown) => error instanceof OptionError && /contains "b"/.test(error.message),
  );
  for (const char of ['è', '旤', '斥']) assert.throws(() => tokenizer.encode(char), OptionError);
});

test('or it becomes the unknown token, one for a run', () => {
  const tokenizer = createCharTokenizer('aé日 ', { unknown: 'map' });
  const { unknownId } = tokenizer;
  assert.equal(unknownId, tokenizer.nVocab - 1);
  assert.deepEqual(tokenizer.encode('axyé 斥a'), [1, unknownId, 2, 0, unknownId, 1]);
  assert.equal(tokenizer.decode(tokenizer.encode('axyé')), 'aé');
});

test('rejects an empty text', () => {
  assert.throws(() => createCharTokenizer(''), OptionError);
});

test('any alphabet comes back from a GGUF file and encodes the same', async () => {
  const anyText = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(anyText, fc.constantFrom('refuse' as const, 'map' as const), async (text, unknown) => {
      const vocabulary = charVocabulary(text, { unknown });
      const bytes = writeGguf({ metadata: vocabularyEntries(vocabulary), tensors: [] });
      const read = createTokenizer(readVocabulary((await readGguf(memorySource(bytes))).metadata));
      const ids = read.encode(text);
      assert.equal(ids.length, Array.from(text).length);
      assert.deepEqual(ids, createTokenizer(vocabulary).encode(text));
      assert.equal(read.decode(ids), text);
      assert.equal(read.unknownId, vocabulary.unknownId);
    }),
    { seed: 10, numRuns: 300 },
  );
});
