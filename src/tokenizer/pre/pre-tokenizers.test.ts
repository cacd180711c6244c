// The scanners against the patterns that they stand for, which JavaScript can run on texts of moderate length.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UnsupportedError } from '../../base/errors.ts';
import { findPreTokenizer, PRE_TOKENIZERS } from './pre-tokenizers.ts';
import { threadMs } from '../../../test/thread-time.ts';

function cut(text: string, name = 'gpt-2'): string[] {
  const pieces: string[] = [];
  if (text !== '') findPreTokenizer(name).cut(text, (piece) => pieces.push(piece));
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

/** With the flag i, ſ would be an s, so cases are spelled out. */
const CONTRACTION = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const SPACE = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const SIGNS = String.raw` ?[^\s\p{L}\p{N}]+`;
const llama3 = (digits: string): string =>
  String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}|${SIGNS}[\r\n]*|${SPACE}`;
const cased = (suffix: string, digits: string): string => {
  const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
  const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
  const prefix = String.raw`[^\r\n\p{L}\p{N}]?`;
  const words = `${prefix}${upper}*${lower}+${suffix}|${prefix}${upper}+${lower}*${suffix}`;
  return String.raw`${words}|${digits}|${SIGNS}[\r\n/]*|${SPACE}`;
};
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const BLOOM = ' ?[^(\\s|.,!?…。，、।۔،)]+';

/** A part of what DeepSeek's pattern spells out by ranges; the texts below have no other letters. */
const CASED_LETTERS = '[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓ𐐀-𐑏]';

/** Patterns in turn, each within the pieces of the one before; what does not match stays together. */
const PATTERNS: Readonly<Record<string, readonly string[]>> = {
  'gpt-2': [GPT2],
  smollm: ['\\p{N}', GPT2],
  'llama-bpe': [llama3('\\p{N}{1,3}')],
  dbrx: [llama3('\\p{N}{1,3}')],
  qwen2: [llama3('\\p{N}')],
  qwen35: [String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${SPACE}`],
  bailingmoe: [String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|${SIGNS}[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`],
  'seed-coder': [String.raw`${CONTRACTION}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|${SPACE}`],
  minicpm5: ['\\p{N}{1,3}', llama3('\\p{N}+')],
  tekken: [cased('', '\\p{N}')],
  'gpt-4o': [cased(`(?:${CONTRACTION})?`, '\\p{N}{1,3}')],
  'deepseek-llm': [
    '[\\r\\n]',
    String.raw`\s?${CASED_LETTERS}+`,
    '\\s?[!-/:-~！-／：-～‘-‟　-。]+',
    '\\s+$',
    '[一-龥ࠀ-一가-\ud7ff]+',
    '\\p{N}+',
  ],
  'deepseek-coder': ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-\ud7ff]+', '\\p{N}'],
  'deepseek-v3': [
    '\\p{N}{1,3}',
    '[一-龥\u3040-ゟ゠-ヿ]+',
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|' +
      String.raw` ?[\p{P}\p{S}]+[\r\n]*|${SPACE}`,
  ],
  falcon: ['[\\p{P}$+<=>^~|`]+', GPT2, '[0-9][0-9][0-9]'],
  default: ['[\\p{P}$+<=>^~|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'],
  bloom: [BLOOM],
  viking: [BLOOM, '\\p{N}'],
};

/** The matches of `pattern`, and what lies between them. */
function split(text: string, pattern: RegExp): string[] {
  const pieces: string[] = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    pieces.push(text.slice(end, index), match);
    end = index + match.length;
  }
  return [...pieces, text.slice(end)].filter((piece) => piece !== '');
}

test('all rules have a pattern here', () => {
  const judged = new Set(Object.keys(PATTERNS).map((name) => findPreTokenizer(name).cut));
  const others = [...PRE_TOKENIZERS].filter(([, { cut: each }]) => !judged.has(each)).map(([name]) => name);
  assert.deepEqual(others, []);
});

const SPACES = [' ', '  ', '\n', '\r\n', '\r', '\t', '\u00a0', '\u0085', '\ufeff', '\u3000'];
const CONTRACTIONS = ["'", "'s", "'S", "'lL", "'re", "'VE", 's', 't', 'r', 'e', 'v', 'l', 'ſ'];
const LETTERS = ['S', 'é', 'É', 'ß', 'e\u0301', '\u0301', '\u0903', 'ǅ', 'ʰ', '日', 'の', '한', '𐐀', '𝔘'];
const OTHERS = [
  '1',
  '23',
  '٣',
  '½',
  '𝟙',
  '.',
  ',',
  '…',
  '。',
  '?!',
  '/',
  '$',
  '`',
  '+~',
  '(|',
  '🙂',
  '\u200d',
  '\u0000',
];

for (const [name, sources] of Object.entries(PATTERNS)) {
  test(`the rules of ${name} cut as their pattern does, whatever the text`, () => {
    const patterns = sources.map(patternOf);
    const unit = fc.constantFrom(...SPACES, ...CONTRACTIONS, ...LETTERS, ...OTHERS);
    // DeepSeek's pattern knows its letters by ranges, of which the test has a part only.
    const anyUnit = name === 'deepseek-llm' ? unit : fc.string({ unit: 'binary', minLength: 1, maxLength: 1 });
    const text = fc.oneof(fc.string({ unit, maxLength: 30 }), fc.string({ unit: anyUnit, maxLength: 30 }));
    fc.assert(
      fc.property(text, (each) => {
        const pieces = patterns.reduce((parts, pattern) => parts.flatMap((part) => split(part, pattern)), [each]);
        assert.deepEqual(cut(each, name), pieces);
      }),
      { seed: 7, numRuns: 3000 },
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
  for (const name of ['gpt-2', 'gpt-4o']) {
    assert.deepEqual(
      cut(' ' + 'a'.repeat(20_000_000), name).map((piece) => piece.length),
      [20_000_001],
    );
  }
});

test('rules of every kind take linear time, whatever the text', () => {
  const texts = ['a', 'A', ' ', '\n', ' \n', '日A', '日', '1', '!', "'", 'e\u0301', '\u0301', '\u0000', ' ,', '𐐀'];
  for (const { cut: each } of new Set(PRE_TOKENIZERS.values())) {
    for (const text of texts) {
      const start = threadMs();
      let length = 0;
      each(text.repeat(100_000), (piece) => void (length += piece.length));
      assert.equal(length, text.length * 100_000);
      // Some 10 ms; quadratic work would take minutes.
      assert.ok(threadMs() - start < 1000, `${JSON.stringify(text)}: ${threadMs() - start} ms`);
    }
  }
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
