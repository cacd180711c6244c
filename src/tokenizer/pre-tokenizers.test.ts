// The scanners against the patterns that they stand for, which JavaScript can run on texts of moderate length.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnsupportedError } from '../base/errors.ts';
import { findPreTokenizer } from './pre-tokenizers.ts';

function cut(text: string, name = 'gpt-2'): string[] {
  const { endOfPiece } = findPreTokenizer(name);
  const pieces: string[] = [];
  for (let start = 0, end = 0; start < text.length; start = end) {
    end = endOfPiece(text, start);
    pieces.push(text.slice(start, end));
  }
  return pieces;
}

/** A pattern of tokenizer.json with \s spelled out, as JavaScript's \s is another set. */
const patternOf = (source: string): RegExp =>
  new RegExp(
    source
      .replaceAll('[^\\s', '[^\\p{White_Space}')
      .replaceAll('\\s', '\\p{White_Space}')
      .replaceAll('\\S', '\\P{White_Space}'),
    'gu',
  );

/** With N for the numbers of a piece. Its cases are spelled out: with the flag i, ſ would be an s. */
const LLAMA3_PATTERN =
  "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|N| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" +
  '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

const GPT2_PATTERN = patternOf("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+");

/** One pattern after the other, each within the pieces of the one before. */
const PATTERNS: Readonly<Record<string, readonly RegExp[]>> = {
  'gpt-2': [GPT2_PATTERN],
  smollm: [/\p{N}|\P{N}+/gu, GPT2_PATTERN],
  'llama-bpe': [patternOf(LLAMA3_PATTERN.replace('|N|', '|\\p{N}{1,3}|'))],
  qwen2: [patternOf(LLAMA3_PATTERN.replace('|N|', '|\\p{N}|'))],
};

const SPACES = [' ', '  ', '\n', '\r\n', '\r', '\t', '\u00a0', '\u0085', '\ufeff', '\u3000'];
const CONTRACTIONS = ["'", "'s", "'S", "'lL", "'re", "'VE", 's', 't', 'r', 'e', 'v', 'l', 'ſ'];
const OTHERS = ['S', 'é', 'e\u0301', '日', '𝔘', '1', '٣', '½', '𝟙', '.', '?!', '🙂', '\u200d', '\u0000'];

for (const [name, patterns] of Object.entries(PATTERNS)) {
  test(`the rules of ${name} cut as their pattern does, whatever the text`, () => {
    const text = fc.oneof(
      fc.string({ unit: fc.constantFrom(...SPACES, ...CONTRACTIONS, ...OTHERS), maxLength: 30 }),
      fc.string({ unit: 'binary', maxLength: 30 }),
    );
    fc.assert(
      fc.property(text, (each) => {
        const pieces = patterns.reduce((parts, pattern) => parts.flatMap((part) => part.match(pattern) ?? []), [each]);
        assert.deepEqual(cut(each, name), pieces);
      }),
      { seed: 7, numRuns: 5000 },
    );
  });
}

test('one space joins the word behind it, and the rest of a run of white space stays together', () => {
  assert.deepEqual(cut("I'll  see\n\nit's 10 pm. "), [
    'I',
    "'ll",
    ' ',
    ' see',
    '\n',
    '\n',
    'it',
    "'s",
    ' 10',
    ' pm',
    '.',
    ' ',
  ]);
});

test("Llama 3's rules take a space or a sign before letters, numbers by threes, and line ends together", () => {
  const text = "I'LL pay (abc) 12345 +6!\n\n  \n  then\t\tgo";
  const expected = ['I', "'LL", ' pay', ' (', 'abc', ')', ' ', '123', '45', ' +', '6', '!\n\n', '  \n', ' ', ' then'];
  assert.deepEqual(cut(text, 'llama-bpe'), [...expected, '\t', '\tgo']);
  assert.deepEqual(cut(' 123', 'qwen2'), [' ', '1', '2', '3']);
  assert.deepEqual(cut('a  12 b', 'smollm'), ['a', '  ', '1', '2', ' b']);
});

test('names map to rules as in llama.cpp', () => {
  assert.equal(findPreTokenizer('llama3'), findPreTokenizer('llama-bpe'));
  assert.equal(findPreTokenizer('deepseek-r1-qwen'), findPreTokenizer('qwen2'));
  assert.equal(findPreTokenizer('phi-2'), findPreTokenizer('gpt-2'));
});

test('a run of twenty million letters is one piece', () => {
  assert.deepEqual(
    cut(' ' + 'a'.repeat(20_000_000)).map((piece) => piece.length),
    [20_000_001],
  );
});

test('rejects rules that are not known and says which are', () => {
  assert.throws(
    () => findPreTokenizer('nonsense'),
    (error: unknown) =>
      error instanceof UnsupportedError &&
      error.code === 'UNSUPPORTED_TOKENIZER' &&
      /"nonsense" is not supported; supported: gpt-2,.* llama-bpe,.* qwen2/.test(error.message),
  );
});
