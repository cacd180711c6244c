// The trainer: that it learns, that steps depend on nothing but what they should, and what is left when one fails.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertSameNumbers } from '../../test/same-numbers.ts';
import type { Numbers } from '../../test/same-numbers.ts';
import type { Executor } from '../backend/executor.ts';
import { ReferenceExecutor } from '../backend/reference/executor.ts';
import { WasmExecutor } from '../backend/wasm/executor.ts';
import { Random } from '../base/random.ts';
import { transformerConfig } from '../nn/transformer.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import { ADAMW_DEFAULTS, Trainer, buildTrainingPrograms } from './trainer.ts';
import type { BatchShape } from './trainer.ts';

const NO_WEIGHTS = { read: () => Promise.reject(new Error('there are no weights')) };
const SIZES = { nVocab: 13, nCtx: 8, nEmbd: 16, nLayer: 2, nHead: 4 };
const GPT2 = transformerConfig({ ...SIZES, architecture: 'gpt2' });
const LLAMA = transformerConfig({ ...SIZES, architecture: 'llama', nHeadKv: 2 });
const BATCH: BatchShape = { nSeq: 2, nPositions: 7, nAccumulate: 1 };

const SEED = 17;
/** A target that does not count. */
const IGNORED_TARGET = -1;

async function withTrainer(
  config: TransformerConfig,
  batch: BatchShape,
  use: (trainer: Trainer, executor: Executor) => void | Promise<void>,
  backend: 'wasm' | 'reference' = 'wasm',
): Promise<void> {
  const programs = buildTrainingPrograms(config, batch);
  const executor =
    backend === 'wasm'
      ? await WasmExecutor.create(programs.graphs, NO_WEIGHTS, { kernels: 'simd', nThreads: 2, activations: 'f32' })
      : await ReferenceExecutor.create(programs.graphs, NO_WEIGHTS);
  const trainer = new Trainer(programs, executor);
  trainer.initialize(SEED);
  try {
    await use(trainer, executor);
  } finally {
    await executor.close();
  }
}

type NextBatch = Parameters<Trainer['train']>[0];

/** Batches of random tokens, of which the targets can be learnt: each is a function of its input. */
function batches(seed = 1): NextBatch {
  const random = new Random(seed);
  return (inputs, targets) => {
    for (let i = 0; i < inputs.length; i++) {
      inputs[i] = random.uint32() % SIZES.nVocab;
      targets[i] = (5 * inputs[i]! + 3) % SIZES.nVocab;
    }
  };
}

const copyOf = (trainer: Trainer): number[][] =>
  (['parameters', 'moment1', 'moment2'] as const).map((name) => [...trainer.state(name)]);

for (const [name, config] of [
  ['gpt2', GPT2],
  ['llama', LLAMA],
] as const) {
  test(`${name}: the loss of an untrained model is that of guessing`, () =>
    withTrainer(config, BATCH, (trainer) => {
      const { loss, gradientNorm } = trainer.train(batches(), 0);
      assert.ok(Math.abs(loss - Math.log(SIZES.nVocab)) < 0.1, `${loss}`);
      assert.ok(gradientNorm > 0.01 && gradientNorm < 10, `${gradientNorm}`);
    }));

  test(`${name} learns one batch by heart, to a loss below 0.01`, () =>
    withTrainer(config, BATCH, (trainer) => {
      const random = new Random(3);
      const tokens = Array.from({ length: 2 * 8 }, () => random.uint32() % SIZES.nVocab);
      const one: NextBatch = (inputs, targets) => {
        for (let i = 0; i < 14; i++) {
          const at = Math.floor(i / 7) * 8 + (i % 7);
          inputs[i] = tokens[at]!;
          targets[i] = tokens[at + 1]!;
        }
      };
      let loss = Infinity;
      for (let step = 0; step < 200 && loss >= 0.01; step++) loss = trainer.train(one, 0.01).loss;
      assert.ok(loss < 0.01, `${loss} after ${trainer.step} steps`);
      assert.ok(trainer.evaluate() < 0.01);
    }));

  test(`${name}: ten steps on the kernels are those of the reference`, async () => {
    const dropping = { ...config, dropout: 0.1 };
    const batch = { ...BATCH, nAccumulate: 2 };
    const results: number[][] = [];
    const states: number[][] = [];
    for (const backend of ['reference', 'wasm'] as const) {
      const take = (trainer: Trainer): void => {
        const next = batches();
        const steps = Array.from({ length: 10 }, () => {
          const { loss, gradientNorm } = trainer.train(next, 0.003);
          return [loss, gradientNorm, trainer.evaluate()];
        });
        results.push(steps.flat());
        states.push([...trainer.state('parameters')]);
      };
      await withTrainer(dropping, batch, take, backend);
    }
    const [expected, actual] = results as [number[], number[]];
    expected.forEach((x, i) => assert.ok(Math.abs(actual[i]! - x) < 1e-4 * Math.abs(x), `${x}, got ${actual[i]}`));
    const [expectedState, actualState] = states as [number[], number[]];
    expectedState.forEach((x, i) => assert.ok(Math.abs(actualState[i]! - x) < 1e-3, `[${i}] ${x}: ${actualState[i]}`));
  });
}

