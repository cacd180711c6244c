// What a training run is made of, as plain data: the model, its tokenizer, the data's windows, the optimiser and how
// often to look. Defaults and the check at the door. A resumed run must have the same options, but for those that
// change no number of the run.

import { OptionError } from '../base/errors.ts';
import { transformerConfig } from '../nn/transformer.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import type { WindowOrder } from './data.ts';
import { checkSchedule } from './schedule.ts';
import type { Schedule } from './schedule.ts';
import { ADAMW_DEFAULTS } from './trainer.ts';
import type { AdamWOptions, BatchShape } from './trainer.ts';

/** The model, its tokenizer, the windows of data, the optimiser, and how often to evaluate. */
export interface TrainingOptions {
  /** `llama`: rotary positions, RMSNorm, a gated MLP. `gpt2`: learned positions, LayerNorm, GELU. Default `llama`. */
  architecture?: 'llama' | 'gpt2';
  /** `bpe` learns a byte-level vocabulary from the texts, `char` has one token a character. Default `bpe`. */
  tokenizer?: 'bpe' | 'char';
  /** Tokens of a `bpe` vocabulary, 257 or more; fewer where the texts run out of pairs. Default 1024. */
  vocabSize?: number;
  /** Transformer layers. Default 4. */
  nLayer?: number;
  /** Attention heads; they divide `nEmbd`. Default 4. */
  nHead?: number;
  /** Heads of keys and values, which groups of heads share (llama). Default `nHead`. */
  nHeadKv?: number;
  /** Width of the model. Default 128. */
  nEmbd?: number;
  /**
   * Width of the feed-forward layers. Default 4 · nEmbd for gpt2; for llama 8/3 · nEmbd, rounded up to a multiple of
   * 32.
   */
  nFf?: number;
  /** Tokens of a window, and the longest context of the model. Default 128. */
  nCtx?: number;
  /** Probability of dropping an activation while training, from 0 to below 1. Default 0. */
  dropout?: number;
  /** Windows of a batch. Default 16. */
  nSeq?: number;
  /** Batches whose gradients make one step. Default 1. */
  nAccumulate?: number;
  /** Steps in all. Default 1000. */
  nSteps?: number;
  /** Which windows a batch takes. Default `random`. */
  order?: WindowOrder;
  /** How the learning rate goes after the warm-up. Default `cosine`. */
  schedule?: 'cosine' | 'constant' | 'step';
  /** The highest rate. Default 0.001. */
  learningRate?: number;
  /** Where the cosine ends. Default a tenth of `learningRate`. */
  learningRateMin?: number;
  /** Steps in which the learning rate rises from 0. Default a twentieth of `nSteps`, at most 100. */
  nWarmUpSteps?: number;
  /** Of the schedule `step`: steps until the rate falls. Default a third of `nSteps`. */
  nStepsEach?: number;
  /** Of the schedule `step`: what the rate is multiplied by. Default 0.1. */
  factor?: number;
  /** Weight decay of AdamW, for matrices. Default 0.1. */
  weightDecay?: number;
  /** Of AdamW: how long the mean of gradients remembers. Default 0.9. */
  beta1?: number;
  /** Of AdamW: how long the mean of squares remembers. Default 0.95. */
  beta2?: number;
  /** Gradients are scaled down to this norm; 0: not at all. Default 1. */
  maxNorm?: number;
  /** Of the initial parameters, the windows and the dropout masks, 0..2^32 - 1. Default 1. */
  seed?: number;
  /** The last part of the tokens, kept out of training; 0: no validation. Default 0.05. */
  validationFraction?: number;
  /** Steps between evaluations. Default 100. */
  evaluateEvery?: number;
  /** Batches of an evaluation, spread evenly over the validation part; 0: all of it. Default 20. */
  nEvaluationBatches?: number;
}

/** `TrainingOptions` with every default in place. */
export type ResolvedTrainingOptions = Readonly<Required<TrainingOptions>>;

/** Options that may be others after a resume; `nSteps` as well where the learning rate does not depend on it. */
const FREE_OPTIONS: ReadonlySet<string> = new Set<keyof TrainingOptions>(['evaluateEvery', 'nEvaluationBatches']);

