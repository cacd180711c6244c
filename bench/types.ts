// How fast models of each tensor type decode: run by run beside Q8_0, as shares of the bytes of weights that it reads a
// second, and beside llama.cpp driven from C. And how fast a thread multiplies weights that its own cache holds: what a
// type would reach if memory cost nothing. Writes docs/data/types.json, a row as it is measured; `--types IQ4_XS,Q6_K`
// takes only these. Some machines' memory has two speeds, by where pages happen to lie: with `--q8-limit 36` a type is
// measured again, in a new process, while Q8_0 came faster than 36 GB/s, so that all rows are of the slower one.
//   npm run bench:types -- --runs 7

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { WasmExecutor } from '../src/backend/wasm/executor.ts';
import { groupBlockBytes } from '../src/backend/wasm/kernels/matmul/layout.ts';
import { BLOCK_FORMATS } from '../src/base/dtype.ts';
import type { DType } from '../src/base/dtype.ts';
import { Random } from '../src/base/random.ts';
import { BenchmarkModel, syntheticModel } from '../src/benchmark.ts';
import { writeSource } from '../src/cli/files.ts';
import { randomBlocks } from '../src/convert/random-blocks.ts';
import { Graph } from '../src/graph/tensor.ts';
import { enableWideVectors } from '../src/index.ts';
import { QUANTIZED_FORMATS } from '../src/quant/codecs.ts';
import { openOpponents } from './opponents.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SHAPE = 'TinyLlama-1.1B';
const THREADS = 2;
const N_PROMPT = 16;
/** Types that no file has as weights: llama.cpp does not run them. */
const NOT_IN_FILES: readonly DType[] = ['Q8_1', 'Q8_K'];

const { values: flags } = parseArgs({
  options: {
    runs: { type: 'string', default: '7' },
    tokens: { type: 'string', default: '32' },
    types: { type: 'string', default: '' },
    peers: { type: 'string', default: 'L' },
    'q8-limit': { type: 'string', default: 'Infinity' },
    out: { type: 'string', default: join(ROOT, 'docs/data/types.json') },
  },
});
const nRuns = Number(flags.runs);
const nGenerate = Number(flags.tokens);
const q8Limit = Number(flags['q8-limit']);
const out = resolve(flags.out);
/** Of a type, before the last one counts whatever Q8_0 did. */
const ATTEMPTS_MAX = 5;

/** Q8_0 first, then those with most bits. */
const TYPES = QUANTIZED_FORMATS.map(({ dtype }) => dtype).toSorted((a, b) => bitsOf(b) - bitsOf(a));

export interface TypeRow {
  readonly dtype: DType;
  readonly bits: number;
  /** Once packed for the kernels. */
  readonly packedBits: number;
  readonly nRuns: number;
  /** Tokens a second. */
  readonly decode: number;
  readonly min: number;
  readonly max: number;
  /** Of the file's weights, a second. */
  readonly decodeGBs: number;
  /** Of Q8_0, in the same minutes. */
  readonly q8GBs: number;
  /** The median of runs side by side. */
  readonly share: number;
  /** 10⁹ weights a second, one thread, from its own cache. */
  readonly cachedGWeights: number;
  readonly L?: { readonly theirs: number; readonly ratio: number };
}

export interface TypesFile {
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string };
  readonly rows: readonly TypeRow[];
}

function bitsOf(dtype: DType): number {
  const { blockBytes, blockElements } = BLOCK_FORMATS[dtype];
  return (8 * blockBytes) / blockElements;
}

const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;
const round = (x: number): number => Number(x.toPrecision(4));

/** 10⁹ weights a second of a matrix that stays in the core's own cache, times one row, one thread. */
async function measureCached(dtype: DType): Promise<number> {
  const [nOut, nIn, nTimes] = [256, 2048, 40];
  const bytes = randomBlocks(dtype, nOut * nIn, new Random(1), 1 / Math.sqrt(nIn));
  const graph = new Graph();
  const x = graph.constant('x', [1, nIn], () => Float32Array.from({ length: nIn }, (_, i) => Math.sin(i)));
  const weights = graph.leaf('weight', 'w', dtype, [nOut, nIn]);
  for (let i = 0; i < nTimes; i++) graph.output(graph.apply('matmul', [x, weights]));
  const source = {
    read: async (_: string, at: number, target: Uint8Array) => target.set(bytes.subarray(at, at + target.length)),
  };
  const executor = await WasmExecutor.create(graph, source, { kernels: 'auto', nThreads: 1, activations: 'q8' });
  const time = (n: number): number => {
    const startMs = performance.now();
    for (let i = 0; i < n; i++) executor.run();
    return performance.now() - startMs;
  };
  // The optimising compiler works beside.
  for (let i = 0; i < 5; i++) {
    time(20);
    await new Promise((resolved) => setTimeout(resolved, 50));
  }
  const speeds = Array.from({ length: 15 }, () => (8 * nTimes * nOut * nIn) / time(8) / 1e6);
  await executor.close();
  return median(speeds);
}

