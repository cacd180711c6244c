// Behaviour of byte-level BPE on small vocabularies made for the case; GPT-2's own is in bpe.golden.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OptionError, UnsupportedError } from '../base/errors.ts';
import { BYTE_CHARS, spellBytes } from './bpe.ts';
import { createTokenizer } from './tokenizer.ts';
import { TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

/** Ids: the bytes, then what the merges make (unless `tokens` says otherwise), then `<end>`. */
function vocabularyOf(merges: readonly string[], rest: Partial<Vocabulary> = {}): Vocabulary {
  const tokens = rest.tokens ?? [...BYTE_CHARS, ...new Set(merges.map((merge) => merge.replace(' ', '')))];
  return {
    model: 'gpt2',
    merges,
    tokenTypes: [...tokens.map(() => TOKEN_TYPE.normal), TOKEN_TYPE.control],
    bosId: tokens.length,
    eosId: tokens.length,
    addBos: false,
    addEos: false,
    addSpacePrefix: false,
    ...rest,
    tokens: [...tokens, '<end>'],
  };
}

function encode(vocabulary: Vocabulary, text: string): string[] {
  return createTokenizer(vocabulary)
    .encode(text)
    .map((id) => vocabulary.tokens[id]!);
}

test('the alphabet has 256 distinct characters, visible Latin-1 for itself and Ġ for the space', () => {
  assert.equal(new Set(BYTE_CHARS).size, 256);
  assert.equal(spellBytes(new TextEncoder().encode('A z~\n\u007f\u0000é')), 'AĠz~ĊġĀÃ©');
  assert.equal(spellBytes([0xa0, 0xad, 0xff]), 'łŃÿ');
});

test('the merge that was learnt first goes first, and of equals the leftmost', () => {
  assert.deepEqual(encode(vocabularyOf(['b c', 'a b']), 'abc'), ['a', 'bc']);
  assert.deepEqual(encode(vocabularyOf(['a b', 'b c']), 'abc'), ['ab', 'c']);
  assert.deepEqual(encode(vocabularyOf(['a a']), 'aaa'), ['aa', 'a']);
});

test('a text that two merges make is one symbol, and each merge has its own rank', () => {
  const merges = ['b c', 'a bc', 'a b', 'ab c', 'abc d'];
  assert.deepEqual(encode(vocabularyOf(merges), 'abcd'), ['abcd']);
  // "ab" comes first here, so "abc" is made by the last merge.
  assert.deepEqual(encode(vocabularyOf(['a b', 'abc d', 'b c', 'a bc', 'ab c']), 'abcd'), ['abcd']);
  // The same text, but no merge for these halves.
  assert.deepEqual(encode(vocabularyOf(['a b', 'b c', 'a bc']), 'abc'), ['ab', 'c']);
});

test('of a merge that is listed twice the first counts', () => {
  assert.deepEqual(encode(vocabularyOf(['a b', 'b c', 'a b']), 'abc'), ['ab', 'c']);
});

test("with Llama 3's rules a piece that is a token is that token, whatever its bytes would merge into", () => {
  const tokens = [...BYTE_CHARS, 'ab', 'bc', 'abc', 'Ġabc'];
  const encodeWith = (preTokenizer: string): string[] =>
    encode(vocabularyOf(['a b', 'b c'], { tokens, preTokenizer }), 'abc abc abcc');
  assert.deepEqual(encodeWith('llama-bpe'), ['abc', 'Ġabc', 'Ġ', 'ab', 'c', 'c']);
  assert.deepEqual(encodeWith('qwen2'), ['ab', 'c', 'Ġ', 'ab', 'c', 'Ġ', 'ab', 'c', 'c']);
});

test("with Llama 3's rules a piece is no control token", () => {
  const vocabulary = vocabularyOf([], { preTokenizer: 'llama-bpe' });
  assert.deepEqual(encode({ ...vocabulary, tokens: [...BYTE_CHARS, 'end'] }, 'end'), ['e', 'n', 'd']);
});

test('merges never cross pieces', () => {
  assert.deepEqual(encode(vocabularyOf(['a .', 'a Ġ', 'Ġ a']), 'a. a'), ['a', '.', 'Ġa']);
});

test('a merge whose result is no token leads on to others, or ends as bytes', () => {
  const tokens = [...BYTE_CHARS, 'abc'];
  assert.deepEqual(encode(vocabularyOf(['a b', 'ab c'], { tokens }), 'abc ab'), ['abc', 'Ġ', 'a', 'b']);
});

test('text never merges into a control token', () => {
  const vocabulary = { ...vocabularyOf(['a b'], { tokens: [...BYTE_CHARS] }), tokens: [...BYTE_CHARS, 'ab'] };
  const tokenizer = createTokenizer(vocabulary);
  assert.deepEqual(tokenizer.encode('ab'), [0x61, 0x62]);
  assert.deepEqual(tokenizer.encode('ab', { parseSpecial: true }), [256]);
});

const lacking = BYTE_CHARS.map((char) => (char === 'x' || char === 'y' ? `<no ${char}>` : char));

test('without an unknown token a byte that is no token is refused by name', () => {
  const vocabulary = vocabularyOf([], { tokens: lacking });
  assert.throws(
    () => encode(vocabulary, 'axe'),
    (error: unknown) => error instanceof OptionError && /contains "x".*no token/.test(error.message),
  );
  assert.deepEqual(encode(vocabulary, 'ae'), ['a', 'e']);
});

test('with one, a run of bytes that are no tokens becomes one unknown token', () => {
  const vocabulary = vocabularyOf([], { tokens: [...lacking, '<unk>'], unknownId: 256 });
  assert.deepEqual(encode(vocabulary, 'axyxe xé'), ['a', '<unk>', 'e', 'Ġ', '<unk>', 'Ã', '©']);
});

test('no space is added or dropped, and BOS and EOS go where the vocabulary wants them', () => {
  const vocabulary = vocabularyOf([], { addBos: true, addEos: true });
  assert.deepEqual(encode(vocabulary, ' a'), ['<end>', 'Ġ', 'a', '<end>']);
  assert.equal(createTokenizer(vocabulary).decode([0x20, 0x20, 0x61]), '  a');
});

test('a piece of a token is its bytes, of a control token its name, and foreign characters are UTF-8', () => {
  const { pieceBytes } = createTokenizer(vocabularyOf(['Ã ©'], { tokens: [...BYTE_CHARS, 'Ã©', 'Ġ日 '] }));
  const piece = (id: number): string => new TextDecoder().decode(pieceBytes(id));
  assert.deepEqual([piece(256), piece(257), piece(258)], ['é', ' 日 ', '<end>']);
  assert.deepEqual([...pieceBytes(0xc3)], [0xc3]);
});

test('rejects a pre-tokenizer that is not known', () => {
  assert.throws(() => createTokenizer(vocabularyOf([], { preTokenizer: 'nonsense' })), UnsupportedError);
});

for (const preTokenizer of ['gpt-2', 'smollm', 'llama-bpe', 'qwen2']) {
  test(`decoding what was encoded gives the text again, whatever it is, with the rules of ${preTokenizer}`, () => {
    const tokenizer = createTokenizer(vocabularyOf(['a b', 'Ã ©', 'Ġ a', 'Ġa b', 'Ċ Ċ', "' s"], { preTokenizer }));
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({ unit: fc.constantFrom(' ', 'a', 'b', 'é', '日', '🙂', '<end>', '\ufeff', '\n', "'", 's') }),
    );
    fc.assert(
      fc.property(text, fc.boolean(), (each, parseSpecial) => {
        assert.equal(tokenizer.decode(tokenizer.encode(each, { parseSpecial }), { skipSpecial: false }), each);
      }),
      { seed: 8, numRuns: 1000 },
    );
  });
}
