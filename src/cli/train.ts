// smallmind train: trains a model on text files. Keeps a folder with checkpoints and metrics that a crash at any moment
// leaves usable; `--resume` goes on with the same numbers as if nothing had happened.

import { basename, resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Checkpoint, NamedText, StepEvent, TrainingRun } from '../training.ts';
import { readBytes, readText, writeFileAtomic } from './files.ts';
import type { CommandContext } from './program.ts';
import { findCheckpoint } from './run-folder.ts';
import type { RunFolder } from './run-folder.ts';
import { formatCount } from './text.ts';
import { addTrainFlags, configOf, inFlags, readSettings } from './train-settings.ts';
import type { ParsedTrain, TrainSettings } from './train-settings.ts';
import { TrainingProgress, formatDuration } from './training-progress.ts';

const EXAMPLES = `
Examples:
  smallmind train --data stories.txt --out run
  smallmind train --data play.txt --out play --arch gpt2 --tokenizer char --ctx 64 --steps 2000
  smallmind train --config train.json --out other --dropout 0.1
  smallmind train --out run --resume
  smallmind train --init run --data more.txt --out further --lr 1e-4

Ctrl-C saves a checkpoint first. The text of several files is one after the other; where a file holds many texts, put
<|endoftext|> between them. Next: smallmind export run -o model.gguf --type Q8_0`;

export function defineTrain(command: Command, context: CommandContext): void {
  addTrainFlags(command);
  command.addHelpText('after', EXAMPLES).action((parsed: ParsedTrain) => train(parsed, context));
}

async function train(parsed: ParsedTrain, { signal }: CommandContext): Promise<void> {
  const { folder, settings } = readSettings(parsed);
  const { decodeCheckpoint, openTraining, resolveTrainingOptions } = await import('../training.ts');
  // Before the texts are read, which may take long.
  if (!parsed.resume && settings.init === undefined) await inFlags(() => resolveTrainingOptions(settings.options));
  const read = async (path: string): Promise<Checkpoint> => decodeCheckpoint(await readBytes(path), path);
  const checkpoint = parsed.resume ? await read(folder.lastPath) : undefined;
  const initial = settings.init === undefined ? undefined : await read(findCheckpoint(settings.init));
  const texts = await readTexts(settings.data);
  const validationTexts = settings.validationData && (await readTexts(settings.validationData));
  const { threads, kernels } = settings;
  const setup = { checkpoint, initial, validationTexts, threads, kernels };
  await using run = await inFlags(() => openTraining(texts, settings.options, setup));
  signal.throwIfAborted();
  const config = configOf(settings, run.options);
  if (checkpoint) folder.resume(config, checkpoint.step);
  else folder.begin(config);
  await new Session(run, folder, settings, parsed.json ?? false).proceed(signal);
}

async function readTexts(paths: readonly string[]): Promise<NamedText[]> {
  const texts: NamedText[] = [];
  for (const path of paths) texts.push({ name: path, text: await readText(path) });
  return texts;
}

/** A run in this process, with its folder and what is shown of it. */
class Session {
  readonly #run: TrainingRun;
  readonly #folder: RunFolder;
  readonly #settings: TrainSettings;
  readonly #printsJson: boolean;
  readonly #progress: TrainingProgress;
  readonly #firstStep: number;
  /** Step of the last checkpoint that is on the disk. */
  #savedStep: number | undefined;
  #last: StepEvent | undefined;

  constructor(run: TrainingRun, folder: RunFolder, settings: TrainSettings, printsJson: boolean) {
    this.#run = run;
    this.#folder = folder;
    this.#settings = settings;
    this.#printsJson = printsJson;
    this.#firstStep = run.trainer.step;
    this.#savedStep = folder.holdsRun ? this.#firstStep : undefined;
    const plan = { nSteps: run.options.nSteps, firstStep: this.#firstStep, nTokensAStep: run.nTokensAStep };
    this.#progress = new TrainingProgress(plan, printsJson ? process.stderr : process.stdout, process.stderr);
  }

  async proceed(signal: AbortSignal): Promise<void> {
    this.#progress.say(this.#describeRun());
    try {
      await this.#takeSteps(signal);
    } catch (error) {
      throw this.#withLastCheckpoint(error);
    } finally {
      this.#progress.erase();
    }
    if (signal.aborted) {
      this.#progress.say(`stopped at step ${this.#savedStep}; go on with --out ${this.#folder.path} --resume`);
      throw signal.reason;
    }
    await this.#finish();
  }

  async #takeSteps(signal: AbortSignal): Promise<void> {
    const { checkpointEvery } = this.#settings;
    const { nSteps } = this.#run.options;
    for (const event of this.#run.events()) {
      // Lets signals in.
      await setImmediate();
      if (event.kind === 'evaluating') {
        this.#progress.evaluating(event);
        continue;
      }
      this.#record(event);
      const { step, isBest = false } = event;
      const isSaved = step % checkpointEvery === 0 || step === nSteps || signal.aborted;
      if (isSaved || isBest) await this.#save(isSaved, isBest && step > 0);
      if (signal.aborted) return;
    }
  }

