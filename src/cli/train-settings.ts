// What `smallmind train` can be told: the flags, a config file with the same names in camelCase, and for a resumed run
// the config that it was started with. The later of these wins: the run's own, the file, the flags. Ranges are checked
// by the library, whose names become flags again in messages.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Option } from 'commander';
import type { Command } from 'commander';
import type { Kernels } from '../index.ts';
import type { ResolvedTrainingOptions, TrainingOptions } from '../training.ts';
import { RunFolder } from './run-folder.ts';
import { UsageError, addFlags, isOptionError, parseNumber } from './usage.ts';
import type { Flag } from './usage.ts';

const lowerCase = (text: string): string => text.toLowerCase();
const number = (flags: string, name: string, help: string): Flag => ({ flags, name, help, parse: parseNumber });
const choice = (flags: string, name: string, help: string): Flag => ({ flags, name, help, parse: lowerCase });

const MODEL_FLAGS: readonly Flag[] = [
  choice('--arch <NAME>', 'architecture', 'llama or gpt2 (default: llama)'),
  number('--layers <N>', 'nLayer', 'transformer layers (default: 4)'),
  number('--heads <N>', 'nHead', 'attention heads (default: 4)'),
  number('--kv-heads <N>', 'nHeadKv', 'key-value heads, which groups of heads share (default: as many as heads)'),
  number('--embd <N>', 'nEmbd', 'width of the model (default: 128)'),
  number('--ff <N>', 'nFf', 'width of the feed-forward layers (default: llama 8/3 of --embd, gpt2 4 of it)'),
  number('--ctx <N>', 'nCtx', 'context in tokens (default: 128)'),
  number('--dropout <P>', 'dropout', 'probability of dropping an activation while training (default: 0)'),
  choice('--tokenizer <KIND>', 'tokenizer', 'bpe (learnt from the data) or char (default: bpe)'),
  number('--vocab-size <N>', 'vocabSize', 'tokens of a bpe vocabulary at most (default: 1024)'),
];

const OPTIMISER_FLAGS: readonly Flag[] = [
  number('--steps <N>', 'nSteps', 'steps in all (default: 1000)'),
  number('--batch <N>', 'nSeq', 'windows of --ctx tokens in a batch (default: 16)'),
  number('--accumulate <N>', 'nAccumulate', 'batches whose gradients make one step (default: 1)'),
  choice('--order <NAME>', 'order', 'windows: random, or shuffled (each once an epoch) (default: random)'),
  choice('--schedule <NAME>', 'schedule', 'learning rate: cosine, constant or step (default: cosine)'),
  number('--lr <R>', 'learningRate', 'highest learning rate (default: 0.001)'),
  number('--min-lr <R>', 'learningRateMin', 'where the cosine ends (default: a tenth of --lr)'),
  number('--warmup <N>', 'nWarmUpSteps', 'steps of warm-up (default: a twentieth of --steps, at most 100)'),
  number('--decay-every <N>', 'nStepsEach', 'schedule step: steps between two decays (default: a third of --steps)'),
  number('--decay-factor <F>', 'factor', 'schedule step: what the rate is multiplied by (default: 0.1)'),
  number('--weight-decay <W>', 'weightDecay', 'of matrices (default: 0.1)'),
  number('--beta1 <B>', 'beta1', 'of AdamW (default: 0.9)'),
  number('--beta2 <B>', 'beta2', 'of AdamW (default: 0.95)'),
  number('--clip <N>', 'maxNorm', 'greatest norm of the gradient; 0 is off (default: 1)'),
  number('--seed <S>', 'seed', 'of parameters, windows and dropout (default: 1)'),
];

const EVALUATION_FLAGS: readonly Flag[] = [
  number('--val-fraction <F>', 'validationFraction', 'last part of the data, for validation; 0: none (default: 0.05)'),
  number('--eval-every <N>', 'evaluateEvery', 'steps between evaluations (default: 100)'),
  number('--eval-batches <N>', 'nEvaluationBatches', 'batches of an evaluation; 0: all there are (default: 20)'),
];

/** Options of the run itself, which change none of its numbers in `strict`. */
const RUN_FLAGS: readonly Flag[] = [
  number('--checkpoint-every <N>', 'checkpointEvery', 'steps between checkpoints (default: 100)'),
  number('-t, --threads <N>', 'threads', 'threads that compute (default: fast cores, at most 8)'),
  choice('--kernels <SET>', 'kernels', 'auto, relaxed, simd or strict (same bits on any machine) (default: auto)'),
];

const TRAINING_FLAGS = [...MODEL_FLAGS, ...OPTIMISER_FLAGS, ...EVALUATION_FLAGS];
const FLAGS = [...TRAINING_FLAGS, ...RUN_FLAGS];

export interface TrainSettings {
  readonly data: readonly string[];
  /** In place of the last part of `data`. */
  readonly validationData: readonly string[] | undefined;
  /** Checkpoint, or folder of a run, to begin with. */
  readonly init: string | undefined;
  readonly options: TrainingOptions;
  readonly checkpointEvery: number;
  readonly threads: number | undefined;
  readonly kernels: Kernels | undefined;
}

/** What commander makes of the command line. */
export interface ParsedTrain extends Record<string, unknown> {
  readonly config?: string;
  readonly out?: string;
  readonly resume?: boolean;
  readonly init?: string;
  readonly json?: boolean;
}

