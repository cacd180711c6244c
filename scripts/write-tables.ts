// Writes the tables of the documents that hold measured numbers, from the files that the benchmarks and the peer tests
// wrote, between the marks `<!-- table NAME -->` and `<!-- end -->`. With --check it changes nothing and fails if a
// document is not as it would write it.
//   node scripts/write-tables.ts [--check]

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { RowPlan } from '../bench/speed.ts';
import type { TypesFile } from '../bench/types.ts';
import type { RuntimesFile } from '../test/runtimes/run.ts';
import { fillMarks, table } from './docs/marks.ts';
import { TABLES as MODEL_TABLES } from './docs/models.ts';

const ROOT = new URL('..', import.meta.url);
const DOCUMENTS = ['README.md', 'docs/models.md', 'docs/performance.md', 'docs/runtimes.md'];

interface Tier1 {
  readonly machine: Machine;
  readonly scenarios: readonly { name: string; before: Figures; after: Figures }[];
  readonly sweep: readonly Readonly<Record<string, number | string>>[];
}
interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly node: string;
}
interface Figures {
  readonly usPerOp: number;
  readonly opsPerSecond: number;
  readonly heapBytesPerOp: number;
  readonly minorGc: number;
  readonly majorGc: number;
  readonly tokensPerSecond?: number;
  readonly bytesCleared?: number;
}
interface Compared {
  readonly ours: number;
  readonly min: number;
  readonly max: number;
  readonly L?: { theirs: number; ratio: number };
  readonly N?: { theirs: number; ratio: number };
}
interface SpeedRow extends Omit<RowPlan, 'peers'> {
  readonly nRuns: number;
  readonly prefill: Compared;
  readonly decode: Compared;
  readonly decodeGBs: number;
  readonly limitShare: number;
  readonly prefillGops?: number;
  readonly computeLimitShare?: number;
  readonly rssBytes?: number;
  readonly loadMs: number;
}
interface SpeedFile {
  readonly machine: Machine;
  readonly rows: readonly SpeedRow[];
}
interface BrowserFile {
  readonly machine: Machine;
  readonly browser: string;
  readonly peer: string;
  readonly model: string;
  readonly nPrompt: number;
  readonly nGenerate: number;
  readonly nRuns: number;
  readonly rows: readonly {
    isolated: boolean;
    threads: number;
    prefill: BesideWllama;
    decode: BesideWllama;
  }[];
}
interface BesideWllama {
  readonly ours: Spread;
  readonly wllama: Spread;
  readonly ratio: number;
}
interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

interface LoadFile {
  readonly machine: Machine;
  readonly model: string;
  readonly nRuns: number;
  readonly fileBytes: number;
  readonly neededBytes: number;
  readonly catMs: number;
  readonly copyFreshMs: number;
  readonly copyAgainMs: number;
  readonly loadMs: Readonly<Record<'1' | '2', number>>;
  readonly peakBytes: Readonly<Record<'1' | '2', number>>;
}

const read = <T>(name: string): T => JSON.parse(readFileSync(new URL(`docs/data/${name}.json`, ROOT), 'utf8')) as T;
const machineOf = ({ cpu, cores, node }: Machine): string => `${cpu}, ${cores} cores, Node ${node}`;
const short = (x: number): string => (x >= 100 ? Math.round(x).toLocaleString('en') : x.toPrecision(3));

function tier1(): string {
  const { machine, scenarios } = read<Tier1>('tier1');
  const cells = scenarios.flatMap(({ name, before, after }) =>
    (['before', 'after'] as const).map((side) => {
      const f = { before, after }[side];
      const rate = f.tokensPerSecond ? `${short(f.tokensPerSecond)} tokens/s` : `${short(f.opsPerSecond)} ops/s`;
      const cleared = f.bytesCleared === undefined ? '' : f.bytesCleared.toLocaleString('en');
      return [name, side, rate, f.heapBytesPerOp.toFixed(1), `${f.minorGc} / ${f.majorGc}`, cleared];
    }),
  );
  const head = ['scenario', 'side', 'speed', 'heap bytes/op', 'collections', 'bytes cleared'];
  return `${table([head, ...cells])}\n\n${machineOf(machine)}; \`npm run bench:tier1\`.`;
}

function sweep(): string {
  const { sweep: rows } = read<Tier1>('tier1');
  const head = ['width', 'layers', 'tokens', '1 thread', '2 threads'];
  const keys = [...new Set(rows.map((r) => `${r['nEmbd']} ${r['nLayer']} ${r['tokens']}`))];
  const cells = keys.map((key) => {
    const of = (threads: number): string => {
      const row = rows.find((r) => r['threads'] === threads && `${r['nEmbd']} ${r['nLayer']} ${r['tokens']}` === key);
      return row ? Number(row['afterTokensPerSecond']).toLocaleString('en') : '';
    };
    return [...key.split(' '), of(1), of(2)];
  });
  return table([head, ...cells]);
}

