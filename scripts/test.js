// Runs the test suites, each file in a process of its own, under the Node that runs this file, on the unbuilt sources.
//   npm test                     every suite but the slow ones (with CI=true: those too)
//   npm test -- src/gguf dtype   the suites whose path contains one of the words
//   --slow, --peers              also *.slow.test.ts; the suites of peers/ instead of our own
// Prints a line a file, failures in full, what was skipped and why, and last of all the counts.

import { globSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect, parseArgs } from 'node:util';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** A soak of full size takes longer. */
const FILE_SECONDS_MAX = Number(process.env.SMALLMIND_TEST_SECONDS ?? 180);
const SLOW_FILE_SECONDS_MAX = 420;
/** Suites that watch a clock or memory, need a lot of it, or write dist/: never two at a time, nor beside another. */
const ALONE = new RegExp(
  [
    '^test/(browser|seed|soak|training)/',
    '^test/api/(concurrency|ending|idle|process|stopping)\\.',
    '^test/(examples|package)\\.',
    '^src/backend/wasm/(compute-limit|load|pool)\\.',
    '\\ballocation\\.',
  ].join('|'),
);
const LIGHT_AT_ONCE = 2;

/** What node:test itself says at the end of a file. */
const NODE_TALLY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /;

/** A failed test as it is printed. @typedef {{ title: string, error: unknown }} Failure */
/**
 * What became of one file; `notes` are what its tests said with `t.diagnostic`.
 * @typedef {{ file: string, passed: number, failures: Failure[], skipped: string[], notes: string[],
 *   output: string, seconds: number }} Outcome
 */

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    slow: { type: 'boolean', default: process.env.CI === 'true' },
    peers: { type: 'boolean', default: false },
  },
});
process.chdir(ROOT);
// Hundreds of processes start from the sources: without their types and compiled they are read from here.
process.env.NODE_COMPILE_CACHE ??= join(ROOT, 'node_modules', '.cache', 'compiled');
const { chosen, leftOut } = chooseFiles();
const outcomes = await runAll(chosen);
printSummary(outcomes);

function chooseFiles() {
  const patterns = flags.peers ? ['peers/*.test.ts'] : ['src/**/*.test.ts', 'test/**/*.test.ts'];
  const words = positionals.map((word) => (word.startsWith(ROOT) ? relative(ROOT, word) : word.replace(/^\.\//, '')));
  const matches = globSync(patterns)
    .map((file) => file.split(sep).join('/'))
    .filter((file) => words.length === 0 || words.some((word) => file.includes(word)))
    .sort();
  // Named on purpose is wanted, slow or not.
  const wanted = (/** @type {string} */ file) =>
    flags.slow || !isSlow(file) || words.some((w) => w.endsWith('.test.ts'));
  return { chosen: matches.filter(wanted), leftOut: matches.filter((file) => !wanted(file)) };
}

function isSlow(/** @type {string} */ file) {
  return file.endsWith('.slow.test.ts');
}

async function runAll(/** @type {string[]} */ files) {
  /** @type {Outcome[]} */
  const done = [];
  const drain = async (/** @type {string[]} */ queue) => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const outcome = await runFile(file);
      printFile(outcome);
      done.push(outcome);
    }
  };
  // The long ones first, so that none is left over at the end.
  const light = files.filter((file) => !ALONE.test(file)).sort((a, b) => Number(isSlow(b)) - Number(isSlow(a)));
  await Promise.all(Array.from({ length: LIGHT_AT_ONCE }, () => drain(light)));
  await drain(files.filter((file) => ALONE.test(file)));
  return done;
}

/** Runs one file in a child process; one that neither ends nor fails in time is killed and counts as a failure. */
async function runFile(/** @type {string} */ file) {
  /** @type {Outcome} */
  const outcome = { file, passed: 0, failures: [], skipped: [], notes: [], output: '', seconds: 0 };
  const secondsMax = isSlow(file) ? SLOW_FILE_SECONDS_MAX : FILE_SECONDS_MAX;
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new Error(`still running after ${secondsMax} s`)), secondsMax * 1000);
  const started = performance.now();
  const execArgv = ['--conditions=smallmind-source'];
  for await (const event of run({ files: [file], isolation: 'process', execArgv, signal: abort.signal })) {
    record(event, outcome);
  }
  clearTimeout(timer);
  outcome.seconds = (performance.now() - started) / 1000;
  return outcome;
}

/** Adds one event of node:test to the outcome of its file. A suite counts by its tests, unless it failed by itself. */
function record(/** @type {{ type: string, data: any }} */ { type, data }, /** @type {Outcome} */ outcome) {
  if (type === 'test:stdout' || type === 'test:stderr') outcome.output += data.message;
  if (type === 'test:diagnostic' && !NODE_TALLY.test(data.message)) outcome.notes.push(data.message);
  if (type !== 'test:pass' && type !== 'test:fail') return;
  const { name, skip, todo, details } = data;
  // A file without tests is reported as one test that carries the name of the file.
  const isFile = name.endsWith(outcome.file);
  if (skip !== undefined || todo !== undefined) {
    outcome.skipped.push(`${name}: ${skip || todo || 'no reason given'}`);
  } else if (type === 'test:fail') {
    const { failureType } = details.error ?? {};
    const error = failureType === 'cancelledByParent' ? 'did not run to its end' : details.error;
    // A suite whose tests failed says nothing new.
    if (failureType !== 'subtestsFailed') outcome.failures.push({ title: isFile ? 'the file itself' : name, error });
  } else if (details.type !== 'suite' && !isFile) {
    outcome.passed += 1;
  }
}

function printFile(/** @type {Outcome} */ { file, passed, failures, skipped, notes, output, seconds }) {
  const counts = [`${passed} passed`];
  if (failures.length > 0) counts.push(`${failures.length} failed`);
  if (skipped.length > 0) counts.push(`${skipped.length} skipped`);
  console.log(`${failures.length > 0 ? '✗' : '✓'} ${file}  ${counts.join(', ')}  ${seconds.toFixed(1)} s`);
  for (const note of notes) console.log(`  ${note}`);
  for (const { title, error } of failures) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    console.log(
      `\n  ✗ ${title}\n${indent(cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause))}\n`,
    );
  }
  if (failures.length > 0 && output !== '') console.log(`  output of ${file}:\n${indent(output.trimEnd())}\n`);
}

function indent(/** @type {string} */ text) {
  return text.replace(/^(?=.)/gm, '    ');
}

function printSummary(/** @type {Outcome[]} */ all) {
  const skipped = all.flatMap(({ file, skipped: reasons }) => reasons.map((reason) => `${file} › ${reason}`));
  const failing = all.flatMap(({ file, failures }) => failures.map(({ title }) => `${file} › ${title}`));
  const passed = all.reduce((sum, { passed: count }) => sum + count, 0);
  printList('Skipped', skipped);
  printList('Slow suites left out (npm test -- --slow)', leftOut);
  printList('Failed', failing);
  const none = passed + failing.length === 0;
  if (none)
    console.log(`\nNo test ran${positionals.length > 0 ? ` for ${positionals.join(' ')}` : ''}: that is a failure.`);
  process.exitCode = none || failing.length > 0 ? 1 : 0;
  const tail = skipped.length > 0 ? `, ${skipped.length} skipped` : '';
  console.log(`\n${passed} passed, ${failing.length} failed${tail}`);
}

function printList(/** @type {string} */ heading, /** @type {string[]} */ lines) {
  if (lines.length > 0) console.log(`\n${heading}:\n${lines.map((line) => `  ${line}`).join('\n')}`);
}
