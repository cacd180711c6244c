// Lets a model tell stories and writes them to a file, `<|endoftext|>` between them: text to train a smaller or another
// model on. Strict kernels and counted seeds: the same command writes the same bytes on any machine.
//   node --conditions=smallmind-source scripts/stories/tell.ts MODEL OUT --count 1000 --seed 1 --temperature 0.8

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { loadModel } from '../../src/index.ts';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    temperature: { type: 'string', default: '0.8' },
    'top-p': { type: 'string', default: '0.95' },
    parallel: { type: 'string', default: '32' },
  },
});
const [modelPath, outPath] = positionals;
if (!modelPath || !outPath) throw new Error('usage: tell.ts MODEL OUT [--count N] [--seed N] [--temperature T]');
const [count, seed, parallel] = [Number(flags.count), Number(flags.seed), Number(flags.parallel)];
const sampling = { temperature: Number(flags.temperature), topP: Number(flags['top-p']), topK: 0, minP: 0 };

/** Texts that a model of its own accord put one after the other: its BOS stands between them. */
const BOS = 1;
/** Shorter ones are fragments. */
const LENGTH_MIN = 100;

await using model = await loadModel(modelPath, { kernels: 'strict', thread: 'inline', parallel });
const stories: string[] = [];

/** Generation number `n`, or nothing if the context filled up before the story ended. */
async function tell(n: number): Promise<string | undefined> {
  const { text, finishReason } = await model.generate('', {
    ...sampling,
    seed: seed * 1_000_000 + n,
    stopTokens: [BOS],
  }).result;
  const story = text.replaceAll('<|end_story|>', '').trim();
  return finishReason === 'stop' && story.length >= LENGTH_MIN ? story : undefined;
}

for (let n = 0; n < count; n += parallel) {
  const batch = Array.from({ length: Math.min(parallel, count - n) }, (_, i) => tell(n + i));
  for (const story of await Promise.all(batch)) if (story !== undefined) stories.push(story);
  if (process.stderr.isTTY) process.stderr.write(`\r${n + batch.length} of ${count}`);
}
writeFileSync(outPath, stories.join('<|endoftext|>'));
console.log(`${stories.length} stories, ${stories.reduce((sum, s) => sum + s.length, 0)} characters`);
