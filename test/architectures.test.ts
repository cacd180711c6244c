// Every decoder architecture with the engine's ways of sharing: texts that run together, and texts whose beginning is
// in the cache already, are what they are alone. Prompts are longer than the windows. What is right, peers/ says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadModel } from '../src/index.ts';
import type { LoadOptions } from '../src/index.ts';
import { FILE_KINDS, randomDecoderGguf } from './random-decoder.ts';
import type { DecoderShape } from './random-decoder.ts';

const SHAPE: DecoderShape = {
  seed: 3,
  dtype: 'Q8_0',
  nLayer: 6,
  nEmbd: 64,
  nHead: 4,
  nHeadKv: 2,
  headDim: 16,
  nFf: 96,
  nVocab: 300,
  nCtx: 160,
};
const BEGINNING = 'It was a bright cold day in April, and nobody was there to see it. ';
const PROMPTS = [
  BEGINNING,
  `${BEGINNING}And then they came.`,
  'Fifty-five jugs of wine, and a few more, make quite a party.',
];
/** The same bits whatever runs beside it. */
const OPTIONS: LoadOptions = { thread: 'inline', kernels: 'strict', threads: 1, prefillChunk: 16 };

for (const [name, kind] of Object.entries(FILE_KINDS)) {
  test(`${name}: texts together, and with a beginning that is known, are what they are alone`, async () => {
    const bytes = randomDecoderGguf(kind, SHAPE);
    const generate = async (model: Awaited<ReturnType<typeof loadModel>>, prompt: string): Promise<readonly number[]> =>
      (await model.generate(prompt, { maxTokens: 12, temperature: 0 }).result).tokens;
    const alone: (readonly number[])[] = [];
    for (const prompt of PROMPTS) {
      await using model = await loadModel(bytes.buffer, OPTIONS);
      alone.push(await generate(model, prompt));
    }
    await using model = await loadModel(bytes.buffer, { ...OPTIONS, parallel: PROMPTS.length });
    assert.deepEqual(await Promise.all(PROMPTS.map((prompt) => generate(model, prompt))), alone, 'together');
    for (const [i, prompt] of PROMPTS.entries()) assert.deepEqual(await generate(model, prompt), alone[i], prompt);
  });
}
