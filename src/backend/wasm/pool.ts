// The thread pool: one for each JavaScript thread that runs models (the engine's worker, as a rule), shared by all of
// them. The calling thread is thread 0 of every program; the pool's threads are 1, 2 … They exist while a model does.

import { spawnPoolThread } from '#spawnPool';
import { SmallMindError } from '../../base/errors.ts';
import type { WorkerHandle } from '../../base/platform.ts';
import type { RunExports } from './module.ts';
import {
  INSTRUCTION_COUNT,
  MAILS,
  MODEL,
  PROGRAM,
  RUNS,
  SEQUENCE,
  THREAD_COUNT,
  THREAD_COUNT_MAX,
  THREAD_WORDS,
  abortProgram,
  instanceImports,
} from './pool-protocol.ts';
import type { PoolMessage, PoolReply } from './pool-protocol.ts';

/** A program that the pool can run, as the executor holds it. */
export interface PoolModel {
  readonly id: number;
  readonly exports: RunExports;
  readonly words: Int32Array;
  readonly nThreads: number;
}

/** A model's place in the pool before it has a memory. */
export interface PoolPlace {
  readonly id: number;
  readonly nThreads: number;
  /** Its threads have started. */
  readonly ready: Promise<void>;
}

interface PoolThread {
  readonly worker: WorkerHandle;
  /** Settles when the thread has answered the last message. */
  answered: { resolve(): void; reject(error: Error): void } | undefined;
}

class ThreadPool {
  #control: Int32Array = new Int32Array(0);
  #threads: PoolThread[] = [];
  #nModels = 0;
  #nextId = 1;
  /** A thread has died: programs would wait for it for ever. Until the last model is gone nothing runs on threads. */
  #crash: SmallMindError | undefined;
  /** Attaching and detaching happen one after the other. */
  #queue: Promise<unknown> = Promise.resolve();

  /** Makes room for a model: its threads start while its weights are read. Must be released, whatever follows. */
  reserve(nThreads: number): PoolPlace {
    this.#nModels++;
    const ready = this.#enqueue(() => this.#grow(nThreads - 1));
    ready.catch(() => {});
    return { id: this.#nextId++, nThreads, ready };
  }

  /** Makes the model's memory known to this thread, which can then run its programs alone. */
  async instantiate({ id }: PoolPlace, module: WebAssembly.Module, memory: WebAssembly.Memory): Promise<PoolModel> {
    const words = new Int32Array(memory.buffer);
    const imports = instanceImports(memory, () => this.#lookForDead(words));
    const { exports } = await WebAssembly.instantiate(module, imports);
    return { id, exports: exports as unknown as RunExports, words, nThreads: 1 };
  }

  /** Makes it known to the others, once they have started. @returns the model as all of its threads run it */
  attach(
    { id, nThreads, ready }: PoolPlace,
    alone: PoolModel,
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
  ): Promise<PoolModel> {
    return this.#enqueue(async () => {
      await ready;
      await this.#sendAll(nThreads, { type: 'attach', model: id, module, memory });
      return { ...alone, nThreads };
    });
  }

  /** Forgets the model; with the last one the threads end. */
  release({ id, nThreads }: Pick<PoolPlace, 'id' | 'nThreads'>): Promise<void> {
    return this.#enqueue(async () => {
      if (--this.#nModels === 0) {
        this.#crash = undefined;
        await Promise.all(this.#threads.splice(0).map(({ worker }) => worker.terminate()));
      } else if (!this.#crash)
        await this.#sendAll(Math.min(nThreads, this.#threads.length + 1), { type: 'detach', model: id });
    });
  }

  /**
   * Runs a program on the model's threads, this one included, and returns when all are done.
   * @throws {SmallMindError} ENGINE_CRASHED when a thread trapped or has died; the model must not be run again
   */
  run(model: PoolModel, program: number, nInstructions: number): void {
    const { id, nThreads } = model;
    if (this.#crash && nThreads > 1) throw this.#crash;
    for (let thread = 1; thread < nThreads; thread++) {
      const line = thread * THREAD_WORDS;
      this.#control[line + MODEL] = id;
      this.#control[line + PROGRAM] = program;
      this.#control[line + INSTRUCTION_COUNT] = nInstructions;
      this.#control[line + THREAD_COUNT] = nThreads;
      this.#publish(thread, RUNS);
    }
    try {
      model.exports.run(program, nInstructions, 0, nThreads);
    } catch (error) {
      abortProgram(model.words);
      if (this.#crash && nThreads > 1) throw this.#crash;
      throw new SmallMindError(
        'ENGINE_CRASHED',
        `a kernel crashed: ${String(error)}; load the model again`,
        {},
        { cause: error },
      );
    }
  }

  /**
   * Frees this thread from the barrier when another one has died, of which its event loop cannot hear while it waits
   * there. One that is merely slow is waited for, however long.
   * @param words  the memory of the model that runs
   */
  #lookForDead(words: Int32Array): void {
    if (!this.#threads.some(({ worker }) => worker.isGone())) return;
    this.#die(new Error('it ended amid a step'));
    abortProgram(words);
  }

  #die(error: Error): SmallMindError {
    const what = `a pool thread died: ${error.message}; close all models and load again`;
    this.#crash ??= error instanceof SmallMindError ? error : new SmallMindError('ENGINE_CRASHED', what);
    return this.#crash;
  }

  #publish(thread: number, counter: typeof RUNS | typeof MAILS): void {
    const line = thread * THREAD_WORDS;
    Atomics.add(this.#control, line + counter, 1);
    Atomics.add(this.#control, line + SEQUENCE, 1);
    Atomics.notify(this.#control, line + SEQUENCE);
  }

  async #grow(nThreads: number): Promise<void> {
    // With one thread nothing is shared, which a page that is not isolated could not.
    if (nThreads > 0 && this.#threads.length === 0) {
      this.#control = new Int32Array(new SharedArrayBuffer(4 * THREAD_WORDS * THREAD_COUNT_MAX));
    }
    const started: Promise<void>[] = [];
    while (this.#threads.length < nThreads) started.push(this.#startThread());
    await Promise.all(started);
  }

  #startThread(): Promise<void> {
    const thread: PoolThread = { worker: spawnPoolThread(), answered: undefined };
    const index = this.#threads.push(thread);
    thread.worker.onMessage((message) => {
      const { error } = message as PoolReply;
      if (error) thread.answered?.reject(new SmallMindError('INTERNAL', `a pool thread failed: ${error}`));
      else thread.answered?.resolve();
    });
    thread.worker.onError((error) => thread.answered?.reject(this.#die(error)));
    return this.#send(index, { type: 'start', control: this.#control, thread: index });
  }

  async #sendAll(nThreads: number, message: PoolMessage): Promise<void> {
    await Promise.all(this.#threads.slice(0, nThreads - 1).map((_, i) => this.#send(i + 1, message)));
  }

  /** Calls the thread to its event loop, hands over the message and waits for the answer. */
  async #send(thread: number, message: PoolMessage): Promise<void> {
    if (this.#crash) throw this.#crash;
    const { worker } = this.#threads[thread - 1]!;
    const answer = new Promise<void>((resolve, reject) => {
      this.#threads[thread - 1]!.answered = { resolve, reject };
    });
    worker.keepAlive(true);
    if (message.type !== 'start') this.#publish(thread, MAILS);
    worker.post(message);
    try {
      await answer;
    } finally {
      worker.keepAlive(false);
    }
  }

  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(task);
    this.#queue = result.catch(() => {});
    return result;
  }
}

export const threadPool = new ThreadPool();
