// The door from GGUF metadata to a vocabulary: defaults, and refusal of what cannot be right.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GgufError, OptionError } from '../base/errors.ts';
import type { SpaceTakers } from './token-attributes.ts';
import { readVocabulary, TOKEN_TYPE, tokenTypesOf, vocabularyEntries, type MetadataReader } from './vocabulary.ts';

const TOKENS = ['<unk>', '<s>', '</s>', 'a'];

function metadataOf(entries: Record<string, unknown>): MetadataReader {
  const values = new Map(Object.entries({ model: 'llama', tokens: TOKENS, ...entries }));
  const get = <T>(key: string, fallback?: T): T => {
    const value = (values.get(key.replace('tokenizer.ggml.', '')) ?? fallback) as T | undefined;
    assert.notEqual(value, undefined, `the test has no ${key}`);
    return value!;
  };
  const has = (key: string): boolean => values.has(key.replace('tokenizer.ggml.', ''));
  return { has, getString: get, getNumber: get, getBoolean: get, getStrings: get, getNumbers: get };
}

const rejects = (entries: Record<string, unknown>, code: string, message: RegExp): void => {
  assert.throws(
    () => readVocabulary(metadataOf(entries)),
    (error: unknown) => error instanceof GgufError && error.code === code && message.test(error.message),
  );
};

test('a llama vocabulary that says nothing gets the defaults of llama.cpp', () => {
  const { bosId, eosId, eotId, unknownId, addBos, addEos, addSpacePrefix } = readVocabulary(metadataOf({}));
  assert.deepEqual(
    { bosId, eosId, eotId, unknownId, addBos, addEos, addSpacePrefix },
    { bosId: 1, eosId: 2, eotId: undefined, unknownId: 0, addBos: true, addEos: false, addSpacePrefix: true },
  );
});

test('what the metadata says goes before the defaults', () => {
  const vocabulary = readVocabulary(
    metadataOf({
      bos_token_id: 3,
      eot_token_id: 1,
      add_bos_token: false,
      add_eos_token: true,
      add_space_prefix: false,
      pre: 'default',
      scores: [0, -1, -2, -3],
    }),
  );
  assert.equal(vocabulary.bosId, 3);
  assert.equal(vocabulary.eotId, 1);
  assert.equal(vocabulary.addBos, false);
  assert.equal(vocabulary.addEos, true);
  assert.equal(vocabulary.addSpacePrefix, false);
  assert.equal(vocabulary.preTokenizer, 'default');
  assert.deepEqual([...vocabulary.scores!], [0, -1, -2, -3]);
});

test('a tokenizer model without defaults adds nothing that the metadata does not name', () => {
  const { bosId, unknownId, addBos, addSpacePrefix } = readVocabulary(metadataOf({ model: 'constructor' }));
  assert.deepEqual([bosId, unknownId, addBos, addSpacePrefix], [undefined, undefined, false, false]);
});

test('a default id that the vocabulary is too small for does not count', () => {
  const vocabulary = readVocabulary(metadataOf({ tokens: ['<unk>'], add_bos_token: false }));
  assert.deepEqual([vocabulary.unknownId, vocabulary.bosId, vocabulary.eosId], [0, undefined, undefined]);
});

test('tokens known to end a turn are found by their text and become control tokens', () => {
  const tokens = [...TOKENS, '<|im_end|>'];
  const vocabulary = readVocabulary(metadataOf({ tokens, token_type: [2, 3, 3, 1, 1], eom_token_id: 3 }));
  assert.deepEqual(vocabulary.endOfGenerationIds, [2, 4, 3]);
  assert.deepEqual([...vocabulary.tokenTypes!], [2, 3, 3, 1, 3]);
});

test('the name of the model, its architecture or pre-tokenizer tells which special tokens take white space', () => {
  const takersOf = (entries: Record<string, unknown>): SpaceTakers | undefined =>
    readVocabulary(metadataOf(entries)).spaceTakers;
  assert.equal(takersOf({ 'general.name': 'Phi 2' }), undefined);
  const phi = takersOf({ 'general.name': 'Phi-3.5 mini' })!;
  assert.deepEqual(['<|end|>', '</s>', '<s>', '<unk>'].map(phi.takesRight), [true, true, false, false]);
  assert.equal(phi.takesLeft('<|end|>'), false);
  for (const entries of [{ pre: 'jina-v2-code' }, { 'general.architecture': 'nomic-bert-moe' }]) {
    const jina = takersOf(entries)!;
    assert.deepEqual(['<mask>', '<s>'].map(jina.takesLeft), [true, false]);
    assert.equal(jina.takesRight('<mask>'), false);
  }
});

