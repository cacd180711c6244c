// A thread of the pool: waits for jobs in shared memory, spinning briefly and then asleep, and runs its share of each
// program inside WebAssembly. Between jobs it can be called back to its event loop to receive a model's memory.

import { platform } from '#platform';
import type { RunExports } from './module.ts';
import {
  INSTRUCTION_COUNT,
  MAILS,
  MODEL,
  PROGRAM,
  RUNS,
  SEQUENCE,
  THREAD_COUNT,
  THREAD_WORDS,
  abortProgram,
  instanceImports,
} from './pool-protocol.ts';
import type { PoolMessage } from './pool-protocol.ts';

/** Looks at the sequence number before sleeping: about 0.2 ms, the time in which the next token's step begins. */
const SPIN_COUNT_MAX = 20000;

interface Model {
  readonly exports: RunExports;
  readonly words: Int32Array;
}

const port = platform.parentPort()!;
const models = new Map<number, Model>();
let control: Int32Array;
let thread = 0;
let lastSequence = 0;
let nRuns = 0;
let nMails = 0;

port.onMessage((message) => {
  try {
    receive(message as PoolMessage);
    port.post({});
  } catch (error) {
    port.post({ error: String(error) });
  }
  serve();
});

function receive(message: PoolMessage): void {
  if (message.type === 'start') {
    ({ control, thread } = message);
  } else if (message.type === 'attach') {
    const { module, memory, model } = message;
    const { exports } = new WebAssembly.Instance(module, instanceImports(memory));
    models.set(model, { exports: exports as unknown as RunExports, words: new Int32Array(memory.buffer) });
  } else {
    models.delete(message.model);
  }
}

/** Does jobs until a message is waiting; a job that was published meanwhile goes first, for its caller is blocked. */
function serve(): void {
  const line = thread * THREAD_WORDS;
  for (;;) {
    lastSequence = awaitSequence(line + SEQUENCE);
    const runs = Atomics.load(control, line + RUNS);
    if (runs !== nRuns) runJob(line);
    nRuns = runs;
    const mails = Atomics.load(control, line + MAILS);
    if (mails !== nMails) {
      nMails = mails;
      return;
    }
  }
}

function runJob(line: number): void {
  const model = models.get(control[line + MODEL]!)!;
  const program = control[line + PROGRAM]!;
  const nInstructions = control[line + INSTRUCTION_COUNT]!;
  try {
    model.exports.run(program, nInstructions, thread, control[line + THREAD_COUNT]!);
  } catch {
    abortProgram(model.words);
  }
}

function awaitSequence(index: number): number {
  for (let spins = 0; spins < SPIN_COUNT_MAX; spins++) {
    const sequence = Atomics.load(control, index);
    if (sequence !== lastSequence) return sequence;
  }
  while (Atomics.load(control, index) === lastSequence) Atomics.wait(control, index, lastSequence);
  return Atomics.load(control, index);
}
