// An idle model computes nothing: its threads look out for the next step for a moment, and then sleep.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadModel } from '../../src/index.ts';
import { BOS, THREADS, smallModel } from './small-model.ts';

const N_THREADS = 4;
const N_WINDOWS = 7;
const WINDOW_MS = 100;
/** Of a process without a model: 0.1 ms. */
const IDLE_MS_MAX = 2;
const SPIN_MS_MAX = 1;

/** Processor time of all threads of this process while it waits. */
async function cpuMsOfWindow(): Promise<number> {
  const before = process.cpuUsage();
  await sleep(WINDOW_MS);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Of some windows one has a garbage collection or a compilation in it. */
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

for (const thread of THREADS) {
  describe(`the threads of an idle model (${thread})`, () => {
    test('sleep within a millisecond of the last step, and until the next', async (t) => {
      await using model = await loadModel(smallModel(), { thread, threads: N_THREADS });
      const afterStep: number[] = [];
      const idle: number[] = [];
      for (let i = 0; i < N_WINDOWS; i++) {
        await model.logits([BOS, 5, 6]);
        afterStep.push(await cpuMsOfWindow());
        idle.push(await cpuMsOfWindow());
      }
      t.diagnostic(
        `${thread}: ${median(afterStep)} ms of processor time in the ${WINDOW_MS} ms after a step, then ${median(idle)}`,
      );
      assert.ok(median(idle) <= IDLE_MS_MAX, `idle: ${idle.join(', ')} ms`);
      const spinning = median(afterStep) - median(idle);
      assert.ok(spinning <= SPIN_MS_MAX * (N_THREADS - 1), `after a step: ${afterStep.join(', ')} ms`);
    });
  });
}
