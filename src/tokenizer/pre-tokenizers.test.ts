// The scanner against the pattern that it stands for, which JavaScript can run on texts of moderate length.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnsupportedError } from '../base/errors.ts';
import { findPreTokenizer } from './pre-tokenizers.ts';

function cut(text: string, name = 'gpt-2'): string[] {
  const endOfPiece = findPreTokenizer(name);
  const pieces: string[] = [];
  for (let start = 0, end = 0; start < text.length; start = end) {
    end = endOfPiece(text, start);
    pieces.push(text.slice(start, end));
  }
  return pieces;
}

/** GPT-2's pattern with \s spelled out, as JavaScript's \s is another set. */
const PATTERN = new RegExp(
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
    .replaceAll('[^\\s', '[^\\p{White_Space}')
    .replaceAll('\\s', '\\p{White_Space}')
    .replaceAll('\\S', '\\P{White_Space}'),
  'gu',
);

test("GPT-2's rules cut as its pattern does, whatever the text", () => {
  const interesting = [
    ' ',
    '  ',
    '\n',
    '\t',
    '\u00a0',
    '\u0085',
    '\ufeff',
    '\u3000',
    "'",
    's',
    't',
    'r',
    'e',
    'v',
    'l',
  ];
  const others = ['S', 'é', 'e\u0301', '日', '𝔘', '1', '٣', '½', '𝟙', '.', '?!', '🙂', '\u200d', '\u0000'];
  const text = fc.oneof(
    fc.string({ unit: fc.constantFrom(...interesting, ...others), maxLength: 30 }),
    fc.string({ unit: 'binary', maxLength: 30 }),
  );
  fc.assert(
    fc.property(text, (each) => {
      assert.deepEqual(cut(each), each.match(PATTERN) ?? []);
    }),
    { seed: 7, numRuns: 5000 },
  );
});

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
      /"nonsense" is not supported; supported: gpt-2/.test(error.message),
  );
});
