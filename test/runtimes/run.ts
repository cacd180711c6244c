// Packs and installs the package, runs the suite and the command under each runtime of runtimes/ and under the
// development Node, and prints the counts. What came out goes to docs/data/runtimes.json, from which the tables of
// docs/runtimes.md are written; with --check nothing is written, and the checks must be those that stand there.
//   node --conditions=smallmind-source test/runtimes/run.ts [--check]

import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { STORIES_F32, goldenCases, modelPath } from '../golden/golden-data.ts';
import { ENCODER_KINDS, randomEncoderGguf } from '../random-encoder.ts';
import type { SuiteReport, SuiteTask } from './suite.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const RECORD = join(ROOT, 'docs/data/runtimes.json');
const installed = (path: string): string => join(ROOT, 'runtimes/node_modules', path);

/** Name → the words that start a program under it. */
const RUNTIMES: Readonly<Record<string, readonly string[]>> = {
  'Node 22': [installed('node-22/bin/node')],
  'Node 24': [process.execPath],
  'Node 26': [installed('node-26/bin/node')],
  Bun: [installed('bun/bin/bun')],
  // All that it needs.
  Deno: [installed('deno/deno'), 'run', '--allow-read'],
};

/** A small model of random weights. */
const ENCODER = { seed: 1, dtype: 'Q8_0', nLayer: 2, nEmbd: 64, nHead: 2, nFf: 96, nVocab: 300, nCtx: 64 } as const;

const SECONDS_MAX = 60;
/** From the last thing that a program prints to its end. */
const EXIT_MS_MAX = 1500;

/** What one runtime did, as docs/data/runtimes.json holds it. */
export type RuntimeReport = SuiteReport & { readonly name: string };
export interface RuntimesFile {
  readonly machine: string;
  readonly runtimes: readonly RuntimeReport[];
}

interface Ended {
  /** null: it was killed. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly exitMs: number;
}

const { check: isCheck } = parseArgs({ options: { check: { type: 'boolean', default: false } } }).values;
const scratch = mkdtempSync(join(tmpdir(), 'smallmind-runtimes-'));
try {
  installPackage();
  const reports: RuntimeReport[] = [];
  for (const name of Object.keys(RUNTIMES)) {
    const report = await judge(name, prepareTask());
    requireSameBits(report, reports[0]);
    printReport(report);
    reports.push(report);
  }
  conclude(reports);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function npm(args: readonly string[], cwd: string): void {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm ${args.join(' ')} failed\n${stdout}${stderr}`);
}

/** As a user gets it: packed, which builds it, and installed with its dependencies. */
function installPackage(): void {
  npm(['pack', '--silent', '--pack-destination', scratch], ROOT);
  const tarball = readdirSync(scratch).find((file) => file.endsWith('.tgz'))!;
  writeFileSync(join(scratch, 'package.json'), '{ "private": true, "type": "module" }');
  npm(['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball}`], scratch);
  copyFileSync(new URL('suite.ts', import.meta.url), join(scratch, 'suite.ts'));
}

function prepareTask(): Omit<SuiteTask, 'kind'> {
  const model = modelPath(STORIES_F32);
  const truncated = join(scratch, 'truncated.gguf');
  writeFileSync(truncated, readFileSync(model).subarray(0, 100_000));
  const encoder = join(scratch, 'encoder.gguf');
  writeFileSync(encoder, randomEncoderGguf(ENCODER_KINDS['bert']!, ENCODER));
  const { prompt, llama_cpp_greedy_text: greedy } = goldenCases().find((golden) => golden.model === STORIES_F32)!;
  return { model, truncated, missing: join(scratch, 'missing.gguf'), encoder, prompt, greedy };
}

async function judge(name: string, task: Omit<SuiteTask, 'kind'>): Promise<RuntimeReport> {
  const runSuite = (kind: SuiteTask['kind']): Promise<Ended> =>
    runUnder(name, ['suite.ts', JSON.stringify({ ...task, kind })]);
  const runCommand = (...args: readonly string[]): Promise<Ended> =>
    runUnder(name, ['node_modules/smallmind/bin/smallmind.js', ...args]);

  const suite = await runSuite('suite');
  const report = (JSON.parse(suite.stdout.split('\n')[0] || 'null') as SuiteReport | null) ?? NOTHING;
  const checks: Record<string, string | null> = { ...report.checks };
  checks['closed models leave a process that ends by itself'] = judgeEnd(suite);

  const text = `${JSON.stringify(task.greedy)}\n`;
  const idle = await runSuite('idle');
  checks['an idle model does not keep the process alive'] = judgeEnd(idle, text);
  const awaited = await runSuite('awaited');
  checks['a text that is awaited does'] = judgeEnd(awaited, text);

  const told = await runCommand('run', task.model, '-p', task.prompt, '-n', '48', '--temp', '0');
  checks['`smallmind run`'] = judgeEnd(told, task.greedy.slice(0, 100));
  const doctor = await runCommand('doctor');
  checks['`smallmind doctor`'] = judgeEnd(doctor, 'All is well.');
  const missing = await runCommand('run', task.missing, '-p', 'x');
  const saysSo = missing.code === 1 && /missing\.gguf: no such file/.test(missing.stderr);
  checks['`smallmind run` with a missing file'] = saysSo ? null : describeEnd(missing);
  return { name, ...report, checks };
}

const NOTHING: SuiteReport = {
  engine: '',
  dot: '',
  executor: '',
  sharedMemory: false,
  memory64: false,
  wideVectors: false,
  bits: '',
  checks: { 'the suite': 'it printed no report' },
};

/** Runs a program in the scratch folder, with an empty stdin, and kills it if it does not end. */
async function runUnder(name: string, args: readonly string[]): Promise<Ended> {
  const { NODE_OPTIONS: _, FORCE_COLOR: __, ...env } = process.env;
  const [program, ...words] = RUNTIMES[name]!;
  const child = spawn(program!, [...words, ...args], { cwd: scratch, env, timeout: SECONDS_MAX * 1000 });
  child.stdin.end();
  const output = { stdout: '', stderr: '' };
  let lastMs = performance.now();
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text;
      lastMs = performance.now();
    });
  }
  const code = await new Promise<number | null>((resolve) => {
    child.on('error', (error) => (output.stderr += String(error)));
    child.on('close', resolve);
  });
  return { code, ...output, exitMs: performance.now() - lastMs };
}

