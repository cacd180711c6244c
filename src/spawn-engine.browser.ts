// Starts the engine's worker in a page. Apart from what workers import: a bundler follows the URL wherever it stands.

import type { WorkerHandle } from './base/platform.ts';
import { spawn } from './spawn.browser.ts';

/** Bundlers know a worker by these very words. */
export const spawnEngineWorker = (): WorkerHandle =>
  spawn(() => new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' }));
