// Learning rates by their formulas at the steps where something changes, and the refusal of impossible options.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OptionError } from '../base/errors.ts';
import { checkSchedule, learningRateAt, type Schedule } from './schedule.ts';

function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-15 * Math.abs(expected), `${actual} is not ${expected}`);
}

test('a constant schedule stays, after its warm-up', () => {
  const schedule: Schedule = { kind: 'constant', learningRate: 0.1, nWarmUpSteps: 4 };
  const rates = [0, 1, 2, 3, 4, 1000].map((step) => learningRateAt(schedule, step));
  for (const [i, expected] of [0.02, 0.04, 0.06, 0.08, 0.1, 0.1].entries()) close(rates[i]!, expected);
  assert.equal(learningRateAt({ kind: 'constant', learningRate: 0.1 }, 0), 0.1);
});

test('a cosine begins at the top behind the warm-up, is half-way in the middle, and stays at the minimum', () => {
  const schedule: Schedule = {
    kind: 'cosine',
    learningRate: 1e-3,
    learningRateMin: 1e-4,
    nWarmUpSteps: 100,
    nSteps: 2100,
  };
  const expected = new Map([
    [0, 1e-3 / 101],
    [99, 1e-3 * (100 / 101)],
    [100, 1e-3],
    [1100, 5.5e-4],
    [2100, 1e-4],
    [9999, 1e-4],
  ]);
  for (const [step, rate] of expected) close(learningRateAt(schedule, step), rate);
  // A sixth of the way, where the cosine is a half of the square root of three.
  const sixth: Schedule = { kind: 'cosine', learningRate: 1, nSteps: 6 };
  close(learningRateAt(sixth, 1), 0.5 + Math.sqrt(3) / 4);
  assert.equal(learningRateAt(sixth, 6), 0);
});

test('steps multiply the rate each time, counted from the end of the warm-up', () => {
  const schedule: Schedule = { kind: 'step', learningRate: 8, nStepsEach: 10, factor: 0.5, nWarmUpSteps: 5 };
  const rates = [5, 14, 15, 24, 25, 35].map((step) => learningRateAt(schedule, step));
  assert.deepEqual(rates, [8, 8, 4, 4, 2, 1]);
  assert.equal(learningRateAt(schedule, Number.MAX_SAFE_INTEGER), 0);
});

test('a step schedule without decay ends at its rate however late it is asked', () => {
  const schedule: Schedule = { kind: 'step', learningRate: 8, nStepsEach: 1_000_000, factor: 1 };
  assert.equal(learningRateAt(schedule, 5_000_000), 8);
});

test('accepts what can be', () => {
  checkSchedule({ kind: 'constant', learningRate: 1 });
  checkSchedule({ kind: 'cosine', learningRate: 1, learningRateMin: 1, nWarmUpSteps: 9, nSteps: 10 });
  checkSchedule({ kind: 'step', learningRate: 1, nStepsEach: 1, factor: 1 });
});

test('rejects what cannot be, and names it', () => {
  const rejects = (schedule: unknown, message: RegExp): void => {
    assert.throws(
      () => checkSchedule(schedule as Schedule),
      (error: unknown) => error instanceof OptionError && message.test(error.message),
    );
  };
  const constant = { kind: 'constant', learningRate: 1 };
  for (const learningRate of [0, -1, Number.NaN, Infinity, undefined]) {
    rejects({ ...constant, learningRate }, /"learningRate" expected a positive number/);
  }
  for (const nWarmUpSteps of [-1, 0.5, Number.NaN]) rejects({ ...constant, nWarmUpSteps }, /"nWarmUpSteps" expected/);
  rejects({ ...constant, kind: 'linear' }, /"kind" expected constant, cosine or step, got linear/);
  const cosine = { kind: 'cosine', learningRate: 1, nWarmUpSteps: 10, nSteps: 20 };
  for (const nSteps of [10, 20.5, undefined]) rejects({ ...cosine, nSteps }, /"nSteps" expected.*above the 10/);
  for (const learningRateMin of [-1, 1.5, Number.NaN]) rejects({ ...cosine, learningRateMin }, /"learningRateMin"/);
  const steps = { kind: 'step', learningRate: 1, nStepsEach: 5, factor: 0.5 };
  for (const nStepsEach of [0, 1.5]) rejects({ ...steps, nStepsEach }, /"nStepsEach" expected/);
  for (const factor of [0, 1.1, Number.NaN]) rejects({ ...steps, factor }, /"factor" expected/);
});
