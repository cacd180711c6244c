// The browser half of the platform: isolation, cores, the port to the page. Workers are started by spawn-*.browser.ts.

import type { Cores, ParentPort, Platform } from './base/platform.ts';

/** The parts of a worker's global scope that are used here; lib.dom describes the page's. */
interface WorkerScope {
  postMessage(message: unknown): void;
  addEventListener(type: 'message', listener: (event: MessageEvent) => void): void;
  readonly document?: unknown;
}

const scope = globalThis as unknown as WorkerScope;
const isPage = scope.document !== undefined;

/** A message to oneself comes back after what is queued, without the 4 ms that nested timers wait. */
function yieldToEvents(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    const onMessage = (): void => {
      port1.close();
      resolve();
    };
    port1.addEventListener('message', onMessage);
    port1.start();
    port2.postMessage(null);
  });
}

/** Browsers count hyper-threads. Half of them is the usual number of cores, and on phones that of fast cores. */
function cores(): Cores {
  const nLogical = Math.max(1, navigator.hardwareConcurrency ?? 1);
  const nPhysical = Math.ceil(nLogical / 2);
  return { nLogical, nPhysical, nFast: nPhysical };
}

export const platform: Platform = {
  name: 'browser',
  engine: () => navigator.userAgent,
  cores,
  canShareMemory: () => typeof SharedArrayBuffer !== 'undefined' && globalThis.crossOriginIsolated === true,
  canBlock: () => !isPage,
  enableWideVectors: () => false,
  hasWideVectors: () => false,
  memoryBytes: () => undefined,
  freeMemoryBytes: () => undefined,
  yieldToEvents,
  parentPort(): ParentPort | undefined {
    if (isPage) return undefined;
    return {
      post: (message) => scope.postMessage(message),
      onMessage: (listener) => scope.addEventListener('message', (event) => listener(event.data)),
    };
  },
};
