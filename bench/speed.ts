// The speed table: SmallMind beside llama.cpp, run by run, on the same files with the same threads. Two peers: L is
// llama.cpp driven from C (bench/llama-harness.c, the strictest), N is node-llama-cpp's API. Needs `npm run peers` and
// gcc. Writes docs/data/speed.json, a row as it is measured; `--rows decode,1b` takes only rows whose name has a word.
//   npm run bench:speed -- --runs 5

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BenchmarkModel, measureReadLimit, syntheticModel } from '../src/benchmark.ts';
import type { Speed, Workload } from '../src/benchmark.ts';
import { writeSource } from '../src/cli/files.ts';
import { openPeer } from '../src/cli/peer.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OUT = join(ROOT, 'docs/data/speed.json');

const { values: flags } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    rows: { type: 'string', default: '' },
    peers: { type: 'string', default: 'L,N' },
    kernels: { type: 'string', default: 'auto' },
  },
});
const nRuns = Number(flags.runs);

interface RowPlan {
  readonly model: string;
  readonly threads: number;
  readonly nPrompt: number;
  readonly nGenerate: number;
}

const row = (model: string, threads: number, nPrompt = 512, nGenerate = 128): RowPlan => {
  return { model, threads, nPrompt, nGenerate };
};

const ROWS: readonly RowPlan[] = [
  row('SmolLM2-135M:Q8_0', 1),
  row('SmolLM2-135M:Q8_0', 2),
  row('SmolLM2-135M:Q4_0', 1),
  row('SmolLM2-135M:Q4_0', 2),
  row('SmolLM2-135M:F16', 2),
  row('TinyLlama-1.1B:Q8_0', 1),
  row('TinyLlama-1.1B:Q8_0', 2),
  row('TinyLlama-1.1B:Q4_0', 2),
  row('TinyLlama-1.1B:Q4_K_M', 2),
  row('TinyLlama-1.1B:F16', 2),
];

/** Whoever is measured beside us. */
interface Opponent {
  run(workload: Workload): Promise<Speed>;
  close(): Promise<void>;
}

/** Compiles the harness against the library that node-llama-cpp's package brings. */
function buildHarness(): { program: string; libraries: string } {
  const [library] = globSync('peers/node_modules/@node-llama-cpp/linux-x64/bins/*/libllama.v*.so', { cwd: ROOT });
  if (!library) throw new Error('llama.cpp is not installed; run npm run peers');
  const libraries = dirname(join(ROOT, library));
  const program = join(tmpdir(), `smallmind-llama-harness-${process.pid}`);
  const shared = globSync('{libllama.v*,libggml.v*,libggml-base}.so', { cwd: libraries }).map((name) =>
    join(libraries, name),
  );
  const args = ['-O2', join(ROOT, 'bench/llama-harness.c'), '-o', program, ...shared];
  execFileSync('gcc', [...args, `-Wl,-rpath,${libraries}`, '-Wl,--allow-shlib-undefined']);
  return { program, libraries };
}

async function openHarness(path: string, threads: number, nCtx: number): Promise<Opponent> {
  const { program, libraries } = buildHarness();
  const child = spawn(program, [libraries, path, String(threads), String(nCtx)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the llama.cpp harness ended');
    return value;
  };
  if ((await next()) !== 'ready') throw new Error('the llama.cpp harness did not start');
  return {
    async run({ prompt, nGenerate }) {
      child.stdin.write(`${prompt.length} ${nGenerate} 0\n`);
      const [prefillMs, decodeMs] = (await next()).split(' ').map(Number) as [number, number];
      return { prefill: (1000 * prompt.length) / prefillMs, decode: (1000 * nGenerate) / decodeMs };
    },
    async close() {
      child.stdin.end();
      rmSync(program, { force: true });
    },
  };
}

async function openNode(path: string, threads: number, nCtx: number): Promise<Opponent> {
  process.chdir(join(ROOT, 'peers'));
  const peer = await openPeer(path, threads, nCtx);
  return { run: (workload) => peer.run(workload), close: async () => peer[Symbol.asyncDispose]() };
}

const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;
const round = (x: number): number => Number(x.toPrecision(4));

async function measure({ model: name, threads, nPrompt, nGenerate }: RowPlan, path: string) {
  const nCtx = nPrompt + nGenerate + 64;
  const readLimitGBs = await measureReadLimit(threads);
  const load = { threads, nCtx, kernels: flags.kernels as 'auto' };
  await using model = await BenchmarkModel.load(path, load);
  const names = flags.peers.split(',').filter((peer) => peer !== '');
  const opponents = new Map<string, Opponent>();
  for (const peer of names) opponents.set(peer, await (peer === 'L' ? openHarness : openNode)(path, threads, nCtx));
  const speeds = new Map<string, Speed[]>([['ours', []], ...names.map((peer) => [peer, []] as [string, Speed[]])]);
  for (let run = 0; run <= nRuns; run++) {
    const workload = model.workload(nPrompt, nGenerate, run);
    const turns = [['ours', model] as const, ...opponents];
    for (const [who, runner] of run % 2 === 0 ? turns : turns.toReversed()) {
      const speed = await runner.run(workload);
      if (run > 0) speeds.get(who)!.push(speed);
    }
  }
  for (const opponent of opponents.values()) await opponent.close();
  const of = (what: keyof Speed) => {
    const ours = speeds.get('ours')!.map((s) => s[what]);
    const peers = names.map((peer) => {
      const theirs = speeds.get(peer)!.map((s) => s[what]);
      return [peer, { theirs: round(median(theirs)), ratio: round(median(ours.map((x, i) => x / theirs[i]!))) }];
    });
    return {
      ours: round(median(ours)),
      min: round(Math.min(...ours)),
      max: round(Math.max(...ours)),
      ...Object.fromEntries(peers),
    };
  };
  const decode = of('decode');
  const decodeGBs = (decode.ours * model.weightBytesAToken) / 1e9;
  return {
    model: name,
    threads,
    nPrompt,
    nGenerate,
    kernels: model.info.executor,
    prefill: of('prefill'),
    decode,
    decodeGBs: round(decodeGBs),
    limitShare: round(decodeGBs / readLimitGBs),
    loadMs: round(model.info.loadMs),
  };
}

const words = flags.rows.split(',').filter((word) => word !== '');
const wanted = ROWS.filter(({ model, threads }) => {
  const name = `${model} ${threads}t`.toLowerCase();
  return words.length === 0 || words.some((word) => name.includes(word.toLowerCase()));
});
const known = existsSync(OUT)
  ? (JSON.parse(readFileSync(OUT, 'utf8')) as { rows: Awaited<ReturnType<typeof measure>>[] }).rows
  : [];
const rows = new Map(known.map((each) => [`${each.model} ${each.threads}`, each]));
mkdirSync(dirname(OUT), { recursive: true });
for (const plan of wanted) {
  const path = join(tmpdir(), `smallmind-${plan.model.replace(':', '-')}.gguf`);
  if (!existsSync(path)) await writeSource(syntheticModel(plan.model), path);
  const result = await measure(plan, path);
  console.log(JSON.stringify(result));
  rows.set(`${plan.model} ${plan.threads}`, result);
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), node: process.version };
  const sorted = ROWS.flatMap(({ model, threads }) => rows.get(`${model} ${threads}`) ?? []);
  writeFileSync(OUT, `${JSON.stringify({ machine, nRuns, rows: sorted }, null, 2)}\n`);
}
