// Starts workers where no bundler has been (dist/browser/): they are modules of the package as they lie on a server,
// which may be another one than the page's.

import type { WorkerHandle } from './base/platform.ts';
import { ENGINE_NAME, spawn, spawnHereOrAbove } from './spawn.browser.ts';

/** Module → the script of this origin that imports it. */
const scripts = new Map<string, string>();

/** A worker's script has to be of the page's own origin; what it imports need not be. */
function startModule({ href, origin }: URL, name?: string): Worker {
  if (origin === globalThis.origin) return new Worker(href, { type: 'module', name });
  let script = scripts.get(href);
  if (script === undefined) {
    script = URL.createObjectURL(new Blob([`import ${JSON.stringify(href)};`], { type: 'text/javascript' }));
    scripts.set(href, script);
  }
  return new Worker(script, { type: 'module', name });
}

const startEngine = (): Worker => startModule(new URL('./worker.ts', import.meta.url), ENGINE_NAME);
const startPoolThread = (): Worker => startModule(new URL('./backend/wasm/pool-thread.ts', import.meta.url));

export const spawnEngineWorker = (): WorkerHandle => spawn(startEngine, startPoolThread);
export const spawnPoolThread = (): WorkerHandle => spawnHereOrAbove(startPoolThread);
