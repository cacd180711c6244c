// Run by memory.test.ts in a process of its own: generates many short texts, one after the other, and prints, as JSON,
// the resident memory after each, in bytes.

import { loadModel } from '../../src/index.ts';

const [path, thread, threads, nGenerations] = process.argv.slice(2);
const N_TOKENS = 12;
const PROMPTS = [
  'Once upon a time',
  'Lily and Tom went to the park.',
  'The little dog was very happy because',
  'One day',
];

const model = await loadModel(path!, { thread: thread as 'worker' | 'inline', threads: Number(threads) });
const residentBytes: number[] = [];
for (let i = 0; i < Number(nGenerations); i++) {
  const run = model.generate(PROMPTS[i % PROMPTS.length]!, { maxTokens: N_TOKENS, seed: i });
  let streamed = '';
  for await (const piece of run) streamed += piece;
  const { text } = await run.result;
  if (streamed !== text) throw new Error(`streamed ${JSON.stringify(streamed)}, the result is ${JSON.stringify(text)}`);
  residentBytes.push(process.memoryUsage.rss());
}
await model.close();
console.log(JSON.stringify(residentBytes));
