// Vocabularies, rules of normalisation and chat templates as a hostile file may have them: one typed error, or a
// tokenizer that works, within time and memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../src/base/random.ts';
import { GgufError, SmallMindError } from '../../src/base/errors.ts';
import { compileTemplate } from '../../src/chat/template.ts';
import { createCharsmap } from '../../src/tokenizer/dictionary/charsmap.ts';
import { createTokenizer } from '../../src/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { readVocabulary, TOKEN_TYPE } from '../../src/tokenizer/vocabulary.ts';
import { Metadata } from '../../src/gguf/metadata.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { threadMs } from '../thread-time.ts';

const MS_MAX = 1000;
const TEXT = 'Some words, ünd ein paar mehr; 日本語 🙂 \u0000\n'.repeat(200);

const strings = (value: readonly string[]): MetadataEntry => ({ type: 'array', elementType: 'string', value });
const floats = (value: readonly number[]): MetadataEntry => ({
  type: 'array',
  elementType: 'f32',
  value: Float32Array.from(value),
});
const integers = (value: readonly number[]): MetadataEntry => ({
  type: 'array',
  elementType: 'i32',
  value: Int32Array.from(value),
});

function tokenizerOf(model: string, tokens: readonly string[], more: Record<string, MetadataEntry> = {}): Tokenizer {
  const entries: Record<string, MetadataEntry> = {
    model: { type: 'string', value: model },
    tokens: strings(tokens),
    bos_token_id: { type: 'u32', value: 0 },
    cls_token_id: { type: 'u32', value: 0 },
    eos_token_id: { type: 'u32', value: 0 },
    seperator_token_id: { type: 'u32', value: 0 },
    unknown_token_id: { type: 'u32', value: 0 },
    ...more,
  };
  const metadata = Object.entries(entries).map(([key, entry]) => [`tokenizer.ggml.${key}`, entry] as const);
  return createTokenizer(readVocabulary(new Metadata(metadata)));
}

function endsInTime<T>(run: () => T): T {
  const startMs = threadMs();
  const result = run();
  const ms = threadMs() - startMs;
  assert.ok(ms < MS_MAX, `${ms} ms`);
  return result;
}

function assertRefused(run: () => unknown, code: string, message: RegExp): void {
  assert.throws(
    () => endsInTime(run),
    (error: unknown) => error instanceof GgufError && error.code === code && message.test(error.message),
  );
}

for (const model of ['llama', 'bert', 't5']) {
  test(`${model}: empty tokens, tokens of spaces and equal ones do no harm`, () => {
    const tokens = ['', '\u2581', '\u2581', '', ' ', '\u2581\u2581', 'o', 'o', '\ud800', '\u0000', ...'someword'];
    for (const type of Object.values(TOKEN_TYPE)) {
      const token_type = integers(tokens.map((_, id) => (id === 0 ? TOKEN_TYPE.unknown : type)));
      const tokenizer = tokenizerOf(model, tokens, { token_type });
      for (const parseSpecial of [false, true]) {
        const encoded = endsInTime(() => tokenizer.encode(TEXT, { parseSpecial }));
        assert.ok(encoded.every((id) => Number.isInteger(id) && id >= 0 && id < tokens.length));
        assert.equal(typeof tokenizer.decode(encoded), 'string');
      }
    }
  });

  test(`${model}: long tokens that nearly fit everywhere take no long time`, () => {
    const long = Array.from({ length: 1000 }, (_, i) => 'a'.repeat(1000) + i);
    const tokenizer = tokenizerOf(model, ['<unk>', 'a', '\u2581', ...long]);
    assert.ok(endsInTime(() => tokenizer.encode('a'.repeat(20_000))).length > 0);
  });

  test(`${model}: special tokens beyond any measure are refused`, () => {
    const tokens = Array.from({ length: 600 }, (_, i) => String(1000 + i).repeat(250));
    const token_type = integers(tokens.map(() => TOKEN_TYPE.control));
    assertRefused(() => tokenizerOf(model, tokens, { token_type }), 'GGUF_LIMIT', /special tokens.*524288.*got 600000/);
  });
}

test('scores that cannot be added up are refused where they would be', () => {
  const tokens = ['<unk>', 'a', 'b'];
  for (const score of [NaN, Infinity, -Infinity]) {
    assertRefused(() => tokenizerOf('t5', tokens, { scores: floats([0, score, 0]) }), 'GGUF_INVALID', /finite numbers/);
  }
  for (const score of [Infinity, -Infinity, 3e38, -3e38]) {
    const tokenizer = tokenizerOf('llama', tokens, { scores: floats([0, score, score]) });
    assert.ok(tokenizer.encode('abba').length > 0);
  }
  const tokenizer = tokenizerOf('t5', tokens, { scores: floats([0, -3e38, 3e38]) });
  assert.ok(endsInTime(() => tokenizer.encode(TEXT)).length > 0);
});

test('rules of normalisation of any bytes end, and write no more than rules may', () => {
  const random = new Random(5);
  for (let n = 0; n < 300; n++) {
    const bytes = Uint8Array.from({ length: 4 * (2 + n) + 64 }, () => Math.floor(random.uniform() * 256));
    new DataView(bytes.buffer).setUint32(0, 4 * (1 + n), true);
    // Every other one leads back to its beginning again and again.
    if (n % 2 === 0) for (let i = 1; i <= n; i++) new DataView(bytes.buffer).setUint32(4 * i, 0x100 | (i & 0xff), true);
    bytes[bytes.length - 1] = 0;
    const normalise = createCharsmap(bytes);
    assert.ok(endsInTime(() => normalise(TEXT)).length <= 1024 * TEXT.length);
  }
  const long = new Uint8Array(8 + 2000).fill(97);
  new DataView(long.buffer).setUint32(0, 4, true);
  long[long.length - 1] = 0;
  assertRefused(() => createCharsmap(long), 'GGUF_LIMIT', /replacements of at most 1024 bytes, got one of 1999/);
});

test('templates that nest without end are one error, when they are read or when they run', async () => {
  const deep = 20_000;
  const sources = [
    `{{ ${'('.repeat(deep)}1${')'.repeat(deep)} }}`,
    `{{ ${'['.repeat(deep)}${']'.repeat(deep)} }}`,
    `{{ ${'not '.repeat(deep)}1 }}`,
    '{% if 1 %}'.repeat(deep) + '{% endif %}'.repeat(deep),
    '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
    '{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}',
    `{{ 1${' + 1'.repeat(deep)} }}`,
  ];
  for (const source of sources) {
    const startMs = threadMs();
    try {
      (await compileTemplate(source)).render({ messages: [] });
    } catch (error) {
      assert.ok(error instanceof SmallMindError && error.code === 'CHAT_TEMPLATE', String(error));
    }
    assert.ok(threadMs() - startMs < 3 * MS_MAX, source.slice(0, 40));
  }
});
