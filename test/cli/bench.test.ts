// `smallmind bench`: the report in both forms, profiles, and mistakes on the command line.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ENCODER_KINDS, randomEncoderGguf } from '../random-encoder.ts';
import { randomGpt2Gguf } from '../random-model.ts';
import { runCommand, scratchFolder, smallModel, writeScratch } from './command.ts';

const small = writeScratch('bench.gguf', smallModel);
const SHAPE = { seed: 1, dtype: 'F32', nLayer: 1, nEmbd: 32, nHead: 2, nFf: 32, nVocab: 300, nCtx: 64 } as const;
const learned = writeScratch('positions.gguf', randomGpt2Gguf({ ...SHAPE, tied: true }));
const encoder = writeScratch('encoder.gguf', randomEncoderGguf(ENCODER_KINDS['bert']!, SHAPE));
const FEW = ['-p', '8', '-n', '4', '-r', '1'];

test('--json prints a row for each number of threads, and --out writes the same', async () => {
  const out = join(scratchFolder, 'speed.json');
  const { code, stdout, stderr } = await runCommand(['bench', small, ...FEW, '-t', '1,2', '--json', '--out', out]);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout);
  assert.deepEqual(JSON.parse(readFileSync(out, 'utf8')), report);
  assert.deepEqual(Object.keys(report), ['machine', 'model', 'nPrompt', 'nGenerate', 'nRuns', 'runs']);
  assert.deepEqual(
    report.runs.map((run: { threads: number }) => run.threads),
    [1, 2],
  );
  for (const { peer, prefill, decode, ...run } of report.runs) {
    assert.equal(peer, null);
    for (const { ours, theirs, ratio, min, max } of [prefill, decode]) {
      assert.ok(0 < min && min <= ours && ours <= max);
      assert.deepEqual([theirs, ratio], [null, null]);
    }
    const { decodeGBs, readLimitGBs, limitShare, prefillGops, computeLimitGops, computeLimitShare } = run;
    assert.ok(decodeGBs > 0 && readLimitGBs > 0 && Math.abs(limitShare - decodeGBs / readLimitGBs) < 1e-9);
    assert.ok(Math.abs(computeLimitShare - prefillGops / computeLimitGops) < 1e-9);
    assert.ok(0 < computeLimitShare && computeLimitShare < 1);
    assert.ok(run.rssBytes > 1e6 && run.loadMs > 0);
  }
});

test('--profile says where the time goes, by operation and by layer', async () => {
  const { code, stdout, stderr } = await runCommand(['bench', small, ...FEW, '-t', '1', '--profile']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /prefill, 1 threads: [\d.]+ ms a step/);
  assert.match(stdout, /decode, 1 threads: [\d.]+ ms a step/);
  assert.match(stdout, /%\s+\d+\s+attention/);
  assert.match(stdout, /%\s+\d+\s+matmul F32/);
});

test('a model that generates no text is refused with what it is for, however long its context', async () => {
  const { code, stdout, stderr } = await runCommand(['bench', encoder]);
  assert.deepEqual([code, stdout, stderr.trimEnd().split('\n').length], [1, '', 1], stderr);
  assert.match(stderr, /"bert"\) generates no text.*"smallmind embed"/);
});

test('mistakes are one line with the remedy, and exit code 2', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /expected a model file or --synthetic SHAPE:TYPE, one of the two/],
    [[small, '--synthetic', 'SmolLM2-135M:Q8_0'], /one of the two/],
    [['--synthetic', 'GPT-5:Q8_0'], /unknown shape "GPT-5"; use one of SmolLM2-135M/],
    [[small, '-t', '0'], /--threads expected an integer from 1 to 64, got 0/],
    [[small, '-r', 'many'], /--runs expected an integer from 1 to 1000, got many/],
    [[small, '--against', 'ollama'], /--against expected llama\.cpp/],
    [[learned, '-p', '60', '-n', '3'], /--prompt-tokens and --max-tokens, and 2 more, expected at most 64, .* got 65/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await runCommand(['bench', ...args]);
    assert.deepEqual([code, stdout, stderr.trimEnd().split('\n').length], [2, '', 1], stderr);
    assert.match(stderr, message);
  }
});
