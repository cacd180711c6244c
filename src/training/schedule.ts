// The learning rate of every step, as plain data that a config file can hold and a function of the step alone: a
// resumed run needs no state for it. Uses our own cosine and power: the same schedule is the same bits on any machine.

import { OptionError } from '../base/errors.ts';
import { cos, pow } from '../base/math.ts';

interface WarmUp {
  /** The highest rate; positive. */
  readonly learningRate: number;
  /** Steps in which the rate climbs linearly to `learningRate`, never from 0. Default 0. */
  readonly nWarmUpSteps?: number;
}

/** The same rate after the warm-up. */
export interface ConstantSchedule extends WarmUp {
  readonly kind: 'constant';
}

/** After the warm-up half a cosine down to `learningRateMin`, reached at step `nSteps`; then it stays there. */
export interface CosineSchedule extends WarmUp {
  readonly kind: 'cosine';
  /** Default 0. */
  readonly learningRateMin?: number;
  /** Counted from the beginning, the warm-up included. */
  readonly nSteps: number;
}

/** After the warm-up the rate is multiplied by `factor` every `nStepsEach` steps. */
export interface StepSchedule extends WarmUp {
  readonly kind: 'step';
  readonly nStepsEach: number;
  /** Above 0, at most 1. */
  readonly factor: number;
}

export type Schedule = ConstantSchedule | CosineSchedule | StepSchedule;

/**
 * The rate for step `step`, which counts from 0; trusts `schedule` (see `checkSchedule`). Warm-up and cosine are those
 * of nanoGPT's train.py.
 */
export function learningRateAt(schedule: Schedule, step: number): number {
  const { learningRate, nWarmUpSteps = 0 } = schedule;
  if (step < nWarmUpSteps) return (learningRate * (step + 1)) / (nWarmUpSteps + 1);
  const nSince = step - nWarmUpSteps;
  switch (schedule.kind) {
    case 'constant':
      return learningRate;
    case 'cosine': {
      const { learningRateMin = 0, nSteps } = schedule;
      if (step >= nSteps) return learningRateMin;
      const height = 0.5 * (1 + cos((Math.PI * nSince) / (nSteps - nWarmUpSteps)));
      return learningRateMin + height * (learningRate - learningRateMin);
    }
    case 'step':
      return learningRate * pow(schedule.factor, Math.floor(nSince / schedule.nStepsEach));
  }
}

/**
 * Checks a schedule that comes from a user.
 * @throws {OptionError} for a kind that does not exist or a value out of its range
 */
export function checkSchedule(schedule: Schedule): void {
  const { kind, learningRate, nWarmUpSteps = 0 } = schedule;
  expectOption('learningRate', 'a positive number', learningRate, learningRate > 0 && learningRate < Infinity);
  expectOption('nWarmUpSteps', 'an integer of at least 0', nWarmUpSteps, isCount(nWarmUpSteps, 0));
  switch (kind) {
    case 'constant':
      return;
    case 'cosine': {
      const { learningRateMin: min = 0, nSteps } = schedule;
      expectOption('learningRateMin', `a number from 0 to ${learningRate}`, min, min >= 0 && min <= learningRate);
      expectOption(
        'nSteps',
        `an integer above the ${nWarmUpSteps} of warm-up`,
        nSteps,
        isCount(nSteps, nWarmUpSteps + 1),
      );
      return;
    }
    case 'step': {
      const { nStepsEach, factor } = schedule;
      expectOption('nStepsEach', 'an integer of at least 1', nStepsEach, isCount(nStepsEach, 1));
      expectOption('factor', 'a number above 0, at most 1', factor, factor > 0 && factor <= 1);
      return;
    }
    default:
      expectOption('kind', 'constant, cosine or step', kind, false);
  }
}

const isCount = (value: number, min: number): boolean => Number.isSafeInteger(value) && value >= min;

function expectOption(option: string, expected: string, value: unknown, isRight: boolean): void {
  if (!isRight) throw new OptionError(`"${option}" expected ${expected}, got ${String(value)}`, { option });
}
