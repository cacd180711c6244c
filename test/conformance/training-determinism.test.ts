// Training gives the same bits whatever computes it: any number of threads, recomputation or not, in one go or after a
// restart of the executor. Promised for `strict`; the kernels are built so that it holds for every variant.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import { Random } from '../../src/base/random.ts';
import { transformerConfig } from '../../src/nn/transformer.ts';
import { Trainer, buildTrainingPrograms } from '../../src/training/trainer.ts';
import { assertSameNumbers } from '../same-numbers.ts';
import { VARIANTS, holdThreads } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(7)));
after(() => release());

const NO_WEIGHTS = { read: () => Promise.reject(new Error('there are no weights')) };
const SIZES = { nVocab: 19, nCtx: 16, nEmbd: 24, nLayer: 2, nHead: 6, dropout: 0.2 };
const CONFIGS = {
  gpt2: transformerConfig({ ...SIZES, architecture: 'gpt2' }),
  llama: transformerConfig({ ...SIZES, architecture: 'llama', nHeadKv: 2 }),
};
const BATCH = { nSeq: 3, nPositions: 11, nAccumulate: 2 };
const N_STEPS = 4;

interface Setup {
  readonly name: keyof typeof CONFIGS;
  readonly variant: (typeof VARIANTS)[number];
  readonly nThreads: number;
  readonly recompute?: boolean;
}

/** Trains a few steps. @returns bits of losses, norms and of the whole state, and the arena of the training program */
async function train({ name, variant, nThreads, recompute }: Setup) {
  const programs = buildTrainingPrograms(CONFIGS[name], BATCH, { recompute });
  const options = { kernels: variant.set, variant, nThreads, activations: 'f32' } as const;
  const executor = await WasmExecutor.create(programs.graphs, NO_WEIGHTS, options);
  const trainer = new Trainer(programs, executor);
  trainer.initialize(3);
  const random = new Random(5);
  const results: number[] = [];
  for (let step = 0; step < N_STEPS; step++) {
    const { loss, gradientNorm } = trainer.train((inputs, targets) => {
      for (let i = 0; i < inputs.length; i++) inputs[i] = random.uint32() % SIZES.nVocab;
      for (let i = 0; i < targets.length; i++) targets[i] = i % 5 === 0 ? -1 : random.uint32() % SIZES.nVocab;
    }, 0.01);
    results.push(loss, gradientNorm, trainer.evaluate());
  }
  const state = (['parameters', 'moment1', 'moment2'] as const).map((s) => trainer.state(s).slice() as Float32Array);
  await executor.close();
  return {
    results,
    state: state.map((s) => new Uint32Array(s.buffer)),
    arenaBytes: executor.programs[0]!.arenaBytes,
  };
}

for (const name of ['gpt2', 'llama'] as const) {
  for (const variant of VARIANTS) {
    test(`${name} trains to the same bits on 1, 2, 3 and 7 threads: ${variant.set} (${variant.dot})`, async () => {
      const { results, state } = await train({ name, variant, nThreads: 1 });
      assert.ok(results.every(Number.isFinite) && state.every((s) => s.some((bits) => bits !== 0)));
      for (const nThreads of [2, 3, 7]) {
        const other = await train({ name, variant, nThreads });
        assertSameNumbers(other.results, results, `${nThreads} threads, losses`);
        assertSameNumbers(other.state, state, `${nThreads} threads, state`);
      }
    });
  }

  test(`${name} trains to the same bits with recomputation, in less memory`, async () => {
    const setup = { name, variant: VARIANTS.at(-1)!, nThreads: 2 };
    const kept = await train(setup);
    const again = await train({ ...setup, recompute: true });
    assertSameNumbers([again.results, ...again.state], [kept.results, ...kept.state]);
    assert.ok(again.arenaBytes < kept.arenaBytes, `${again.arenaBytes} of ${kept.arenaBytes} bytes`);
  });
}

test('strict and simd train to the same bits: both use deterministic instructions only', async () => {
  const [simd, strict] = VARIANTS.slice(-2);
  for (const name of ['gpt2', 'llama'] as const) {
    const ofStrict = await train({ name, variant: strict!, nThreads: 2 });
    const ofSimd = await train({ name, variant: simd!, nThreads: 2 });
    assertSameNumbers([ofSimd.results, ...ofSimd.state], [ofStrict.results, ...ofStrict.state]);
  }
});
