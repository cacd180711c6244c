// WordPiece on a small vocabulary made for the case, and on BGE's, which is BERT's, against the ids of llama.cpp.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { needsShared, sharedPath } from '../../../test/shared-data.ts';
import { memorySource } from '../../base/byte-source.ts';
import { UnsupportedError } from '../../base/errors.ts';
import { readGguf } from '../../gguf/reader.ts';
import { createTokenizer, type Tokenizer } from '../tokenizer.ts';
import { readVocabulary, TOKEN_TYPE, type Vocabulary } from '../vocabulary.ts';
import { threadMs } from '../../../test/thread-time.ts';

const CONTROLS = ['[CLS]', '[SEP]', '[UNK]'];
const WORDS = [
  '▁un',
  '▁unaff',
  'aff',
  'able',
  '▁able',
  '▁cafe',
  '▁café',
  '▁Un',
  '▁,',
  '▁!',
  '▁日',
  '▁本',
  'ς',
  '▁ας',
  'σ',
];
const tokens = [...CONTROLS, ...WORDS];
const vocabulary: Vocabulary = {
  model: 'bert',
  tokens,
  tokenTypes: tokens.map((_, id) => (id < CONTROLS.length ? TOKEN_TYPE.control : TOKEN_TYPE.normal)),
  bosId: 0,
  eosId: 1,
  unknownId: 2,
  addBos: true,
  addEos: true,
  addSpacePrefix: false,
};
const encode = (text: string, changes: Partial<Vocabulary> = {}): string[] =>
  createTokenizer({ ...vocabulary, ...changes })
    .encode(text, { addSpecial: false })
    .map((id) => tokens[id]!);

test('a word is the longest tokens from the left, even where others would cover it', () => {
  assert.deepEqual(encode('unaffable'), ['▁unaff', 'able']);
  assert.deepEqual(encode('unable'), ['▁un', 'able']);
  assert.deepEqual(encode('able unaffx able'), ['▁able', '[UNK]', '▁able']);
});

test('signs and Han characters are words by themselves', () => {
  assert.deepEqual(encode('able,un!日本'), ['▁able', '▁,', '▁un', '▁!', '▁日', '▁本']);
});

test('case and accents go, unless the vocabulary says otherwise', () => {
  assert.deepEqual(encode('CAFÉ cafe\u0301 Un'), ['▁cafe', '▁cafe', '▁un']);
  assert.deepEqual(encode('café Un', { lowercase: false }), ['▁café', '▁Un']);
  assert.deepEqual(encode('CAFÉ', { stripAccents: false }), ['▁café']);
});

test('white space divides, controls and U+FFFD go', () => {
  assert.deepEqual(encode(' \u00a0\nun\u0000aff\ufffd\u200bable\t\u3000able '), ['▁unaff', 'able', '▁able']);
  assert.deepEqual(encode(' \u0000'), []);
});

test('[CLS] goes first and [SEP] last; decoding gives the words', () => {
  const tokenizer = createTokenizer(vocabulary);
  const ids = tokenizer.encode('Unable, able');
  assert.deepEqual([ids[0], ids.at(-1)], [0, 1]);
  assert.equal(tokenizer.decode(ids), 'unable , able');
  assert.deepEqual(tokenizer.encode(''), [0, 1]);
  assert.deepEqual(tokenizer.encode('[SEP]', { addSpecial: false, parseSpecial: true }), [1]);
});

test('rejects a vocabulary without an unknown token', () => {
  assert.throws(() => createTokenizer({ ...vocabulary, unknownId: undefined }), UnsupportedError);
});

const shared = needsShared();
async function loadBge(): Promise<Tokenizer> {
  const path = sharedPath('vocab', 'ggml-vocab-bert-bge.gguf');
  return createTokenizer(readVocabulary((await readGguf(memorySource(readFileSync(path)))).metadata));
}

test('all 47 texts of the vocabulary file of BGE give the ids of llama.cpp', shared, async () => {
  const tokenizer = await loadBge();
  const read = (end: string): string => readFileSync(sharedPath('vocab', `ggml-vocab-bert-bge.gguf${end}`), 'utf8');
  const texts = read('.inp').split('\n__ggml_vocab_test__\n');
  const expected = read('.out').split('\n');
  assert.deepEqual([texts.length, expected.length], [47, 47]);
  for (const [i, text] of texts.entries()) {
    const ids = tokenizer.encode(text, { addSpecial: false });
    assert.equal(ids.join(' '), expected[i]!.trim(), `text ${i}: ${JSON.stringify(text)}`);
  }
  assert.deepEqual(tokenizer.encode('Hello world'), [101, 7592, 2088, 102]);
});

test('a megabyte takes less than a second of WordPiece, whatever it is', shared, async (t) => {
  const tokenizer = await loadBge();
  const prose = readFileSync(sharedPath('text', 'tinyshakespeare.txt'), 'utf8').slice(0, 1_000_000);
  const units = ['a', ' ', '.', 'é', '\u0301\u0316', '日', 'zq', '🙂'];
  for (const text of [prose, ...units.map((unit) => unit.repeat(1_000_000 / unit.length))]) {
    const start = threadMs();
    const n = tokenizer.encode(text).length;
    const elapsedMs = threadMs() - start;
    t.diagnostic(`${JSON.stringify(text.slice(0, 10))}: ${n} tokens in ${elapsedMs.toFixed(0)} ms`);
    // Under a second on an idle machine; quadratic work would take minutes.
    assert.ok(elapsedMs < 3000, `${JSON.stringify(text.slice(0, 10))}: ${elapsedMs} ms`);
  }
});
