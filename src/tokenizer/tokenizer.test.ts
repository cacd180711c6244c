// Behaviour of the tokenizer on small vocabularies made for the case; real ones are in tokenizer.golden.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OptionError, UnsupportedError } from '../base/errors.ts';
import { createTokenizer } from './tokenizer.ts';
import { TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);

interface VocabularyParts extends Partial<Vocabulary> {
  /** Ordinary tokens; the first merges first. */
  words: readonly string[];
  control?: readonly string[];
  userDefined?: readonly string[];
  bytes?: readonly string[];
}

/** Ids: 0 unknown, 1 BOS, 2 EOS, then bytes, words, control and user-defined tokens in this order. */
function vocabularyOf({ words, control = [], userDefined = [], bytes = BYTES, ...rest }: VocabularyParts): Vocabulary {
  const { unknown, control: controlType, byte, normal, userDefined: userDefinedType } = TOKEN_TYPE;
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...words, ...control, ...userDefined];
  const firstWord = 3 + bytes.length;
  return {
    model: 'llama',
    tokens,
    scores: tokens.map((_, id) => (id < firstWord ? 0 : firstWord - id)),
    tokenTypes: [
      unknown,
      controlType,
      controlType,
      ...bytes.map(() => byte),
      ...words.map(() => normal),
      ...control.map(() => controlType),
      ...userDefined.map(() => userDefinedType),
    ],
    bosId: 1,
    eosId: 2,
    unknownId: 0,
    addBos: true,
    addEos: false,
    addSpacePrefix: true,
    ...rest,
  };
}

const WORDS = ['▁', 'a', 'b', '▁a', 'ab', 'bb', '▁ab', '▁▁', 'é', '日'];
const tokenizer = createTokenizer(vocabularyOf({ words: WORDS }));
/** Names instead of ids, to read the expectations. */
const names = (ids: readonly number[], { tokens } = vocabularyOf({ words: WORDS })): string[] =>
  ids.map((id) => tokens[id]!);

test('BOS goes first and a space before the text, unless told not to', () => {
  assert.deepEqual(names(tokenizer.encode('a')), ['<s>', '▁a']);
  assert.deepEqual(names(tokenizer.encode('a', { addSpecial: false })), ['▁a']);
  assert.deepEqual(names(tokenizer.encode('')), ['<s>']);
  const plain = createTokenizer(vocabularyOf({ words: WORDS, addBos: false, addEos: true, addSpacePrefix: false }));
  assert.deepEqual(names(plain.encode('a')), ['a', '</s>']);
});

test('the pair with the best score merges first, and of equals the leftmost', () => {
  assert.deepEqual(names(tokenizer.encode('abb', { addSpecial: false })), ['▁a', 'bb']);
  assert.deepEqual(names(tokenizer.encode('bbb', { addSpecial: false })), ['▁', 'bb', 'b']);
});

test('a character that is no token becomes its UTF-8 bytes', () => {
  assert.deepEqual(names(tokenizer.encode('aß🙂', { addSpecial: false })), [
    '▁a',
    '<0xC3>',
    '<0x9F>',
    '<0xF0>',
    '<0x9F>',
    '<0x99>',
    '<0x82>',
  ]);
});

test('a character that is no token can still be part of one', () => {
  const vocabulary = vocabularyOf({ words: ['a', 'aß'], addSpacePrefix: false, addBos: false });
  assert.deepEqual(names(createTokenizer(vocabulary).encode('aßß'), vocabulary), ['aß', '<0xC3>', '<0x9F>']);
});

test('without byte tokens a run of characters that are no tokens becomes one unknown token', () => {
  const vocabulary = vocabularyOf({ words: WORDS, bytes: [] });
  const unknowing = createTokenizer(vocabulary);
  assert.deepEqual(names(unknowing.encode('xya z', { addSpecial: false }), vocabulary), [
    '▁',
    '<unk>',
    'a',
    '▁',
    '<unk>',
  ]);
  assert.equal(unknowing.decode(unknowing.encode('xya z')), 'a ');
});

test('an incomplete set of byte tokens counts as none', () => {
  const vocabulary = vocabularyOf({ words: WORDS, bytes: BYTES.slice(0, 255) });
  assert.deepEqual(names(createTokenizer(vocabulary).encode('ß', { addSpecial: false }), vocabulary), ['▁', '<unk>']);
});

test('of two tokens with the same text the lower id is used', () => {
  const vocabulary = vocabularyOf({ words: ['a', 'a'], addBos: false, addSpacePrefix: false });
  assert.deepEqual(createTokenizer(vocabulary).encode('a'), [3 + 256]);
});

test('without scores all merges are equal and the leftmost goes first', () => {
  const vocabulary = vocabularyOf({ words: ['a', 'b', 'bb', 'ab'], scores: undefined, addSpacePrefix: false });
  assert.deepEqual(names(createTokenizer(vocabulary).encode('abb'), vocabulary), ['<s>', 'ab', 'b']);
});

test('control tokens in the text stay text by default and become tokens when asked for', () => {
  assert.deepEqual(names(tokenizer.encode('a</s>ab', { parseSpecial: true })), ['<s>', '▁a', '</s>', '▁ab']);
  const ids = tokenizer.encode('a</s>ab');
  assert.ok(!ids.includes(tokenizer.eosId!));
  assert.equal(tokenizer.decode(ids), 'a</s>ab');
});

