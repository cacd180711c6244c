// The first step of the chain: makes tokens of the recent text less likely. Three penalties as llama.cpp defines them:
// repeat (divides a positive logit, multiplies any other; Keskar et al. 2019, "CTRL"), frequency (once an occurrence)
// and presence (once a token; both as in OpenAI's API), over a window of the last tokens, prompt included.

import type { SamplerStep } from './candidates.ts';
import type { SamplerOptions } from './options.ts';

export type PenaltyOptions = Pick<
  SamplerOptions,
  'repeatPenalty' | 'repeatLastN' | 'frequencyPenalty' | 'presencePenalty'
>;

export function arePenaltiesOff(options: PenaltyOptions): boolean {
  const { repeatPenalty, repeatLastN, frequencyPenalty, presencePenalty } = options;
  return repeatLastN === 0 || (repeatPenalty === 1 && frequencyPenalty === 0 && presencePenalty === 0);
}

/** `repeatLastN` must be at least 1; accepted tokens must be below `nVocab`. */
export function penalties(options: PenaltyOptions, nVocab: number): SamplerStep {
  const { repeatPenalty, repeatLastN, frequencyPenalty, presencePenalty } = options;
  // A ring of the window's tokens, and how often each token of the vocabulary occurs in it.
  const window = new Int32Array(repeatLastN);
  const counts = new Int32Array(nVocab);
  let nAccepted = 0;
  let next = 0;

  return {
    name: 'penalties',
    apply({ ids, logits, size }) {
      for (let i = 0; i < size; i++) {
        const count = counts[ids[i]!]!;
        if (count === 0) continue;
        const logit = logits[i]!;
        const repeated = logit > 0 ? logit / repeatPenalty : logit * repeatPenalty;
        logits[i] = repeated - count * frequencyPenalty - presencePenalty;
      }
    },
    accept(token) {
      if (nAccepted < repeatLastN) nAccepted++;
      else counts[window[next]!]!--;
      window[next] = token;
      counts[token]!++;
      next = next + 1 === repeatLastN ? 0 : next + 1;
    },
    reset() {
      counts.fill(0);
      nAccepted = 0;
      next = 0;
    },
  };
}
