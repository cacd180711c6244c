// `smallmind run` from its sources: the text of a real model, JSON, prompts from stdin, and the ways in which a run can
// end early.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { openSync, readFileSync, closeSync, existsSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needsShared, sharedPath } from '../shared-data.ts';
import { outcomeOf, runCommand, smallModel, startCommand, writeScratch } from './command.ts';

const shared = needsShared();
const stories = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
const small = writeScratch('small.gguf', smallModel);
const STATS = /^\d+ prompt tokens?, [\d.]+ tokens\/s · \d+ tokens?(, [\d.]+ tokens\/s)? · seed \d+$/m;

test('greedy text of stories260K from nothing but BOS is the expected text', shared, async () => {
  const expected = JSON.parse(readFileSync(sharedPath('models', 'stories260K', 'expected-greedy.json'), 'utf8'));
  const { code, stdout, stderr } = await runCommand(['run', stories, '-p', '', '--temp', '0', '-n', '200']);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, `${expected.text}\n`);
  assert.match(stderr, STATS);
  assert.equal(stderr.trimEnd().split('\n').length, 1);
});

test('text mode writes the prompt, then what the model adds', shared, async () => {
  const args = ['run', stories, '-p', 'Once upon a time', '--temp', '0', '-n', '10'];
  const [plain, json] = [await runCommand(args), await runCommand([...args, '--json'])];
  assert.equal(plain.stdout, `Once upon a time${JSON.parse(json.stdout).text}\n`);
});

test('--json prints one object, and nothing on stderr', async () => {
  const { code, stdout, stderr } = await runCommand(['run', small, '-p', 'a b', '-n', '5', '--seed', '3', '--json']);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
  assert.equal(stdout.trimEnd().split('\n').length, 1);
  const { text: added, tokens, promptTokens, finishReason, seed, timings, ...rest } = JSON.parse(stdout);
  assert.equal(typeof added, 'string');
  assert.ok(tokens.length === 5 && tokens.every(Number.isInteger), `tokens: ${tokens}`);
  assert.ok(promptTokens > 0);
  assert.equal(finishReason, 'length');
  assert.equal(seed, 3);
  const names = ['loadMs', 'promptMs', 'promptTokensPerSecond', 'decodeMs', 'decodeTokensPerSecond'];
  assert.deepEqual(Object.keys(timings), names);
  assert.ok(
    names.every((name) => timings[name] > 0),
    stdout,
  );
  assert.deepEqual(rest, {});
});

test('--logprobs adds as many of the most likely tokens as asked, best first', async () => {
  const args = ['run', small, '-p', 'a', '-n', '2', '--temp', '0', '--json', '--logprobs', '3'];
  const { tokens, logprobs } = JSON.parse((await runCommand(args)).stdout);
  assert.deepEqual(
    logprobs.map(({ token }: { token: number }) => token),
    tokens,
  );
  for (const { token, logprob, top } of logprobs) {
    assert.equal(top.length, 3);
    assert.deepEqual([top[0].token, top[0].logprob], [token, logprob]);
    assert.ok(logprob <= 0 && top[1].logprob <= top[0].logprob && top[2].logprob <= top[1].logprob);
  }
});

test('without --prompt the prompt is what is piped in, less the line break at its end', async () => {
  const args = ['run', small, '--temp', '0', '-n', '4', '--json'];
  const given = JSON.parse((await runCommand([...args, '-p', 'one two\nthree'])).stdout);
  for (const input of ['one two\nthree', 'one two\nthree\n']) {
    const piped = JSON.parse((await runCommand(args, input)).stdout);
    assert.deepEqual(
      [piped.promptTokens, piped.tokens, piped.text],
      [given.promptTokens, given.tokens, given.text],
      JSON.stringify(input),
    );
  }
});

test('the same seed gives the same text, and the reported seed gives it again', async () => {
  const args = ['run', small, '-p', 'a', '-n', '20', '--temp', '1.5', '--json'];
  const first = JSON.parse((await runCommand(args)).stdout);
  const again = JSON.parse((await runCommand([...args, '--seed', String(first.seed)])).stdout);
  const other = JSON.parse((await runCommand([...args, '--seed', String((first.seed + 1) % 2 ** 32)])).stdout);
  assert.deepEqual(again.tokens, first.tokens);
  assert.notDeepEqual(other.tokens, first.tokens);
});