test('characters never merge into a control, unknown or byte token', () => {
  const parts = [
    '▁',
    '<',
    's',
    '>',
    '<s',
    'u',
    'n',
    'k',
    '<u',
    'nk',
    '<unk',
    '0',
    'x',
    '4',
    '1',
    '<0',
    'x4',
    '<0x4',
    '1>',
  ];
  const forging = createTokenizer(vocabularyOf({ words: parts }));
  for (const text of ['<s>', '<unk>', '<0x41>']) {
    assert.equal(forging.decode(forging.encode(text, { addSpecial: false }), { skipSpecial: true }), text);
  }
});

test('user-defined tokens are always recognised, verbatim, and the text after one gets a space', () => {
  const vocabulary = vocabularyOf({ words: WORDS, userDefined: ['<tool>', '  '] });
  const ids = createTokenizer(vocabulary).encode('a<tool>ab  b');
  assert.deepEqual(names(ids, vocabulary), ['<s>', '▁a', '<tool>', '▁ab', '  ', '▁', 'b']);
  assert.equal(createTokenizer(vocabulary).decode(ids), 'a<tool> ab   b');
});

test('decoding drops the one space that encoding put first, also behind a skipped BOS', () => {
  const ids = tokenizer.encode(' a');
  assert.equal(tokenizer.decode(ids), ' a');
  assert.equal(tokenizer.decode(tokenizer.encode('a', { addSpecial: false })), 'a');
  assert.equal(tokenizer.decode(tokenizer.encode('a')), 'a');
  assert.equal(tokenizer.decode(tokenizer.encode('a'), { skipSpecial: false }), '<s> a');
});

test('a decoder that continues keeps the leading space', () => {
  const [token] = tokenizer.encode('a', { addSpecial: false });
  assert.equal(tokenizer.createDecoder({ continuation: true }).push(token!), ' a');
  assert.equal(tokenizer.createDecoder().push(token!), 'a');
});

test('lone surrogates count as U+FFFD', () => {
  const replacing = createTokenizer(vocabularyOf({ words: [...WORDS, '\ufffd'] }));
  assert.deepEqual(replacing.encode('a\ud800b\udc00'), replacing.encode('a\ufffdb\ufffd'));
  assert.equal(tokenizer.decode(tokenizer.encode('a\ud800b\udc00')), 'a\ufffdb\ufffd');
});

test('ends of generation are EOS, EOT and what the vocabulary names', () => {
  const vocabulary = vocabularyOf({ words: WORDS, control: ['<x>', '<y>'], eotId: 269, endOfGenerationIds: [270] });
  const ending = createTokenizer(vocabulary);
  assert.deepEqual([...vocabulary.tokens.keys()].filter(ending.isEndOfGeneration), [2, 269, 270]);
  assert.deepEqual([...vocabulary.tokens.keys()].filter(ending.isControl), [1, 2, 269, 270]);
});

test('pieces are the bytes of a byte token, the text with spaces of others, the name of a control token', () => {
  const piece = (text: string): string =>
    Buffer.from(tokenizer.pieceBytes(names([...Array(269).keys()]).indexOf(text))).toString('latin1');
  assert.equal(piece('<0xC3>'), '\xc3');
  assert.equal(piece('▁ab'), ' ab');
  assert.equal(piece('<s>'), '<s>');
});

test('rejects ids outside the vocabulary', () => {
  for (const id of [-1, tokenizer.nVocab, 0.5, Number.NaN]) {
    assert.throws(() => tokenizer.decode([id]), OptionError);
    assert.throws(() => tokenizer.pieceBytes(id), OptionError);
  }
});

test('rejects a tokenizer model without an algorithm and says which there are', () => {
  assert.throws(
    () => createTokenizer(vocabularyOf({ words: [], model: 'rwkv' })),
    (error: unknown) =>
      error instanceof UnsupportedError &&
      error.code === 'UNSUPPORTED_TOKENIZER' &&
      /"rwkv" is not supported; supported: llama/.test(error.message),
  );
});

test('rejects a vocabulary that has neither byte tokens nor an unknown token', () => {
  assert.throws(
    () => createTokenizer(vocabularyOf({ words: WORDS, bytes: [], unknownId: undefined })),
    (error: unknown) => error instanceof UnsupportedError && /neither the byte tokens/.test(error.message),
  );
});

/** Any text but U+2581, which SentencePiece cannot tell from a space. */
const anyText = fc
  .oneof(
    fc.string({ unit: 'binary' }),
    fc.string({ unit: fc.constantFrom(' ', 'a', 'b', 'é', '日', '🙂', '<s>', '\ufeff') }),
  )
  .map((text) => text.replaceAll('\u2581', ''));

test('decoding what was encoded gives the text again, whatever it is', () => {
  fc.assert(
    fc.property(anyText, fc.boolean(), fc.boolean(), (text, addSpacePrefix, addSpecial) => {
      const any = createTokenizer(vocabularyOf({ words: WORDS, addSpacePrefix }));
      assert.equal(any.decode(any.encode(text, { addSpecial })), text);
    }),
    { seed: 5, numRuns: 300 },
  );
});

test('any tokens, pushed one by one, give the text of the whole', () => {
  const id = fc.integer({ min: 0, max: tokenizer.nVocab - 1 });
  fc.assert(
    fc.property(fc.array(id, { maxLength: 40 }), fc.boolean(), (ids, skipSpecial) => {
      const decoder = tokenizer.createDecoder({ skipSpecial });
      const streamed = ids.map((each) => decoder.push(each)).join('') + decoder.flush();
      const shown = ids.filter((each) => !skipSpecial || each > 2);
      const whole = Buffer.concat(shown.map((each) => tokenizer.pieceBytes(each)));
      assert.equal(streamed, new TextDecoder('utf-8', { ignoreBOM: true }).decode(whole).replace(/^ /, ''));
    }),
    { seed: 6, numRuns: 1000 },
  );
});
