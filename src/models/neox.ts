// What comes from GPT-NeoX: LayerNorm with biases, rotation of a part of each head in NeoX's pairs, and in some of them
// attention and the feed-forward part side by side.

import { decoder } from './decoder.ts';
import { normsOfHeads } from './parameters.ts';

export const gptneox = decoder((_p, _read, { metadata }) => ({
  norm: 'layer',
  pairing: 'halves',
  isGated: false,
  parallel: metadata.getBoolean('gptneox.use_parallel_residual', true) ? 'ownNorm' : undefined,
}));

export const phi2 = decoder(() => ({ norm: 'layer', pairing: 'halves', isGated: false, parallel: 'shared' }));

/** Of Falcon 40B and 180B attention has a norm of its own, the second. */
export const falcon = decoder((_p, _read, gguf) => {
  const common = { norm: 'layer', pairing: 'halves', isGated: false } as const;
  if (!gguf.tensors.has('blk.0.attn_norm_2.weight')) return { ...common, parallel: 'shared' };
  return { ...common, parallel: 'ownNorm', attnNorm: 'attn_norm_2', ffnNorm: 'attn_norm' };
});

export const orion = decoder(() => ({ norm: 'layer', pairing: 'halves' }));

export const starcoder2 = decoder(() => ({ norm: 'layer', pairing: 'halves', isGated: false }));

/**
 * A layer without a norm before its feed-forward part has it beside attention; such is Stable LM 2 12B, which has norms
 * for each head, too.
 */
export const stablelm = decoder((_p, _read, gguf) => {
  const isParallel = !gguf.tensors.has('blk.0.ffn_norm.weight');
  return {
    norm: 'layer',
    pairing: 'halves',
    qkNorm: normsOfHeads(gguf),
    parallel: isParallel ? 'shared' : undefined,
  };
});

/** Phi-3 and Phi-4: llama with joint matrices, and factors for frequencies that depend on the context's size. */
export const phi3 = decoder(() => ({ pairing: 'halves' }));
