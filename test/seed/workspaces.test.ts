// Proofs 7 to 9 and 11 of the hot path: memory is reused, and nothing of what was in it before shows. Programs for
// several lengths of input share one arena, which is how a workspace comes to be used again in another shape.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ReferenceExecutor } from '../../src/backend/reference/executor.ts';
import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import type { WriteMode } from '../../src/graph/operation.ts';
import { OPERATIONS, writeModeOf } from '../../src/graph/operations.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { MultiHeadAttention } from '../../src/nn/attention.ts';
import { DropoutRng } from '../../src/nn/dropout.ts';
import { TransformerBlock } from '../../src/nn/transformer.ts';
import { initialize } from '../../src/training/parameters.ts';
import { buildTrainingPrograms } from '../../src/training/trainer.ts';
import { assertSameNumbers } from '../same-numbers.ts';
import { CONFIGS, NO_WEIGHTS, N_SEQ, OPTIONS, buildForwards, buildModel, createForwards } from './models.ts';
import { fillPositions, runModel } from './models.ts';
import type { Build } from './models.ts';

let held: WasmExecutor;
// Keeps the pool's threads alive from test to test.
before(async () => void (held = await createForwards(buildForwards(buildModel(CONFIGS.gpt2), [1]), { nThreads: 2 })));
after(() => held.close());

const LENGTHS = [1, 4, 5, 7, 8, 64];
const N_EMBD = 32;

/** x: input f32[nSeq · T, nEmbd] */
const inputRows = (scope: Parameters<Build>[0], packed: Parameters<Build>[1]): Tensor =>
  scope.graph.leaf('input', 'x', 'F32', [packed.positions.shape[0]!, N_EMBD]);

const ROPE = { headDim: 8, nRot: 8, freqBase: 10000, freqScale: 1, pairing: 'interleaved' } as const;
const ATTENTIONS = {
  'four heads, one matrix for queries, keys and values': { nHeadKv: 4, bias: true, isQkvFused: true },
  'four heads that share two, rotary positions': { nHeadKv: 2, bias: false, rope: ROPE },
};

const buildAttention =
  (config: (typeof ATTENTIONS)[keyof typeof ATTENTIONS]): Build =>
  (scope, packed) => {
    const attention = new MultiHeadAttention(scope, { nEmbd: N_EMBD, nHead: 4, headDim: 8, ...config }, 64);
    return attention.eval().forwardUnfused(inputRows(scope, packed), packed, 'a');
  };

/** Runs a layer on sin(0.01 · i). @returns a copy of the result */
function runLayer(executor: WasmExecutor, program: number, nPositions: number): Float32Array {
  const words = executor.input('x');
  const x = new Float32Array(words.buffer, words.byteOffset, N_SEQ * nPositions * N_EMBD);
  for (let i = 0; i < x.length; i++) x[i] = Math.sin(0.01 * i);
  fillPositions(executor, nPositions);
  executor.run(program);
  return executor.output(0, program).slice();
}

function* permutations<T>(items: readonly T[]): Generator<T[]> {
  if (items.length === 0) yield [];
  for (const first of items) {
    for (const rest of permutations(items.filter((item) => item !== first))) yield [first, ...rest];
  }
}

const isSame = (a: Float32Array, b: Float32Array): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

describe('7. attention with reused workspaces equals a fresh instance, in every order of T of 1, 4, 5, 7, 8, 64', () => {
  for (const [name, config] of Object.entries(ATTENTIONS)) {
    for (const nThreads of [1, 2]) {
      test(`${name}, ${nThreads} threads`, async () => {
        const build = buildAttention(config);
        const fresh: Float32Array[] = [];
        for (const nPositions of LENGTHS) {
          const executor = await createForwards(buildForwards(build, [nPositions]), { nThreads });
          fresh.push(runLayer(executor, 0, nPositions));
          await executor.close();
        }
        assert.ok(fresh.every((y) => y.every(Number.isFinite) && y.some((x) => Math.abs(x) > 1e-3)));
        const executor = await createForwards(buildForwards(build, LENGTHS), { nThreads });
        let nOrders = 0;
        for (const order of permutations(LENGTHS.map((_, program) => program))) {
          nOrders++;
          for (const program of order) {
            const y = runLayer(executor, program, LENGTHS[program]!);
            if (!isSame(y, fresh[program]!)) assert.fail(`T ${LENGTHS[program]} differs in the order ${order}`);
          }
        }
        assert.equal(nOrders, 720);
        // The largest was used again and again: nothing but its first use was new.
        assert.ok(executor.clearing().bytesCleared > 0);
        await executor.close();
      });
    }
  }
});