test('a token that ends only a part of an answer, as others in the vocabulary tell, is no end', () => {
  const endsOf = (...tokens: string[]): (string | undefined)[] =>
    readVocabulary(metadataOf({ tokens: ['<unk>', '<s>', ...tokens], eos_token_id: 0 })).endOfGenerationIds!.map(
      (id) => ['<unk>', '<s>', ...tokens][id],
    );
  assert.deepEqual(endsOf('<|end|>', '<|flush|>'), ['<|end|>', '<|flush|>']);
  assert.deepEqual(endsOf('<|end|>', '<|calls|>', '<|flush|>'), ['<|calls|>', '<|flush|>']);
  assert.deepEqual(endsOf('</s>', '<|tool_response>', '<|fim_pad|>'), ['<|tool_response>', '<|fim_pad|>']);
});

test('rejects a vocabulary without tokens', () => {
  rejects({ tokens: [] }, 'GGUF_INVALID', /tokens.*at least one token/);
});

test('rejects scores that are not one a token', () => {
  rejects({ scores: [0, 1, 2] }, 'GGUF_INVALID', /scores.*4 values.*got 3/);
});

test('rejects a score that is no number', () => {
  rejects({ scores: [0, 1, Number.NaN, 3] }, 'GGUF_INVALID', /scores.*NaN for token 2/);
});

test('rejects types that are not one a token', () => {
  rejects({ token_type: [1, 1, 1, 1, 1] }, 'GGUF_INVALID', /token_type.*4 values.*got 5/);
});

test('rejects special ids outside the vocabulary', () => {
  for (const id of [4, -1, 1.5, 0xffffffff]) {
    rejects({ eos_token_id: id }, 'GGUF_INVALID', /eos_token_id.*from 0 to 3/);
  }
});

test('rejects adding a BOS that is not named', () => {
  rejects({ tokens: ['a'], add_bos_token: true }, 'GGUF_INVALID', /bos_token_id.*to be added/);
});

test('rejects a token of a length that no real vocabulary has', () => {
  rejects({ tokens: [...TOKENS.slice(1), 'a'.repeat(1025)] }, 'GGUF_LIMIT', /at most 1024.*token 3 has 1025/);
});

test('without types, byte and special tokens are told by their texts and ids', () => {
  const tokens = [...TOKENS, '<0x0A>', '<0xZZ>'];
  const { unknown, control, normal, byte } = TOKEN_TYPE;
  const types = tokenTypesOf(readVocabulary(metadataOf({ tokens })));
  assert.deepEqual(Array.from(types), [unknown, control, control, normal, byte, normal]);
});

test('rejects byte-level BPE without merges, and merges that have not two sides', () => {
  const ids = { model: 'gpt2', add_bos_token: false };
  assert.throws(() => readVocabulary(metadataOf(ids)), /merges/);
  assert.deepEqual(readVocabulary(metadataOf({ ...ids, merges: ['a b', '  b'] })).merges, ['a b', '  b']);
  for (const merge of ['ab', '', ' b', 'a ']) {
    rejects({ ...ids, merges: ['a b', merge] }, 'GGUF_INVALID', /merges.*two parts/);
  }
});

test("byte-level BPE that says nothing has no special tokens, not llama.cpp's id 11", () => {
  const tokens = Array.from({ length: 20 }, (_, id) => String.fromCharCode(97 + id));
  const { bosId, eosId, unknownId, addBos, addEos, addSpacePrefix } = readVocabulary(
    metadataOf({ model: 'gpt2', tokens, merges: [] }),
  );
  assert.deepEqual(
    [bosId, eosId, unknownId, addBos, addEos, addSpacePrefix],
    [undefined, undefined, undefined, false, false, false],
  );
});

