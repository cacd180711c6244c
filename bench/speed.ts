// The speed table: SmallMind beside llama.cpp, run by run, on the same files with the same threads, as opponents.ts
// opens them. Writes docs/data/speed.json, a row as it is measured; `--rows contexts,4_0` takes only rows whose name
// has one of the words, `--rows list` prints the names.
//   npm run bench:speed -- --runs 5

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BenchmarkModel, syntheticModel } from '../src/benchmark.ts';
import type { Speed } from '../src/benchmark.ts';
import { writeSource } from '../src/cli/files.ts';
import { enableWideVectors } from '../src/index.ts';
import { openOpponents } from './opponents.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const { values: flags } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    rows: { type: 'string', default: '' },
    peers: { type: 'string', default: 'L,N' },
    out: { type: 'string', default: join(ROOT, 'docs/data/speed.json') },
  },
});
const nRuns = Number(flags.runs);
const out = resolve(flags.out);

export interface RowPlan {
  /** Of the document, in which the row stands. */
  readonly table: 'speed' | 'contexts' | 'sequences' | 'strict' | 'narrow';
  /** SHAPE:TYPE. */
  readonly model: string;
  readonly threads: number;
  /** Of each sequence. */
  readonly nPrompt: number;
  readonly nGenerate: number;
  /** Tokens in the cache before the prompt. */
  readonly depth: number;
  /** Sequences that run at once. */
  readonly nSeq: number;
  readonly kernels: 'auto' | 'strict';
  /** Whether V8 is asked for vectors of 256 bits. */
  readonly isWide: boolean;
  readonly peers: readonly string[];
}

const row = (table: RowPlan['table'], model: string, threads: number, rest: Partial<RowPlan> = {}): RowPlan => ({
  table,
  model,
  threads,
  nPrompt: 512,
  nGenerate: 128,
  depth: 0,
  nSeq: 1,
  kernels: 'auto',
  isWide: true,
  peers: ['L', 'N'],
  ...rest,
});

const nameOf = ({ table, model, threads, depth, nSeq }: Omit<RowPlan, 'peers'>): string =>
  `${table} ${model} ${threads}t depth ${depth} x${nSeq}`;

const ROWS: readonly RowPlan[] = [
  row('speed', 'SmolLM2-135M:Q8_0', 1),
  row('speed', 'SmolLM2-135M:Q8_0', 2),
  row('speed', 'SmolLM2-135M:Q4_0', 1),
  row('speed', 'SmolLM2-135M:Q4_0', 2),
  row('speed', 'SmolLM2-135M:F16', 2),
  row('speed', 'TinyLlama-1.1B:Q8_0', 1),
  row('speed', 'TinyLlama-1.1B:Q8_0', 2),
  row('speed', 'TinyLlama-1.1B:Q4_0', 2),
  row('speed', 'TinyLlama-1.1B:Q4_K_M', 2),
  row('speed', 'TinyLlama-1.1B:F16', 2),
  ...[0, 2048, 8192, 32768].map((depth) =>
    row('contexts', 'TinyLlama-1.1B:Q8_0', 2, { nPrompt: 32, nGenerate: 32, depth }),
  ),
  ...[1, 8].map((nSeq) => row('sequences', 'TinyLlama-1.1B:Q8_0', 2, { nPrompt: 32, nGenerate: 64, nSeq })),
  ...['SmolLM2-135M:Q8_0', 'SmolLM2-135M:Q4_0', 'TinyLlama-1.1B:Q8_0', 'TinyLlama-1.1B:Q4_0'].flatMap((model) => [
    row('strict', model, 2, { kernels: 'strict', peers: ['L'] }),
    row('narrow', model, 2, { isWide: false, peers: ['L'] }),
  ]),
];

const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;
const round = (x: number): number => Number(x.toPrecision(4));

/** Ours, and of each peer its speed and the median of the ratios of pairs of runs. */
function compare(what: keyof Speed, speeds: ReadonlyMap<string, readonly Speed[]>) {
  const [ours, ...others] = [...speeds].map(([name, all]) => ({ name, all: all.map((speed) => speed[what]) }));
  const own = ours!.all;
  const peers = others.map(({ name, all }) => {
    return [name, { theirs: round(median(all)), ratio: round(median(own.map((x, i) => x / all[i]!))) }] as const;
  });
  return {
    ours: round(median(own)),
    min: round(Math.min(...own)),
    max: round(Math.max(...own)),
    ...Object.fromEntries(peers),
  };
}

