// What works on flat arrays: dropout and its mask, the accumulation of gradients, sums of squares, and AdamW over
// several steps, with the whole state compared after each.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Executor } from '../../src/backend/executor.ts';
import { ReferenceExecutor } from '../../src/backend/reference/executor.ts';
import type { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import { HYPER } from '../../src/graph/operations-training.ts';
import { columnsOf } from '../../src/graph/tensor.ts';
import { Rig, THREAD_COUNTS, VARIANTS, conform, createExecutor, holdThreads } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

/** Runs `use` on every variant and thread count. */
async function onAll(build: () => Rig, use: (executor: WasmExecutor, where: string) => void): Promise<void> {
  for (const variant of VARIANTS) {
    for (const nThreads of THREAD_COUNTS) {
      const executor = await createExecutor(build(), variant, nThreads);
      try {
        use(executor, executor.description);
      } finally {
        await executor.close();
      }
    }
  }
}

for (const p of [2 ** -33, 0.1, 0.5, 0.999, 1 - 2 ** -40, 1]) {
  conform(`dropout with p ${p}: the same mask everywhere, also in place`, (rig) => {
    for (const [stream, shape] of [
      [0, [1]],
      [1, [3]],
      [7, [5, 3]],
      [7, [4, 4]],
      [2, [3, 17]],
      [1000, [13, 33]],
      [3, [2, 3, 5, 5]],
    ] as const) {
      // Away from 0, so that a value that was kept is no value that was not.
      const n = (shape as readonly number[]).reduce((product, d) => product * d, 1);
      const values = rig.numbers(n).map((x) => x + Math.sign(x));
      const x = rig.constant(shape, values);
      const nColumns = columnsOf(x);
      for (const counters of [
        [1, 0, 0, 0],
        [-5, 77, -1, 0],
      ]) {
        const rng = rig.ids(counters);
        const copy = rig.graph.apply('add', [x, rig.constant([nColumns], new Float32Array(nColumns))]);
        const where = `[${shape}], stream ${stream}, counters ${counters}`;
        rig.check(where, rig.graph.apply('dropout', [x, rng], { p, stream }), 2e-7);
        rig.check(`${where} in place`, rig.graph.apply('dropout', [copy, rng], { p, stream }), 2e-7);
      }
    }
  });
}

conform('accumulateGradient adds to what is there, matrices, rows and parts of a state', (rig) => {
  for (const columns of [1, 3, 4, 17, 33]) {
    const sum = rig.graph.apply('accumulateGradient', [rig.state([5, columns]), rig.constant([5, columns])]);
    rig.check(`[5, ${columns}]`, rig.graph.apply('accumulateGradient', [sum, rig.constant([5, columns])]), 3e-7);
    const row = rig.graph.apply('accumulateGradient', [rig.state([columns]), rig.constant([columns])]);
    rig.check(`[${columns}]`, row, 3e-7);
  }
  const part = rig.graph.apply('view', [rig.state([100])], { offset: 32, rows: 3, columns: 5 });
  rig.check('part', rig.graph.apply('accumulateGradient', [part, rig.constant([3, 5])]), 3e-7);
});

test('accumulateGradient goes on from run to run, and touches nothing beside its part', async () => {
  const build = (): Rig => {
    const rig = new Rig();
    const state = rig.graph.leaf('state', 'sum', 'F32', [64]);
    const part = rig.graph.apply('view', [state], { offset: 16, rows: 3, columns: 7 });
    rig.graph.apply('accumulateGradient', [part, rig.constant([3, 7], new Float32Array(21).fill(1.5))]);
    rig.graph.output(state);
    return rig;
  };
  await onAll(build, (executor, where) => {
    for (let i = 0; i < 4; i++) executor.run();
    const expected = Array.from({ length: 64 }, (_, i) => (i >= 16 && i < 37 ? 6 : 0));
    assert.deepEqual([...executor.state('sum')], expected, where);
  });
});

conform('sumSquares', (rig) => {
  for (const n of [1, 15, 16, 63, 64, 65, 1000, 1024, 5003]) {
    rig.check(`${n} elements`, rig.graph.apply('sumSquares', [rig.state([n])]), 1e-6);
  }
});

const N_STEPS = 5;
const STATES = ['parameters', 'moment1', 'moment2', 'gradients'] as const;

function optimizer(n: number, nDecayed: number): Rig {
  const rig = new Rig();
  const { graph } = rig;
  const [parameters, moment1, moment2, gradients] = STATES.map((name) => graph.leaf('state', name, 'F32', [n]));
  const hyper = graph.leaf('input', 'hyper', 'F32', [8]);
  const squares = graph.apply('sumSquares', [gradients!]);
  graph.apply('adamW', [parameters!, moment1!, moment2!, gradients!, squares, hyper], { nDecayed });
  graph.output(squares);
  return rig;
}

const DEFAULTS = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 0 };
type Hyper = typeof DEFAULTS;