describe('8. a repeated forward is identical', () => {
  for (const [name, config] of Object.entries(CONFIGS)) {
    test(`of a block of ${name}: copies are compared, the memory is spoilt in between`, async () => {
      const build: Build = (scope, packed) => {
        const block = new TransformerBlock(scope, config, new DropoutRng(scope.graph)).eval();
        return block.forward(inputRows(scope, packed), packed, 'block');
      };
      const executor = await createForwards(buildForwards(build, [7, 12]), { nThreads: 2 });
      const first = runLayer(executor, 0, 7);
      const view = executor.output(0, 0);
      assertSameNumbers(view, first);
      assert.notEqual(view.buffer, first.buffer);
      for (let i = 0; i < 20; i++) {
        view.fill(NaN);
        assert.notDeepEqual(view, first);
        if (i % 5 === 4) runLayer(executor, 1, 12);
        assertSameNumbers(runLayer(executor, 0, 7), first);
      }
      await executor.close();
    });

    test(`of the whole model ${name}, with other tokens in between`, async () => {
      const executor = await createForwards(buildForwards(buildModel(config), [9]), { nThreads: 2 });
      const first = runModel(executor, 0, 9, 1);
      const other = runModel(executor, 0, 9, 2);
      assert.notDeepEqual(other, first);
      assertSameNumbers(runModel(executor, 0, 9, 1), first);
      assertSameNumbers(runModel(executor, 0, 9, 2), other);
      await executor.close();
    });
  }
});

describe('9. what memory held before does not show', () => {
  const batch = { nSeq: N_SEQ, nPositions: 5, nAccumulate: 1 };

  /** Fills what a training program reads. */
  function fill(executor: WasmExecutor | ReferenceExecutor, layout: Parameters<typeof initialize>[0]): void {
    initialize(layout, executor.state('parameters'), 42);
    executor.state('gradients').fill(0);
    for (const name of ['tokens', 'targets', 'positions']) {
      executor.input(name).forEach((_, i, ids) => (ids[i] = name === 'positions' ? i % 5 : (7 * i + name.length) % 48));
    }
    executor.input('rng')[0] = 5;
  }

  for (const [name, config] of Object.entries(CONFIGS)) {
    test(`every result of a training step of ${name} is stored whole, or cleared before it is added to`, async () => {
      const { graphs, layout } = buildTrainingPrograms(config, batch);
      const graph = graphs[0]!;
      const results = graph.nodes.filter((n) => ['store', 'inPlace', 'accumulate'].includes(writeModeOf(n.op)));
      const modes = new Set(results.map((n) => writeModeOf(n.op)));
      assert.deepEqual([...modes].sort(), ['accumulate', 'inPlace', 'store']);
      // As outputs they keep their memory to the end, each its own.
      for (const node of results) graph.output(node);
      const reference = await ReferenceExecutor.create(graph, NO_WEIGHTS);
      fill(reference, layout);
      reference.run();
      const executor = await WasmExecutor.create(graph, NO_WEIGHTS, { ...OPTIONS, nThreads: 2 });
      fill(executor, layout);
      for (let run = 0; run < 2; run++) {
        executor.arena().fill(NaN);
        executor.run();
        graph.outputs.forEach((node, i) => {
          const [actual, expected] = [executor.output(i), reference.output(i)];
          const size = expected.reduce((max, x) => Math.max(max, Math.abs(x)), 1e-4);
          const wrong = actual.findIndex((x, at) => !(Math.abs(x - expected[at]!) <= 2e-4 * size));
          assert.equal(wrong, -1, `${node.op} "${node.name}", run ${run}: ${actual[wrong]}, not ${expected[wrong]}`);
        });
      }
      await executor.close();
    });

    test(`a training step of ${name} in reused memory full of NaN has the same gradients`, async () => {
      const { graphs, layout } = buildTrainingPrograms(config, batch);
      const executor = await WasmExecutor.create(graphs, NO_WEIGHTS, { ...OPTIONS, nThreads: 2 });
      const step = (): number[] => {
        fill(executor, layout);
        executor.run(0);
        return [executor.output(0, 0)[0]!, ...executor.state('gradients')];
      };
      const expected = step();
      assert.ok(expected.every(Number.isFinite));
      for (const spoilt of [NaN, Infinity, -1e30]) {
        executor.arena().fill(spoilt);
        assertSameNumbers(step(), expected);
      }
      await executor.close();
    });
  }

  test('the same sum declared as stored would give something else: that is what these tests look for', async () => {
    const forwards = buildForwards(buildAttention(Object.values(ATTENTIONS)[0]!), [5]);
    const spoiltResult = async (): Promise<Float32Array> => {
      const executor = await createForwards(forwards);
      executor.arena().fill(NaN);
      const result = runLayer(executor, 0, 5);
      await executor.close();
      return result;
    };
    const expected = await spoiltResult();
    assert.ok(expected.every(Number.isFinite));
    const declared = OPERATIONS.weightedSum as { write?: WriteMode };
    assert.equal(declared.write, 'accumulate');
    try {
      declared.write = 'store';
      assert.notDeepEqual(await spoiltResult(), expected);
      // Declaring nothing is safe.
      delete declared.write;
      assertSameNumbers(await spoiltResult(), expected);
    } finally {
      declared.write = 'accumulate';
    }
  });
});

