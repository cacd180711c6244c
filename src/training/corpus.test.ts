// What a run trains on: which part is kept out, what the vocabulary has seen, and that other data are told apart.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTokenizer } from '../tokenizer/tokenizer.ts';
import { END_OF_TEXT, prepareCorpus } from './corpus.ts';
import type { Corpus } from './corpus.ts';
import { resolveTrainingOptions } from './options.ts';
import type { TrainingOptions } from './options.ts';

const SMALL: TrainingOptions = { vocabSize: 270, validationFraction: 0.25 };
const named = (...texts: string[]) => texts.map((text, i) => ({ name: `${i}.txt`, text }));
const prepare = (texts: readonly string[], options: TrainingOptions = {}): Corpus =>
  prepareCorpus(named(...texts), resolveTrainingOptions({ ...SMALL, ...options }));
const textOf = ({ vocabulary }: Corpus, ids: Int32Array): string =>
  createTokenizer(vocabulary).decode(ids, { skipSpecial: false });

test('the last part, from a line break on, is for validation', () => {
  const corpus = prepare(['one one\ntwo two\nthree three\nfour\n']);
  assert.equal(textOf(corpus, corpus.train), `one one\ntwo two\n${END_OF_TEXT}`);
  assert.equal(textOf(corpus, corpus.validation), 'three three\nfour\n');
});

test('of several files the last are for validation, and an end of text is behind each that is trained on', () => {
  const corpus = prepare(['one one\n', 'two two\n', 'three\n'], { validationFraction: 0.6 });
  assert.equal(textOf(corpus, corpus.train), `one one\n${END_OF_TEXT}`);
  assert.equal(textOf(corpus, corpus.validation), 'two two\nthree\n');
});

test('a text without line breaks is cut where the fraction says', () => {
  const corpus = prepare(['abcdefgh'], { tokenizer: 'char' });
  assert.equal(textOf(corpus, corpus.validation), 'gh');
});

test('without a fraction there is no validation, and texts for it take its place', () => {
  assert.equal(prepare(['one two three\n'], { validationFraction: 0 }).validation.length, 0);
  const options = resolveTrainingOptions(SMALL);
  const corpus = prepareCorpus(named('one\ntwo\n'), options, { validationTexts: named('three\n') });
  assert.equal(textOf(corpus, corpus.train), `one\ntwo\n${END_OF_TEXT}`);
  assert.equal(textOf(corpus, corpus.validation), 'three\n');
});

test('the vocabulary learns nothing from the validation part', () => {
  const corpus = prepare(['la la la la la la la la la la la la la\n', 'zu zu zu zu\n'], { validationFraction: 0.2 });
  assert.ok(corpus.vocabulary.tokens.includes('la'));
  assert.ok(!corpus.vocabulary.tokens.some((token) => token.includes('zu')));
});

test('a character tokenizer knows the characters of both parts', () => {
  const corpus = prepare(['aaaa\nbbbb\ncc\nd\n'], { tokenizer: 'char' });
  assert.deepEqual(corpus.vocabulary.tokens.slice(1, 5), ['a', 'b', 'c', 'd']);
  assert.ok(!corpus.validation.includes(corpus.vocabulary.unknownId!));
});

test('prompts begin with the end of a text where the data spell it out, and only there', () => {
  const text = 'one one\n';
  assert.equal(prepare([text, text]).vocabulary.addBos, false);
  const corpus = prepare([`${text}${END_OF_TEXT}${text}`], { validationFraction: 0 });
  assert.equal(corpus.vocabulary.addBos, true);
  assert.equal([...corpus.train].filter((id) => id === corpus.vocabulary.eosId).length, 2);
});

test('the checksum tells other data apart, and nothing else', () => {
  const text = 'one two three\nfour five\n';
  const { checksum, vocabulary } = prepare([text]);
  assert.equal(prepare([text]).checksum, checksum);
  const options = resolveTrainingOptions(SMALL);
  for (const other of ['one two three\nfour fiv3\n', 'one tvo three\nfour five\n', `${text}\n`]) {
    assert.notEqual(prepareCorpus(named(other), options, { vocabulary }).checksum, checksum);
  }
});

test('rejects no text, and empty ones by name', () => {
  assert.throws(() => prepare([]), /there is no text to train on/);
  for (const empty of ['', ' \n']) {
    assert.throws(() => prepare(['one\n', empty]), { code: 'INVALID_OPTION', message: /^1\.txt is empty/ });
  }
});
