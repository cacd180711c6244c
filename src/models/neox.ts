// What comes from GPT-NeoX: LayerNorm with biases, rotation of a part of each head in NeoX's pairs, and in some of them
// attention and the feed-forward part side by side.

import { decoder } from './decoder.ts';
import { unsupported } from './parameters.ts';

export const gptneox = decoder((_p, _read, { metadata }) => ({
  norm: 'layer',
  pairing: 'halves',
  isGated: false,
  parallel: metadata.getBoolean('gptneox.use_parallel_residual', true) ? 'ownNorm' : undefined,
}));

export const phi2 = decoder(() => ({ norm: 'layer', pairing: 'halves', isGated: false, parallel: 'shared' }));

/** Falcon 7B. */
export const falcon = decoder((_p, _read, gguf) => {
  if (gguf.tensors.has('blk.0.attn_norm_2.weight')) {
    throw unsupported(gguf, 'a second norm beside the first, as Falcon 40B has,', 'Falcon 7B runs');
  }
  return { norm: 'layer', pairing: 'halves', isGated: false, parallel: 'shared' };
});

export const orion = decoder(() => ({ norm: 'layer', pairing: 'halves' }));

export const starcoder2 = decoder(() => ({ norm: 'layer', pairing: 'halves', isGated: false }));

/** A layer without a norm before its feed-forward part has it beside attention. */
export const stablelm = decoder((_p, _read, gguf) => {
  if (gguf.tensors.has('blk.0.attn_q_norm.weight')) {
    throw unsupported(gguf, 'a norm for each head, as Stable LM 2 12B has,', 'the models of 1.6B and 3B run');
  }
  const isParallel = !gguf.tensors.has('blk.0.ffn_norm.weight');
  return { norm: 'layer', pairing: 'halves', parallel: isParallel ? 'shared' : undefined };
});

/** Phi-3 and Phi-4: llama with joint matrices, and factors for frequencies that depend on the context's size. */
export const phi3 = decoder(() => ({ pairing: 'halves' }));
