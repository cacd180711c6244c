// A training run: steps and evaluations in their order, as events that the caller takes one by one, so that it may
// stop, save and show progress between any two. Knows no files, no clock and no terminal.

import { OptionError, SmallMindError } from '../base/errors.ts';
import type { Executor } from '../backend/executor.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import { STATE_ARRAYS } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { Corpus } from './corpus.ts';
import { checkTokenIds, DataLoader, evaluationBatches } from './data.ts';
import type { Batch } from './data.ts';
import { adamWOf, scheduleOf } from './options.ts';
import type { ResolvedTrainingOptions } from './options.ts';
import { learningRateAt } from './schedule.ts';
import { Trainer } from './trainer.ts';
import type { TrainingPrograms } from './trainer.ts';

/** After a step; a checkpoint made now goes on behind it. Step 0, of a new run only, is the untrained model. */
export interface StepEvent {
  readonly kind: 'step';
  /** Steps taken. */
  readonly step: number;
  /** Mean over the tokens of the step's batches, in nats, before the step; absent at step 0. */
  readonly loss?: number;
  readonly learningRate?: number;
  readonly gradientNorm?: number;
  /** Where the run evaluates. */
  readonly validationLoss?: number;
  /** Whether `validationLoss` is the lowest so far. */
  readonly isBest?: boolean;
}

/** While an evaluation runs, before each of its batches. */
export interface EvaluatingEvent {
  readonly kind: 'evaluating';
  readonly step: number;
  readonly nBatchesDone: number;
  readonly nBatches: number;
}

/** What a run's events are. */
export type TrainingEvent = StepEvent | EvaluatingEvent;

/** The windows are drawn from other numbers than the parameters, whose generators have the seed itself. */
const DATA_SEED = 2 ** 32;

/** A run of training steps on its texts. Close it when it is no longer needed, or declare it with `await using`. */
export class TrainingRun implements AsyncDisposable {
  /** With every default in place. */
  readonly options: ResolvedTrainingOptions;
  /** @internal */
  readonly trainer: Trainer;
  readonly #executor: Executor;
  readonly #corpus: Corpus;
  readonly #loader: DataLoader;
  readonly #batch: Batch;
  #isNew = true;
  /** Of the best evaluation so far. */
  bestValidationLoss: number | undefined;

  /**
   * Begins anew.
   * @param executor  made of the programs' graphs; `close` closes it
   * @throws {OptionError} for data that are too short for a window, or token ids outside the model's vocabulary
   * @internal Use `openTraining`.
   */
  constructor(programs: TrainingPrograms, executor: Executor, corpus: Corpus, options: ResolvedTrainingOptions) {
    const { nSeq, nCtx, seed, order } = options;
    checkTokenIds(corpus.train, programs.config.nVocab);
    checkTokenIds(corpus.validation, programs.config.nVocab);
    if (corpus.validation.length === 1) throw new OptionError('the validation data has 1 token, it needs 2 or more');
    this.options = options;
    this.#executor = executor;
    this.#corpus = corpus;
    this.#loader = new DataLoader(corpus.train, { nSeq, nCtx, order, seed: seed + DATA_SEED });
    this.trainer = new Trainer(programs, executor);
    this.#batch = { inputs: this.trainer.inputs, targets: this.trainer.targets };
    this.trainer.initialize(seed);
  }

  /** The model's sizes. */
  get config(): TransformerConfig {
    return this.trainer.programs.config;
  }

  /** What computes, in words, e.g. `wasm relaxed (u8), 2 threads`. */
  get executor(): string {
    return this.#executor.description;
  }

  /** Weights that are trained. */
  get nParameters(): number {
    return this.trainer.programs.layout.nParameters;
  }

  /** Tokens that a step sees. */
  get nTokensAStep(): number {
    const { nSeq, nCtx, nAccumulate } = this.options;
    return nSeq * nCtx * nAccumulate;
  }

  /** Passes over the training data that all steps make. */
  get nEpochs(): number {
    const { nSteps, nAccumulate } = this.options;
    return (nSteps * nAccumulate) / this.#loader.stepsAnEpoch;
  }

  /**
   * Goes on where the run was that made the checkpoint.
   * @throws {OptionError} when its data were others, {SmallMindError} FILE_UNREADABLE when its sizes do not fit
   * @internal Done by `openTraining`.
   */
  restore(checkpoint: Checkpoint): void {
    const { arrays, step, bestValidationLoss, loader, dataChecksum } = checkpoint;
    this.#requireSize(checkpoint);
    if (dataChecksum !== this.#corpus.checksum) {
      throw new OptionError('the data are not those of the checkpoint; resume with the same files, in the same order');
    }
    this.#loader.state = loader;
    for (const name of STATE_ARRAYS) this.trainer.state(name).set(arrays[name]);
    this.trainer.step = step;
    this.#isNew = false;
    this.bestValidationLoss = bestValidationLoss ?? undefined;
  }