test('two batches accumulated are one of both, if nothing is dropped', async () => {
  const states: number[][] = [];
  const losses: number[] = [];
  for (const batch of [
    { nSeq: 4, nPositions: 7, nAccumulate: 1 },
    { nSeq: 2, nPositions: 7, nAccumulate: 2 },
    { nSeq: 1, nPositions: 7, nAccumulate: 4 },
  ]) {
    await withTrainer(LLAMA, batch, (trainer) => {
      const next = batches();
      // Below AdamW's bend, where the step would be ±rate whatever the gradient; nor is the gradient clipped.
      const options = { ...ADAMW_DEFAULTS, eps: 1, maxNorm: 0 };
      for (let step = 0; step < 3; step++) losses.push(trainer.train(next, 0.1, options).loss);
      states.push([...trainer.state('parameters')]);
    });
  }
  for (const state of states.slice(1)) {
    state.forEach((x, i) => assert.ok(Math.abs(x - states[0]![i]!) < 1e-6, `[${i}] ${x}, not ${states[0]![i]}`));
  }
  losses.forEach((loss, i) => assert.ok(Math.abs(loss - losses[i % 3]!) < 1e-5));
});

test('a seed gives the same run again, and another seed another', async () => {
  const runOf = async (seed: number, dropout: number): Promise<number[]> => {
    const losses: number[] = [];
    await withTrainer({ ...GPT2, dropout }, BATCH, (trainer) => {
      trainer.initialize(seed);
      // A trainer that has been used begins anew, too.
      trainer.train(batches(9), 0.01);
      trainer.initialize(seed);
      const next = batches();
      for (let step = 0; step < 5; step++) losses.push(trainer.train(next, 0.01).loss);
    });
    return losses;
  };
  const losses = await runOf(1, 0.2);
  assertSameNumbers(await runOf(1, 0.2), losses);
  assert.notDeepEqual(await runOf(2, 0.2), losses);
  assert.notDeepEqual(await runOf(1, 0), losses);
});

test('masks change from batch to batch, and from step to step', () =>
  withTrainer({ ...LLAMA, dropout: 0.5 }, { ...BATCH, nAccumulate: 2 }, (trainer, executor) => {
    const losses: number[] = [];
    const same: NextBatch = (inputs, targets) => {
      inputs.fill(3);
      targets.fill(4);
      losses.push(executor.output(0, 0)[0]!);
    };
    for (let step = 0; step < 3; step++) trainer.train(same, 0);
    losses.push(executor.output(0, 0)[0]!);
    // The loss before the first batch is none.
    assert.equal(new Set(losses.slice(1)).size, 6);
  }));

test('what is saved of a trainer lets another go on with the same bits', () =>
  withTrainer({ ...LLAMA, dropout: 0.2 }, BATCH, async (trainer) => {
    const next = batches();
    for (let step = 0; step < 3; step++) trainer.train(next, 0.01);
    const saved = copyOf(trainer);
    const more = (t: Trainer): number[] => {
      const following = batches(2);
      return Array.from({ length: 3 }, () => t.train(following, 0.01).loss);
    };
    const expected = more(trainer);
    const final = copyOf(trainer);
    await withTrainer({ ...LLAMA, dropout: 0.2 }, BATCH, (other) => {
      (['parameters', 'moment1', 'moment2'] as const).forEach((name, i) => other.state(name).set(saved[i]!));
      other.step = 3;
      assertSameNumbers(more(other), expected);
      assertSameNumbers(copyOf(other), final);
    });
  }));

test('evaluation drops nothing, changes nothing and always says the same', () =>
  withTrainer({ ...GPT2, dropout: 0.5 }, BATCH, (trainer) => {
    const next = batches();
    for (let step = 0; step < 3; step++) trainer.train(next, 0.01);
    const before = copyOf(trainer);
    next(trainer.inputs, trainer.targets);
    const loss = trainer.evaluate();
    assert.deepEqual([trainer.evaluate(), trainer.evaluate()], [loss, loss]);
    assertSameNumbers(copyOf(trainer), before);
    assert.equal(trainer.step, 3);
  }));

test('targets that are ignored count neither in the loss nor in what is learnt', async () => {
  const states: number[][][] = [];
  for (const unused of [2, 11]) {
    await withTrainer(GPT2, BATCH, (trainer) => {
      const next: NextBatch = (inputs, targets) => {
        batches()(inputs, targets);
        // The last positions of both sequences: no other looks at them.
        inputs[6] = inputs[13] = unused;
        targets[6] = targets[13] = IGNORED_TARGET;
      };
      trainer.train(next, 0.01, { ...ADAMW_DEFAULTS, weightDecay: 0 });
      states.push(copyOf(trainer));
    });
  }
  assertSameNumbers(states[0]!, states[1]!);
});

