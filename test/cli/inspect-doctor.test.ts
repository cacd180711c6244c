// `smallmind inspect` and `smallmind doctor` from their sources, the help texts and the version.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import { needsShared, sharedPath } from '../shared-data.ts';
import { alterModel, runCommand, smallModel, writeScratch } from './command.ts';

const shared = needsShared();
const small = writeScratch('small.gguf', smallModel);
const widthOf = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

test('inspect --json tells all of a file', async () => {
  const { code, stdout } = await runCommand(['inspect', small, '--json']);
  assert.equal(code, 0);
  const info = JSON.parse(stdout);
  assert.equal(info.architecture, 'llama');
  assert.equal(info.name, 'random F32 7');
  assert.deepEqual([info.nVocab, info.nCtxTrain, info.ggufVersion], [300, 64, 3]);
  assert.equal(info.sizeBytes, smallModel.length);
  const embedding = info.tensors[0];
  assert.deepEqual([embedding.name, embedding.dtype, embedding.shape], ['token_embd.weight', 'F32', [300, 32]]);
  assert.equal(embedding.sizeBytes, 300 * 32 * 4);
  const elements = info.tensors.reduce((sum: number, t: { sizeBytes: number }) => sum + t.sizeBytes / 4, 0);
  assert.equal(info.nParameters, elements);
  const scores = info.metadata.find(({ key }: { key: string }) => key === 'tokenizer.ggml.scores');
  assert.equal(scores.type, 'f32[]');
  assert.equal(scores.value.length, 300);
  assert.equal('problem' in info, false);
});

test('inspect tells the memory that loading takes, at any context and type of the cache', async () => {
  for (const [nCtx, kvType] of [[undefined], [32], [1000], [32, 'F32']] as const) {
    const args = [...(nCtx ? ['--ctx', String(nCtx)] : []), ...(kvType ? ['--kv-type', kvType.toLowerCase()] : [])];
    const { memory } = JSON.parse((await runCommand(['inspect', small, '--json', ...args])).stdout);
    await using model = await loadModel(smallModel, { nCtx, kvType, thread: 'inline' });
    assert.equal(memory.nCtx, model.info.nCtx);
    assert.equal(memory.totalBytes, model.info.memoryBytes);
    const { weightsBytes, kvBytes, constantsBytes, workBytes, totalBytes } = memory;
    assert.equal(weightsBytes + kvBytes + constantsBytes + workBytes, totalBytes);
    // Keys and values of one layer and head of 16 dimensions, in blocks of 32 positions.
    const elementBytes = kvType === 'F32' ? 4 : 2;
    assert.equal(kvBytes, 2 * 16 * elementBytes * 32 * Math.ceil(memory.nCtx / 32));
  }
});

test('inspect fits 80 columns and cuts long values', shared, async () => {
  const { code, stdout } = await runCommand(['inspect', sharedPath('models', 'stories260K', 'stories260K-f32.gguf')]);
  assert.equal(code, 0);
  assert.ok(widthOf(stdout) <= 80, `${widthOf(stdout)} columns`);
  assert.match(stdout, /^architecture +llama$/m);
  assert.match(stdout, /^runs here +yes$/m);
  assert.match(stdout, /^tokenizer\.ggml\.tokens +\[512\] <unk>, <s>, .*…$/m);
  assert.match(stdout, /^blk\.4\.ffn_down\.weight +64 × 172 +F32 +43\.0 KiB$/m);
  assert.ok(!stdout.includes('\u001b'));
});

test('inspect --memory is a table of contexts and types of the cache, within 80 columns', async () => {
  const { code, stdout } = await runCommand(['inspect', small, '--memory']);
  assert.equal(code, 0);
  assert.ok(widthOf(stdout) <= 80, `${widthOf(stdout)} columns`);
  assert.match(stdout, /^cache +context +weights +key-value +tables +work areas +total +fits$/m);
  assert.match(stdout, /^F32 +64 +[\d.]+ KiB +8\.0 KiB +4\.0 KiB +\d+ KiB +\d+ KiB +yes$/m);
  assert.match(stdout, /^F16 +64 tokens, as trained$/m);
  // Its heads of 16 elements are too narrow.
  assert.match(stdout, /^Q8_0 +a key-value cache in Q8_0 takes heads of/m);
  const args = ['inspect', small, '--memory', '--json', '--ctx', '32', '--kv-type', 'f16'];
  const { caches } = JSON.parse((await runCommand(args)).stdout);
  const { memory } = JSON.parse((await runCommand(args.filter((arg) => arg !== '--memory'))).stdout);
  assert.deepEqual(caches, [{ kvType: 'F16', contexts: [{ ...memory, fits: true }], nCtxFit: 64 }]);
});

