// That sampling allocates nothing, measured where nothing else runs: a child process with a young generation large
// enough that no collection hides the growth of the heap.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

const CALLS = 5_000;

/** Prints the heap growth, in bytes, of one sample() and accept(), once the engine has compiled them. */
const PROGRAM = `
  const { Sampler } = await import(${JSON.stringify(new URL('./sampler.ts', import.meta.url).href)});
  const { resolveSamplerOptions } = await import(${JSON.stringify(new URL('./options.ts', import.meta.url).href)});
  const nVocab = 500;
  const logits = Float32Array.from({ length: nVocab }, (_, i) => (((i * 7919) % nVocab) / nVocab) * 12);
  const sampler = new Sampler(resolveSamplerOptions(JSON.parse(process.argv[1])), nVocab);
  // In tens, because the engine compiles one long loop anew each time it runs, and that memory is not the sampler's.
  const sampleTen = () => {
    for (let i = 0; i < 10; i++) sampler.accept(sampler.sample(logits));
  };
  const run = (calls) => {
    for (let i = 0; i < calls; i += 10) sampleTen();
  };
  run(20_000);
  // Compiling a function late costs some kilobytes once; what a call allocates shows in every round.
  let least = Infinity;
  for (let round = 0; round < 12; round++) {
    gc();
    const before = process.memoryUsage().heapUsed;
    run(${CALLS});
    least = Math.min(least, (process.memoryUsage().heapUsed - before) / ${CALLS});
  }
  console.log(least);
`;

function bytesPerCall(options: object): number {
  const flags = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64', '--input-type=module'];
  const args = [...flags, '--eval', PROGRAM, JSON.stringify({ seed: 7, ...options })];
  return Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

const CASES = {
  'the defaults': {},
  'a greedy choice': { temperature: 0 },
  'every step at once': { typicalP: 0.95, repeatPenalty: 1.1, frequencyPenalty: 0.1, presencePenalty: 0.1 },
  'the whole vocabulary': { topK: 0 },
};

for (const [name, options] of Object.entries(CASES)) {
  test(`sampling with ${name} allocates less than a byte a call`, () => {
    const bytes = bytesPerCall(options);
    assert.ok(bytes < 1, `${bytes} bytes a call`);
  });
}
