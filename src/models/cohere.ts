// Cohere's models: LayerNorm without biases, attention and the feed-forward part side by side, logits that are scaled.

import { decoder } from './decoder.ts';
import type { Differences } from './decoder.ts';
import { normsOfHeads, windowed } from './parameters.ts';

const common: Differences = { norm: 'layer', hasNormBias: false, parallel: 'shared' };

/** Command R; Command R+ has norms for each head. */
export const commandR = decoder((_p, { nonNegative }, gguf) => ({
  ...common,
  qkNorm: normsOfHeads(gguf),
  // 0 means that there is none.
  logitScale: nonNegative('logit_scale', 0) || 1,
}));

/** Command R7B: most layers see a window of positions, and the others no positions. */
export const cohere2 = decoder((p, { count, nonNegative }, gguf) => {
  const window = count('attention.sliding_window');
  const isWindowed = windowed(gguf, p, 4);
  return {
    ...common,
    logitScale: nonNegative('logit_scale') || 1,
    windowOf: (layer) => (isWindowed(layer) ? window : undefined),
    ropeOf: (layer, rope) => (isWindowed(layer) ? rope : undefined),
  };
});
