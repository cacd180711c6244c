// Clearing: what accumulates is cleared, what is new is not, and the first use of memory consumes its newness, whoever
// used it and for what. The fault to look for: a second use that adds to what the first has left (y, y + y, …).

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import type { WasmOptions } from '../../src/backend/wasm/executor.ts';
import { Graph } from '../../src/graph/tensor.ts';
import { buildTrainingPrograms } from '../../src/training/trainer.ts';
import { assertSameNumbers } from '../same-numbers.ts';
import { CONFIGS, NO_WEIGHTS, OPTIONS, buildForwards, buildModel, createForwards, runModel } from './models.ts';

const create = (graphs: Graph[], options: Partial<WasmOptions> = {}): Promise<WasmExecutor> =>
  WasmExecutor.create(graphs, NO_WEIGHTS, { ...OPTIONS, ...options });

let held: WasmExecutor;
before(async () => void (held = await create([sumGraph(1)], { nThreads: 3 })));
after(() => held.close());

/** out = p · v by the kernel that adds into its result: [T, T] · [T, 5], all ones: T everywhere. */
function sumGraph(nPositions: number): Graph {
  const graph = new Graph();
  const ones = (rows: number, columns: number) =>
    graph.constant(`ones ${rows} ${columns}`, [rows, columns], () => new Float32Array(rows * columns).fill(1));
  graph.output(graph.apply('weightedSum', [ones(nPositions, nPositions), ones(nPositions, 5)]));
  return graph;
}

const bytesOf = (nPositions: number): number => Math.ceil((nPositions * 5 * 4) / 64) * 64;

for (const nThreads of [1, 2, 3]) {
  describe(`a kernel that adds into its result, ${nThreads} threads`, () => {
    for (const nPositions of [1, 3, 4, 5, 9, 33]) {
      test(`called four times with T ${nPositions} gives the same four times, and only the first is new`, async () => {
        const executor = await create([sumGraph(nPositions)], { nThreads });
        for (let call = 0; call < 4; call++) {
          executor.run();
          const { bytesCleared, bytesSkipped } = executor.clearing();
          const out = executor.output(0);
          assert.ok(
            out.every((x) => x === nPositions),
            `call ${call}: ${out[0]}`,
          );
          assert.deepEqual([bytesCleared, bytesSkipped], [call * bytesOf(nPositions), bytesOf(nPositions)]);
        }
        await executor.close();
      });
    }

    test('gives the same after one, two, three and four calls, though nobody has looked in between', async () => {
      for (let nCalls = 1; nCalls <= 4; nCalls++) {
        const executor = await create([sumGraph(9)], { nThreads });
        for (let call = 0; call < nCalls; call++) executor.run();
        assert.ok(executor.output(0).every((x) => x === 9));
        assert.equal(executor.clearing().bytesCleared, (nCalls - 1) * bytesOf(9));
        await executor.close();
      }
    });

    test('called with one shape, another and the first again', async () => {
      // Below and above the width of a vector, and a program that needs more memory than those before it.
      const lengths = [3, 9, 33, 2];
      for (const order of [
        [0, 0, 1, 1, 0, 2, 0, 1, 2],
        [2, 1, 0, 3, 2, 2],
        [3, 2, 3, 1, 0],
      ]) {
        const executor = await create(lengths.map(sumGraph), { nThreads });
        let [bytesUsed, bytesCleared, bytesSkipped] = [0, 0, 0];
        for (const program of order) {
          executor.run(program);
          // Below what was used before it is cleared, above it is new.
          const bytes = bytesOf(lengths[program]!);
          bytesCleared += Math.min(bytes, bytesUsed);
          bytesSkipped += Math.max(0, bytes - bytesUsed);
          bytesUsed = Math.max(bytesUsed, bytes);
          assert.deepEqual(executor.clearing(), { bytesCleared, bytesSkipped }, `${order}`);
          assert.ok(executor.output(0, program).every((x) => x === lengths[program]));
        }
        await executor.close();
      }
    });
  });
}