export function addTrainFlags(command: Command): void {
  const group = (flags: string, help: string): Option => new Option(flags, help).helpGroup('Files:');
  command
    .addOption(group('--data <FILE...>', 'text files to train on'))
    .addOption(group('--val-data <FILE...>', 'text files for validation (default: the last part of the data)'))
    .addOption(group('--out <DIR>', 'folder for checkpoints, metrics.jsonl and loss.svg'))
    .addOption(group('--config <FILE>', 'JSON file with any of these flags: {"data": ["a.txt"], "minLr": 1e-4, …}'))
    .addOption(group('--resume', 'go on with the run in the folder, from its last checkpoint'))
    .addOption(group('--init <FILE>', 'begin with what a checkpoint, or the run in a folder, has learnt'))
    .addOption(group('--json', 'print one JSON object at the end'));
  addFlags(command, 'Model:', MODEL_FLAGS);
  addFlags(command, 'Optimiser:', OPTIMISER_FLAGS);
  addFlags(command, 'Evaluation:', EVALUATION_FLAGS);
  addFlags(command, 'Running:', RUN_FLAGS);
}

const keyOf = (flag: Flag): string => new Option(flag.flags).attributeName();
const KEYS: ReadonlySet<string> = new Set(['data', 'valData', 'out', 'init', ...FLAGS.map(keyOf)]);

/** @throws {UsageError} for a config file that is no such thing, no data, or a folder with a run or without one */
export function readSettings(parsed: ParsedTrain): { folder: RunFolder; settings: TrainSettings } {
  const fromFile = parsed.config === undefined ? {} : readConfigFile(parsed.config);
  const out = parsed.out ?? fromFile['out'];
  if (typeof out !== 'string') throw new UsageError('no folder given; name one with --out');
  const folder = new RunFolder(out);
  if (parsed.resume) folder.requireRun();
  else folder.requireNew();
  const fromRun = parsed.resume ? folder.readConfig() : {};
  const given = Object.entries(parsed).filter(([key, value]) => KEYS.has(key) && value !== undefined);
  const values: Record<string, unknown> = { ...fromRun, ...fromFile, ...Object.fromEntries(given) };
  const valueOf = (flag: Flag): unknown => values[keyOf(flag)];
  const options = Object.fromEntries(TRAINING_FLAGS.map((flag) => [flag.name, valueOf(flag)]));
  const { threads, kernels, checkpointEvery = 100 } = values;
  if (!(Number.isSafeInteger(checkpointEvery) && (checkpointEvery as number) >= 1)) {
    throw new UsageError(`--checkpoint-every expected an integer of at least 1, got ${String(checkpointEvery)}`);
  }
  const data = readPaths('data', values['data']);
  if (data === undefined) throw new UsageError('no data given; name text files with --data');
  if (parsed.resume && parsed.init !== undefined) throw new UsageError('--resume and --init exclude each other');
  const init = parsed.resume ? undefined : values['init'];
  if (init !== undefined && typeof init !== 'string') throw new UsageError('"init" expected the name of a file');
  const validationData = readPaths('valData', values['valData']);
  const settings = { data, validationData, init, options, threads, kernels };
  return { folder, settings: { ...settings, checkpointEvery } as TrainSettings };
}

function readConfigFile(path: string): Record<string, unknown> {
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new UsageError(`${path}: ${isMissing ? 'no such file; check the path' : (error as Error).message}`);
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw new UsageError(`${path} expected one JSON object`);
  }
  const unknown = Object.keys(config).find((key) => !KEYS.has(key));
  if (unknown !== undefined) {
    throw new UsageError(`${path}: unknown key "${unknown}"; keys are flags in camelCase: ${[...KEYS].join(', ')}`);
  }
  return config as Record<string, unknown>;
}

function readPaths(key: string, value: unknown): readonly string[] | undefined {
  const paths = typeof value === 'string' ? [value] : value;
  if (paths === undefined) return undefined;
  if (Array.isArray(paths) && paths.length > 0 && paths.every((path) => typeof path === 'string')) return paths;
  throw new UsageError(`"${key}" expected the names of files, got ${JSON.stringify(value)}`);
}

/** The whole of a run as a config file, to be read again by a resume or `--config`. */
export function configOf(settings: TrainSettings, options: ResolvedTrainingOptions): Record<string, unknown> {
  const { data, validationData, init, threads, kernels, checkpointEvery } = settings;
  const values: Record<string, unknown> = { ...options, threads, kernels, checkpointEvery };
  return {
    data: data.map((path) => resolve(path)),
    valData: validationData?.map((path) => resolve(path)),
    init: init && resolve(init),
    ...Object.fromEntries(FLAGS.map((flag) => [keyOf(flag), values[flag.name]])),
  };
}

/** What `act` returns; where the library refuses an option, its message speaks of the flags. */
export async function inFlags<T>(act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!isOptionError(error) || error.details['option'] === undefined) throw error;
    const spell = (message: string, flag: Flag): string =>
      message.replaceAll(`"${flag.name}"`, new Option(flag.flags).long!);
    throw new UsageError(FLAGS.reduce(spell, error.message), { cause: error });
  }
}
