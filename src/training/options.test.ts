// The options of a training run: defaults, ranges, and what a resumed run may change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  initialTrainingOptions,
  modelConfigOf,
  resolveTrainingOptions,
  resumeTrainingOptions,
  scheduleOf,
} from './options.ts';
import type { TrainingOptions } from './options.ts';

const refused = (options: TrainingOptions, message: RegExp): void => {
  assert.throws(() => resolveTrainingOptions(options), { code: 'INVALID_OPTION', message });
};

test('defaults depend on what is given', () => {
  const llama = resolveTrainingOptions({ nEmbd: 96, nHead: 6, nSteps: 300, learningRate: 0.01 });
  assert.deepEqual([llama.nFf, llama.nHeadKv, llama.nWarmUpSteps, llama.nStepsEach], [256, 6, 15, 100]);
  assert.equal(llama.learningRateMin, 0.001);
  assert.equal(resolveTrainingOptions({ architecture: 'gpt2', nEmbd: 96 }).nFf, 384);
  assert.equal(resolveTrainingOptions({ nSteps: 100_000 }).nWarmUpSteps, 100);
  assert.equal(resolveTrainingOptions({ nFf: undefined, nEmbd: 64 }).nFf, 192);
});

test('the model is what the options say', () => {
  const config = modelConfigOf(resolveTrainingOptions({ architecture: 'gpt2', nLayer: 3, dropout: 0.25 }), 77);
  assert.deepEqual(
    [config.architecture, config.nVocab, config.nLayer, config.dropout, config.isTied],
    ['gpt2', 77, 3, 0.25, false],
  );
});

test('a schedule takes the options that it knows', () => {
  const options = resolveTrainingOptions({ nSteps: 90, schedule: 'step', factor: 0.5 });
  assert.deepEqual(scheduleOf(options), {
    kind: 'step',
    learningRate: 0.001,
    nWarmUpSteps: 4,
    nStepsEach: 30,
    factor: 0.5,
  });
});

test('options out of range are named, with what was expected and what came', () => {
  refused({ nLayer: 0 }, /^"nLayer" expected an integer from 1 to 1024, got 0$/);
  refused({ nSteps: 1.5 }, /"nSteps" expected an integer from 1 to \d+, got 1.5/);
  refused({ seed: -1 }, /"seed"/);
  refused({ dropout: 1 }, /"dropout" expected a number from 0 to below 1, got 1/);
  refused({ beta2: Number.NaN }, /"beta2" expected .*, got NaN/);
  refused({ vocabSize: 256 }, /"vocabSize" expected an integer from 257/);
  refused({ learningRate: '0.1' as unknown as number }, /"learningRate" expected a number of at least 0, got "0.1"/);
  refused({ learningRate: 0 }, /"learningRate" expected a positive number/);
  refused({ weightDecay: Infinity }, /"weightDecay"/);
  refused({ architecture: 'mamba' as 'llama' }, /"architecture" expected one of llama, gpt2, got "mamba"/);
  refused({ nSteps: 10, nWarmUpSteps: 10 }, /"nSteps" expected an integer above the 10 of warm-up/);
});

test('sizes that do not divide are refused', () => {
  refused({ nEmbd: 100, nHead: 3 }, /"nEmbd" expected a multiple of 4 · "nHead" \(12\), got 100/);
  refused({ nHead: 4, nHeadKv: 3 }, /"nHead" expected a multiple of "nHeadKv" \(3\), got 4/);
});

test('a resumed run has the options of its checkpoint', () => {
  const saved = resolveTrainingOptions({ nLayer: 2, seed: 9 });
  assert.deepEqual(resumeTrainingOptions(saved, {}), saved);
  assert.deepEqual(resumeTrainingOptions(saved, { nLayer: 2, seed: undefined }), saved);
  for (const other of [{ nLayer: 3 }, { seed: 1 }, { learningRate: 0.01 }, { dropout: 0.1 }, { nSteps: 2000 }]) {
    const message = /is .* here and .* in the checkpoint; resume with the same options, or start anew/;
    assert.throws(() => resumeTrainingOptions(saved, other), { code: 'INVALID_OPTION', message });
  }
});

test('a resumed run may evaluate otherwise, and go on for longer where the learning rate does not know its end', () => {
  const saved = resolveTrainingOptions({ schedule: 'constant' });
  const { evaluateEvery, nSteps } = resumeTrainingOptions(saved, { evaluateEvery: 7, nSteps: 5000 });
  assert.deepEqual([evaluateEvery, nSteps], [7, 5000]);
  assert.throws(() => resumeTrainingOptions(saved, { evaluateEvery: 0 }), /"evaluateEvery"/);
});

test('a run that begins with another has its model, and everything else anew', () => {
  const saved = resolveTrainingOptions({ nLayer: 2, nEmbd: 64, vocabSize: 300, nCtx: 64, seed: 9, dropout: 0.1 });
  const begun = initialTrainingOptions(saved, { nSteps: 50 });
  assert.deepEqual([begun.nLayer, begun.nEmbd, begun.vocabSize, begun.nCtx, begun.nSteps], [2, 64, 300, 64, 50]);
  assert.deepEqual([begun.seed, begun.dropout], [1, 0]);
  assert.throws(() => initialTrainingOptions(saved, { nLayer: 3 }), /"nLayer" is 3 here and 2 in the checkpoint/);
});

test('a llama may be given another context, learned positions may not', () => {
  const llama = resolveTrainingOptions({ nCtx: 64 });
  assert.equal(initialTrainingOptions(llama, { nCtx: 128 }).nCtx, 128);
  const gpt2 = resolveTrainingOptions({ architecture: 'gpt2', nCtx: 64 });
  assert.throws(() => initialTrainingOptions(gpt2, { nCtx: 128 }), /"nCtx" is 128 here and 64 in the checkpoint/);
});
