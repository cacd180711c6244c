// Real vocabularies against what llama.cpp and Hugging Face tokenizers give, and the time that a megabyte takes.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { memorySource } from '../base/byte-source.ts';
import { readGguf } from '../gguf/reader.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';
import { readVocabulary } from './vocabulary.ts';
import { threadMs } from '../../test/thread-time.ts';

const shared = needsShared();
const readText = (...path: string[]): string => readFileSync(sharedPath(...path), 'utf8');
const readLines = (...path: string[]): string[] =>
  readText(...path)
    .replace(/\n$/, '')
    .split('\n');

async function loadTokenizer(...path: string[]): Promise<Tokenizer> {
  const { metadata } = await readGguf(memorySource(readFileSync(sharedPath(...path))));
  return createTokenizer(readVocabulary(metadata));
}
const loadLlama2 = (): Promise<Tokenizer> => loadTokenizer('vocab', 'ggml-vocab-llama-spm.gguf');

test('all 47 texts of the Llama 2 vocabulary file give the ids of llama.cpp, and the text again', shared, async () => {
  const tokenizer = await loadLlama2();
  const texts = readText('vocab', 'ggml-vocab-llama-spm.gguf.inp').split('\n__ggml_vocab_test__\n');
  const expected = readText('vocab', 'ggml-vocab-llama-spm.gguf.out').split('\n');
  assert.equal(texts.length, 47);
  assert.equal(expected.length, 47);
  for (const [i, text] of texts.entries()) {
    const ids = tokenizer.encode(text, { addSpecial: false });
    assert.equal(ids.join(' '), expected[i]!.trim(), `text ${i}: ${JSON.stringify(text)}`);
    assert.equal(tokenizer.decode(ids), text);
  }
});

// The spaces that Hugging Face's Llama 2 puts after special tokens are llama.cpp's, so no line has to be excepted.
for (const [name, nLines] of [
  ['small', 20],
  ['mixed', 120],
] as const) {
  test(`all ${nLines} lines of the ${name} text give the ids and texts of Hugging Face's Llama 2`, shared, async () => {
    const tokenizer = await loadLlama2();
    const unescape = (line: string): string =>
      line.replaceAll('\\n', '\n').replaceAll('\\s', ' ').replaceAll('\\x', '');
    const texts = readLines('tokenizers', `${name}_input.txt`);
    const expected = readLines('tokenizers', 'tokenizers', `${name}_tokens_llama2.txt`);
    // Only the small text has a line that decodes to something else: "<s>[PAD]</s>", as a space follows "<s>".
    const decoded = name === 'small' ? readLines('tokenizers', 'tokenizers', 'small_output_llama2.txt') : texts;
    assert.equal(texts.length, nLines);
    assert.equal(expected.length, nLines);
    for (const [i, line] of texts.entries()) {
      const ids = tokenizer.encode(unescape(line), { addSpecial: false, parseSpecial: true });
      assert.equal(ids.join(', '), expected[i]!.trim(), `line ${i + 1}: ${line}`);
      assert.equal(tokenizer.decode(ids, { skipSpecial: false }), unescape(decoded[i]!), `line ${i + 1}`);
    }
  });
}

test("the UTF-8 sample gives the ids and text of Hugging Face's Llama 2", shared, async () => {
  const tokenizer = await loadLlama2();
  const ids = tokenizer.encode(readText('tokenizers', 'utf8_input.txt'), { addSpecial: false, parseSpecial: true });
  assert.equal(ids.join(', '), readText('tokenizers', 'tokenizers', 'utf8_tokens_llama2.txt').trim());
  // It differs from the input in one place, a U+2581, which SentencePiece cannot tell from a space.
  assert.equal(tokenizer.decode(ids), readText('tokenizers', 'tokenizers', 'utf8_output_llama2.txt'));
});

interface GoldenRun {
  model: string;
  prompt: string;
  tokens: number[];
  llama_cpp_greedy_tokens: number[];
  llama_cpp_greedy_text: string;
}

test('the prompts and answers of the golden models have the ids and texts of llama.cpp', shared, async () => {
  const runs = JSON.parse(readText('models', 'golden.json')) as GoldenRun[];
  assert.ok(runs.length >= 15);
  for (const { model, prompt, tokens, llama_cpp_greedy_tokens: answer, llama_cpp_greedy_text: text } of runs) {
    const folder = model.startsWith('stories260K') ? 'stories260K' : 'tinystories-656k';
    const tokenizer = await loadTokenizer('models', folder, model);
    assert.deepEqual(tokenizer.encode(prompt), tokens, `${model}: ${prompt}`);
    assert.equal(tokenizer.decode(answer), text, `${model}: ${prompt}`);
  }
});

// Ids from npm @huggingface/tokenizers 0.2.0 and the model's own tokenizer.json (which has fuse_unk).
test('characters unknown to TinyStories-656K become one unknown token a run', shared, async () => {
  const tokenizer = await loadTokenizer('models', 'tinystories-656k', 'TinyStories-656K-f16.gguf');
  assert.deepEqual(tokenizer.encode('Once é upon'), [1, 80, 147, 201, 0, 80, 189, 111]);
  assert.deepEqual(tokenizer.encode('日本語 hi'), [1, 80, 0, 141, 61]);
  assert.deepEqual(tokenizer.encode('😀😀a😀'), [1, 80, 0, 53, 0]);
});

/** Characters from `alphabet`, chosen by a fixed linear congruential sequence. */
function randomText(alphabet: readonly string[], length: number): string {
  let state = 1;
  const next = (): string => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return alphabet[(state >>> 8) % alphabet.length]!;
  };
  return Array.from({ length }, next).join('');
}

test('a megabyte of any text is encoded and decoded in linear-ish time', shared, async (t) => {
  const tokenizer = await loadLlama2();
  const ascii = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
  const emoji = Array.from({ length: 64 }, (_, i) => String.fromCodePoint(0x1f600 + i));
  const texts = {
    'one letter': 'a'.repeat(1_000_000),
    spaces: ' '.repeat(1_000_000),
    'random letters': randomText(ascii.slice(65, 91), 1_000_000),
    'random ASCII': randomText(ascii, 1_000_000),
    emoji: randomText(emoji, 250_000),
    prose: readText('tokenizers', 'mixed_input.txt').repeat(20).slice(0, 1_000_000),
  };
  tokenizer.encode(texts.prose.slice(0, 100_000));
  for (const [name, text] of Object.entries(texts)) {
    const start = threadMs();
    const ids = tokenizer.encode(text);
    const encodeMs = threadMs() - start;
    const decoded = tokenizer.decode(ids);
    const decodeMs = threadMs() - start - encodeMs;
    t.diagnostic(`${name}: ${ids.length} tokens, encode ${encodeMs.toFixed(0)} ms, decode ${decodeMs.toFixed(0)} ms`);
    assert.equal(decoded === text, true, `${name} comes back`);
    assert.ok(encodeMs < 3000, `${name}: encoding took ${encodeMs} ms`);
    assert.ok(decodeMs < 6000, `${name}: decoding took ${decodeMs} ms`);
  }
});