type Column = readonly [head: string, cell: (row: SpeedRow) => string];

const ratioTo = (peer: Compared['L']): string => (peer ? peer.ratio.toFixed(2) : '');
const percent = (share: number | undefined): string => (share === undefined ? '' : `${Math.round(100 * share)} %`);

const MODEL: Column = ['model', ({ model }) => model.replace(':', ' ')];
const THREADS: Column = ['threads', ({ threads }) => String(threads)];

/** Ours, and how many times as fast as each peer that is. */
function compared(what: 'prefill' | 'decode', head: string, peers: readonly ('L' | 'N')[]): Column[] {
  const ratios = peers.map((peer): Column => [`× ${peer}`, (row) => ratioTo(row[what][peer])]);
  return [[head, (row) => short(row[what].ours)], ...ratios];
}

/** The rows of one of the tables that `npm run bench:speed` measures. */
function speedTable(name: SpeedRow['table'], columns: readonly Column[]): string {
  const { machine, rows: all } = read<SpeedFile>('speed');
  const rows = all.filter((row) => row.table === name);
  const command = `npm run bench:speed -- --rows ${name}`;
  if (rows.length === 0) return `Not measured yet: \`${command}\`.`;
  const cells = rows.map((row) => columns.map(([, cell]) => cell(row)));
  const nRuns = [...new Set(rows.map((row) => row.nRuns))].join(' or ');
  const note = `Tokens a second, medians of ${nRuns} interleaved runs. L: llama.cpp driven from C; N: node-llama-cpp.`;
  return `${table([columns.map(([head]) => head), ...cells])}\n\n${note} ${machineOf(machine)}; \`${command}\`.`;
}

const speed = (): string =>
  speedTable('speed', [
    MODEL,
    THREADS,
    ...compared('prefill', 'prefill 512', ['L', 'N']),
    ...compared('decode', 'decode 128', ['L', 'N']),
    ['of the read limit', ({ limitShare }) => percent(limitShare)],
  ]);

const limits = (): string => {
  const range = ({ min, max }: Compared): string => `${short(min)}–${short(max)}`;
  return speedTable('speed', [
    MODEL,
    THREADS,
    ['prefill', ({ prefill }) => range(prefill)],
    ['GOP/s', ({ prefillGops }) => (prefillGops === undefined ? '' : short(prefillGops))],
    ['of the compute limit', ({ computeLimitShare }) => percent(computeLimitShare)],
    ['decode', ({ decode }) => range(decode)],
    ['GB/s', ({ decodeGBs }) => short(decodeGBs)],
    ['of the read limit', ({ limitShare }) => percent(limitShare)],
    ['memory, MB', ({ rssBytes }) => (rssBytes === undefined ? '' : short(rssBytes / 1e6))],
    ['load, ms', ({ loadMs }) => short(loadMs)],
  ]);
};

const contexts = (): string =>
  speedTable('contexts', [
    MODEL,
    THREADS,
    ['tokens before', ({ depth }) => depth.toLocaleString('en')],
    ...compared('decode', 'decode 32', ['L', 'N']),
  ]);

const sequences = (): string =>
  speedTable('sequences', [
    MODEL,
    THREADS,
    ['sequences', ({ nSeq }) => String(nSeq)],
    ...compared('prefill', 'prefill 32', ['L', 'N']),
    ...compared('decode', 'decode 64', ['L', 'N']),
  ]);

/** Rows of the speed table under other conditions, beside L alone. */
const besideL = (name: 'strict' | 'narrow'): string =>
  speedTable(name, [
    MODEL,
    THREADS,
    ...compared('prefill', 'prefill 512', ['L']),
    ...compared('decode', 'decode 128', ['L']),
    ['of the read limit', ({ limitShare }) => percent(limitShare)],
  ]);

function types(): string {
  const { machine, rows } = read<TypesFile>('types');
  const head = ['type', 'bits', 'packed', 'decode', '× L', 'GB/s', 'Q8_0', 'share', 'carried', 'cached', 'ceiling'];
  const cells = rows.map(({ dtype, bits, packedBits, decode, decodeGBs, q8GBs, share, cachedGWeights, L }) => {
    const numbers = [bits, packedBits, decode, L?.ratio, decodeGBs, q8GBs].map((x) =>
      x === undefined ? '' : short(x),
    );
    const byCompute = (2 * cachedGWeights * bits) / 8 / q8GBs;
    const carried = (share * packedBits) / bits;
    const ceiling = Math.min(bits / packedBits, byCompute);
    return [dtype, ...numbers, percent(share), percent(carried), short(cachedGWeights), percent(ceiling)];
  });
  const nRuns = [...new Set(rows.map((row) => row.nRuns))].join(' or ');
  const note = `Tokens a second with 2 threads, medians of ${nRuns} interleaved runs. L: llama.cpp driven from C.`;
  return `${table([head, ...cells])}\n\n${note} ${machineOf(machine)}; \`npm run bench:types\`.`;
}

