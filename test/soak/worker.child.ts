// Run by heap.test.ts in a process of its own: lets the engine's worker generate texts, token by token, as a model's
// handle would, and prints, as JSON, the bytes of heap that a token costs in that worker, one number a text.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { resolveGenerateOptions, resolveLoadOptions } from '../../src/options.ts';
import type { FromWorker, ToWorker } from '../../src/worker-protocol.ts';

const N_TOKENS = 700;
const N_TEXTS = 18;

const [path, threads, samplerOptions] = process.argv.slice(2);
const worker = new Worker(new URL('./engine.worker.ts', import.meta.url));
const posted = new Int32Array(new SharedArrayBuffer(4));
const bytesPerToken: number[] = [];

function post(message: ToWorker): void {
  Atomics.add(posted, 0, 1);
  worker.postMessage(message);
}

async function answerOf(id: number): Promise<unknown> {
  for (;;) {
    const [message] = (await once(worker, 'message')) as [FromWorker];
    if (message.type === 'error') throw new Error(message.error.message);
    if (message.type === 'answer' && message.id === id) return message.value;
  }
}

worker.on('message', (message: { type: string; bytesPerPiece: number }) => {
  if (message.type === 'weighed') bytesPerToken.push(message.bytesPerPiece);
});
post({ id: 0, type: 'start', posted });
const loadOptions = resolveLoadOptions({ threads: Number(threads), nCtx: 1024 });
post({ id: 1, type: 'load', args: { source: { kind: 'file', path: path! }, options: loadOptions } });
const { model } = (await answerOf(1)) as { model: number };
for (let seed = 0; seed < N_TEXTS; seed++) {
  const options = {
    ...resolveGenerateOptions({ ...JSON.parse(samplerOptions!), seed, maxTokens: N_TOKENS }),
    ignoresEnd: true,
  };
  post({ id: 2 + seed, type: 'generate', args: { model, prompt: [1], options } });
  await answerOf(2 + seed);
}
await worker.terminate();
console.log(JSON.stringify(bytesPerToken));
