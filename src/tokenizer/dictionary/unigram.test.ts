// Unigram on small vocabularies against the definition (the best of all ways to cut a text), and on SentencePiece's own
// test model; llama.cpp judges the same model in peers/.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSentencePiece } from '../../../test/sentencepiece-model.ts';
import { needsShared, sharedPath } from '../../../test/shared-data.ts';
import { GgufError } from '../../base/errors.ts';
import { createTokenizer } from '../tokenizer.ts';
import { TOKEN_TYPE, type Vocabulary } from '../vocabulary.ts';
import { createCharsmap } from './charsmap.ts';
import { threadMs } from '../../../test/thread-time.ts';

const PIECES: Readonly<Record<string, number>> = {
  '▁': -3,
  a: -2,
  b: -2.5,
  ab: -4.25,
  '▁a': -4,
  bb: -4,
  abb: -7,
  '🙂a': -1,
};
const tokens = ['<unk>', ...Object.keys(PIECES)];
const vocabulary: Vocabulary = {
  model: 't5',
  tokens,
  scores: [0, ...Object.values(PIECES)],
  tokenTypes: tokens.map((_, id) => (id === 0 ? TOKEN_TYPE.unknown : TOKEN_TYPE.normal)),
  unknownId: 0,
  addBos: false,
  addEos: false,
  addSpacePrefix: false,
};
const encode = (text: string, changes: Partial<Vocabulary> = {}): string[] =>
  createTokenizer({ ...vocabulary, ...changes })
    .encode(text)
    .map((id) => tokens[id]!);

/** The best sum of scores over all ways to cut `text`; a character that is no token costs 17, the least less 10. */
function bestScore(text: string): number {
  if (text === '') return 0;
  const char = String.fromCodePoint(text.codePointAt(0)!);
  const uncovered = char in PIECES ? -Infinity : -17 + bestScore(text.slice(char.length));
  const covered = Object.entries(PIECES).map(([piece, score]) =>
    text.startsWith(piece) ? score + bestScore(text.slice(piece.length)) : -Infinity,
  );
  return Math.max(uncovered, ...covered);
}

test('no other way to cut the text has a better sum of scores', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'x', '🙂'), maxLength: 9 });
  fc.assert(
    fc.property(text, (each) => {
      const pieces = encode(each);
      const unknown = createTokenizer({ ...vocabulary, tokens: tokens.map((token) => token.replace('<unk>', '?')) });
      assert.equal(unknown.decode(unknown.encode(each)), each.replace(/x|🙂(?!a)/gu, ''));
      // A run of unknown characters is one token and costs each of them.
      const nUncovered = (each.match(/x|🙂(?!a)/gu) ?? []).length;
      const score = pieces.reduce((sum, piece) => sum + (PIECES[piece] ?? 0), -17 * nUncovered);
      assert.ok(Math.abs(score - bestScore(each)) < 1e-9, `${pieces}: ${score}, not ${bestScore(each)}`);
    }),
    { seed: 3, numRuns: 1000 },
  );
});

test('spaces stay as they are, get one before the text, or count as one before each word', () => {
  assert.deepEqual(encode('a  b '), ['a', '▁', '▁', 'b', '▁']);
  assert.deepEqual(encode('a b', { addSpacePrefix: true }), ['▁a', '▁', 'b']);
  assert.deepEqual(encode('  a  b ', { removeExtraWhitespaces: true }), ['▁a', '▁', 'b']);
  assert.deepEqual(encode('  ', { removeExtraWhitespaces: true, addSpacePrefix: true }), []);
});

test('a run of characters that no token covers is one unknown token, or bytes where the vocabulary has all', () => {
  assert.deepEqual(encode('axxb'), ['a', '<unk>', 'b']);
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).padStart(2, '0')}>`);
  const tokenizer = createTokenizer({
    ...vocabulary,
    tokens: [...tokens, ...bytes],
    scores: [...(vocabulary.scores as number[]), ...bytes.map(() => 0)],
    tokenTypes: [...(vocabulary.tokenTypes as number[]), ...bytes.map(() => TOKEN_TYPE.byte)],
  });
  assert.equal(tokenizer.encode('aéb').length, 4);
  assert.equal(tokenizer.decode(tokenizer.encode('aé🙂b')), 'aé🙂b');
});

test('rejects rules of normalisation whose sizes do not fit', () => {
  for (const bytes of [
    [],
    [8, 0, 0, 0],
    [4, 0, 0, 0, 0, 0, 0, 0],
    [4, 0, 0, 0, 0, 0, 0, 0, 65],
    [3, 0, 0, 0, 0, 0, 0, 0],
  ]) {
    assert.throws(() => createCharsmap(Uint8Array.from(bytes)), GgufError);
  }
});

test('any rules of sizes that fit give some text, in linear time', () => {
  const words = fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(words, fc.string({ unit: 'binary' }), (array, text) => {
      const bytes = new Uint8Array(4 + 4 * array.length + 2);
      new DataView(bytes.buffer).setUint32(0, 4 * array.length, true);
      array.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 + 4 * i, word, true));
      assert.equal(typeof createCharsmap(bytes)(text), 'string');
    }),
    { seed: 4, numRuns: 500 },
  );
});

const shared = needsShared();
const readModel = (): Vocabulary =>
  readSentencePiece(readFileSync(sharedPath('tokenizers', 'sentencepiece', 'test_model.model')));

test('the rules of NFKC make of each character and of short texts what NFKC does', shared, () => {
  const normalise = createCharsmap(readModel().precompiledCharsmap!);
  for (const text of ['ﬁne', '①②', 'Ｆｕｌｌ　ｗｉｄｔｈ', 'e\u0301a\u030a', 'ガ', '㌔', 'plain', '한글', '🙂日']) {
    assert.equal(normalise(text), text.normalize('NFKC'), text);
  }
});

test("SentencePiece's model gives whole words and their text again", shared, () => {
  const tokenizer = createTokenizer(readModel());
  const { tokens: texts } = readModel();
  const names = (text: string): string[] => tokenizer.encode(text).map((id) => texts[id]!);
  const pieces = '▁I ▁saw ▁a ▁girl ▁with ▁a ▁ te le s c o pe . </s>';
  assert.equal(names('I saw a girl with a telescope.').join(' '), pieces);
  assert.equal(tokenizer.decode(tokenizer.encode('  I saw  a girl. ')), 'I saw a girl.');
});

test('a megabyte takes less than a second of Unigram, whatever it is', shared, (t) => {
  const tokenizer = createTokenizer(readModel());
  const prose = readFileSync(sharedPath('text', 'tinyshakespeare.txt'), 'utf8').slice(0, 1_000_000);
  const spaced = `a${' '.repeat(999_998)}b`;
  const units = ['a', ' ', 'é', 'e\u0301', '\u0301\u0316', '日', 'the ', '🙂'];
  for (const text of [prose, spaced, ...units.map((unit) => unit.repeat(1_000_000 / unit.length))]) {
    const start = threadMs();
    const n = tokenizer.encode(text).length;
    const elapsedMs = threadMs() - start;
    t.diagnostic(`${JSON.stringify(text.slice(0, 10))}: ${n} tokens in ${elapsedMs.toFixed(0)} ms`);
    // Under a second on an idle machine; quadratic work would take minutes.
    assert.ok(elapsedMs < 3000, `${JSON.stringify(text.slice(0, 10))}: ${elapsedMs} ms`);
  }
});
