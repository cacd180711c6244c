// What the pool and its threads share: control words in shared memory, and the few messages that carry objects.
// A job is written word by word and published by its sequence number; a thread that finds a new number does the job.

/** Words a thread has in the control memory: a cache line, so that threads do not disturb each other. */
export const THREAD_WORDS = 16;
export const THREAD_COUNT_MAX = 64;

/** Word offsets within a thread's line. */
export const SEQUENCE = 0;
export const COMMAND = 1;
export const MODEL = 2;
export const PROGRAM = 3;
export const INSTRUCTION_COUNT = 4;
export const THREAD_COUNT = 5;

/** Execute a program. */
export const RUN = 1;
/** Return to the event loop: a message is waiting. */
export const MAIL = 2;

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