/**
 * Checks options and fills in defaults.
 * @throws {OptionError} naming the option, what was expected and what came
 */
export function resolveTrainingOptions(options: TrainingOptions): ResolvedTrainingOptions {
  const { architecture = 'llama', nSteps = 1000, learningRate = 1e-3, nHead = 4, nEmbd = 128 } = options;
  const resolved: ResolvedTrainingOptions = {
    tokenizer: 'bpe',
    vocabSize: 1024,
    nLayer: 4,
    nHeadKv: nHead,
    nFf: architecture === 'gpt2' ? 4 * nEmbd : 32 * Math.ceil((8 * nEmbd) / 3 / 32),
    nCtx: 128,
    dropout: 0,
    nSeq: 16,
    nAccumulate: 1,
    order: 'random',
    schedule: 'cosine',
    learningRateMin: learningRate / 10,
    nWarmUpSteps: Math.min(100, Math.floor(nSteps / 20)),
    nStepsEach: Math.max(1, Math.ceil(nSteps / 3)),
    factor: 0.1,
    weightDecay: ADAMW_DEFAULTS.weightDecay,
    beta1: ADAMW_DEFAULTS.beta1,
    beta2: ADAMW_DEFAULTS.beta2,
    maxNorm: ADAMW_DEFAULTS.maxNorm,
    seed: 1,
    validationFraction: 0.05,
    evaluateEvery: 100,
    nEvaluationBatches: 20,
    ...withoutUndefined(options),
    architecture,
    nSteps,
    learningRate,
    nHead,
    nEmbd,
  };
  checkOptions(resolved);
  return resolved;
}

/**
 * The options of a run that goes on: those of its checkpoint, with what may change changed.
 * @throws {OptionError} for an option that is given and differs where it may not
 */
export function resumeTrainingOptions(saved: ResolvedTrainingOptions, given: TrainingOptions): ResolvedTrainingOptions {
  const isFree = (name: string): boolean =>
    FREE_OPTIONS.has(name) || (name === 'nSteps' && saved.schedule !== 'cosine');
  const changes = withoutUndefined(given);
  for (const [name, value] of Object.entries(changes)) {
    const before = saved[name as keyof TrainingOptions];
    if (value === before || isFree(name)) continue;
    throw new OptionError(
      `"${name}" is ${String(value)} here and ${before} in the checkpoint; resume with the same options, or start anew`,
      { option: name },
    );
  }
  const resolved = { ...saved, ...changes };
  checkOptions(resolved);
  return resolved;
}

/**
 * What makes the model, dropout apart: a run that begins with what another has learnt has these of it. A llama may get
 * another context, since its positions have no parameters.
 */
const MODEL_OPTIONS = [
  'architecture',
  'tokenizer',
  'vocabSize',
  'nLayer',
  'nHead',
  'nHeadKv',
  'nEmbd',
  'nFf',
  'nCtx',
] as const satisfies readonly (keyof TrainingOptions)[];

/**
 * The options of a new run that begins with the model of a checkpoint.
 * @throws {OptionError} for an option of the model that is given and is another there
 */
export function initialTrainingOptions(
  saved: ResolvedTrainingOptions,
  given: TrainingOptions,
): ResolvedTrainingOptions {
  const changes = withoutUndefined(given);
  const fixed = MODEL_OPTIONS.filter((name) => !(name === 'nCtx' && saved.architecture === 'llama' && given.nCtx));
  for (const name of fixed) {
    if (changes[name] === undefined || changes[name] === saved[name]) continue;
    throw new OptionError(
      `"${name}" is ${String(changes[name])} here and ${saved[name]} in the checkpoint to begin with; leave it out`,
      { option: name },
    );
  }
  const model = Object.fromEntries(fixed.map((name) => [name, saved[name]]));
  return resolveTrainingOptions({ ...changes, ...model });
}

export function modelConfigOf(options: ResolvedTrainingOptions, nVocab: number): TransformerConfig {
  const { architecture, nCtx, nEmbd, nLayer, nHead, nHeadKv, nFf, dropout } = options;
  return transformerConfig({ architecture, nVocab, nCtx, nEmbd, nLayer, nHead, nHeadKv, nFf, dropout });
}

