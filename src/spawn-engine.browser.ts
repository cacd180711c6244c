// Starts the engine's worker in a page, and for it the pool's threads. Apart from what workers import: a bundler
// follows the URL wherever it stands.

import type { WorkerHandle } from './base/platform.ts';
import { startPoolThread } from './spawn-pool.browser.ts';
import { spawn } from './spawn.browser.ts';

/** Bundlers know a worker by these very words, all of them literals. */
const startEngine = (): Worker =>
  new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'smallmind-engine' });

export const spawnEngineWorker = (): WorkerHandle => spawn(startEngine, startPoolThread);
