// A training run as a sequence of events: what comes when, that it can be left and taken up anywhere with the same
// numbers, and what ends it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WasmExecutor } from '../backend/wasm/executor.ts';
import { openTraining } from '../training.ts';
import type { TrainingSetup } from '../training.ts';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';
import { prepareCorpus } from './corpus.ts';
import { batchShapeOf, modelConfigOf, resolveTrainingOptions } from './options.ts';
import type { TrainingOptions } from './options.ts';
import { TrainingRun } from './run.ts';
import type { StepEvent } from './run.ts';
import { buildTrainingPrograms } from './trainer.ts';

const TEXT = Array.from({ length: 120 }, (_, i) => `The ${['cat', 'dog', 'cow'][(i * i) % 3]} saw ${i} mice.\n`).join(
  '',
);
const SMALL: TrainingOptions = {
  tokenizer: 'char',
  nLayer: 1,
  nHead: 2,
  nHeadKv: 1,
  nEmbd: 16,
  nFf: 32,
  nCtx: 16,
  nSeq: 4,
  nAccumulate: 2,
  dropout: 0.1,
  nSteps: 12,
  nWarmUpSteps: 2,
  validationFraction: 0.2,
  evaluateEvery: 5,
  nEvaluationBatches: 2,
};

const open = (options: TrainingOptions = {}, setup: TrainingSetup = {}, text = TEXT): Promise<TrainingRun> =>
  openTraining([{ name: 'text', text }], { ...SMALL, ...options }, { kernels: 'strict', threads: 1, ...setup });

/** The step events of the rest of a run, at most `n`. */
function take(run: TrainingRun, n = Infinity): StepEvent[] {
  const steps: StepEvent[] = [];
  if (n === 0) return steps;
  for (const event of run.events()) {
    if (event.kind === 'step' && steps.push(event) >= n) break;
  }
  return steps;
}

test('a run is the untrained model, every step, and an evaluation in between and at the end', async () => {
  await using run = await open();
  const kinds: string[] = [];
  const steps: StepEvent[] = [];
  for (const event of run.events()) {
    kinds.push(event.kind === 'step' ? String(event.step) : `${event.nBatchesDone}/${event.nBatches}`);
    if (event.kind === 'step') steps.push(event);
  }
  const evaluation = ['0/2', '1/2'];
  const expected = [...evaluation, '0', '1', '2', '3', '4', ...evaluation, '5', '6', '7', '8', '9', ...evaluation];
  assert.deepEqual(kinds, [...expected, '10', '11', ...evaluation, '12']);
  assert.deepEqual(
    steps.filter((s) => s.validationLoss !== undefined).map((s) => s.step),
    [0, 5, 10, 12],
  );
  assert.equal(steps[0]!.loss, undefined);
  assert.ok(steps.slice(1).every((s) => s.loss! > 0 && s.gradientNorm! > 0));
  assert.ok(steps.at(-1)!.validationLoss! < steps[0]!.validationLoss!);
  assert.equal(run.bestValidationLoss, Math.min(...steps.flatMap((s) => s.validationLoss ?? [])));
  assert.equal(steps[1]!.learningRate, 0.001 / 3);
});

test('without validation data nothing is evaluated', async () => {
  await using run = await open({ validationFraction: 0 });
  const steps = take(run);
  assert.equal(steps.length, 13);
  assert.ok(steps.every((s) => s.validationLoss === undefined));
  assert.equal(run.checkpoint().bestValidationLoss, null);
});

test('a run goes on from any checkpoint with the same bits, on any number of threads', async () => {
  const straight = await (async () => {
    await using run = await open({}, { threads: 2 });
    return { steps: take(run), end: run.checkpoint() };
  })();
  for (const nBefore of [1, 2, 6, 8, 13]) {
    let saved: Checkpoint;
    const steps: StepEvent[] = [];
    {
      await using run = await open();
      steps.push(...take(run, nBefore));
      saved = decodeCheckpoint(encodeCheckpoint(run.checkpoint()), 'a');
    }
    assert.equal(saved.step, nBefore - 1);
    await using run = await open({}, { checkpoint: saved, threads: 1 + (nBefore % 2) });
    steps.push(...take(run));
    assert.deepEqual(steps, straight.steps);
    assert.deepEqual(run.checkpoint(), straight.end);
  }
});

