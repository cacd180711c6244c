// Gemma: embeddings multiplied by √nEmbd, GELU in the gated MLP. The norms' 1 + weight is in the file's weights. From
// Gemma 2 on, norms on both sides, and most layers see a window of positions only.

import { decoder } from './decoder.ts';
import type { Differences } from './decoder.ts';
import type { HyperParameters } from './model.ts';

const common = ({ nEmbd }: HyperParameters): Differences => ({
  pairing: 'halves',
  activation: 'gelu',
  embeddingScale: Math.fround(Math.sqrt(nEmbd)),
});

/** The 27B models of Gemma 2 and 3 scale scores by the width that heads would have; their depth tells them. */
const scaleOf = ({ nEmbd, nHead, headDim, nLayer }: HyperParameters, nLayerOf27B: number): number =>
  1 / Math.sqrt(nLayer === nLayerOf27B ? nEmbd / nHead : headDim);

export const gemma = decoder(({ hyperParameters }) => common(hyperParameters));

/** Every second layer sees all positions; scores and logits are capped. */
export const gemma2 = decoder(({ hyperParameters: p }, { positive, count }) => {
  const window = count('attention.sliding_window', 4096);
  return {
    ...common(p),
    norms: 'both',
    attentionScale: scaleOf(p, 46),
    attentionSoftcap: positive('attn_logit_softcapping', 50),
    logitSoftcap: positive('final_logit_softcapping', 30),
    windowOf: (layer) => (layer % 2 === 0 ? window : undefined),
  };
});

/** Every sixth layer sees all positions; the others have rotary positions of their own base, never stretched. */
export const gemma3 = decoder(({ hyperParameters: p }, { count, positive, fromOne }, { metadata }) => {
  const has = (key: string): boolean => metadata.has(`gemma3.${key}`);
  const window = has('attention.sliding_window') ? count('attention.sliding_window') : undefined;
  const isLocal = (layer: number): boolean => window !== undefined && layer % 6 < 5;
  const freqBase = fromOne('rope.freq_base_swa', 10000);
  return {
    ...common(p),
    norms: 'both',
    qkNorm: 'head',
    attentionScale: scaleOf(p, 62),
    logitSoftcap: has('final_logit_softcapping') ? positive('final_logit_softcapping') : undefined,
    windowOf: (layer) => (isLocal(layer) ? window : undefined),
    ropeOf: (layer, rope) => (isLocal(layer) ? { ...rope, freqBase, freqScale: 1, table: 'local' } : rope),
  };
});
