// Preloaded by process.test.ts into a program, and by itself into all of its workers: a thread of the pool dies amid a
// step, as DEATH says, after it has done some. Thread 0, which waits for it at the barrier, is left alone.

import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { WorkerOptions } from 'node:worker_threads';

const N_STEPS = 100;
const THREAD = 1;
const DEATHS: Readonly<Record<string, () => void>> = {
  exit: () => process.exit(3),
  memory() {
    for (const hoard: number[][] = []; ;) hoard.push(Array.from({ length: 1e5 }, (_, i) => i + 0.5));
  },
};
const die = DEATHS[process.env['DEATH']!]!;

const threads = createRequire(import.meta.url)('node:worker_threads') as typeof import('node:worker_threads');
threads.Worker = class extends threads.Worker {
  constructor(url: URL, options: WorkerOptions) {
    const execArgv = [...options.execArgv!, '--import', import.meta.url];
    super(url, { ...options, execArgv, resourceLimits: { ...options.resourceLimits, maxOldGenerationSizeMb: 32 } });
  }
};
syncBuiltinESMExports();

type Run = (program: number, nInstructions: number, thread: number, nThreads: number) => void;

// Only the threads of the pool make instances this way.
let nSteps = 0;
const { Instance } = WebAssembly;
Object.assign(WebAssembly, {
  Instance: function (module: WebAssembly.Module, imports: WebAssembly.Imports) {
    const { exports } = new Instance(module, imports);
    const run: Run = (...args) => {
      if (args[2] === THREAD && ++nSteps === N_STEPS) die();
      (exports['run'] as Run)(...args);
    };
    return { exports: { ...exports, run } };
  },
});
