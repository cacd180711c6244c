// Run by workspaces.test.ts in a worker: forwards of one model on several inputs, many times; posts all results.

import { parentPort, workerData } from 'node:worker_threads';
import { CONFIGS, buildForwards, buildModel, createForwards, runModel } from './models.ts';

interface Task {
  readonly name: keyof typeof CONFIGS;
  readonly length: number;
  readonly seeds: readonly number[];
  readonly nRounds: number;
}

const { name, length, seeds, nRounds } = workerData as Task;
const executor = await createForwards(buildForwards(buildModel(CONFIGS[name]), [length]), { nThreads: 2 });
const results: Float32Array[] = [];
for (let round = 0; round < nRounds; round++) {
  for (const seed of seeds) results.push(runModel(executor, 0, length, seed));
}
await executor.close();
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port has no origin
parentPort!.postMessage(results);
