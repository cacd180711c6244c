// What the pool and its threads share: control words in shared memory, and the few messages that carry objects.
// A job is written word by word and published by counting; a thread that finds a new count does the job.

import { PHASE_ADDRESS } from './memory.ts';

/** A thread asleep at the barrier looks up this often, to notice that another has crashed. */
const SLEEP_MS_MAX = 100;

/**
 * What the module of a program imports. Sleeping is JavaScript's, because WebAssembly's own wait boxes its timeout:
 * 24 bytes of heap each time, at a barrier that a step passes dozens of times.
 */
export function instanceImports(memory: WebAssembly.Memory): WebAssembly.Imports {
  const words = new Int32Array(memory.buffer);
  const sleep = (phase: number): void => void Atomics.wait(words, PHASE_ADDRESS / 4, phase, SLEEP_MS_MAX);
  return { env: { memory, sleep } };
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