test('inspect --memory of a file that cannot run here is the error that loading would be', async () => {
  const bytes = await alterModel((metadata) => {
    metadata.set('general.architecture', { type: 'string', value: 'mamba' });
  });
  const { code, stderr } = await runCommand(['inspect', writeScratch('mamba-memory.gguf', bytes), '--memory']);
  assert.equal(code, 1);
  assert.match(stderr, /architecture "mamba" is not supported; supported: llama, /);
});

test('inspect describes a file that cannot run here, with the reason', async () => {
  const bytes = await alterModel((metadata) => {
    metadata.set('general.architecture', { type: 'string', value: 'mamba' });
    metadata.set('evil', { type: 'string', value: '\u001b[31mred\u009b\nnext line' });
  });
  const path = writeScratch('mamba.gguf', bytes);
  const { code, stdout } = await runCommand(['inspect', path]);
  assert.equal(code, 0);
  assert.match(stdout, /^runs here +no: /m);
  // Nothing of a file reaches the terminal as a control sequence.
  assert.ok(!stdout.includes('\u001b') && !stdout.includes('\u009b'));
  assert.match(stdout, /^evil +\\u001b\[31mred\\u009b\\nnext line$/m);
  const { problem, memory } = JSON.parse((await runCommand(['inspect', path, '--json'])).stdout);
  assert.equal(problem.code, 'UNSUPPORTED_ARCHITECTURE');
  assert.equal(memory, undefined);
});

test('doctor finds every kernel set right on this machine', async () => {
  const { code, stdout } = await runCommand(['doctor', '--json']);
  assert.equal(code, 0, stdout);
  const { version, engine, verdict, findings, selfTests, features, kernels, threads } = JSON.parse(stdout);
  assert.equal(version, JSON.parse(readFileSync('package.json', 'utf8')).version);
  assert.match(engine, /^Node \d+/);
  assert.equal(features.simd, true);
  assert.ok(selfTests.length >= 4 && selfTests.every((t: { passed: boolean }) => t.passed), stdout);
  assert.ok(threads >= 1 && kernels !== 'none');
  assert.equal(verdict, findings.length === 0 ? 'ready' : 'slow');
});

test('doctor speaks to people, too', async () => {
  const { code, stdout } = await runCommand(['doctor']);
  assert.equal(code, 0);
  assert.ok(widthOf(stdout) <= 80, `${widthOf(stdout)} columns`);
  assert.match(stdout, /^✓ WebAssembly SIMD$/m);
  assert.match(
    stdout,
    /^By default a model runs with the kernels "(relaxed|simd)" on \d+ threads?:\n\w[\w ]+\. A very small/m,
  );
});

test('every help has examples, on stdout', async () => {
  for (const args of [['--help'], ['run', '--help'], ['help', 'run'], ['inspect', '--help'], ['doctor', '-h']]) {
    const { code, stdout, stderr } = await runCommand(args);
    assert.equal(code, 0, args.join(' '));
    assert.match(stdout, /\nExamples:\n {2}smallmind /, args.join(' '));
    assert.equal(stderr, '');
  }
});

test('without arguments the help goes to stderr, with exit code 2', async () => {
  const { code, stdout, stderr } = await runCommand([]);
  assert.equal(code, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /^Usage: smallmind/);
});

test('--version is that of the package', async () => {
  const { code, stdout } = await runCommand(['--version']);
  assert.equal(code, 0);
  assert.equal(stdout, `${JSON.parse(readFileSync('package.json', 'utf8')).version}\n`);
});
