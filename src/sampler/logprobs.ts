// Log-probabilities for the caller who asks: of the model's own distribution, before penalties, truncation and
// temperature, as OpenAI's API reports them. Off the hot path, so it returns plain objects.

import { exp, log } from '../base/math.ts';
import type { Candidates } from './candidates.ts';
import { sortBestFirst } from './top-k.ts';

export interface TokenLogprob {
  readonly token: number;
  /** Natural logarithm of the probability, at most 0; -Infinity for an impossible token. */
  readonly logprob: number;
}

export interface StepLogprobs {
  readonly chosen: TokenLogprob;
  /** The most likely tokens, best first; of equal ones the lower id first. */
  readonly top: readonly TokenLogprob[];
}

/**
 * Log-softmax in float64 of `logits`, for `token` and the best `topN` (as many as there are).
 * @param logits   f32[nVocab], read only
 * @param scratch  overwritten
 * @throws {SmallMindError} NUMERIC as sampling does
 */
export function computeLogprobs(logits: Float32Array, token: number, topN: number, scratch: Candidates): StepLogprobs {
  scratch.load(logits);
  // Refuses logits that have no softmax.
  scratch.computeProbs();
  const max = scratch.logits[scratch.indexOfBest()]!;
  let sum = 0;
  for (let i = 0; i < scratch.size; i++) sum += exp(scratch.logits[i]! - max);
  const logSum = log(sum);
  const logprobOf = (id: number): TokenLogprob => ({ token: id, logprob: logits[id]! - max - logSum });

  const nTop = Math.min(topN, scratch.size);
  if (nTop > 0) sortBestFirst(scratch, nTop);
  return { chosen: logprobOf(token), top: Array.from(scratch.ids.subarray(0, nTop), logprobOf) };
}
