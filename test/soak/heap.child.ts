// Run by heap.test.ts in a process of its own: generates token by token on an engine in this thread and prints, as
// JSON, the bytes of heap that a token costs inside step() and sample(), one number a text.

import { readFile } from 'node:fs/promises';
import { memorySource } from '../../src/base/byte-source.ts';
import { LocalModel } from '../../src/local-model.ts';
import { resolveLoadOptions } from '../../src/options.ts';
import { resolveSamplerOptions } from '../../src/sampler/options.ts';
import { Sampler } from '../../src/sampler/sampler.ts';

const BOS = 1;
/** The cache is full after two texts: in the others blocks are evicted, too. */
const N_TOKENS = 700;
const N_TEXTS = 18;

const [path, threads, samplerOptions] = process.argv.slice(2);
const options = resolveLoadOptions({ threads: Number(threads), nCtx: 1024 });
const model = await LocalModel.load(memorySource(await readFile(path!)), options);
const { engine } = model;

/** Heap growth, in bytes, of `N_TOKENS` steps of a text that has begun, less what the measurement itself costs. */
function measureText(seed: number): number {
  let isDone = false;
  engine.start({
    tokens: [BOS],
    nGenerateMax: N_TOKENS + 2,
    sampler: new Sampler(resolveSamplerOptions({ ...JSON.parse(samplerOptions!), seed }), engine.nVocab),
    onFinish: () => (isDone = true),
    onError: (error) => {
      throw error;
    },
  });
  engine.step();
  const growth = measureSteps(N_TOKENS) - measureSteps(0);
  if (isDone) throw new Error('the text ended among the measured steps');
  engine.step();
  if (!isDone) throw new Error('the text did not end after the measured steps');
  return growth;
}

function measureSteps(n: number): number {
  gc!();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < n; i += 10) stepTen();
  return process.memoryUsage().heapUsed - before;
}

/** In tens, because V8 compiles one long loop anew each time it runs, and that memory is not the engine's. */
function stepTen(): void {
  for (let i = 0; i < 10; i++) engine.step();
}

const bytesPerToken: number[] = [];
for (let seed = 0; seed < N_TEXTS; seed++) bytesPerToken.push(measureText(seed) / N_TOKENS);
await model.close();
console.log(JSON.stringify(bytesPerToken));