function browser(): string {
  const { machine, browser: name, peer, model, nPrompt, nGenerate, nRuns, rows } = read<BrowserFile>('browser');
  const spread = ({ median, min, max }: Spread): string => `${short(median)} (${short(min)}–${short(max)})`;
  const head = ['page', 'threads', `prefill ${nPrompt}`, 'wllama', 'ratio', `decode ${nGenerate}`, 'wllama', 'ratio'];
  const cells = rows.map(({ isolated, threads, prefill, decode }) => [
    isolated ? 'isolated' : 'not isolated',
    String(threads),
    ...[prefill, decode].flatMap(({ ours, wllama, ratio }) => [spread(ours), spread(wllama), ratio.toFixed(1)]),
  ]);
  const note = `${model.replace(':', ' ')}, tokens a second, medians (and ranges) of ${nRuns} interleaved runs.`;
  return `${table([head, ...cells])}\n\n${note} ${name}, ${peer}. ${machineOf(machine)}; \`npm run bench:browser\`.`;
}

function load(): string {
  const { machine, model, nRuns, fileBytes, neededBytes, ...f } = read<LoadFile>('load');
  const row = (what: string, ms: number, peakBytes?: number): string[] => {
    return [what, short(ms), peakBytes ? (peakBytes / neededBytes).toFixed(2) : ''];
  };
  const cells = [
    row('`cat FILE > /dev/null`', f.catMs),
    row('copy into fresh memory', f.copyFreshMs),
    row('the same again, memory in place', f.copyAgainMs),
    row('load, 1 thread', f.loadMs[1], f.peakBytes[1]),
    row('load, 2 threads', f.loadMs[2], f.peakBytes[2]),
  ];
  const head = [`${model.replace(':', ' ')}, ${(fileBytes / 1e9).toFixed(2)} GB`, 'ms', 'peak memory'];
  const note = `Medians of ${nRuns}, in turns. Peak: of the process, as a multiple of weights and key-value cache.`;
  return `${table([head, ...cells])}\n\n${note} ${machineOf(machine)}; \`npm run bench:load\`.`;
}

function runtimes(): string {
  const { machine, runtimes: all } = read<RuntimesFile>('runtimes');
  const yes = (isSo: boolean): string => (isSo ? 'yes' : 'no');
  const cells = all.map(({ name, engine, executor, sharedMemory, memory64, wideVectors }) => [
    name,
    engine.replace(/^\w+ | \(.*/g, ''),
    /\((.*)\)/.exec(executor)?.[1] ?? '',
    yes(sharedMemory),
    yes(memory64),
    yes(wideVectors),
  ]);
  const head = ['runtime', 'version', 'relaxed dot product', 'threads', 'more than 4 GiB', '256-bit vectors'];
  return `${table([head, ...cells])}\n\n${machine}; \`npm run runtimes\`.`;
}

function runtimeChecks(): string {
  const { runtimes: all } = read<RuntimesFile>('runtimes');
  const names = [...new Set(all.flatMap(({ checks }) => Object.keys(checks)))];
  const mark = (error: string | null | undefined): string => (error === null ? '✓' : `✗ ${error ?? 'not run'}`);
  const cells = names.map((name) => [name, ...all.map(({ checks }) => mark(checks[name]))]);
  return table([['', ...all.map(({ name }) => name)], ...cells]);
}

const TABLES: Readonly<Record<string, () => string>> = {
  tier1,
  sweep,
  speed,
  limits,
  contexts,
  sequences,
  narrow: () => besideL('narrow'),
  strict: () => besideL('strict'),
  types,
  browser,
  load,
  runtimes,
  runtimeChecks,
  ...MODEL_TABLES,
};
/** Formatting pads the cells of a table. */
const squeeze = (text: string): string => text.replace(/ +/g, ' ').replace(/-{3,}/g, '---');

let nStale = 0;
const written = new Set<string>();
const tables = Object.fromEntries(
  Object.entries(TABLES).map(([name, write]) => [name, () => (written.add(name), write())]),
);
for (const document of DOCUMENTS) {
  const path = fileURLToPath(new URL(document, ROOT));
  const before = readFileSync(path, 'utf8');
  const after = fillMarks(before, tables);
  if (squeeze(before) === squeeze(after)) continue;
  nStale++;
  if (process.argv.includes('--check')) console.error(`${document} is not what the measured files say`);
  else writeFileSync(path, after);
}
if (written.size < Object.keys(TABLES).length) throw new Error('a table has no place in the documents');
if (process.argv.includes('--check') && nStale > 0) {
  console.error('write it anew: npm run tables');
  process.exitCode = 1;
}
