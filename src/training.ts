// The public API of training: texts in, a run of steps out, and what it learnt as a checkpoint or as a GGUF file.
// Files, progress and the clock are the caller's.

import type { Executor } from './backend/executor.ts';
import { ReferenceExecutor } from './backend/reference/executor.ts';
import { WasmExecutor } from './backend/wasm/executor.ts';
import { assert } from './base/errors.ts';
import type { Graph } from './graph/tensor.ts';
import { resolveLoadOptions } from './options.ts';
import type { Kernels } from './options.ts';
import { chooseThreads } from './threads.ts';
import type { Checkpoint } from './training/checkpoint.ts';
import { prepareCorpus } from './training/corpus.ts';
import type { NamedText } from './training/data.ts';
import {
  batchShapeOf,
  initialTrainingOptions,
  modelConfigOf,
  resolveTrainingOptions,
  resumeTrainingOptions,
} from './training/options.ts';
import type { ResolvedTrainingOptions, TrainingOptions } from './training/options.ts';
import { TrainingRun } from './training/run.ts';
import { buildTrainingPrograms } from './training/trainer.ts';

// The regions are the groups of this entry's page in docs/api.
// #region Train
/**
 * Prepares a training run on texts: learns the vocabulary, encodes the texts, builds the model. It blocks the calling
 * thread for each step.
 * @throws {OptionError} for a bad option, empty or too short texts, options or data that are not the checkpoint's;
 *   {SmallMindError} OUT_OF_MEMORY; {UnsupportedError} for a machine without SIMD
 * @example
 * import { exportGguf, openTraining } from 'smallmind/training';
 *
 * const text = 'The cat sat on the mat. The dog sat on the cat. '.repeat(200);
 * await using run = await openTraining([{ name: 'cats', text }], { nLayer: 1, nEmbd: 32, nCtx: 32, nSteps: 20 });
 * for (const event of run.events()) if (event.kind === 'step') console.log(event.step, event.loss);
 * const { bytes } = exportGguf(run.checkpoint(), { type: 'Q8_0' });
 * console.log(`${bytes.length} bytes of GGUF`);
 */
export async function openTraining(
  texts: readonly NamedText[],
  options: TrainingOptions = {},
  setup: TrainingSetup = {},
): Promise<TrainingRun> {
  const { checkpoint, initial, validationTexts } = setup;
  const { threads, kernels } = resolveLoadOptions({ threads: setup.threads, kernels: setup.kernels });
  const resolved = resolveOptions(options, setup);
  const vocabulary = (checkpoint ?? initial)?.vocabulary;
  const corpus = prepareCorpus(texts, resolved, { validationTexts, vocabulary });
  const config = modelConfigOf(resolved, corpus.vocabulary.tokens.length);
  const programs = buildTrainingPrograms(config, batchShapeOf(resolved));
  const executor = await createExecutor(programs.graphs, kernels, threads ?? chooseThreads().threads);
  try {
    const run = new TrainingRun(programs, executor, corpus, resolved);
    if (checkpoint) run.restore(checkpoint);
    else if (initial) run.beginWith(initial);
    return run;
  } catch (error) {
    await executor.close();
    throw error;
  }
}

/** How a run is opened, beside what it is. None of these changes a number of the run in `strict`. */
export interface TrainingSetup {
  /** Goes on where this was saved. Then the options given must be those of the checkpoint. */
  readonly checkpoint?: Checkpoint;
  /** Begins with the parameters and the vocabulary of this, as a new run: model options must be left out, or be its. */
  readonly initial?: Checkpoint;
  /** Texts for validation, in place of the last part of the training texts. */
  readonly validationTexts?: readonly NamedText[];
  /** Threads that compute, 1..64. Default: the machine's fast cores, at most 8. */
  readonly threads?: number;
  /** Kernel set. `strict` gives the same bits on every machine and with any number of threads. Default `auto`. */
  readonly kernels?: Kernels;
}

export { resolveTrainingOptions } from './training/options.ts';
export type { TrainingOptions, ResolvedTrainingOptions } from './training/options.ts';
export type { TransformerConfig } from './nn/transformer.ts';
export type { NamedText, WindowOrder } from './training/data.ts';
export type { Kernels } from './options.ts';
export { TrainingRun } from './training/run.ts';
export type { TrainingEvent, StepEvent, EvaluatingEvent } from './training/run.ts';
export { drawLossCurve } from './training/loss-curve.ts';
export type { CurvePoint, CurveSeries } from './training/loss-curve.ts';
// #endregion

// #region Keep and export
export { decodeCheckpoint, encodeCheckpoint } from './training/checkpoint.ts';
export type { Checkpoint } from './training/checkpoint.ts';
export { EXPORT_TYPES, exportGguf } from './training/export.ts';
export type { ExportOptions, ExportType, ExportedModel } from './training/export.ts';
// #endregion

// #region Errors
export { SmallMindError, OptionError, UnsupportedError } from './base/errors.ts';
export type { ErrorCode, ErrorDetails } from './base/errors.ts';
// #endregion

function resolveOptions(options: TrainingOptions, { checkpoint, initial }: TrainingSetup): ResolvedTrainingOptions {
  if (checkpoint) return resumeTrainingOptions(checkpoint.options, options);
  return initial ? initialTrainingOptions(initial.options, options) : resolveTrainingOptions(options);
}

async function createExecutor(graphs: readonly Graph[], kernels: Kernels, nThreads: number): Promise<Executor> {
  const source = { read: async (name: string) => assert(false, `a training program has the weight "${name}"`) };
  if (kernels === 'reference') return ReferenceExecutor.create(graphs, source);
  return WasmExecutor.create(graphs, source, { kernels, nThreads, activations: 'f32' });
}
