// What the engine needs from the place where it runs. The two halves, platform.node.ts and platform.browser.ts, satisfy
// this; package.json's `imports` chooses one as `#platform`.

import type { ByteSource } from './byte-source.ts';

/** A worker as both halves offer it: structured-clone messages both ways. */
export interface WorkerHandle {
  post(message: unknown, transfer?: readonly ArrayBuffer[]): void;
  onMessage(listener: (message: unknown) => void): void;
  /** The worker died, or could not start. */
  onError(listener: (error: Error) => void): void;
  /** Whether the worker keeps the process alive; it does not at first. No effect in a browser. */
  keepAlive(isBusy: boolean): void;
  terminate(): Promise<void>;
}

/** The other end of a `WorkerHandle`, inside the worker. */
export interface ParentPort {
  post(message: unknown, transfer?: readonly ArrayBuffer[]): void;
  onMessage(listener: (message: unknown) => void): void;
}

export interface Platform {
  readonly name: 'node' | 'browser';
  /** The JavaScript engine in words, e.g. `Node 24.21.0 (V8 13.6, linux x64)`; for people only. */
  engine(): string;
  /** Cores without hyper-threads, as far as the platform tells. At least 1. */
  nPhysicalCore(): number;
  /** Hyper-threads that this process may use. At least 1. */
  nLogicalCore(): number;
  /** Whether memory can be shared with workers here. */
  canShareMemory(): boolean;
  /** Whether this thread may block: a page's main thread may not. */
  canBlock(): boolean;
  /** Bytes of memory this machine has, or `undefined` where that is not told. */
  memoryBytes(): number | undefined;
  /** Opens a path or `file:` URL. */
  openFile(path: string): Promise<ByteSource>;
  /** Lets queued messages and timers run, without the delay of a timer. */
  yieldToEvents(): Promise<void>;
  spawnEngineWorker(): WorkerHandle;
  spawnPoolThread(): WorkerHandle;
  /** The port to the parent, in a worker; `undefined` elsewhere. */
  parentPort(): ParentPort | undefined;
}
