// Run by memory.test.ts in a process of its own: loads a model, lets it say a few tokens and closes it, many times, and
// prints, as JSON, the resident memory after each time, in bytes. That the process ends by itself is part of the test.

import { loadModel } from '../../src/index.ts';

const [path, thread, threads, nCycles] = process.argv.slice(2);
const options = { thread: thread as 'worker' | 'inline', threads: Number(threads) };

const residentBytes: number[] = [];
for (let i = 0; i < Number(nCycles); i++) {
  const model = await loadModel(path!, options);
  const { tokens } = await model.generate('Once upon a time', { maxTokens: 3, seed: i }).result;
  if (tokens.length !== 3) throw new Error(`${tokens.length} tokens`);
  await model.close();
  residentBytes.push(process.memoryUsage.rss());
}
console.log(JSON.stringify(residentBytes));