export function batchShapeOf({ nSeq, nCtx, nAccumulate }: ResolvedTrainingOptions): BatchShape {
  return { nSeq, nPositions: nCtx, nAccumulate };
}

export function scheduleOf(options: ResolvedTrainingOptions): Schedule {
  const { schedule: kind, learningRate, nWarmUpSteps, learningRateMin, nSteps, nStepsEach, factor } = options;
  switch (kind) {
    case 'cosine':
      return { kind, learningRate, nWarmUpSteps, learningRateMin, nSteps };
    case 'constant':
      return { kind, learningRate, nWarmUpSteps };
    case 'step':
      return { kind, learningRate, nWarmUpSteps, nStepsEach, factor };
  }
}

export function adamWOf({ beta1, beta2, weightDecay, maxNorm }: ResolvedTrainingOptions): AdamWOptions {
  return { ...ADAMW_DEFAULTS, beta1, beta2, weightDecay, maxNorm };
}

function withoutUndefined(options: TrainingOptions): TrainingOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

const CHOICES = {
  architecture: ['llama', 'gpt2'],
  tokenizer: ['bpe', 'char'],
  order: ['random', 'shuffled'],
  schedule: ['cosine', 'constant', 'step'],
} as const;

/** Name → least and greatest value of the integers. */
const INTEGERS = {
  vocabSize: [257, 2 ** 24],
  nLayer: [1, 1024],
  nHead: [1, 4096],
  nHeadKv: [1, 4096],
  nEmbd: [1, 2 ** 16],
  nFf: [1, 2 ** 18],
  nCtx: [1, 2 ** 20],
  nSeq: [1, 2 ** 16],
  nAccumulate: [1, 2 ** 16],
  nSteps: [1, 2 ** 31],
  nWarmUpSteps: [0, 2 ** 31],
  nStepsEach: [1, 2 ** 31],
  seed: [0, 2 ** 32 - 1],
  evaluateEvery: [1, 2 ** 31],
  nEvaluationBatches: [0, 2 ** 31],
} as const;

const FRACTION = [1, 'a number from 0 to below 1'] as const;
const NOT_NEGATIVE = [Infinity, 'a number of at least 0'] as const;

/** Name → what the other numbers, which are never negative, must be below, and that in words. */
const NUMBERS = {
  dropout: FRACTION,
  learningRate: NOT_NEGATIVE,
  learningRateMin: NOT_NEGATIVE,
  factor: NOT_NEGATIVE,
  weightDecay: NOT_NEGATIVE,
  beta1: FRACTION,
  beta2: FRACTION,
  maxNorm: NOT_NEGATIVE,
  validationFraction: FRACTION,
} as const;

function checkOptions(options: ResolvedTrainingOptions): void {
  for (const [name, choices] of Object.entries(CHOICES)) {
    const value = options[name as keyof typeof CHOICES];
    if (!(choices as readonly string[]).includes(value)) refuse(name, `one of ${choices.join(', ')}`, value);
  }
  for (const [name, [min, max]] of Object.entries(INTEGERS)) {
    const value = options[name as keyof typeof INTEGERS];
    if (!(Number.isInteger(value) && value >= min && value <= max))
      refuse(name, `an integer from ${min} to ${max}`, value);
  }
  for (const [name, [below, expected]] of Object.entries(NUMBERS)) {
    const value = options[name as keyof typeof NUMBERS];
    if (!(typeof value === 'number' && value >= 0 && value < below)) refuse(name, expected, value);
  }
  const { nEmbd, nHead, nHeadKv } = options;
  if (nEmbd % (4 * nHead) !== 0) refuse('nEmbd', `a multiple of 4 · "nHead" (${4 * nHead})`, nEmbd);
  if (nHead % nHeadKv !== 0) refuse('nHead', `a multiple of "nHeadKv" (${nHeadKv})`, nHead);
  checkSchedule(scheduleOf(options));
}

function refuse(option: string, expected: string, value: unknown): never {
  const got = typeof value === 'string' ? `"${value}"` : String(value);
  throw new OptionError(`"${option}" expected ${expected}, got ${got}`, { option });
}
