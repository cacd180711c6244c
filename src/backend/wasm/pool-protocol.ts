// What the pool and its threads share: control words in shared memory, and the few messages that carry objects.
// A job is written word by word and published by counting; a thread that finds a new count does the job.

import { ABORT_ADDRESS, PHASE_ADDRESS } from './memory.ts';

/** A thread asleep at the barrier looks up this often, to notice that another has crashed. */
const SLEEP_MS_MAX = 100;

/**
 * What the module of a program imports. Sleeping is JavaScript's, because WebAssembly's own wait boxes its timeout:
 * 24 bytes of heap each time, at a barrier that a step passes dozens of times.
 * @param onLongSleep  called each time that nothing has happened for `SLEEP_MS_MAX`
 */
export function instanceImports(memory: WebAssembly.Memory, onLongSleep?: () => void): WebAssembly.Imports {
  const words = new Int32Array(memory.buffer);
  const sleep = (phase: number): void => {
    if (Atomics.wait(words, PHASE_ADDRESS / 4, phase, SLEEP_MS_MAX) === 'timed-out') onLongSleep?.();
  };
  return { env: { memory, sleep } };
}

/**
 * Tells the threads of a model not to wait at the barrier for one that will never arrive: they trap.
 * @param words  the model's memory
 */
export function abortProgram(words: Int32Array): void {
  Atomics.store(words, ABORT_ADDRESS / 4, 1);
  Atomics.notify(words, PHASE_ADDRESS / 4);
}

/** Words a thread has in the control memory: a cache line, so that threads do not disturb each other. */
export const THREAD_WORDS = 16;
export const THREAD_COUNT_MAX = 64;

/** Word offsets within a thread's line. The first counts all that is published; a thread waits for it to change. */
export const SEQUENCE = 0;
/** Jobs so far; the words after `MAILS` describe the last. One is done before the next is published. */
export const RUNS = 1;
/** Messages posted so far: a thread returns to its event loop for each. A job may be published before it does. */
export const MAILS = 2;
export const MODEL = 3;
export const PROGRAM = 4;
export const INSTRUCTION_COUNT = 5;
export const THREAD_COUNT = 6;

export type PoolMessage =
  | { readonly type: 'start'; readonly control: Int32Array; readonly thread: number }
  | {
      readonly type: 'attach';
      readonly model: number;
      readonly module: WebAssembly.Module;
      readonly memory: WebAssembly.Memory;
    }
  | { readonly type: 'detach'; readonly model: number };

/** A thread's answer to a message; `error` if it failed. */
export interface PoolReply {
  readonly error?: string;
}