test('making a checkpoint changes nothing', async () => {
  await using watched = await open();
  const steps: StepEvent[] = [];
  for (const event of watched.events()) {
    if (event.kind !== 'step') continue;
    steps.push(event);
    watched.checkpoint();
  }
  await using run = await open();
  assert.deepEqual(steps, take(run));
});

test('another seed gives another run', async () => {
  await using first = await open();
  await using second = await open({ seed: 2 });
  assert.notEqual(take(first, 2).at(-1)!.loss, take(second, 2).at(-1)!.loss);
  const [one, two] = [first.checkpoint(), second.checkpoint()];
  assert.notEqual(one.loader.seed, two.loader.seed);
  assert.notDeepEqual(one.arrays.parameters, two.arrays.parameters);
});

test('rejects the checkpoint of other data, other options, and another model', async () => {
  await using run = await open();
  take(run, 3);
  const checkpoint = run.checkpoint();
  await assert.rejects(
    open({}, { checkpoint }, TEXT.replace('cat', 'rat')),
    /the data are not those of the checkpoint/,
  );
  await assert.rejects(open({ nLayer: 2 }, { checkpoint }), /"nLayer" is 2 here and 1 in the checkpoint/);
  const arrays = { ...checkpoint.arrays, parameters: new Float32Array(16) };
  await assert.rejects(open({}, { checkpoint: { ...checkpoint, arrays } }), { code: 'FILE_UNREADABLE' });
});

test('rejects data that are too short for a window', async () => {
  await assert.rejects(open({ nCtx: 4096 }), /has \d+ tokens, a window needs 4097; give it more text or a shorter/);
});

test('rejects token ids that the model does not have, before they reach a kernel', async () => {
  const options = resolveTrainingOptions(SMALL);
  const corpus = prepareCorpus([{ name: 'text', text: TEXT }], options);
  const programs = buildTrainingPrograms(modelConfigOf(options, 10), batchShapeOf(options));
  const source = { read: async () => {} };
  const executor = await WasmExecutor.create(programs.graphs, source, {
    kernels: 'strict',
    nThreads: 1,
    activations: 'f32',
  });
  try {
    const message = /^token \d+ of the data has the id \d+, expected 0 to 9; the data was encoded with another/;
    assert.throws(() => new TrainingRun(programs, executor, corpus, options), { code: 'INVALID_OPTION', message });
  } finally {
    await executor.close();
  }
});

test('a loss that is no number ends the run, and such a model is never saved', async () => {
  await using run = await open({ evaluateEvery: 100 });
  take(run, 4);
  const good = run.checkpoint();
  run.trainer.state('parameters').fill(Number.NaN);
  assert.throws(() => run.checkpoint(), { code: 'NUMERIC', message: /the loss became NaN at step 3/ });
  assert.throws(() => take(run), {
    code: 'NUMERIC',
    message: /the loss became NaN at step 4; lower the learning rate/,
  });
  run.restore(good);
  assert.equal(take(run).at(-1)!.step, 12);
});

test('the batches of an evaluation are spread over the validation part', async () => {
  // The first half of the validation part is what the model learns, in the second comes what it never saw.
  const easy = 'abababababababab'.repeat(40);
  const hard = Array.from({ length: 640 }, (_, i) => 'cdefghijklmnopqr'[(i * i * 7 + (i >> 3)) % 16]).join('');
  const lossOf = async (nEvaluationBatches: number, validation = easy + hard): Promise<number> => {
    const steps = { nSteps: 60, learningRate: 0.01, evaluateEvery: 60, nEvaluationBatches };
    const validationTexts = [{ name: 'validation', text: validation }];
    await using run = await open({ ...steps, validationFraction: 0 }, { validationTexts }, easy);
    return take(run).at(-1)!.validationLoss!;
  };
  const [all, half, first] = [await lossOf(0), await lossOf(10), await lossOf(0, easy)];
  assert.ok(first < 0.1 * all, `${first} of the first half, ${all} of all`);
  assert.ok(Math.abs(half - all) < 0.1 * all, `${half} of half the batches, ${all} of all`);
});