  #record(event: StepEvent): void {
    this.#last = event;
    this.#progress.step(event);
    const { step, loss, learningRate, gradientNorm, validationLoss } = event;
    const speed = this.#progress.tokensPerSecond;
    this.#folder.addMetrics({
      step,
      loss,
      learningRate,
      gradientNorm,
      validationLoss,
      tokens: step * this.#run.nTokensAStep,
      tokensPerSecond: speed === undefined ? undefined : Math.round(speed),
    });
  }

  async #save(isLast: boolean, isBest: boolean): Promise<void> {
    const { encodeCheckpoint } = await import('../training.ts');
    const bytes = encodeCheckpoint(this.#run.checkpoint());
    if (isBest) writeFileAtomic(this.#folder.bestPath, bytes);
    if (!isLast) return;
    writeFileAtomic(this.#folder.lastPath, bytes);
    this.#savedStep = this.#run.trainer.step;
  }

  async #finish(): Promise<void> {
    const { drawLossCurve } = await import('../training.ts');
    const metrics = this.#folder.readMetrics();
    const points = (key: 'loss' | 'validationLoss') =>
      metrics.flatMap((entry) => (entry[key] === undefined ? [] : [{ step: entry.step, loss: entry[key] }]));
    const series = [
      { label: 'training', points: points('loss') },
      { label: 'validation', points: points('validationLoss') },
    ].filter((each) => each.points.length > 0);
    writeFileAtomic(this.#folder.curvePath, drawLossCurve(`Loss of ${basename(resolve(this.#folder.path))}`, series));
    if (this.#printsJson) process.stdout.write(`${JSON.stringify(this.#result())}\n`);
    else this.#progress.say(this.#describeEnd());
  }

  #describeRun(): string {
    const { options, config, nParameters, nTokensAStep, nEpochs } = this.#run;
    const { nLayer, nHead, nEmbd, nVocab, nCtx } = config;
    const shape = `${nLayer} layers, ${nHead} heads, width ${nEmbd}, context ${nCtx}, vocabulary ${nVocab}`;
    const from = this.#firstStep > 0 ? `, from step ${this.#firstStep}` : '';
    return (
      `${options.architecture}, ${formatCount(nParameters)} parameters: ${shape}\n` +
      `${formatCount(options.nSteps)} steps of ${formatCount(nTokensAStep)} tokens, ` +
      `${nEpochs.toFixed(1)} epochs${from}; ${this.#run.executor}`
    );
  }

  #describeEnd(): string {
    const best = this.#run.bestValidationLoss;
    const loss = best === undefined ? '' : `, best validation loss ${best.toFixed(4)}`;
    return `done in ${formatDuration(this.#progress.seconds)}${loss}; see ${this.#folder.curvePath}`;
  }

  #result(): object {
    const { lastPath, bestPath, metricsPath, curvePath } = this.#folder;
    return {
      step: this.#run.trainer.step,
      loss: this.#last?.loss,
      validationLoss: this.#last?.validationLoss,
      bestValidationLoss: this.#run.bestValidationLoss,
      nParameters: this.#run.nParameters,
      seconds: this.#progress.seconds,
      files: { last: lastPath, best: bestPath, metrics: metricsPath, curve: curvePath },
    };
  }

  /** Says where the run can go on, after what ended it. */
  #withLastCheckpoint(error: unknown): unknown {
    const isExpected = error instanceof Error && 'code' in error && error.code !== 'INTERNAL';
    if (!isExpected || this.#savedStep === undefined) return error;
    error.message += `; the checkpoint of step ${this.#savedStep} is intact: ${this.#folder.lastPath}`;
    return error;
  }
}
