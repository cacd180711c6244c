// EXAONE, as llama with NeoX's pairs of rotary positions. EXAONE 4 has norms behind attention and the feed-forward
// part, not before them, and of queries and keys.

import { decoder } from './decoder.ts';
import { windowed } from './parameters.ts';

export const exaone = decoder(() => ({ pairing: 'halves' }));

/** In the model of 32B, which its depth tells, most layers see a window of positions, and the others no positions. */
export const exaone4 = decoder((p, { count }, gguf) => {
  const isWindowed = p.hyperParameters.nLayer === 64 ? windowed(gguf, p, 4) : undefined;
  const window = count('attention.sliding_window', 4096);
  return {
    pairing: 'halves',
    norms: 'behind',
    qkNorm: 'head',
    windowOf: (layer) => (isWindowed?.(layer) ? window : undefined),
    ropeOf: (layer, rope) => (!isWindowed || isWindowed(layer) ? rope : undefined),
  };
});
