// `smallmind embed` from its sources: what people see of few texts and of many, the lines of JSON, where texts come
// from, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import { ENCODER_KINDS, randomEncoderGguf } from '../random-encoder.ts';
import { alterModel, outcomeOf, runCommand, smallModel, startCommand, writeScratch } from './command.ts';

const SHAPE = { seed: 4, dtype: 'F32', nLayer: 1, nEmbd: 32, nHead: 2, nFf: 64, nVocab: 300, nCtx: 32 } as const;
const bytes = randomEncoderGguf(ENCODER_KINDS['bert']!, SHAPE);
const bert = writeScratch('bert.gguf', bytes);
const decoder = writeScratch('decoder.gguf', smallModel);
const TEXTS = ['A cat sleeps.', 'a CAT sleeps .', 'Stocks fell!'];

/** Objects, one a line. */
const jsonLines = (stdout: string) =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

test('few texts are compared each with each', async () => {
  const { code, stdout, stderr } = await runCommand(['embed', bert, ...TEXTS]);
  assert.equal(code, 0, stderr);
  const rows = stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/));
  assert.deepEqual(rows[0], ['1', '2', '3', 'text']);
  assert.deepEqual(
    rows.slice(1).map((row) => [row[0], row.at(-1)]),
    TEXTS.map((text, i) => [String(i + 1), text]),
  );
  const similarity = (i: number, j: number): number => Number(rows[i]![j]);
  assert.deepEqual([similarity(1, 1), similarity(1, 2), similarity(3, 3)], [1, 1, 1]);
  assert.ok(similarity(1, 3) === similarity(3, 1) && similarity(1, 3) < 1);
  assert.match(stderr, /^3 texts, \d+ tokens, 32 values each, pooling mean · [\d.]+ s\n$/);
});

test('of many texts each has the one that is most like it', async () => {
  const texts = Array.from({ length: 12 }, (_, i) => `${i} ab ${'c '.repeat(i)}`.trim());
  const { code, stdout, stderr } = await runCommand(['embed', bert], `${[...texts, texts[3]].join('\n')}\n`);
  assert.equal(code, 0, stderr);
  const lines = stdout.trimEnd().split('\n');
  assert.equal(lines.length, 14);
  assert.match(lines[0]!, /most like +text$/);
  assert.match(lines[4]!, / 4 +1\.00 +13 +3 ab c c c$/);
  assert.match(lines[13]!, /13 +1\.00 +4 +3 ab c c c$/);
});

test('one text shows how its vector begins', async () => {
  const { stdout } = await runCommand(['embed', bert, 'a']);
  assert.match(stdout, /^\[(-?\d\.\d{4}, ){6}…\]\n$/);
});

test('--json prints the vectors of the library, a line each, from stdin and from a file alike', async () => {
  const lines = Array.from({ length: 70 }, (_, i) => (i === 5 ? '' : `text ${i}`));
  // Neither ends a line; the mark at the beginning is none of the text.
  lines[7] = 'one\u2028two\rthree \u00e9';
  const file = writeScratch('texts.txt', `\ufeff${lines.join('\r\n')}\r\n`);
  const piped = await runCommand(['embed', bert, '--json'], lines.join('\n'));
  const { code, stdout, stderr } = await runCommand(['embed', bert, '--json', '--file', file]);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, piped.stdout);
  await using model = await loadModel(bytes, { thread: 'inline' });
  const { data } = await model.embed(lines);
  assert.deepEqual(
    jsonLines(stdout).map(({ embedding, ...rest }) => ({ embedding: Float32Array.from(embedding), ...rest })),
    data.map(({ embedding, index, ...rest }) => ({ embedding, index, ...rest })),
  );
});