test('a full context ends the text with exit code 0, and says so', async () => {
  const { code, stderr } = await runCommand(['run', small, '-p', 'a', '--ctx', '8', '--temp', '0']);
  assert.equal(code, 0);
  assert.match(stderr, /· the context is full: give a larger --ctx, or --context-full shift\n$/);
});

test('--stop ends the text before what it names, and --json says which', async () => {
  const args = ['run', small, '-p', 'a', '-n', '20', '--temp', '0', '--json'];
  const { text: whole } = JSON.parse((await runCommand(args)).stdout) as { text: string };
  const stop = whole.slice(3, 6);
  const { code, stdout } = await runCommand([...args, '--stop', 'never said', '--stop', stop]);
  const { text: cut, finishReason, stoppedBy } = JSON.parse(stdout);
  assert.deepEqual([code, cut, finishReason, stoppedBy], [0, whole.slice(0, whole.indexOf(stop)), 'stop', stop]);
});

test('--logit-bias changes what is said, and bans', async () => {
  const args = ['run', small, '-p', 'a', '-n', '5', '--temp', '0', '--json'];
  const { tokens } = JSON.parse((await runCommand(args)).stdout) as { tokens: number[] };
  const banned = JSON.parse((await runCommand([...args, '--logit-bias', `${tokens[0]}=-Infinity`])).stdout);
  assert.ok(!banned.tokens.includes(tokens[0]));
  const forced = JSON.parse((await runCommand([...args, '--logit-bias', '9=100', '--logit-bias', '8=1'])).stdout);
  assert.deepEqual(forced.tokens, [9, 9, 9, 9, 9]);
});

test('--context-full shift outlives the context', async () => {
  const args = ['run', small, '-p', 'a', '--ctx', '16', '--temp', '0', '-n', '60', '--json'];
  const { tokens, finishReason } = JSON.parse((await runCommand([...args, '--context-full', 'shift'])).stdout);
  assert.deepEqual([tokens.length, finishReason], [60, 'length']);
});

test('--max-time ends a run that would take long, with exit code 0', async () => {
  const endless = ['-n', '2000000000', '--context-full', 'shift', '--logit-bias', '2=-Infinity'];
  const { code, stdout, stderr } = await runCommand(['run', small, '-p', 'a', ...endless, '--max-time', '200']);
  assert.equal(code, 0, stderr);
  assert.ok(stdout.length > 1);
  assert.match(stderr, /· the time of --max-time is over\n$/);
});

test('every kernel set and type that the help names can be chosen', async () => {
  const outputs = new Set<string>();
  const args = ['run', small, '-p', 'a', '-n', '3', '--temp', '0', '--json', '-t', '1'];
  const choices = ['relaxed', 'simd', 'strict', 'reference'].map((set) => ['--kernels', set]);
  for (const choice of [...choices, ['--activations', 'f32', '--kv-type', 'f32']]) {
    const { code, stdout, stderr } = await runCommand([...args, ...choice]);
    assert.equal(code, 0, `${choice}: ${stderr}`);
    outputs.add(String(JSON.parse(stdout).tokens));
  }
  assert.equal(outputs.size, 1);
});

test('a Q8_0 cache is for models whose heads it takes; others are refused with what works', async () => {
  const args = ['-p', 'a', '-n', '3', '--kv-type', 'q8_0'];
  const { code, stderr } = await runCommand(['run', small, ...args]);
  assert.equal(code, 1);
  assert.match(stderr, /Q8_0 takes heads of a multiple of 32 elements.*have 16; use the kvType F16/);
  assert.equal((await runCommand(['run', ...args])).code, 0);
});

