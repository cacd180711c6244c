// smallmind bench: how fast a model runs on this machine, and on wish how fast llama.cpp runs the same file beside it.

import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { rmSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Command } from 'commander';
import { resolveLoadOptions } from '../options.ts';
import type { LoadOptions } from '../options.ts';
import type { BenchmarkModel, Profile, Speed, Workload } from '../benchmark.ts';
import { writeFileAtomic, writeSource } from './files.ts';
import { LOAD_FLAGS } from './flags.ts';
import { LoadingBar } from './loading-bar.ts';
import type { CommandContext } from './program.ts';
import { findPeer, openPeer } from './peer.ts';
import type { Peer } from './peer.ts';
import { formatBytes, formatColumns, formatRate } from './text.ts';
import { UsageError, addFlags, checkFlags, isOptionError, parseNumber, readFlags } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind bench model.gguf
  smallmind bench model.gguf -t 1,2 -p 512 -n 128 --profile
  smallmind bench --synthetic SmolLM2-135M:Q8_0 --against llama.cpp
  smallmind bench --synthetic TinyLlama-1.1B:Q4_K_M --json --out speed.json

Shapes: SmolLM2-135M, Qwen2.5-0.5B, TinyLlama-1.1B, Llama-3.2-1B, Llama-3.2-3B. Types: those that run, and Q3_K_M,
Q4_K_M, Q5_K_M. --against llama.cpp needs the package node-llama-cpp in the folder where you are; the two take turns,
run by run. Close other programs first: a busy machine measures itself.`;

const FLAGS = LOAD_FLAGS.filter(({ name }) => name !== 'threads' && name !== 'nCtx');

interface Settings {
  readonly source: string;
  readonly isSynthetic: boolean;
  readonly threads: readonly number[];
  readonly nPrompt: number;
  readonly nGenerate: number;
  readonly nRuns: number;
  readonly isAgainst: boolean;
  readonly isProfiled: boolean;
  readonly load: LoadOptions;
}

/** Tokens a second, medians; of ours also the least and the greatest. `null` where nobody is compared with. */
interface Compared {
  readonly ours: number;
  readonly theirs: number | null;
  /** Median of the ratios of pairs of runs. */
  readonly ratio: number | null;
  readonly min: number;
  readonly max: number;
}

interface Row {
  readonly threads: number;
  readonly peer: string | null;
  readonly prefill: Compared;
  readonly decode: Compared;
  /** Bytes of weights that decoding reads, and its share of what the machine's memory gives. */
  readonly decodeGBs: number;
  readonly readLimitGBs: number;
  readonly limitShare: number;
  /** Operations of prefill, and their share of what the machine's arithmetic gives. */
  readonly prefillGops: number;
  readonly computeLimitGops: number;
  readonly computeLimitShare: number;
  /** Of the process, loaded and warm, before a peer shares it. */
  readonly rssBytes: number;
  readonly loadMs: number;
  readonly profile?: { readonly prefill: Profile; readonly decode: Profile };
}

export function defineBench(command: Command, { signal }: CommandContext): void {
  command
    .argument('[model]', 'a model file in GGUF format')
    .option('--synthetic <SHAPE:TYPE>', 'random weights in the shape of a well-known model, instead of a file')
    .option('-p, --prompt-tokens <N>', 'tokens of the prompt', parseNumber, 512)
    .option('-n, --max-tokens <N>', 'tokens to generate', parseNumber, 128)
    .option('-t, --threads <N,…>', 'numbers of threads, one after the other', '1,2')
    .option('-r, --runs <N>', 'measured runs, after one that is not', parseNumber, 5)
    .option('--against <PEER>', 'llama.cpp: the same file, interleaved')
    .option('--profile', 'where the time goes')
    .option('--json', 'print one JSON object')
    .option('--out <FILE>', 'write the JSON object to a file')
    .addHelpText('after', EXAMPLES)
    .action(async (path: string | undefined, parsed: Record<string, unknown>) => {
      const settings = readBenchSettings(path, parsed);
      const report = await benchmark(settings, signal);
      if (typeof parsed['out'] === 'string') writeFileAtomic(parsed['out'], `${JSON.stringify(report, null, 2)}\n`);
      process.stdout.write(`${parsed['json'] ? JSON.stringify(report) : describe(report)}\n`);
    });
  addFlags(command, 'Running the model:', FLAGS);
}

function readBenchSettings(path: string | undefined, parsed: Record<string, unknown>): Settings {
  const synthetic = parsed['synthetic'] as string | undefined;
  if ((path === undefined) === (synthetic === undefined)) {
    throw new UsageError('expected a model file or --synthetic SHAPE:TYPE, one of the two');
  }
  const count = (flag: string, value: unknown, min: number, max: number): number => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    throw new UsageError(`${flag} expected an integer from ${min} to ${max}, got ${String(value)}`);
  };
  const threads = String(parsed['threads'])
    .split(',')
    .map((text) => count('--threads', parseNumber(text), 1, 64));
  const against = parsed['against'];
  if (against !== undefined && against !== 'llama.cpp') throw new UsageError('--against expected llama.cpp');
  const load = readFlags(parsed, FLAGS) as LoadOptions;
  checkFlags(FLAGS, () => resolveLoadOptions(load));
  return {
    source: path ?? synthetic!,
    isSynthetic: path === undefined,
    threads,
    nPrompt: count('--prompt-tokens', parsed['promptTokens'], 1, 2 ** 20),
    nGenerate: count('--max-tokens', parsed['maxTokens'], 1, 2 ** 20),
    nRuns: count('--runs', parsed['runs'], 1, 1000),
    isAgainst: against !== undefined,
    isProfiled: parsed['profile'] === true,
    load,
  };
}

async function benchmark(settings: Settings, signal: AbortSignal) {
  const { hasWideVectors, syntheticModel } = await import('../benchmark.ts');
  const scratch = join(tmpdir(), `smallmind-bench-${process.pid}.gguf`);
  const synthetic = settings.isSynthetic ? syntheticModel(settings.source) : undefined;
  if (settings.isAgainst) findPeer();
  try {
    let path = settings.source;
    if (synthetic && settings.isAgainst) {
      // llama.cpp reads files only.
      await writeSource(synthetic, scratch, signal);
      path = scratch;
    }
    const source = synthetic && !settings.isAgainst ? synthetic : path;
    const runs: Row[] = [];
    for (const threads of settings.threads) runs.push(await measure(settings, source, path, threads, signal));
    const { nPrompt, nGenerate, nRuns } = settings;
    const machine = {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      node: process.version,
      wideVectors: hasWideVectors(),
    };
    return { machine, model: settings.source, nPrompt, nGenerate, nRuns, runs };
  } finally {
    rmSync(scratch, { force: true });
  }
}

async function measure(
  settings: Settings,
  source: Parameters<typeof BenchmarkModel.load>[0],
  path: string,
  threads: number,
  signal: AbortSignal,
): Promise<Row> {
  const { BenchmarkModel } = await import('../benchmark.ts');
  const { nPrompt, nGenerate, nRuns } = settings;
  const nCtx = nPrompt + nGenerate + 2;
  const bar = new LoadingBar(settings.source);
  const onProgress: LoadOptions['onProgress'] = (progress) => bar.update(progress);
  const load = { ...settings.load, threads, nCtx, signal, onProgress };
  await using model = await BenchmarkModel.load(source, load).catch(refuseContext);
  await bar.stop();
  // Between two steps, and not only between two runs.
  const close = (): void => void model.close();
  signal.addEventListener('abort', close, { once: true });
  const nextWorkload = (run: number): Workload => {
    signal.throwIfAborted();
    showProgress(`${threads} threads, run ${run} of ${nRuns}`);
    return model.workload(nPrompt, nGenerate, run);
  };
  const ours: Speed[] = [];
  const theirs: Speed[] = [];
  try {
    // The first run warms up: kernels are compiled, memory is touched.
    await model.run(nextWorkload(0));
    const rssBytes = await residentBytes();
    await model.measureLimits();
    await using peer = settings.isAgainst
      ? await openPeer(path, { threads, nCtx, kvType: settings.load.kvType })
      : undefined;
    await peer?.run(nextWorkload(0));
    for (let run = 1; run <= nRuns; run++) {
      const pair = await takeTurns(model, peer, nextWorkload(run), run);
      ours.push(pair.ours);
      if (pair.theirs) theirs.push(pair.theirs);
    }
    const profile = settings.isProfiled ? await profileOf(model, nPrompt, nRuns + 1) : undefined;
    const limits = await model.measureLimits();
    const decode = compare('decode', ours, theirs);
    const prefill = compare('prefill', ours, theirs);
    const decodeGBs = (decode.ours * model.weightBytesAToken) / 1e9;
    const prefillGops = (prefill.ours * model.prefillOperationsAToken) / 1e9;
    return {
      threads,
      peer: peer?.name ?? null,
      prefill,
      decode,
      decodeGBs,
      readLimitGBs: limits.readGBs,
      limitShare: decodeGBs / limits.readGBs,
      prefillGops,
      computeLimitGops: limits.computeGops,
      computeLimitShare: prefillGops / limits.computeGops,
      rssBytes,
      loadMs: model.info.loadMs,
      ...(profile ? { profile } : {}),
    };
  } catch (error) {
    // A run that was interrupted fails with what closing the model did to it.
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', close);
    eraseProgress();
  }
}

/** Nobody typed the context: it is what the two flags, and two tokens more, add up to. */
function refuseContext(error: unknown): never {
  if (!isOptionError(error) || error.details['option'] !== 'nCtx') throw error;
  const message = error.message.replace('"nCtx"', '--prompt-tokens and --max-tokens, and 2 more,');
  throw new UsageError(message, { cause: error });
}

/** What earlier rows left behind does not count. It goes a while after its threads have ended. */
async function residentBytes(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await setTimeout(50);
  }
  return process.memoryUsage.rss();
}

/** Who goes first changes from run to run. */
async function takeTurns(
  model: BenchmarkModel,
  peer: Peer | undefined,
  workload: Workload,
  run: number,
): Promise<{ ours: Speed; theirs?: Speed }> {
  if (!peer) return { ours: await model.run(workload) };
  if (run % 2 === 1) {
    const theirs = await peer.run(workload);
    return { ours: await model.run(workload), theirs };
  }
  const ours = await model.run(workload);
  return { ours, theirs: await peer.run(workload) };
}

async function profileOf(model: BenchmarkModel, nPrompt: number, seed: number) {
  const prefill = await model.profile(model.workload(nPrompt, 1, seed));
  return { prefill, decode: await model.profile(model.workload(1, 64, seed + 1)) };
}

const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;

function compare(what: keyof Speed, ours: readonly Speed[], theirs: readonly Speed[]): Compared {
  const own = ours.map((speed) => speed[what]);
  const other = theirs.map((speed) => speed[what]);
  const isAgainst = other.length > 0;
  return {
    ours: median(own),
    theirs: isAgainst ? median(other) : null,
    ratio: isAgainst ? median(own.map((speed, i) => speed / other[i]!)) : null,
    min: Math.min(...own),
    max: Math.max(...own),
  };
}

function describe({ machine, model, nPrompt, nGenerate, nRuns, runs }: Awaited<ReturnType<typeof benchmark>>): string {
  const isAgainst = runs.some(({ peer }) => peer !== null);
  const speeds = ['threads', `prefill ${nPrompt}`, `decode ${nGenerate}`];
  const head = [...speeds, 'GB/s', 'of limit', 'GOP/s', 'of limit', 'memory', 'load'];
  const ratio = ({ theirs, ratio: r }: Compared): string =>
    theirs === null ? '' : ` (${formatRate(theirs)}, × ${r!.toFixed(2)})`;
  const speed = (c: Compared): string => `${formatRate(c.ours)} [${formatRate(c.min)}–${formatRate(c.max)}]${ratio(c)}`;
  const rows = runs.map((run) => [
    String(run.threads),
    speed(run.prefill),
    speed(run.decode),
    run.decodeGBs.toFixed(1),
    `${(100 * run.limitShare).toFixed(0)} %`,
    run.prefillGops.toFixed(0),
    `${(100 * run.computeLimitShare).toFixed(0)} %`,
    formatBytes(run.rssBytes),
    `${run.loadMs.toFixed(0)} ms`,
  ]);
  const against = isAgainst ? `; in parentheses ${runs[0]!.peer}, and how many times as fast we are` : '';
  return [
    `${model} on ${machine.cpu}, Node ${machine.node}`,
    `tokens/s, median [least–greatest] of ${nRuns} runs${against}`,
    ...formatColumns([head, ...rows]),
    ...runs.flatMap(({ threads, profile }) => (profile ? describeProfile(threads, profile) : [])),
  ].join('\n');
}

function describeProfile(threads: number, { prefill, decode }: NonNullable<Row['profile']>): string[] {
  return (['prefill', 'decode'] as const).flatMap((what) => {
    const { nSteps, byOperation, byLayer } = { prefill, decode }[what];
    const total = byOperation.reduce((sum, { ms }) => sum + ms, 0);
    const cells = (rows: Profile['byOperation']): string[][] =>
      rows.map(({ name, ms, count }) => [
        (ms / nSteps).toFixed(3),
        `${((100 * ms) / total).toFixed(1)} %`,
        String(count),
        name,
      ]);
    return [
      '',
      `${what}, ${threads} threads: ${(total / nSteps).toFixed(2)} ms a step, ${nSteps} steps`,
      ...formatColumns([['ms', 'share', 'times', 'operation'], ...cells(byOperation)], [0, 1, 2]),
      ...formatColumns([['ms', 'share', 'times', 'layer'], ...cells(byLayer)], [0, 1, 2]),
    ];
  });
}

function showProgress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${text}\u001b[K`);
}

function eraseProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}
