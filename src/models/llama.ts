// The llama family. llama (Llama, Mistral, SmolLM, TinyLlama …): pre-norm blocks of rotary attention with grouped heads
// and a gated MLP, RMSNorm, and an output matrix that may be the embedding table. Biases are where the file has them.

import { decoder } from './decoder.ts';
import type { DifferencesOf } from './decoder.ts';
import { windowed } from './parameters.ts';

export const llama = decoder();
export const internlm2 = decoder();
export const ernie45 = decoder();
export const xverse = decoder();

/** GLM-4: norms on both sides, gate and up in one matrix, half of a head rotated. */
export const glm4 = decoder(() => ({ norms: 'both' }));

/** Granite, dense and with experts: multipliers in the four places where others have none. */
const ofGranite: DifferencesOf = ({ hyperParameters: p }, { positive }, { metadata }) => ({
  embeddingScale: positive('embedding_scale', 1),
  residualScale: positive('residual_scale', 1),
  attentionScale: metadata.has(`${p.architecture}.attention.scale`) ? positive('attention.scale') : undefined,
  logitScale: 1 / positive('logit_scale', 1),
});
export const granite = decoder(ofGranite);
export const granitemoe = decoder(ofGranite);

/** MiniCPM: Granite's multipliers, with defaults for old files that name none. */
export const minicpm = decoder(({ hyperParameters: { nLayer, nEmbd } }, { positive }) => ({
  embeddingScale: positive('embedding_scale', 12),
  residualScale: positive('residual_scale', 1.4 / Math.sqrt(nLayer)),
  logitScale: 1 / positive('logit_scale', 256 / nEmbd),
}));

/** Of every so many layers of SmolLM3, the last does not see positions. */
const SMOLLM3_NO_ROPE_STEP = 4;

export const smollm3 = decoder(() => ({
  ropeOf: (layer, rope) => ((layer + 1) % SMOLLM3_NO_ROPE_STEP === 0 ? undefined : rope),
}));

/**
 * OLMo 2: norms behind attention and the feed-forward part, not before them, and of queries and keys. OLMo 3 has layers
 * with a window besides, whose rotary positions are never stretched.
 */
export const olmo2 = decoder((p, { natural }, gguf) => {
  const window = natural('attention.sliding_window', 0);
  const isWindowed = windowed(gguf, p, 4);
  const isLocal = (layer: number): boolean => window > 0 && isWindowed(layer);
  return {
    pairing: 'halves',
    norms: 'behind',
    qkNorm: 'row',
    windowOf: (layer) => (isLocal(layer) ? window : undefined),
    ropeOf: (layer, rope) =>
      isLocal(layer) ? { ...rope, freqScale: 1, attnFactor: 1, yarn: undefined, table: 'local' } : rope,
  };
});

/** OLMoE: experts that keep their share of all; norms of queries and keys, and before each part. */
export const olmoe = decoder(() => ({ pairing: 'halves', qkNorm: 'row', experts: { isNormalised: false } }));
