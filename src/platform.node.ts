// The Node half of the platform (also Bun and Deno): worker_threads, cores, V8.

import { freemem, totalmem } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { Worker, parentPort, workerData } from 'node:worker_threads';
import { SmallMindError } from './base/errors.ts';
import type { Platform, WorkerHandle } from './base/platform.ts';
import { countCores } from './cores.node.ts';

function describeEngine(): string {
  const { bun, deno, node, v8 } = process.versions as Record<string, string | undefined>;
  const name = bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : `Node ${node}`;
  return `${name} (${v8 === undefined || bun ? '' : `V8 ${v8}, `}${process.platform} ${process.arch})`;
}

const WIDE_VECTORS_FLAG = '--experimental-wasm-revectorize';
/** V8's flag counts for the whole process, of which a worker only knows what it is told. */
let hasWideVectors =
  process.execArgv.some((flag) => flag.replaceAll('_', '-') === WIDE_VECTORS_FLAG) ||
  (workerData as { smallmind?: WorkerFacts } | null)?.smallmind?.hasWideVectors === true;

/** What our workers are told. */
interface WorkerFacts {
  readonly hasWideVectors: boolean;
}

/** From Node 24 on V8 knows the flag, on x64; elsewhere it would complain on stderr. */
function enableWideVectors(): boolean {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  const isKnown = process.arch === 'x64' && !bun && !deno && Number.parseInt(node!, 10) >= 24;
  if (isKnown) setFlagsFromString(WIDE_VECTORS_FLAG);
  hasWideVectors ||= isKnown;
  return isKnown;
}

/**
 * The flags of this process that a worker needs: those that say which file `#platform` is. Others are the program's
 * own, and some a worker does not survive: with `--input-type`, which goes with `--eval`, it refuses to run a file.
 */
function workerFlags(): string[] {
  return process.execArgv.flatMap((flag, i, flags) => {
    if (flag === '--conditions' || flag === '-C') return [flag, flags[i + 1]!];
    return flag.startsWith('--conditions=') ? [flag] : [];
  });
}

/** What workers throw away is little, but V8 lets it grow to 10 MB each before it looks; with less it is no slower. */
const YOUNG_GENERATION_MB = 2;

/** Deno tells it only with --allow-sys, which nothing else here needs. */
function memoryBytes(): number | undefined {
  try {
    // A container's limit; 0, or more than there is, where there is none.
    const limit = process.constrainedMemory?.() ?? 0;
    return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  } catch {
    return undefined;
  }
}

function freeMemoryBytes(): number | undefined {
  try {
    return process.availableMemory?.() ?? freemem();
  } catch {
    return undefined;
  }
}

/**
 * Whether a worker that has once answered is alive. Node reads the clock of its event loop at the call; of a loop that
 * is gone it gives no time, or a negative one.
 */
function hasEventLoop({ performance: clock }: Worker): boolean {
  const { idle, active } = clock?.eventLoopUtilization?.() ?? { idle: 0, active: 0 };
  return idle >= 0 && active > 0;
}

function spawn(url: URL): WorkerHandle {
  const resourceLimits = { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB };
  const facts: WorkerFacts = { hasWideVectors };
  const worker = new Worker(url, {
    stdout: false,
    stderr: false,
    execArgv: workerFlags(),
    resourceLimits,
    workerData: { smallmind: facts },
  });
  worker.unref();
  // Where it counts nothing of a worker that answers (Bun, Deno), it says nothing of one that does not.
  let canTell = false;
  worker.once('message', () => (canTell = hasEventLoop(worker)));
  return {
    post: (message) => worker.postMessage(message),
    onMessage: (listener) => void worker.on('message', listener),
    onError(listener) {
      worker.on('error', (error) => listener(describeDeath(error)));
      worker.on('exit', (code) => {
        if (code !== 0) listener(new Error(`the worker exited with code ${code}`));
      });
    },
    isGone: () => canTell && !hasEventLoop(worker),
    keepAlive: (isBusy) => (isBusy ? worker.ref() : worker.unref()),
    async terminate() {
      worker.removeAllListeners('exit');
      await worker.terminate();
    },
  };
}

/** A worker's own module is missing where a bundler has moved the code that starts it. */
function describeDeath(error: unknown): Error {
  const death: NodeJS.ErrnoException = error instanceof Error ? error : new Error(String(error));
  if (death.code !== 'MODULE_NOT_FOUND' && death.code !== 'ERR_MODULE_NOT_FOUND') return death;
  return new SmallMindError(
    'ENGINE_CRASHED',
    `the engine's worker could not start: ${death.message}; leave smallmind out of the bundle, as an external package, ` +
      'or bundle smallmind/worker and smallmind/pool-thread beside it (docs/deploying.md)',
  );
}

/** `#spawnEngine` */
export const spawnEngineWorker = (): WorkerHandle => spawn(new URL('./worker.ts', import.meta.url));

/** `#spawnPool` */
export const spawnPoolThread = (): WorkerHandle => spawn(new URL('./backend/wasm/pool-thread.ts', import.meta.url));

export const platform: Platform = {
  name: 'node',
  engine: describeEngine,
  cores: () => countCores(),
  canShareMemory: () => typeof SharedArrayBuffer !== 'undefined',
  canBlock: () => true,
  enableWideVectors,
  hasWideVectors: () => hasWideVectors,
  memoryBytes,
  freeMemoryBytes,
  yieldToEvents: () => new Promise((resolve) => setImmediate(resolve)),
  parentPort() {
    if (!parentPort) return undefined;
    const port = parentPort;
    return {
      post: (message) => port.postMessage(message),
      onMessage: (listener) => void port.on('message', listener),
    };
  },
};
