// Runs the suites that compare with llama.cpp and with recorded answers of others, and writes what those that passed
// have compared: docs/data/models.json, and from it docs/models.md. With words, only the suites of peers/ whose path
// contains one; what is known of the others stays. With --check it changes nothing, and fails where something else was
// compared than docs/data/models.json tells of, whatever the figures.
//   node scripts/write-models.ts [--check] [words]

import { spawnSync } from 'node:child_process';
import { globSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { SuiteRecord } from '../test/comparison-record.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const RECORDS = join(ROOT, 'tmp/comparisons');
const MODELS = join(ROOT, 'docs/data/models.json');

const { values: flags, positionals: words } = parseArgs({
  allowPositionals: true,
  options: { check: { type: 'boolean', default: false } },
});

type Suites = Readonly<Record<string, SuiteRecord>>;

rmSync(RECORDS, { recursive: true, force: true });
if (words.length === 0) run('scripts/test.js', 'src/chat/template');
run('scripts/test.js', '--peers', ...words);
const compared: Suites = Object.fromEntries(
  globSync('*.json', { cwd: RECORDS }).map((file) => [basename(file, '.json'), readJson(join(RECORDS, file))]),
);
const known: Suites = readJson(MODELS);
if (flags.check) check();
else write();

function run(script: string, ...args: string[]): void {
  const env = { ...process.env, SMALLMIND_COMPARISONS: RECORDS };
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: ROOT, env, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

function write(): void {
  const all = words.length === 0 ? compared : { ...known, ...compared };
  const sorted = Object.fromEntries(Object.entries(all).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(`${MODELS}.tmp`, `${JSON.stringify(sorted, null, 2)}\n`);
  renameSync(`${MODELS}.tmp`, MODELS);
  run('node_modules/oxfmt/bin/oxfmt', MODELS);
  run('scripts/write-tables.ts');
  run('node_modules/oxfmt/bin/oxfmt', 'docs/models.md');
}

function check(): void {
  const stale = Object.keys({ ...compared, ...(words.length === 0 && known) }).filter(
    (suite) => outlineOf(compared[suite]) !== outlineOf(known[suite]),
  );
  if (stale.length === 0) return;
  console.error(`docs/data/models.json tells of other comparisons: ${stale.join(', ')}\nwrite it anew: npm run models`);
  process.exitCode = 1;
}

/** What was compared, without what machines may differ in. */
function outlineOf(suite: SuiteRecord | undefined): string {
  const figures = new Set(['rms', 'nDecided', 'nSame', 'kernels', 'threads']);
  return JSON.stringify(suite, (key, value: unknown) => (figures.has(key) ? undefined : value)) ?? '';
}
