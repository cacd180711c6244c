// gpt-oss: experts with biases and a clamped gate, attention with sinks, of which every other layer has a window.

import { decoder } from './decoder.ts';

export const gptOss = decoder((_, { count }) => {
  const window = count('attention.sliding_window', 128);
  return {
    pairing: 'halves',
    ffnNorm: 'post_attention_norm',
    hasSinks: true,
    experts: { activation: 'swigluOai' },
    windowOf: (layer) => (layer % 2 === 0 ? window : undefined),
  };
});