function setHyper(executor: Executor, hyper: Hyper, step: number): void {
  const { buffer, byteOffset } = executor.input('hyper');
  const words = new Float32Array(buffer, byteOffset, 8);
  const corrections = { correction1: 1 - hyper.beta1 ** step, correction2: 1 - hyper.beta2 ** step };
  for (const [name, value] of Object.entries({ ...hyper, ...corrections })) {
    words[HYPER[name as keyof typeof HYPER]] = value;
  }
}

/** Takes steps with seeded gradients. @returns a copy of the state after each */
function takeSteps(executor: Executor, n: number, hyper: Hyper): Record<string, number[]>[] {
  const numbers = new Rig();
  executor.state('parameters').set(numbers.numbers(n));
  return Array.from({ length: N_STEPS }, (_, step) => {
    executor.state('gradients').set(numbers.numbers(n, 10 ** (step - 2)));
    setHyper(executor, hyper, step + 1);
    executor.run();
    return Object.fromEntries(STATES.map((name) => [name, [...executor.state(name)]]));
  });
}

for (const [what, n, nDecayed, change] of [
  ['nothing decays', 16, 0, {}],
  ['everything decays', 48, 48, {}],
  ['decay ends within', 1040, 528, {}],
  ['decay ends at the first run', 112, 16, { weightDecay: 0.5, learningRate: 0.1 }],
  ['no weight decay', 112, 64, { weightDecay: 0 }],
  ['gradients are scaled down to a norm of 1', 336, 160, { maxNorm: 1 }],
  ['a norm that only some steps reach', 336, 160, { maxNorm: 20 }],
  ['a large eps', 48, 16, { eps: 0.1 }],
] as const) {
  test(`AdamW, five steps: ${what}`, async () => {
    const hyper = { ...DEFAULTS, ...change };
    const oracle = optimizer(n, nDecayed);
    const expected = takeSteps(await ReferenceExecutor.create(oracle.graph, oracle.source), n, hyper);
    await onAll(
      () => optimizer(n, nDecayed),
      (executor, where) => {
        takeSteps(executor, n, hyper).forEach((state, step) => {
          for (const name of STATES) {
            const target = expected[step]![name]!;
            const allowed = 4e-6 * target.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
            state[name]!.forEach((got, i) => {
              const isNear = Math.abs(got - target[i]!) <= allowed;
              assert.ok(isNear, `${name}[${i}] at step ${step} expected ${target[i]}, got ${got} (${where})`);
            });
          }
        });
      },
    );
  });
}

test('AdamW leaves everything as it was when the norm of the gradients is not finite', async () => {
  for (const bad of [NaN, Infinity, -Infinity, 3e38]) {
    const use = (executor: Executor, where: string): void => {
      takeSteps(executor, 48, DEFAULTS);
      const gradients = executor.state('gradients');
      gradients.fill(0.5);
      // The square of 3e38 is no f32, but the reference has wider numbers.
      gradients[17] = bad === 3e38 && !where.startsWith('wasm') ? Infinity : bad;
      const old = STATES.map((name) => [...executor.state(name)]);
      executor.run();
      assert.deepEqual(
        STATES.map((name) => [...executor.state(name)]),
        old,
        where,
      );
    };
    const oracle = optimizer(48, 16);
    use(await ReferenceExecutor.create(oracle.graph, oracle.source), 'reference');
    await onAll(() => optimizer(48, 16), use);
  }
});