test('in a pipe there are no escape codes and no progress bar', async () => {
  const { stdout, stderr } = await runCommand(['run', small, '-p', 'a', '-n', '3', '--temp', '0', '--verbose']);
  for (const control of ['\u001b', '\r']) assert.ok(!(stdout + stderr).includes(control), stdout + stderr);
  assert.match(stderr, /^llama, [\d,]+ parameters, 64 tokens of context, [\d.]+ KiB; wasm .*; loaded in \d+ ms\n/);
});

test('the worker runs with 256-bit vectors where V8 makes them, unless they are not wanted', async () => {
  const executorOf = async (...flags: string[]): Promise<string> => {
    const { code, stderr } = await runCommand(['run', small, '-p', 'a', '-n', '3', '--verbose', ...flags]);
    assert.equal(code, 0, stderr);
    return stderr.match(/wasm .* thread/)![0];
  };
  const hasThem = process.arch === 'x64' && Number.parseInt(process.versions.node, 10) >= 24;
  assert.equal(/256-bit vectors/.test(await executorOf()), hasThem);
  assert.doesNotMatch(await executorOf('--no-wide-vectors'), /256-bit/);
});

/** Slow enough, on the reference executor, to be interrupted on the way. */
const slowRun = ['run', stories, '-p', 'Once upon a time', '-n', '500', '--temp', '0', '--kernels', 'reference'];

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`${signal} ends a run with what there is, and exit code ${exitCode}`, shared, async () => {
    const child = startCommand(slowRun);
    const outcome = outcomeOf(child);
    await once(child.stdout, 'data');
    child.kill(signal);
    const { code, stdout, stderr } = await outcome;
    assert.equal(code, exitCode, stderr);
    assert.match(stdout, /^Once upon a time,.*\n$/s);
    assert.match(stderr, STATS);
  });
}

test('Ctrl-C with --json prints the object, with the finish reason abort', shared, async () => {
  const child = startCommand([...slowRun, '--json', '--verbose']);
  const outcome = outcomeOf(child);
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  const { code, stdout } = await outcome;
  assert.equal(code, 130);
  assert.equal(JSON.parse(stdout).finishReason, 'abort');
});

test('Ctrl-C while the prompt is awaited ends at once', async () => {
  const child = startCommand(['run', small, '--verbose']);
  const outcome = outcomeOf(child);
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  const { code, stdout, stderr } = await outcome;
  assert.equal(code, 130);
  assert.equal(stdout, '');
  assert.equal(stderr.trimEnd().split('\n').length, 1);
});

test('the first Ctrl-C asks for the end, the second one brings it', async () => {
  const module = fileURLToPath(new URL('../../src/cli/interruption.ts', import.meta.url));
  const script = `
    const { listenForInterruption } = await import(${JSON.stringify(module)});
    listenForInterruption(() => {}).addEventListener('abort', () => console.log('asked'));
    setInterval(() => {}, 1000);
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { timeout: 60_000 });
  const exited = once(child, 'exit');
  const said = async (): Promise<string> => String((await once(child.stdout, 'data'))[0]).trim();
  assert.equal(await said(), 'ready');
  child.kill('SIGINT');
  assert.equal(await said(), 'asked');
  child.kill('SIGINT');
  assert.deepEqual(await exited, [130, null]);
});

test('a reader that goes away ends the run quietly', shared, async () => {
  const child = startCommand(slowRun);
  const [closed, stderr] = [once(child, 'close'), text(child.stderr)];
  await once(child.stdout, 'data');
  child.stdout.destroy();
  assert.deepEqual(await closed, [0, null]);
  assert.equal(await stderr, '');
});

const full = '/dev/full';
test('a full disk is one clear line', { skip: existsSync(full) ? false : `there is no ${full}` }, async () => {
  const stdout = openSync(full, 'w');
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const args = ['--conditions=smallmind-source', main, 'run', small, '-p', 'a', '-n', '3'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'], timeout: 60_000 });
  closeSync(stdout);
  let stderr = '';
  child.stderr!.on('data', (chunk) => (stderr += chunk));
  const [code] = await once(child, 'close');
  assert.equal(code, 1);
  assert.match(stderr, /^smallmind: .*no space left on device.*\n$/i);
});
