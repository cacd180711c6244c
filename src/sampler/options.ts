// What a caller may ask of the sampler, the defaults (llama.cpp's) and the check at the door: everything behind it may
// trust the numbers. The accepted ranges are one table.

import { describeValue } from '../base/describe-value.ts';
import { OptionError } from '../base/errors.ts';

/** How the next token is chosen, in this order: penalties, top-k, typical-p, top-p, min-p, temperature. */
export interface SamplerOptions {
  /** Divides the logits; 0 or below chooses the most likely token (greedy). Default 0.8. */
  temperature: number;
  /** Keeps the k most likely tokens, from 0 on; 0 is off. Default 40. */
  topK: number;
  /** Keeps the most likely tokens until their probabilities reach this sum, 0..1; 1 is off. Default 0.95. */
  topP: number;
  /** Keeps tokens at least this fraction as likely as the most likely one, 0..1; 0 is off. Default 0.05. */
  minP: number;
  /** Keeps the tokens of most typical surprise until their probabilities exceed this, 0..1; 1 is off. Default 1. */
  typicalP: number;
  /** Divides positive and multiplies negative logits of recent tokens, above 0 to 100; 1 is off. Default 1. */
  repeatPenalty: number;
  /** How many of the last tokens the three penalties look at, 0..1048576; 0 is off. Default 64. */
  repeatLastN: number;
  /** Subtracted from a logit for every recent occurrence of the token, -100..100; 0 is off. Default 0. */
  frequencyPenalty: number;
  /** Subtracted once from the logit of every recent token, -100..100; 0 is off. Default 0. */
  presencePenalty: number;
  /** An integer from 0 on: the same seed gives the same tokens. Default: drawn at random. */
  seed: number;
}

export const SAMPLER_DEFAULTS: Readonly<Omit<SamplerOptions, 'seed'>> = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  typicalP: 1,
  repeatPenalty: 1,
  repeatLastN: 64,
  frequencyPenalty: 0,
  presencePenalty: 0,
};

interface Range {
  readonly min: number;
  readonly max: number;
  readonly isInteger?: boolean;
  /** The minimum itself is not allowed. */
  readonly isAbove?: boolean;
}

const RANGES: Readonly<Record<keyof SamplerOptions, Range>> = {
  temperature: { min: -Number.MAX_VALUE, max: Number.MAX_VALUE },
  topK: { min: 0, max: 2 ** 31 - 1, isInteger: true },
  topP: { min: 0, max: 1 },
  minP: { min: 0, max: 1 },
  typicalP: { min: 0, max: 1 },
  repeatPenalty: { min: 0, max: 100, isAbove: true },
  repeatLastN: { min: 0, max: 2 ** 20, isInteger: true },
  frequencyPenalty: { min: -100, max: 100 },
  presencePenalty: { min: -100, max: 100 },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, isInteger: true },
};

/**
 * Fills in the defaults, and a random 32-bit seed, for what is absent or undefined.
 * @throws {OptionError} INVALID_OPTION naming the option, its value and its range
 */
export function resolveSamplerOptions(partial: Partial<SamplerOptions> = {}): SamplerOptions {
  const options: SamplerOptions = { ...SAMPLER_DEFAULTS, seed: 0 };
  for (const name of Object.keys(RANGES) as (keyof SamplerOptions)[]) {
    const value = partial[name];
    if (value !== undefined) options[name] = checkRange(name, value);
  }
  if (partial.seed === undefined) options.seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  return options;
}

function checkRange(option: keyof SamplerOptions, value: unknown): number {
  const range = RANGES[option];
  const { min, max, isInteger = false, isAbove = false } = range;
  if (typeof value === 'number' && value >= min && value <= max) {
    const isAllowed = (!isInteger || Number.isInteger(value)) && !(isAbove && value === min);
    if (isAllowed) return value;
  }
  const got = describeValue(value);
  throw new OptionError(`"${option}" expected ${describeRange(range)}, got ${got}`, { option, got });
}

function describeRange({ min, max, isInteger = false, isAbove = false }: Range): string {
  if (max === Number.MAX_VALUE) return 'a finite number';
  return `${isInteger ? 'an integer' : 'a number'} ${isAbove ? 'above' : 'from'} ${min} to ${max}`;
}
