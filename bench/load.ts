// What loading costs beside what it cannot do without: `cat FILE > /dev/null` and a copy of as many bytes, in turns,
// the file warm in the page cache, each in a process of its own. The copy goes into memory that the operating system
// has to find and clear first, as weights do, and once more into the same memory. Linux only, and the built package.
// Writes docs/data/load.json.
//   npm run bench:load -- [--model TinyLlama-1.1B:Q8_0] [--runs 5]

import { execFileSync } from 'node:child_process';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { syntheticModel } from '../src/benchmark.ts';
import { writeSource } from '../src/cli/files.ts';
import { inspectModel } from '../src/index.ts';

const { values: flags } = parseArgs({
  options: {
    model: { type: 'string', default: 'TinyLlama-1.1B:Q8_0' },
    runs: { type: 'string', default: '5' },
  },
});
const CHILD = fileURLToPath(new URL('load.child.ts', import.meta.url));
const OUT = new URL('../docs/data/load.json', import.meta.url);

interface Copy {
  readonly freshMs: number;
  readonly againMs: number;
}
interface Load {
  readonly loadMs: number;
  readonly wallMs: number;
  readonly peakBytes: number;
}

const child = <T>(...args: string[]): T =>
  JSON.parse(execFileSync(process.execPath, [CHILD, ...args], { encoding: 'utf8' })) as T;

function cat(path: string): number {
  const startMs = performance.now();
  execFileSync('sh', ['-c', 'cat "$0" > /dev/null', path]);
  return performance.now() - startMs;
}

const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;

async function measure(path: string) {
  const fileBytes = statSync(path).size;
  const rounds: { catMs: number; copy: Copy; one: Load; two: Load }[] = [];
  // The first round warms the page cache.
  for (let i = 0; i <= Number(flags.runs); i++) {
    const catMs = cat(path);
    const copy = child<Copy>('copy', String(fileBytes));
    const [one, two] = ['1', '2'].map((threads) => child<Load>('load', path, threads)) as [Load, Load];
    if (i > 0) rounds.push({ catMs, copy, one, two });
    console.log(
      `cat ${catMs.toFixed(0)} ms, copy ${copy.freshMs.toFixed(0)} fresh, ${copy.againMs.toFixed(0)} again; ` +
        `load ${one.loadMs.toFixed(0)} with 1 thread, ${two.loadMs.toFixed(0)} with 2`,
    );
  }
  const all = (of: (round: (typeof rounds)[number]) => number): number => median(rounds.map(of));
  const { weightsBytes, kvBytes } = (await inspectModel(path)).memory!;
  return {
    fileBytes,
    neededBytes: weightsBytes + kvBytes,
    catMs: all((r) => r.catMs),
    copyFreshMs: all((r) => r.copy.freshMs),
    copyAgainMs: all((r) => r.copy.againMs),
    loadMs: { 1: all((r) => r.one.loadMs), 2: all((r) => r.two.loadMs) },
    wallMs: { 1: all((r) => r.one.wallMs), 2: all((r) => r.two.wallMs) },
    peakBytes: { 1: all((r) => r.one.peakBytes), 2: all((r) => r.two.peakBytes) },
    /** Two threads: of pairs of a round. */
    ratioFresh: all((r) => r.two.loadMs / (r.catMs + r.copy.freshMs)),
    ratioAgain: all((r) => r.two.loadMs / (r.catMs + r.copy.againMs)),
  };
}

const path = join(tmpdir(), `smallmind-load-${process.pid}.gguf`);
try {
  await writeSource(syntheticModel(flags.model), path);
  const figures = await measure(path);
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), node: process.version };
  const report = { machine, model: flags.model, nRuns: Number(flags.runs), ...figures };
  writeFileSync(OUT, `${JSON.stringify(report, null, 2)}\n`);
  console.log(report);
} finally {
  rmSync(path, { force: true });
}