/** What is wrong with how a program ended, if anything. @param expected  a part of its stdout */
function judgeEnd(ended: Ended, expected = ''): string | null {
  if (ended.code !== 0 || !ended.stdout.includes(expected)) return describeEnd(ended);
  return ended.exitMs <= EXIT_MS_MAX ? null : `it ended ${ended.exitMs.toFixed(0)} ms after its last output`;
}

function describeEnd({ code, stdout, stderr }: Ended): string {
  return `exit code ${code}, stdout ${JSON.stringify(stdout.slice(0, 500))}, stderr ${JSON.stringify(stderr)}`;
}

function requireSameBits({ name, bits, checks }: RuntimeReport, first: RuntimeReport | undefined): void {
  const isSame = !first || bits === first.bits;
  const error = isSame ? null : `${name} has ${bits}, ${first.name} has ${first.bits}`;
  (checks as Record<string, string | null>)['strict: the same bits as in every other runtime'] = error;
}

function printReport({ name, engine, executor, checks }: RuntimeReport): void {
  console.log(`${name}: ${engine}, ${executor}`);
  for (const [check, error] of Object.entries(checks)) {
    console.log(error === null ? `  ✓ ${check}` : `  ✗ ${check}\n    ${error}`);
  }
}

function conclude(runtimes: readonly RuntimeReport[]): void {
  const results = runtimes.flatMap(({ checks }) => Object.values(checks));
  const nFailed = results.filter((error) => error !== null).length;
  let isStale = false;
  if (isCheck) {
    const record = JSON.parse(readFileSync(RECORD, 'utf8')) as RuntimesFile;
    isStale = namesOf(record.runtimes) !== namesOf(runtimes);
    if (isStale) console.error('docs/runtimes.md tells of other checks: run `npm run runtimes`');
  } else {
    const record: RuntimesFile = { machine: `${cpus()[0]!.model}, ${cpus().length} cores`, runtimes };
    writeFileSync(RECORD, `${JSON.stringify(record, null, 2)}\n`);
    npm(['run', '--silent', 'tables'], ROOT);
  }
  if (isStale || nFailed > 0) process.exitCode = 1;
  console.log(`\n${results.length - nFailed} passed, ${nFailed} failed`);
}

/** Which runtimes and which checks, and not what versions and machines answered. */
function namesOf(runtimes: readonly RuntimeReport[]): string {
  return JSON.stringify(runtimes.map(({ name, checks }) => [name, Object.keys(checks)]));
}
