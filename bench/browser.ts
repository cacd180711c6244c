// Speed in a browser: SmallMind beside wllama, run by run, in one page of Chromium, on the same file with the same
// threads: in a cross-origin isolated page with two threads, and in one that is not with one. Both through their public
// APIs, each by its own clock: prefill until the first token is chosen, decoding from there to the last. Needs
// `npm run peers` and `npm run browsers`. Prints each turn, ours first, and writes the rows.
//   npm run bench:browser -- --runs 5 --out docs/data/browser.json

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Page } from 'playwright-core';
import { syntheticModel } from '../src/benchmark.ts';
import type { Speed } from '../src/benchmark.ts';
import { Random } from '../src/base/random.ts';
import { writeSource } from '../src/cli/files.ts';
import { buildPackage, openPage } from '../test/browser/browsers.ts';
import { chromium } from '../test/browser/chromium.ts';

const WLLAMA = fileURLToPath(new URL('../peers/node_modules/@wllama/wllama/', import.meta.url));

const { values: flags } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    model: { type: 'string', default: 'SmolLM2-135M:Q4_0' },
    prompt: { type: 'string', default: '512' },
    generate: { type: 'string', default: '128' },
    out: { type: 'string' },
  },
});
const nRuns = Number(flags.runs);
const nPrompt = Number(flags.prompt);
const nGenerate = Number(flags.generate);
const nCtx = nPrompt + nGenerate + 64;

/** Words of the synthetic vocabularies, which are numbers in base 36; all of them have more. */
const N_WORDS = 30_000;

/** The part of wllama that is used here. */
interface Wllama {
  loadModel(blobs: Blob[], params: Readonly<Record<string, number>>): Promise<void>;
  createCompletion(options: Readonly<Record<string, unknown>>): Promise<{ timings: WllamaTimings }>;
  getNumThreads(): number;
  isMultithread(): boolean;
}
interface WllamaTimings {
  readonly prompt_n: number;
  readonly prompt_ms: number;
  /** The first token is the prompt's. */
  readonly predicted_n: number;
  readonly predicted_ms: number;
}

declare global {
  var wllama: {
    Wllama: { new (paths: { default: string }, config: object): Wllama; getLibllamaVersion(): string };
    LoggerWithoutDebug: object;
  };
}

/** Who is measured, with its model in the page. */
interface Runner {
  run(prompt: string): Promise<Speed>;
}

async function openOurs(page: Page, threads: number): Promise<Runner & { readonly kernels: string }> {
  const model = await page.evaluateHandle(
    async (options) => smallmind.loadModel(await (await fetch('/model.gguf')).blob(), options),
    { threads, nCtx },
  );
  return {
    kernels: await model.evaluate(({ info }) => info.executor),
    async run(prompt) {
      const { promptTokens, tokens, timings } = await model.evaluate(
        (m, { text, maxTokens }) => m.generate(text, { maxTokens, temperature: 0 }).result,
        { text: prompt, maxTokens: nGenerate + 1 },
      );
      requireWhole('SmallMind', promptTokens, tokens.length);
      return { prefill: timings.promptTokensPerSecond, decode: timings.decodeTokensPerSecond };
    },
  };
}

/** In all else as wllama does by default, which keeps keys and values in F16. */
async function openWllama(page: Page, threads: number): Promise<Runner> {
  const peer = await page.evaluateHandle(
    async (params) => {
      const { Wllama, LoggerWithoutDebug: logger } = wllama;
      const opened = new Wllama({ default: '/wllama/wasm/wllama.wasm' }, { logger });
      await opened.loadModel([await (await fetch('/model.gguf')).blob()], params);
      return opened;
    },
    { n_threads: threads, n_ctx: nCtx, n_parallel: 1, n_gpu_layers: 0 },
  );
  const nThreads = await peer.evaluate((w) => (w.isMultithread() ? w.getNumThreads() : 1));
  if (nThreads !== threads) throw new Error(`wllama runs on ${nThreads} threads instead of ${threads}`);
  return {
    async run(prompt) {
      const { timings } = await peer.evaluate(
        (w, { text, max_tokens }) =>
          w.createCompletion({ prompt: text, max_tokens, temperature: 0, ignore_eos: true, cache_prompt: false }),
        { text: prompt, max_tokens: nGenerate + 1 },
      );
      const { prompt_n, prompt_ms, predicted_n, predicted_ms } = timings;
      requireWhole('wllama', prompt_n, predicted_n);
      return { prefill: (1000 * prompt_n) / prompt_ms, decode: (1000 * (predicted_n - 1)) / predicted_ms };
    },
  };
}

