// Qwen, dense and with experts. As llama, with NeoX's pairs of rotary positions; Qwen 2 has biases of queries, keys and
// values, Qwen 3 has norms of each head of queries and keys instead.

import { decoder } from './decoder.ts';

export const qwen2 = decoder(() => ({ pairing: 'halves' }));

export const qwen2moe = decoder(() => ({ pairing: 'halves', experts: { isNormalised: false } }));

export const qwen3 = decoder(() => ({ pairing: 'halves', qkNorm: 'head' }));