test('pooling, length and cutting are flags', async () => {
  const text = 'b '.repeat(40);
  const args = ['embed', bert, text, '--json', '--truncate', '--pooling', 'CLS', '--no-normalize'];
  const { code, stdout, stderr } = await runCommand(args);
  assert.equal(code, 0, stderr);
  await using model = await loadModel(bytes, { thread: 'inline' });
  const { data } = await model.embed(text, { pooling: 'cls', normalize: false, truncate: true });
  const [line] = jsonLines(stdout);
  assert.deepEqual([line.promptTokens, line.isTruncated], [32, true]);
  assert.deepEqual(Float32Array.from(line.embedding), data[0]!.embedding);
  assert.match(stderr, /pooling cls/);
});

test('a model whose file wants another pooling is refused with the flag for one', async () => {
  const reranker = writeScratch(
    'reranker.gguf',
    randomEncoderGguf(ENCODER_KINDS['bert']!, { ...SHAPE, poolingType: 4 }),
  );
  const { code, stdout, stderr } = await runCommand(['embed', reranker, 'a']);
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /reranker's, perhaps\); supported: mean, cls, last, with --pooling$/m);
});

test('models that generate text make vectors, too', async () => {
  const { code, stdout, stderr } = await runCommand(['embed', decoder, 'one', 'two']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^ +1 +2 +text\n1 +1\.00 /);
  assert.match(stderr, /pooling last/);
});

test('a text that is too long is named as it was given, with what helps', async () => {
  const lines = [...Array.from({ length: 80 }, () => 'a'), 'd '.repeat(50)];
  const { code, stdout, stderr } = await runCommand(['embed', bert, '--json'], lines.join('\n'));
  assert.equal(code, 1);
  assert.ok(jsonLines(stdout).length >= 64, 'what was done before is there');
  assert.match(stderr, /text 81 \("d d d.*…"\) has 52 tokens, the context holds 32; .*--truncate/);
});

test('a text without tokens is named as it was given', async () => {
  const bare = await alterModel((metadata) => {
    metadata.set('tokenizer.ggml.add_bos_token', { type: 'bool', value: false });
  });
  const lines = Array.from({ length: 80 }, (_, i) => (i === 70 ? '' : 'a'));
  const { code, stderr } = await runCommand(['embed', writeScratch('bare.gguf', bare)], lines.join('\n'));
  assert.deepEqual(
    [code, stderr.split(';')[0]],
    [2, 'smallmind: text 71 ("") has no tokens, and this model puts none around it'],
  );
});

test('mistakes are told in terms of flags, before the model is loaded', async () => {
  for (const [args, message] of [
    [['embed'], /missing required argument 'model'/],
    [['embed', '/nowhere.gguf', 'a', '--pooling', 'max'], /--pooling expected one of mean, cls, last, got "max"/],
    [['embed', '/nowhere.gguf', 'a', '--file', 'b'], /texts or --file, not both/],
    [['embed', bert], /there is no text/],
  ] as const) {
    const { code, stderr } = await runCommand(args);
    assert.deepEqual([code, message.test(stderr)], [2, true], stderr);
  }
  for (const args of [
    ['embed', bert, 'a', '--ctx', '100'],
    ['inspect', bert, '--memory', '--ctx', '100'],
  ]) {
    const { code, stdout, stderr } = await runCommand(args);
    const message = 'smallmind: --ctx expected at most 32, the positions that this model has learned, got 100';
    assert.deepEqual([code, stdout, stderr.split(';')[0]], [2, '', message]);
  }
  const missing = await runCommand(['embed', bert, '--file', '/nowhere.txt']);
  assert.deepEqual([missing.code, missing.stderr], [1, 'smallmind: /nowhere.txt: no such file; check the path\n']);
  const asked = await runCommand(['run', bert, '-p', 'a']);
  assert.match(asked.stderr, /"bert".*"smallmind embed"/);
});

test('each line is answered as it comes, and Ctrl-C ends it while it waits for the next', async () => {
  const child = startCommand(['embed', bert, '--json']);
  child.stdin.write('a\n');
  child.stdout.once('data', () => child.kill('SIGINT'));
  const { code, stderr } = await outcomeOf(child);
  assert.deepEqual([code, stderr], [130, '']);
});
