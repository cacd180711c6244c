// The pool under load: more threads than cores, thousands of short programs, several models at once, models that come
// and go while others run, and kernels that crash. Results must be right, and nothing may hang.

import assert from 'node:assert/strict';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Graph } from '../../graph/tensor.ts';
import { WasmExecutor } from './executor.ts';

const NO_WEIGHTS = { read: () => Promise.reject(new Error('there are no weights')) };
const N_COLUMNS = 96;
const N_ROWS = 5;

/** out = (x[ids] + 1) + 1 + …, once an `add` a step, each behind a barrier of its own. */
function counter(nAdds: number): Graph {
  const graph = new Graph();
  const ids = graph.leaf('input', 'ids', 'I32', [N_ROWS]);
  const start = graph.constant('start', [N_ROWS, N_COLUMNS], () =>
    Float32Array.from({ length: N_ROWS * N_COLUMNS }, (_, i) => i),
  );
  const ones = graph.constant('ones', [N_ROWS, N_COLUMNS], () => new Float32Array(N_ROWS * N_COLUMNS).fill(1));
  let x = graph.apply('gatherRows', [start, ids]);
  for (let i = 0; i < nAdds; i++) {
    // Taking rows the other way round in between makes every thread read what all have written.
    x = graph.apply('gatherRows', [graph.apply('add', [x, ones]), ids]);
  }
  graph.output(x);
  return graph;
}

const create = (nThreads: number, nAdds = 3): Promise<WasmExecutor> =>
  WasmExecutor.create(counter(nAdds), NO_WEIGHTS, { kernels: 'simd', activations: 'f32', nThreads });

/** Ids 4, 3, … turn the rows round at each of nAdds + 1 gathers. */
function isRight(out: Float32Array, nAdds: number): boolean {
  const isTurned = nAdds % 2 === 0;
  return out.every((value, i) => {
    const row = Math.floor(i / N_COLUMNS);
    return value === (isTurned ? N_ROWS - 1 - row : row) * N_COLUMNS + (i % N_COLUMNS) + nAdds;
  });
}

for (const nThreads of [3, 7]) {
  test(`2,000 runs of a program of many barriers on ${nThreads} threads are all right`, async () => {
    const nAdds = 3;
    const executor = await create(nThreads, nAdds);
    assert.equal(executor.nThreads, nThreads);
    assert.equal(executor.programs[0]!.instructions.filter((i) => i.barrier).length, 2 * nAdds);
    executor.input('ids').set([4, 3, 2, 1, 0]);
    const out = executor.output(0);
    for (let run = 0; run < 2000; run++) {
      out.fill(-1);
      executor.run();
      if (!isRight(out, nAdds)) assert.fail(`run ${run} is wrong`);
    }
    await executor.close();
  });
}

test('models with different thread counts take turns on the same threads', async () => {
  const executors = await Promise.all([create(1, 1), create(3, 2), create(2, 4), create(3, 5)]);
  const nAdds = [1, 2, 4, 5];
  for (const executor of executors) executor.input('ids').set([4, 3, 2, 1, 0]);
  for (let run = 0; run < 200; run++) {
    executors.forEach((executor, i) => {
      executor.run();
      assert.ok(isRight(executor.output(0), nAdds[i]!), `run ${run} of model ${i}`);
    });
  }
  await Promise.all(executors.map((executor) => executor.close()));
});

test('models are loaded and closed while another one runs', { timeout: 60_000 }, async () => {
  const running = await create(3, 2);
  running.input('ids').set([4, 3, 2, 1, 0]);
  const loading = (async () => {
    for (let i = 0; i < 100; i++) {
      const other = await create(2 + (i % 2), 1);
      other.input('ids').set([4, 3, 2, 1, 0]);
      other.run();
      assert.ok(isRight(other.output(0), 1));
      await other.close();
    }
    return 'done';
  })();
  // A step, a turn of the event loop, and so on, as an engine does.
  while ((await Promise.race([loading, nextTurn()])) !== 'done') {
    running.run();
    assert.ok(isRight(running.output(0), 2));
  }
  await running.close();
});

for (const [who, row] of [
  ['this thread', 0],
  ['a thread of the pool', N_ROWS - 1],
] as const) {
  test(
    `a kernel that traps on ${who} ends the run with ENGINE_CRASHED, on all threads`,
    { timeout: 20_000 },
    async () => {
      const [crashing, other] = await Promise.all([create(3), create(3)]);
      const ids = [4, 3, 2, 1, 0];
      crashing.input('ids').set(ids);
      crashing.run();
      crashing.input('ids')[row] = 1_000_000;
      assert.throws(() => crashing.run(), { code: 'ENGINE_CRASHED', message: /load the model again/ });
      // The threads are free again for others.
      other.input('ids').set(ids);
      for (let run = 0; run < 20; run++) {
        other.run();
        assert.ok(isRight(other.output(0), 3));
      }
      await crashing.close();
      await other.close();
    },
  );
}

test('a thread that is killed ends the run, before this thread can hear of it', { timeout: 20_000 }, async () => {
  const threads = createRequire(import.meta.url)('node:worker_threads') as typeof import('node:worker_threads');
  const { Worker } = threads;
  const workers: InstanceType<typeof Worker>[] = [];
  threads.Worker = class extends Worker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      workers.push(this);
    }
  };
  syncBuiltinESMExports();
  const [executor, other] = await Promise.all([create(3), create(2)]);
  threads.Worker = Worker;
  syncBuiltinESMExports();
  executor.run();
  void workers[1]!.terminate();
  const died = { code: 'ENGINE_CRASHED', message: /a pool thread died: .*close all models/ };
  assert.throws(() => {
    for (;;) executor.run();
  }, died);
  assert.throws(() => other.run(), died);
  await Promise.all([executor.close(), other.close()]);
  const next = await create(3);
  next.run();
  await next.close();
});

test('a closed executor refuses to be used', async () => {
  const executor = await create(2);
  await executor.close();
  await executor.close();
  assert.throws(() => executor.output(0), { code: 'INTERNAL', message: /closed/ });
  assert.throws(() => executor.run());
});