  /**
   * Takes over what another run has learnt, and nothing else of it.
   * @throws {SmallMindError} FILE_UNREADABLE when its sizes do not fit
   * @internal Done by `openTraining`.
   */
  beginWith(checkpoint: Checkpoint): void {
    this.#requireSize(checkpoint);
    this.trainer.state('parameters').set(checkpoint.arrays.parameters);
  }

  #requireSize({ arrays: { parameters } }: Checkpoint): void {
    const { size } = this.trainer.programs.layout;
    if (parameters.length === size) return;
    throw new SmallMindError(
      'FILE_UNREADABLE',
      `the checkpoint has ${parameters.length} numbers a state, the model ${size}; it is of another version`,
    );
  }

  /**
   * All of the run after the last step.
   * @throws {SmallMindError} NUMERIC when the last step left parameters that no longer give a loss
   */
  checkpoint(): Checkpoint {
    const { trainer } = this;
    requireFinite('the loss', trainer.evaluate(), trainer.step);
    const copy = (name: (typeof STATE_ARRAYS)[number]): Float32Array => Float32Array.from(trainer.state(name));
    return {
      options: this.options,
      config: this.config,
      vocabulary: this.#corpus.vocabulary,
      step: trainer.step,
      bestValidationLoss: this.bestValidationLoss ?? null,
      loader: this.#loader.state,
      dataChecksum: this.#corpus.checksum,
      arrays: { parameters: copy('parameters'), moment1: copy('moment1'), moment2: copy('moment2') },
    };
  }

  /**
   * What is left of the run; each turn computes one batch of an evaluation or one step. Leave it after a step event: an
   * evaluation that is left is not taken up again.
   * @throws {SmallMindError} NUMERIC when a loss or gradient is no longer finite
   */
  *events(): Generator<TrainingEvent, void> {
    const { trainer, options } = this;
    const schedule = scheduleOf(options);
    const adamW = adamWOf(options);
    const nextBatch = (): void => this.#loader.next(this.#batch);
    if (this.#isNew) {
      const evaluation = yield* this.#evaluate();
      this.#isNew = false;
      yield { kind: 'step', step: 0, ...evaluation };
    }
    while (trainer.step < options.nSteps) {
      const learningRate = learningRateAt(schedule, trainer.step);
      const { loss, gradientNorm } = trainer.train(nextBatch, learningRate, adamW);
      const { step } = trainer;
      const isEvaluated = step % options.evaluateEvery === 0 || step === options.nSteps;
      const evaluation = isEvaluated ? yield* this.#evaluate() : {};
      yield { kind: 'step', step, loss, learningRate, gradientNorm, ...evaluation };
    }
  }

  /** Gives back memory and threads. */
  close(): Promise<void> {
    return this.#executor.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Mean loss over batches that are spread evenly over the validation part. */
  *#evaluate(): Generator<EvaluatingEvent, Pick<StepEvent, 'validationLoss' | 'isBest'>> {
    const { validation } = this.#corpus;
    if (validation.length === 0) return {};
    const { nSeq, nCtx, nEvaluationBatches } = this.options;
    const { step } = this.trainer;
    const nTokens = nSeq * nCtx;
    const nAll = Math.ceil((validation.length - 1) / nTokens);
    const nBatches = nEvaluationBatches === 0 ? nAll : Math.min(nAll, nEvaluationBatches);
    let sum = 0;
    let nCounted = 0;
    for (let i = 0; i < nBatches; i++) {
      yield { kind: 'evaluating', step, nBatchesDone: i, nBatches };
      const begin = Math.floor((i * nAll) / nBatches) * nTokens;
      const part = validation.subarray(begin, begin + nTokens + 1);
      for (const n of evaluationBatches(part, { nSeq, nCtx }, this.#batch)) {
        sum += n * this.trainer.evaluate();
        nCounted += n;
      }
    }
    const validationLoss = sum / nCounted;
    requireFinite('the validation loss', validationLoss, step);
    const isBest = validationLoss < (this.bestValidationLoss ?? Infinity);
    if (isBest) this.bestValidationLoss = validationLoss;
    return { validationLoss, isBest };
  }
}

function requireFinite(what: string, value: number, step: number): void {
  if (Number.isFinite(value)) return;
  throw new SmallMindError('NUMERIC', `${what} became ${value} at step ${step}; lower the learning rate`, { step });
}