function requireWhole(who: string, nRead: number, nWritten: number): void {
  if (nRead === nPrompt && nWritten === nGenerate + 1) return;
  throw new Error(`${who} read ${nRead} and wrote ${nWritten} tokens, not ${nPrompt} and ${nGenerate + 1}`);
}

/**
 * A text of `nPrompt` tokens, the first of them BOS, for wllama takes no token ids: random words of the vocabulary,
 * others for each run, so that nothing is found in a cache.
 */
function promptOf(seed: number): string {
  const random = new Random(seed);
  const word = (): string => Math.floor(random.uniform() * N_WORDS).toString(36);
  return Array.from({ length: nPrompt - 1 }, word).join(' ');
}

const round = (x: number): number => Number(x.toPrecision(4));
const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1]!;
const figures = (x: readonly number[]) => {
  return { median: round(median(x)), min: round(Math.min(...x)), max: round(Math.max(...x)) };
};

/** Both in a new page, in turns; the first turn of each warms up. */
async function measure(path: string, isolated: boolean, threads: number) {
  await using opened = await openPage(chromium, {
    isolated,
    files: { '/model.gguf': path, '/wllama/': join(WLLAMA, 'esm/') },
    modules: { wllama: '/wllama/index.js' },
  });
  const { page, version } = opened;
  const ours = await openOurs(page, threads);
  const theirs = await openWllama(page, threads);
  const speeds = new Map<Runner, Speed[]>([
    [ours, []],
    [theirs, []],
  ]);
  for (let run = 0; run <= nRuns; run++) {
    const prompt = promptOf(run);
    for (const runner of run % 2 === 0 ? [ours, theirs] : [theirs, ours]) {
      speeds.get(runner)!.push(await runner.run(prompt));
    }
    console.log(run === 0 ? 'warm-up' : `run ${run} of ${nRuns}`, speeds.get(ours)!.at(-1), speeds.get(theirs)!.at(-1));
  }
  const compare = (what: keyof Speed) => {
    const measured = (runner: Runner): number[] =>
      speeds
        .get(runner)!
        .map((speed) => speed[what])
        .slice(1);
    const [a, b] = [measured(ours), measured(theirs)];
    return { ours: figures(a), wllama: figures(b), ratio: round(median(a.map((x, i) => x / b[i]!))) };
  };
  const row = { isolated, threads, kernels: ours.kernels, prefill: compare('prefill'), decode: compare('decode') };
  return { row, version, libllama: await page.evaluate(() => wllama.Wllama.getLibllamaVersion()) };
}

if (!existsSync(WLLAMA)) throw new Error('wllama is not installed; run npm run peers');
buildPackage();
const path = join(tmpdir(), `smallmind-${flags.model.replace(':', '-')}.gguf`);
if (!existsSync(path)) await writeSource(syntheticModel(flags.model), path);
const { version: wllamaVersion } = JSON.parse(readFileSync(join(WLLAMA, 'package.json'), 'utf8')) as {
  version: string;
};
const rows: Awaited<ReturnType<typeof measure>>['row'][] = [];
for (const [isolated, threads] of [
  [true, 2],
  [false, 1],
] as const) {
  const { row, version, libllama } = await measure(path, isolated, threads);
  console.log(JSON.stringify(row));
  rows.push(row);
  const report = {
    machine: { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), node: process.version },
    browser: `Chromium ${version}`,
    peer: `wllama ${wllamaVersion} (llama.cpp ${libllama})`,
    model: flags.model,
    nPrompt,
    nGenerate,
    nRuns,
    rows,
  };
  if (flags.out) writeFileSync(flags.out, `${JSON.stringify(report, null, 2)}\n`);
}
