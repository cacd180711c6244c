// Logits in, token out. A sampler is a chain of steps over one workspace of candidates, in llama.cpp's default order,
// and a seeded draw from what they leave. It knows no text, no end token and no model. The same options, logits and
// history give the same token on every machine; `sample` and `accept` allocate nothing.

import { assert, OptionError, ShapeError } from '../base/errors.ts';
import { Random } from '../base/random.ts';
import { Candidates } from './candidates.ts';
import type { SamplerStep } from './candidates.ts';
import { computeLogprobs } from './logprobs.ts';
import type { StepLogprobs } from './logprobs.ts';
import { minP } from './min-p.ts';
import type { SamplerOptions } from './options.ts';
import { arePenaltiesOff, penalties } from './penalties.ts';
import { temperature } from './temperature.ts';
import { topK } from './top-k.ts';
import { topP } from './top-p.ts';
import { typicalP } from './typical-p.ts';

/** The steps that `options` turn on, in order. A caller may put steps of its own anywhere in the list. */
export function buildChain(options: SamplerOptions, nVocab: number): SamplerStep[] {
  const chain: SamplerStep[] = [];
  if (!arePenaltiesOff(options)) chain.push(penalties(options, nVocab));
  // Only typical-p may drop the most likely token, so without it a greedy choice needs no truncation.
  const needsTruncation = options.temperature > 0 || options.typicalP < 1;
  if (needsTruncation) {
    if (options.topK > 0 && options.topK < nVocab) chain.push(topK(options.topK));
    if (options.typicalP < 1) chain.push(typicalP(options.typicalP));
    if (options.topP < 1) chain.push(topP(options.topP));
    if (options.minP > 0) chain.push(minP(options.minP));
  }
  if (options.temperature !== 1) chain.push(temperature(options.temperature));
  return chain;
}

/** Chooses the tokens of one sequence. */
export class Sampler {
  readonly nVocab: number;
  readonly chain: readonly SamplerStep[];
  readonly #candidates: Candidates;
  readonly #uniform = new Float64Array(1);
  #random: Random;
  #seed: number;
  #lastToken = -1;

  /**
   * @param options  from `resolveSamplerOptions`; not checked again
   * @param chain    the steps to run instead of those that `options` say; its history must be this sampler's own
   */
  constructor(options: SamplerOptions, nVocab: number, chain: readonly SamplerStep[] = buildChain(options, nVocab)) {
    this.nVocab = nVocab;
    this.chain = chain;
    this.#candidates = new Candidates(nVocab);
    this.#seed = options.seed;
    this.#random = new Random(options.seed);
  }

  /** What to give as `seed` to get the same tokens again. */
  get seed(): number {
    return this.#seed;
  }

  /**
   * Adds a token to the history that the penalties see: every token of the prompt, then each one sampled.
   * @throws {OptionError} for what is not a token of the vocabulary
   */
  accept(token: number): void {
    if (!(token >= 0 && token < this.nVocab && Number.isInteger(token))) throw tokenError(token, this.nVocab);
    for (let i = 0; i < this.chain.length; i++) this.chain[i]!.accept?.(token);
  }

  /**
   * The next token; does not accept it.
   * @param logits  f32[nVocab], read only; may view shared memory
   * @throws {ShapeError} for another length
   * @throws {SmallMindError} NUMERIC for NaN, +Infinity, or nothing but -Infinity
   */
  sample(logits: Float32Array): number {
    this.#requireVocab(logits);
    this.#candidates.load(logits);
    for (let i = 0; i < this.chain.length; i++) this.chain[i]!.apply(this.#candidates);
    this.#lastToken = this.#draw();
    return this.#lastToken;
  }

  /**
   * Log-probabilities of the last sampled token and of the `topN` most likely ones, in the model's own distribution.
   * @param logits  what that token was sampled from
   * @throws {SmallMindError} INTERNAL before the first `sample`
   */
  logprobs(logits: Float32Array, topN: number): StepLogprobs {
    this.#requireVocab(logits);
    assert(this.#lastToken >= 0, 'logprobs() before sample()');
    return computeLogprobs(logits, this.#lastToken, topN, this.#candidates);
  }

  /** Back to the beginning: forgets the history and restarts the random numbers, with another seed if one is given. */
  reset(seed = this.#seed): void {
    this.#random = new Random(seed);
    this.#seed = seed;
    this.#lastToken = -1;
    for (const step of this.chain) step.reset?.();
  }

  /** The candidate at which the cumulative probability passes a uniform random number. */
  #draw(): number {
    const candidates = this.#candidates;
    const { ids, probs, size } = candidates;
    // No softmax of a single candidate, but the refusal of an impossible one.
    if (size === 1) return ids[candidates.indexOfBest()]!;
    candidates.computeProbs();
    this.#random.fillUniform(this.#uniform);
    const target = this.#uniform[0]!;
    let sum = 0;
    // Should rounding leave the whole sum below the target, the last possible candidate is meant.
    let chosen = 0;
    for (let i = 0; i < size && sum <= target; i++) {
      if (probs[i]! > 0) chosen = i;
      sum += probs[i]!;
    }
    return ids[chosen]!;
  }

  #requireVocab(logits: Float32Array): void {
    if (logits.length === this.nVocab) return;
    throw new ShapeError(`"logits" expected ${this.nVocab} values, one a token, got ${logits.length}`);
  }
}

function tokenError(token: number, nVocab: number): OptionError {
  return new OptionError(`"token" expected an integer from 0 to ${nVocab - 1}, got ${token}`, {
    option: 'token',
    token,
  });
}
