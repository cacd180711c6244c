// Run by heap.test.ts in a process of its own: texts come from the engine's worker, and it prints, as JSON, the bytes
// of heap that a token costs in this thread: its message alone, and with a loop that reads the pieces.

import { loadModel } from '../../src/index.ts';

const N_TOKENS = 500;
const N_TEXTS = 5;
const N_WARM_UP = 3;

const model = await loadModel(process.argv[2]!, { threads: 1, nCtx: N_TOKENS + 1 });

/** Generates `N_TEXTS` texts. @returns how many tokens they had */
async function generateTexts(isRead: boolean): Promise<number> {
  let nTokens = 0;
  for (let seed = 0; seed < N_TEXTS; seed++) {
    const run = model.generate('', { seed, maxTokens: N_TOKENS });
    let length = 0;
    if (isRead) for await (const piece of run) length += piece.length;
    const { text, tokens } = await run.result;
    if (isRead && length !== text.length) throw new Error(`read ${length} characters of ${text.length}`);
    nTokens += tokens.length;
  }
  return nTokens;
}

async function measure(isRead: boolean): Promise<{ bytesPerToken: number; nTokens: number }> {
  for (let i = 0; i < N_WARM_UP; i++) await generateTexts(isRead);
  gc!();
  const before = process.memoryUsage().heapUsed;
  const nTokens = await generateTexts(isRead);
  return { bytesPerToken: (process.memoryUsage().heapUsed - before) / nTokens, nTokens };
}

const message = await measure(false);
const read = await measure(true);
await model.close();
console.log(JSON.stringify({ message, read }));
