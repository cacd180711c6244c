// A process of its own for wide-vectors.slow.test.ts, which starts it with and without V8's flag for 256-bit vectors.
// Prints, as its last line, what the logits of random models of all kinds of weights and caches hash to.
//   node wide-vectors.child.ts THREADS

import { createHash } from 'node:crypto';
import { BLOCK_FORMATS } from '../../src/base/dtype.ts';
import type { DType } from '../../src/base/dtype.ts';
import { loadModel } from '../../src/index.ts';
import type { LoadOptions } from '../../src/index.ts';
import { randomLlamaGguf } from '../random-model.ts';

const DTYPES: readonly DType[] = [
  ...(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'IQ4_NL', 'MXFP4'] as const),
  ...(['Q3_K', 'Q4_K', 'Q6_K', 'IQ1_S', 'IQ2_XS', 'IQ3_XXS'] as const),
];
const OPTIONS: readonly LoadOptions[] = [
  { kernels: 'auto' },
  { kernels: 'strict', kvType: 'F32' },
  { kernels: 'simd', activations: 'f32', kvType: 'Q8_0' },
];

/** Rows of blocks of 256. */
const WHOLE_BLOCKS = { nHead: 8, headDim: 32 };

const threads = Number(process.argv[2]);
const hashes: Record<string, string> = {};
for (const dtype of DTYPES) {
  // Neither groups of eight nor tiles come out even.
  const shape = { nLayer: 2, nEmbd: 256, nHead: 6, nHeadKv: 2, headDim: 32, nFf: 512, nVocab: 301, nCtx: 128 };
  const bytes = randomLlamaGguf({
    seed: 3,
    dtype,
    tied: false,
    ...shape,
    ...(BLOCK_FORMATS[dtype].blockElements === 256 ? WHOLE_BLOCKS : {}),
  });
  for (const options of OPTIONS) {
    await using model = await loadModel(bytes, { thread: 'inline', threads, prefillChunk: 37, ...options });
    const tokens = Array.from({ length: 90 }, (_, i) => 3 + ((i * 29) % 256));
    const hash = createHash('sha256').update(await model.logits(tokens, { all: true }));
    const { tokens: chosen } = await model.generate(tokens, { temperature: 0, maxTokens: 12 }).result;
    hashes[`${dtype} ${JSON.stringify(options)}`] = hash.update(chosen.join()).digest('hex');
  }
}
console.log(`\n${JSON.stringify(hashes)}`);