async function measure(plan: RowPlan, path: string) {
  if (plan.isWide) enableWideVectors();
  const { model: name, threads, nPrompt, nGenerate, depth, nSeq, kernels } = plan;
  const nCtx = depth + nPrompt + nGenerate + 64;
  await using model = await BenchmarkModel.load(path, { threads, nCtx, kernels, parallel: nSeq });
  if (depth > 0) model.fillContext(depth);
  await model.run(model.workload(nPrompt, nGenerate, 0, nSeq));
  // Before others share the process, or memory is measured.
  const rssBytes = process.memoryUsage.rss();
  await model.measureLimits();
  const names = plan.peers.filter((peer) => flags.peers.split(',').includes(peer));
  const statePath = join(tmpdir(), `smallmind-context-${process.pid}.state`);
  const opponents = await openOpponents(names, { path, threads, nCtx, nSeq, depth, statePath });
  const speeds = new Map<string, Speed[]>([['ours', []], ...names.map((peer) => [peer, []] as [string, Speed[]])]);
  for (let run = 0; run <= nRuns; run++) {
    const workload = model.workload(nPrompt, nGenerate, run + 1, nSeq);
    const turns = [['ours', model] as const, ...opponents];
    for (const [who, runner] of run % 2 === 0 ? turns : turns.toReversed()) {
      const speed = await runner.run(workload);
      if (run > 0) speeds.get(who)!.push(speed);
    }
  }
  for (const opponent of opponents.values()) await opponent.close();
  const limits = await model.measureLimits();
  const prefill = compare('prefill', speeds);
  const decode = compare('decode', speeds);
  // A step of several sequences reads the weights once.
  const decodeGBs = ((decode.ours / nSeq) * model.weightBytesAToken) / 1e9;
  const prefillGops = (prefill.ours * model.prefillOperationsAToken) / 1e9;
  return {
    table: plan.table,
    model: name,
    threads,
    nPrompt,
    nGenerate,
    depth,
    nSeq,
    kernels,
    isWide: plan.isWide,
    nRuns,
    executor: model.info.executor,
    prefill,
    decode,
    decodeGBs: round(decodeGBs),
    readLimitGBs: round(limits.readGBs),
    limitShare: round(decodeGBs / limits.readGBs),
    prefillGops: round(prefillGops),
    computeLimitGops: round(limits.computeGops),
    computeLimitShare: round(prefillGops / limits.computeGops),
    rssBytes,
    loadMs: round(model.info.loadMs),
  };
}

const words = flags.rows
  .toLowerCase()
  .split(',')
  .filter((word) => word !== '');
if (words.includes('list')) {
  for (const plan of ROWS) console.log(nameOf(plan));
  process.exit();
}
const wanted = ROWS.filter((plan) => {
  const name = nameOf(plan).toLowerCase();
  return words.length === 0 || words.some((word) => name.includes(word));
});
const known = existsSync(out)
  ? (JSON.parse(readFileSync(out, 'utf8')) as { rows: Awaited<ReturnType<typeof measure>>[] }).rows
  : [];
const rows = new Map(known.map((each) => [nameOf(each), each]));
mkdirSync(dirname(out), { recursive: true });
// Each in a process of its own, whose memory is the row's.
if (wanted.length === 1) await writeRow(wanted[0]!);
else for (const plan of wanted) spawnRow(plan);

function spawnRow(plan: RowPlan): void {
  const args = ['--runs', flags.runs, '--peers', flags.peers, '--out', out, '--rows', nameOf(plan)];
  const file = fileURLToPath(import.meta.url);
  execFileSync(process.execPath, [...process.execArgv, file, ...args], { stdio: 'inherit' });
}

async function writeRow(plan: RowPlan): Promise<void> {
  const path = join(tmpdir(), `smallmind-${plan.model.replace(':', '-')}.gguf`);
  if (!existsSync(path)) await writeSource(syntheticModel(plan.model), path);
  const result = await measure(plan, path);
  console.log(JSON.stringify(result));
  rows.set(nameOf(plan), result);
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), node: process.version };
  const sorted = ROWS.flatMap((each) => rows.get(nameOf(each)) ?? []);
  writeFileSync(out, `${JSON.stringify({ machine, rows: sorted }, null, 2)}\n`);
}
