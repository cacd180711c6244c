// The last step of the chain: divides the logits by the temperature, which flattens (above 1) or sharpens (below 1)
// their distribution; at 0 or below it keeps the most likely token only.

import type { SamplerStep } from './candidates.ts';

export function temperature(value: number): SamplerStep {
  if (value <= 0) return greedy;
  return {
    name: 'temperature',
    apply(candidates) {
      const { logits, size } = candidates;
      // Relative to the best, so that no temperature, however small, overflows to infinity minus infinity.
      const max = logits[candidates.indexOfBest()]!;
      for (let i = 0; i < size; i++) logits[i] = (logits[i]! - max) / value;
    },
  };
}

const greedy: SamplerStep = {
  name: 'greedy',
  apply(candidates) {
    candidates.move(candidates.indexOfBest(), 0);
    candidates.size = 1;
  },
};
