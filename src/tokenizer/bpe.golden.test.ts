// GPT-2's real vocabulary against what llama.cpp and Hugging Face tokenizers give, and the time that a megabyte takes.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { memorySource } from '../base/byte-source.ts';
import { readGguf } from '../gguf/reader.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';
import { readVocabulary, type Vocabulary } from './vocabulary.ts';
import { threadMs } from '../../test/thread-time.ts';

const shared = needsShared();
const readText = (...path: string[]): string => readFileSync(sharedPath(...path), 'utf8');
const readLines = (...path: string[]): string[] =>
  readText(...path)
    .replace(/\n$/, '')
    .split('\n');

async function readGpt2(): Promise<Vocabulary> {
  const { metadata } = await readGguf(memorySource(readFileSync(sharedPath('vocab', 'ggml-vocab-gpt-2.gguf'))));
  return readVocabulary(metadata);
}
const loadGpt2 = async (): Promise<Tokenizer> => createTokenizer(await readGpt2());

test('all 47 texts of the GPT-2 vocabulary file give the ids of llama.cpp, and the text again', shared, async () => {
  const tokenizer = await loadGpt2();
  const texts = readText('vocab', 'ggml-vocab-gpt-2.gguf.inp').split('\n__ggml_vocab_test__\n');
  const expected = readText('vocab', 'ggml-vocab-gpt-2.gguf.out').split('\n');
  assert.equal(texts.length, 47);
  assert.equal(expected.length, 47);
  for (const [i, text] of texts.entries()) {
    // Nothing is added: GPT-2's files do not ask for it.
    const ids = tokenizer.encode(text);
    assert.equal(ids.join(' '), expected[i]!.trim(), `text ${i}: ${JSON.stringify(text)}`);
    assert.equal(tokenizer.decode(ids), text);
  }
});

for (const [name, nLines] of [
  ['small', 20],
  ['mixed', 120],
] as const) {
  test(`all ${nLines} lines of the ${name} text give the ids of Hugging Face's GPT-2`, shared, async () => {
    const tokenizer = await loadGpt2();
    const unescape = (line: string): string =>
      line.replaceAll('\\n', '\n').replaceAll('\\s', ' ').replaceAll('\\x', '');
    const texts = readLines('tokenizers', `${name}_input.txt`).map(unescape);
    const expected = readLines('tokenizers', 'tokenizers', `${name}_tokens_gpt2.txt`);
    assert.equal(texts.length, nLines);
    assert.equal(expected.length, nLines);
    for (const [i, text] of texts.entries()) {
      const ids = tokenizer.encode(text, { parseSpecial: true });
      assert.equal(ids.join(', '), expected[i]!.trim(), `line ${i + 1}: ${text}`);
      assert.equal(tokenizer.decode(ids, { skipSpecial: false }), text, `line ${i + 1}`);
    }
  });
}

test("the UTF-8 sample gives the ids of Hugging Face's GPT-2, and the text again", shared, async () => {
  const tokenizer = await loadGpt2();
  const text = readText('tokenizers', 'utf8_input.txt');
  const ids = tokenizer.encode(text, { parseSpecial: true });
  assert.equal(ids.join(', '), readText('tokenizers', 'tokenizers', 'utf8_tokens_gpt2.txt').trim());
  assert.equal(tokenizer.decode(ids), text);
});

test('GPT-2 adds nothing, and ends with its end-of-text token', shared, async () => {
  const { bosId, eosId, unknownId, addBos, addEos, isEndOfGeneration } = await loadGpt2();
  assert.deepEqual([bosId, eosId, unknownId, addBos, addEos], [50256, 50256, undefined, false, false]);
  assert.equal(isEndOfGeneration(50256), true);
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

// Other rules than GPT-2's with its vocabulary: their own are in peers/vocabularies.test.ts.
for (const preTokenizer of ['gpt-2', 'smollm', 'llama-bpe', 'qwen2']) {
  test(
    `a megabyte of any text is encoded and decoded in linear-ish time with the rules of ${preTokenizer}`,
    shared,
    async (t) => {
      const tokenizer = createTokenizer({ ...(await readGpt2()), preTokenizer });
      const charsFrom = (first: number, n: number): string[] =>
        Array.from({ length: n }, (_, i) => String.fromCodePoint(first + i));
      const texts = {
        'one letter': 'a'.repeat(1_000_000),
        spaces: ' '.repeat(1_000_000),
        'line ends': ' \n'.repeat(500_000),
        apostrophes: "'s".repeat(500_000),
        'random letters': randomText(charsFrom(97, 26), 1_000_000),
        'random ASCII': randomText(charsFrom(32, 95), 1_000_000),
        'random CJK': randomText(charsFrom(0x4e00, 20_000), 333_333),
        emoji: randomText(charsFrom(0x1f600, 64), 250_000),
        prose: readText('text', 'tinyshakespeare.txt').slice(0, 1_000_000),
      };
      tokenizer.encode(texts.prose.slice(0, 100_000));
      for (const [name, text] of Object.entries(texts)) {
        const start = threadMs();
        const ids = tokenizer.encode(text);
        const encodeMs = threadMs() - start;
        const decoded = tokenizer.decode(ids);
        const decodeMs = threadMs() - start - encodeMs;
        t.diagnostic(
          `${name}: ${ids.length} tokens, encode ${encodeMs.toFixed(0)} ms, decode ${decodeMs.toFixed(0)} ms`,
        );
        assert.equal(decoded === text, true, `${name} comes back`);
        // Under a second on an idle machine; quadratic work would take minutes.
        assert.ok(encodeMs < 4000, `${name}: encoding took ${encodeMs} ms`);
        assert.ok(decodeMs < 6000, `${name}: decoding took ${decodeMs} ms`);
      }
    },
  );
}