test("byte-level BPE with Llama 3's rules adds BOS unless the file says otherwise or names none", () => {
  const addBosOf = (entries: Record<string, unknown>): boolean =>
    readVocabulary(metadataOf({ model: 'gpt2', merges: [], pre: 'llama-bpe', ...entries })).addBos;
  assert.equal(addBosOf({ bos_token_id: 1 }), true);
  assert.equal(addBosOf({ bos_token_id: 1, add_bos_token: false }), false);
  assert.equal(addBosOf({ bos_token_id: 1, pre: 'qwen2' }), false);
  assert.equal(addBosOf({}), false);
});

test('<|end|> ends a generation, but only a message where <|return|> and <|call|> end an answer', () => {
  const endsOf = (tokens: readonly string[]): readonly number[] =>
    readVocabulary(metadataOf({ tokens })).endOfGenerationIds!;
  assert.deepEqual(endsOf(['<unk>', '<s>', 'a', '<|end|>']), [3]);
  assert.deepEqual(endsOf(['<unk>', '<s>', 'a', '<|end|>', '<|return|>', '<|call|>']), [4, 5]);
});

test('WordPiece begins with [CLS] and ends with [SEP], whatever the file says about BOS and EOS', () => {
  const entries = { model: 'bert', unknown_token_id: 3, add_bos_token: false, add_eos_token: false };
  const read = (ids: Record<string, unknown>): (number | boolean | undefined)[] => {
    const { bosId, eosId, addBos, addEos } = readVocabulary(metadataOf({ ...entries, ...ids }));
    return [bosId, eosId, addBos, addEos];
  };
  assert.deepEqual(read({ cls_token_id: 1, seperator_token_id: 2 }), [1, 2, true, true]);
  assert.deepEqual(read({ bos_token_id: 1, eos_token_id: 2 }), [1, 2, true, true]);
  assert.deepEqual(
    read({ cls_token_id: 1, bos_token_id: 0, seperator_token_id: 2, eos_token_id: 0 }).slice(0, 2),
    [1, 2],
  );
  rejects(entries, 'GGUF_INVALID', /an id, as it is to be added/);
});

test('Unigram ends with EOS, and what the file says about normalisation is read and written', () => {
  const plain = readVocabulary(metadataOf({ model: 't5' }));
  assert.deepEqual([plain.eosId, plain.unknownId, plain.addBos, plain.addEos], [1, 2, false, true]);
  assert.ok(!('precompiledCharsmap' in plain));
  const vocabulary = readVocabulary(
    metadataOf({
      model: 't5',
      token_type: [2, 3, 3, 1],
      remove_extra_whitespaces: true,
      precompiled_charsmap: new Int8Array([4, 0, -1]),
      'normalizer.lowercase': false,
    }),
  );
  const { removeExtraWhitespaces, precompiledCharsmap, lowercase, stripAccents } = vocabulary;
  assert.deepEqual([removeExtraWhitespaces, lowercase, stripAccents], [true, false, undefined]);
  assert.deepEqual([...precompiledCharsmap!], [4, 0, 255]);
  assert.deepEqual(readVocabulary(metadataOf(written(vocabulary))), vocabulary);
});

const written = (vocabulary: Parameters<typeof vocabularyEntries>[0]): Record<string, unknown> =>
  Object.fromEntries(
    vocabularyEntries(vocabulary).map(([key, { value }]) => [key.replace('tokenizer.ggml.', ''), value]),
  );

test('what is written is read as the same vocabulary', () => {
  const vocabulary = readVocabulary(
    metadataOf({
      scores: [0, -1, -2, -3],
      token_type: [2, 3, 3, 1],
      merges: ['a b'],
      pre: 'gpt-2',
      eot_token_id: 3,
      eom_token_id: 0,
      add_eos_token: true,
      add_space_prefix: false,
    }),
  );
  assert.deepEqual(readVocabulary(metadataOf(written(vocabulary))), vocabulary);
});

test('types that a vocabulary leaves open are written as they are understood', () => {
  const vocabulary = readVocabulary(metadataOf({}));
  assert.deepEqual([...(written(vocabulary)['token_type'] as Int32Array)], [2, 3, 3, 1]);
});

test('rejects writing more ends of generation than a file can name', () => {
  const vocabulary = { ...readVocabulary(metadataOf({})), endOfGenerationIds: [0, 3] };
  assert.throws(() => vocabularyEntries(vocabulary), OptionError);
});
