// Nucleus sampling: keeps the most likely candidates until their probabilities sum to p or more.
// Source: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration" (arXiv:1904.09751).

import type { SamplerStep } from './candidates.ts';
import { keepMass } from './keep-mass.ts';

export function topP(p: number): SamplerStep {
  return {
    name: 'top-p',
    apply(candidates) {
      candidates.computeProbs();
      const { keys, logits, size } = candidates;
      for (let i = 0; i < size; i++) keys[i] = logits[i]!;
      keepMass(candidates, p, false);
    },
  };
}
