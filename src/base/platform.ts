// What the engine needs from the place where it runs. The two halves, platform.node.ts and platform.browser.ts, satisfy
// this; package.json's `imports` chooses one as `#platform`.

/** A worker as both halves offer it: structured-clone messages both ways. */
export interface WorkerHandle {
  post(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
  /** The worker died, or could not start: that is a `SmallMindError` with its remedy. */
  onError(listener: (error: Error) => void): void;
  /**
   * Whether the worker is known to have died, told without a turn of the event loop: by then it has answered a message.
   * False in browsers, where only who started a worker can end it, and where the platform cannot tell.
   */
  isGone(): boolean;
  /** Whether the worker keeps the process alive; it does not at first. No effect in a browser. */
  keepAlive(isBusy: boolean): void;
  terminate(): Promise<void>;
}

/** The other end of a `WorkerHandle`, inside the worker. */
export interface ParentPort {
  post(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
}

/** What this process may compute on, as far as the platform tells; each at least 1. */
export interface Cores {
  /** Hyper-threads. */
  readonly nLogical: number;
  /** Cores, of which some have several hyper-threads. */
  readonly nPhysical: number;
  /** Of these, without the slow ones of a machine that has two kinds. */
  readonly nFast: number;
}

export interface Platform {
  readonly name: 'node' | 'browser';
  /** The JavaScript engine in words, e.g. `Node 24.21.0 (V8 13.6, linux x64)`; for people only. */
  engine(): string;
  cores(): Cores;
  /** Whether memory can be shared with workers here. */
  canShareMemory(): boolean;
  /** Whether this thread may block: a page's main thread may not. */
  canBlock(): boolean;
  /** Asks the engine for 256-bit vectors, for the whole process. @returns whether it knows how */
  enableWideVectors(): boolean;
  /** Whether it was asked, by that or where the process started. */
  hasWideVectors(): boolean;
  /** Bytes of memory this machine has, or `undefined` where that is not told. */
  memoryBytes(): number | undefined;
  /** Of these, what is free or can be freed; undefined where unknown. */
  freeMemoryBytes(): number | undefined;
  /** Lets queued messages and timers run, without the delay of a timer. */
  yieldToEvents(): Promise<void>;
  /** The port to the parent, in a worker; `undefined` elsewhere. */
  parentPort(): ParentPort | undefined;
}
