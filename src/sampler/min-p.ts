// Keeps the candidates at least `p` times as likely as the most likely one: a difference of logits, so no softmax.
// Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling" (arXiv:2407.01082).

import { log } from '../base/math.ts';
import type { SamplerStep } from './candidates.ts';

/** `p` must be above 0. */
export function minP(p: number): SamplerStep {
  const logP = log(p);
  return {
    name: 'min-p',
    apply(candidates) {
      const { logits, size } = candidates;
      const best = candidates.indexOfBest();
      const threshold = logits[best]! + logP;
      let kept = 0;
      for (let i = 0; i < size; i++) {
        if (logits[i]! >= threshold) candidates.move(i, kept++);
      }
      candidates.size = kept;
    },
  };
}
