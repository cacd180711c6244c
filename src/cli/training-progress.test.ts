// What is shown of a run, with streams and a clock of the test's own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { TrainingProgress, formatDuration } from './training-progress.ts';

/** A progress with 100 steps of 50 tokens, what it wrote, and a clock that `pass` moves. */
function start(t: TestContext, { isTTY = true, columns = 80 } = {}) {
  let nowMs = 1000;
  t.mock.method(performance, 'now', () => nowMs);
  const written = { lines: '', live: '' };
  const lines = { write: (text: string) => (written.lines += text) };
  const live = { isTTY, columns, write: (text: string) => (written.live += text) };
  const progress = new TrainingProgress({ nSteps: 100, firstStep: 0, nTokensAStep: 50 }, lines, live);
  return { progress, written, pass: (ms: number) => (nowMs += ms) };
}

test('durations are in two units at most', () => {
  const expected = { 0.4: '0 s', 59.4: '59 s', 59.6: '1 min 0 s', 200: '3 min 20 s', 7500: '2 h 5 min' };
  for (const [seconds, text] of Object.entries(expected)) assert.equal(formatDuration(Number(seconds)), text);
});

test('a terminal shows loss, speed and the time that is left, on one line', (t) => {
  const { progress, written, pass } = start(t);
  for (let step = 1; step <= 4; step++) {
    pass(500);
    progress.step({ kind: 'step', step, loss: 5 - step });
  }
  const last = written.live.split('\r').at(-1);
  assert.equal(last, 'step   4/100 · loss 1.0000 · 100 tokens/s · 48 s left\u001b[K');
  assert.equal(written.lines, '');
  progress.erase();
  assert.ok(written.live.endsWith('\r\u001b[K'));
});

test('an evaluation is a line that stays, with the mean loss since the last one', (t) => {
  const { progress, written, pass } = start(t);
  progress.step({ kind: 'step', step: 0, validationLoss: 6 });
  for (let step = 1; step <= 4; step++) {
    pass(500);
    progress.step({ kind: 'step', step, loss: step, validationLoss: step === 4 ? 2.5 : undefined });
  }
  assert.deepEqual(written.lines.split('\n'), [
    'step   0/100 · validation 6.0000',
    'step   4/100 · loss 2.5000 · validation 2.5000 · 100 tokens/s',
    '',
  ]);
});

test('in a pipe nothing is rewritten', (t) => {
  const { progress, written, pass } = start(t, { isTTY: false });
  pass(500);
  progress.evaluating({ kind: 'evaluating', step: 0, nBatchesDone: 1, nBatches: 4 });
  progress.step({ kind: 'step', step: 1, loss: 2 });
  progress.erase();
  assert.equal(written.live, '');
});

test('a line is rewritten ten times a second at most, and never wider than the terminal', (t) => {
  const { progress, written, pass } = start(t, { columns: 20 });
  for (let step = 1; step <= 100; step++) {
    pass(10);
    progress.step({ kind: 'step', step, loss: 2 });
  }
  const drawn = written.live.split('\r').slice(1);
  assert.ok(drawn.length >= 9 && drawn.length <= 11, `${drawn.length}`);
  assert.ok(drawn.every((line) => line.replace('\u001b[K', '').length < 20));
});

test('the speed is that of the last ten seconds', (t) => {
  const { progress, pass } = start(t);
  assert.equal(progress.tokensPerSecond, undefined);
  pass(60_000);
  progress.step({ kind: 'step', step: 1, loss: 2 });
  for (let step = 2; step <= 40; step++) {
    pass(1000);
    progress.step({ kind: 'step', step, loss: 2 });
  }
  assert.equal(progress.tokensPerSecond, 50);
});