describe('11. concurrent forwards do not disturb each other', () => {
  const LENGTH = 9;
  const SEEDS = [1, 2, 3, 4, 5, 6];

  /** One after the other, each in an executor of its own. */
  async function serially(name: keyof typeof CONFIGS): Promise<Float32Array[]> {
    const results: Float32Array[] = [];
    for (const seed of SEEDS) {
      const executor = await createForwards(buildForwards(buildModel(CONFIGS[name]), [LENGTH]));
      results.push(runModel(executor, 0, LENGTH, seed));
      await executor.close();
    }
    return results;
  }

  test('of two programs over one set of weights, by turns', async () => {
    const expected = await serially('llama');
    const other = 13;
    const executor = await createForwards(buildForwards(buildModel(CONFIGS.llama), [LENGTH, other]), { nThreads: 2 });
    const long = SEEDS.map((seed) => runModel(executor, 1, other, seed));
    SEEDS.forEach((seed, i) => {
      assertSameNumbers(runModel(executor, 0, LENGTH, seed), expected[i]!);
      assertSameNumbers(runModel(executor, 1, other, seed), long[i]!);
    });
    await executor.close();
  });

  test('of two models on the same threads, by turns', async () => {
    const [gpt2, llama] = [await serially('gpt2'), await serially('llama')];
    const executors = await Promise.all(
      (['gpt2', 'llama', 'gpt2'] as const).map((name) =>
        createForwards(buildForwards(buildModel(CONFIGS[name]), [LENGTH]), { nThreads: 2 }),
      ),
    );
    SEEDS.forEach((seed, i) => {
      const results = executors.map((executor) => runModel(executor, 0, LENGTH, seed));
      assertSameNumbers(results, [gpt2[i]!, llama[i]!, gpt2[i]!]);
    });
    await Promise.all(executors.map((executor) => executor.close()));
  });

  test('in two workers at the same time, many times', async () => {
    const expected = { gpt2: await serially('gpt2'), llama: await serially('llama') };
    const nRounds = 30;
    const resultsOf = (name: keyof typeof CONFIGS): Promise<Float32Array[]> =>
      new Promise((resolve, reject) => {
        const workerData = { name, length: LENGTH, seeds: SEEDS, nRounds };
        const worker = new Worker(new URL('./forward.worker.ts', import.meta.url), { workerData });
        worker.once('message', resolve);
        worker.once('error', reject);
      });
    const names = ['gpt2', 'llama', 'llama'] as const;
    const results = await Promise.all(names.map(resultsOf));
    names.forEach((name, worker) => {
      assert.equal(results[worker]!.length, nRounds * SEEDS.length);
      results[worker]!.forEach((logits, i) => assertSameNumbers(logits, expected[name][i % SEEDS.length]!));
    });
  });
});