async function measure(dtype: DType): Promise<TypeRow> {
  enableWideVectors();
  const cachedGWeights = await measureCached(dtype);
  const nCtx = N_PROMPT + nGenerate + 64;
  const path = join(tmpdir(), `smallmind-types-${process.pid}.gguf`);
  await writeSource(syntheticModel(`${SHAPE}:${dtype}`), path);
  try {
    const options = { threads: THREADS, nCtx };
    await using model = await BenchmarkModel.load(path, options);
    await using q8 = await BenchmarkModel.load(syntheticModel(`${SHAPE}:Q8_0`), options);
    const names = NOT_IN_FILES.includes(dtype) || flags.peers === '' ? [] : flags.peers.split(',');
    const statePath = join(tmpdir(), `smallmind-types-${process.pid}.state`);
    const opponents = await openOpponents(names, { path, threads: THREADS, nCtx, nSeq: 1, depth: 0, statePath });
    const runners = [['ours', model], ['q8', q8], ...opponents] as const;
    const speeds = new Map<string, number[]>(runners.map(([name]) => [name, []]));
    for (let run = 0; run <= nRuns; run++) {
      const workload = model.workload(N_PROMPT, nGenerate, run + 1);
      for (const [who, runner] of run % 2 === 0 ? runners : runners.toReversed()) {
        const { decode } = await runner.run(workload);
        if (run > 0) speeds.get(who)!.push(decode);
      }
    }
    for (const opponent of opponents.values()) await opponent.close();
    const ours = speeds.get('ours')!;
    const bytesRatio = model.weightBytesAToken / q8.weightBytesAToken;
    const ratioTo = (other: readonly number[]): number => median(ours.map((x, i) => x / other[i]!));
    const L = speeds.get('L');
    return {
      dtype,
      bits: bitsOf(dtype),
      packedBits: groupBlockBytes(dtype) / BLOCK_FORMATS[dtype].blockElements,
      nRuns,
      decode: round(median(ours)),
      min: round(Math.min(...ours)),
      max: round(Math.max(...ours)),
      decodeGBs: round((median(ours) * model.weightBytesAToken) / 1e9),
      q8GBs: round((median(speeds.get('q8')!) * q8.weightBytesAToken) / 1e9),
      share: round(bytesRatio * ratioTo(speeds.get('q8')!)),
      cachedGWeights: round(cachedGWeights),
      ...(L && { L: { theirs: round(median(L)), ratio: round(ratioTo(L)) } }),
    };
  } finally {
    rmSync(path, { force: true });
  }
}

const wanted = flags.types === '' ? TYPES : TYPES.filter((dtype) => flags.types.split(',').includes(dtype));
// Each in a process of its own, in which no other kernels are compiled.
if (wanted.length === 1) await writeRow(wanted[0]!);
else {
  for (const dtype of wanted) {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      spawnRow(dtype);
      if (knownRows().find((row) => row.dtype === dtype)!.q8GBs <= q8Limit) break;
    }
  }
}

function knownRows(): readonly TypeRow[] {
  return existsSync(out) ? (JSON.parse(readFileSync(out, 'utf8')) as TypesFile).rows : [];
}

function spawnRow(dtype: DType): void {
  const own = ['--runs', flags.runs, '--tokens', flags.tokens, '--peers', flags.peers, '--out', out, '--types', dtype];
  execFileSync(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), ...own], { stdio: 'inherit' });
}

async function writeRow(dtype: DType): Promise<void> {
  const row = await measure(dtype);
  console.log(JSON.stringify(row));
  const rows = new Map([...knownRows().map((each) => [each.dtype, each] as const), [dtype, row]]);
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), node: process.version };
  mkdirSync(dirname(out), { recursive: true });
  const sorted = TYPES.flatMap((each) => rows.get(each) ?? []);
  writeFileSync(out, `${JSON.stringify({ machine, rows: sorted } satisfies TypesFile, null, 2)}\n`);
}
