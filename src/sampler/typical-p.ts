// Locally typical sampling: keeps the candidates whose surprise -log p is nearest to its mean, the entropy, until their
// probabilities sum to more than p. It may drop the most likely token.
// Source: Meister et al. 2022, "Locally Typical Sampling" (arXiv:2202.00666).

import type { SamplerStep } from './candidates.ts';
import { keepMass } from './keep-mass.ts';

export function typicalP(p: number): SamplerStep {
  return {
    name: 'typical-p',
    apply(candidates) {
      candidates.computeProbs();
      const { keys, logits, probs, size } = candidates;
      // log p is the logit less a constant, which cancels in -log p - entropy: what remains is mean logit - logit.
      let mean = 0;
      for (let i = 0; i < size; i++) {
        if (probs[i]! > 0) mean += probs[i]! * logits[i]!;
      }
      // An impossible token is infinitely far from the mean and comes last.
      for (let i = 0; i < size; i++) keys[i] = -Math.abs(logits[i]! - mean);
      keepMass(candidates, p, true);
    },
  };
}