test('the gaps between parameters stay 0 in all of the state', () =>
  withTrainer({ ...GPT2, nVocab: 13, nFf: 9 }, BATCH, (trainer) => {
    const next = batches();
    for (let step = 0; step < 5; step++) trainer.train(next, 0.01);
    const { parameters, size } = trainer.programs.layout;
    const isGap = Array.from({ length: size }, () => true);
    for (const p of parameters) isGap.fill(false, p.offset, p.offset + p.size);
    assert.ok(isGap.filter(Boolean).length > 10);
    for (const state of copyOf(trainer)) assert.ok(state.every((x, i) => !isGap[i] || x === 0));
    assert.ok(copyOf(trainer)[0]!.some((x) => x !== 0));
  }));

test('only matrices decay', () =>
  withTrainer(GPT2, BATCH, (trainer) => {
    const unlearnable: NextBatch = (inputs, targets) => {
      inputs.fill(0);
      targets.fill(IGNORED_TARGET);
    };
    const { loss, gradientNorm } = trainer.train(unlearnable, 0.5, { ...ADAMW_DEFAULTS, weightDecay: 0.5 });
    assert.deepEqual([loss, gradientNorm], [0, 0]);
    const [start] = copyOf(trainer);
    trainer.train(unlearnable, 0.5, { ...ADAMW_DEFAULTS, weightDecay: 0.5 });
    for (const { name, shape, offset, size } of trainer.programs.layout.parameters) {
      const before = start!.slice(offset, offset + size);
      trainer.parameter(name).forEach((x, i) => {
        const expected = shape.length > 1 ? Math.fround(0.75 * before[i]!) : before[i];
        assert.equal(x, expected, name);
      });
    }
  }));

/** What a step gives that follows a failed one, with the state as it is and the same batch each time. */
function stepAfter(trainer: Trainer): Numbers {
  const { loss, gradientNorm } = trainer.train(batches(4), 0.01);
  return [[loss, gradientNorm, trainer.step], ...copyOf(trainer)];
}

test('a loss that is no number is reported, and leaves everything as it was', async () => {
  const expected: Numbers[] = [];
  const twice = { ...BATCH, nAccumulate: 2 };
  await withTrainer(LLAMA, twice, (trainer) => void expected.push(stepAfter(trainer)));
  for (const bad of [NaN, Infinity]) {
    await withTrainer(LLAMA, twice, (trainer) => {
      const weight = trainer.parameter('output_norm.weight');
      weight[2] = bad;
      const before = copyOf(trainer);
      assert.throws(() => trainer.train(batches(), 0.01), {
        code: 'NUMERIC',
        message: /the loss became NaN at step 1; lower the learning rate/,
        details: { step: 1 },
      });
      assertSameNumbers(copyOf(trainer), before);
      weight[2] = 1;
      assertSameNumbers(stepAfter(trainer), expected[0]!);
    });
  }
});

test('a gradient that is no number is reported, and leaves everything as it was', async () => {
  const expected: Numbers[] = [];
  await withTrainer(GPT2, BATCH, (trainer) => void expected.push(stepAfter(trainer)));
  await withTrainer(GPT2, BATCH, (trainer, executor) => {
    const before = copyOf(trainer);
    executor.state('gradients')[5] = Infinity;
    assert.throws(() => trainer.train(batches(), 0.01), { code: 'NUMERIC', message: /the gradient's norm became Inf/ });
    assertSameNumbers(copyOf(trainer), before);
    assertSameNumbers(stepAfter(trainer), expected[0]!);
  });
});

test('a token outside the vocabulary is refused, and what was accumulated before it is forgotten', async () => {
  const expected: Numbers[] = [];
  const twice = { ...BATCH, nAccumulate: 2 };
  await withTrainer(GPT2, twice, (trainer) => void expected.push(stepAfter(trainer)));
  for (const [where, id] of [
    ['inputs', 13],
    ['inputs', -1],
    ['targets', 13],
    ['targets', -2],
  ] as const) {
    await withTrainer(GPT2, twice, (trainer) => {
      let nBatch = 0;
      const good = batches();
      const bad: NextBatch = (inputs, targets) => {
        good(inputs, targets);
        if (++nBatch === 2) (where === 'inputs' ? inputs : targets)[9] = id;
      };
      assert.throws(() => trainer.train(bad, 0.01), {
        code: 'INVALID_OPTION',
        message: new RegExp(`token ${id} .* vocabulary of 13`),
        details: { id },
      });
      assert.equal(nBatch, 2);
      assertSameNumbers(stepAfter(trainer), expected[0]!);
    });
  }
});

test('evaluation refuses tokens outside the vocabulary, too', () =>
  withTrainer(GPT2, BATCH, (trainer) => {
    trainer.inputs[0] = 99;
    assert.throws(() => trainer.evaluate(), { code: 'INVALID_OPTION', message: /token 99/ });
  }));

test('the norm that is reported is that before clipping', async () => {
  const norms: number[] = [];
  for (const maxNorm of [0, 1e-3]) {
    await withTrainer(LLAMA, BATCH, (trainer) => {
      norms.push(trainer.train(batches(), 0.01, { ...ADAMW_DEFAULTS, maxNorm }).gradientNorm);
    });
  }
  assert.ok(norms[0]! > 1e-2);
  assert.equal(norms[1], norms[0]);
});