test('a caller that was handed the output may have written: it is new no more, before any run', async () => {
  const executor = await create([sumGraph(9)]);
  executor.output(0).fill(100);
  executor.run();
  assert.ok(executor.output(0).every((x) => x === 9));
  assert.deepEqual(executor.clearing(), { bytesCleared: bytesOf(9), bytesSkipped: 0 });
  await executor.close();
});

test('memory that a storing kernel has used is not new for one that adds', async () => {
  const graph = new Graph();
  const x = graph.constant('x', [4, 16], () => new Float32Array(64).fill(7));
  const square = graph.constant('square', [4, 4], () => new Float32Array(16).fill(1));
  // `stored` dies, `kept` does not, and the sum takes the place of the first.
  const stored = graph.apply('silu', [x], {}, 'stored');
  const kept = graph.apply('matmulNT', [stored, x], {}, 'kept');
  const sum = graph.apply('weightedSum', [square, x], {}, 'sum');
  graph.output(kept);
  graph.output(sum);
  const executor = await create([graph]);
  const { buffers } = executor.programs[0]!;
  const offsetOf = (name: string) => buffers.find((b) => b.tensors.some((t) => t.name === name))!.offsetBytes;
  assert.equal(offsetOf('sum'), offsetOf('stored'));
  executor.run();
  assert.deepEqual(executor.clearing(), { bytesCleared: 256, bytesSkipped: 0 });
  assert.ok(executor.output(1).every((value) => value === 28));
  await executor.close();
});

test('what accumulates in a model is all that is cleared, and of that only what is not new', async () => {
  for (const [name, config] of Object.entries(CONFIGS)) {
    const executor = await createForwards(buildForwards(buildModel(config), [16]));
    // P · V of each layer: [2, 4, 16, 8].
    const bytesARun = config.nLayer * 2 * 4 * 16 * 8 * 4;
    const first = runModel(executor, 0, 16, 1);
    const afterFirst = executor.clearing();
    assert.equal(afterFirst.bytesCleared + afterFirst.bytesSkipped, bytesARun, name);
    assertSameNumbers(runModel(executor, 0, 16, 1), first);
    assert.deepEqual(executor.clearing(), { ...afterFirst, bytesCleared: afterFirst.bytesCleared + bytesARun });
    await executor.close();
  }
});

test('with clearing "always" every buffer is cleared each time, new or not, and results are the same', async () => {
  for (const config of Object.values(CONFIGS)) {
    const forwards = buildForwards(buildModel(config), [16, 5]);
    const planned = await createForwards(forwards, { nThreads: 2 });
    const always = await createForwards(forwards, { nThreads: 2, clearing: 'always' });
    let bytesCleared = 0;
    for (const [program, nPositions] of [
      [0, 16],
      [1, 5],
      [0, 16],
    ] as const) {
      assertSameNumbers(runModel(always, program, nPositions, 3), runModel(planned, program, nPositions, 3));
      bytesCleared += always.programs[program]!.buffers.reduce((sum, b) => sum + b.sizeBytes, 0);
      assert.deepEqual(always.clearing(), { bytesCleared, bytesSkipped: 0 });
    }
    assert.ok(planned.clearing().bytesCleared < bytesCleared / 5);
    await planned.close();
    await always.close();
  }
});

test('training steps clear what they add into, and give the same with clearing "always"', async () => {
  const batch = { nSeq: 2, nPositions: 5, nAccumulate: 1 };
  const losses: number[][] = [];
  for (const clearing of ['planned', 'always'] as const) {
    const { graphs } = buildTrainingPrograms(CONFIGS.gpt2, batch);
    const executor = await create([...graphs], { clearing, nThreads: 2 });
    executor.state('parameters').forEach((_, i, values) => (values[i] = Math.sin(i)));
    for (let run = 0; run < 3; run++) executor.run(0);
    losses.push([executor.output(0, 0)[0]!, ...executor.state('gradients')]);
    assert.ok(losses.at(-1)!.every(Number.isFinite));
    await executor.close();
  }
  assertSameNumbers(losses[1]!, losses[0]!);
});
