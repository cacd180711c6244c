// Starts a thread of the pool, in a page or a worker. Apart from what threads import: a bundler follows the URL
// wherever it stands.

import type { WorkerHandle } from './base/platform.ts';
import { spawnHereOrAbove } from './spawn.browser.ts';

/** Bundlers know a worker by these very words. */
export const startPoolThread = (): Worker =>
  new Worker(new URL('./backend/wasm/pool-thread.ts', import.meta.url), { type: 'module' });

export const spawnPoolThread = (): WorkerHandle => spawnHereOrAbove(startPoolThread);
