// Qwen, dense and with experts. As llama, with NeoX's pairs of rotary positions; Qwen 2 has biases of queries, keys and
// values, Qwen 3 has norms of each head of queries and keys instead.

import { decoder } from './decoder.ts';
import type { Differences } from './decoder.ts';

export const qwen2 = decoder(() => ({ pairing: 'halves' }));

export const qwen2moe = decoder(() => ({ pairing: 'halves', experts: { isNormalised: false } }));

const ofQwen3 = (): Differences => ({ pairing: 'halves', qkNorm: 'head' });
export const qwen3 = decoder(ofQwen3);
export const qwen3moe = decoder(ofQwen3);

/** Seed-OSS: Qwen 2's layers, with another name for the norm before the feed-forward part. */
export const seedOss = decoder(() => ({ pairing: 'halves', ffnNorm: 'post_attention_norm' }));
