// How many lines of the parts that read strangers' data their own suites run: the share of each folder, and the lines
// that none runs, of all its files. Fails below LINES_MIN %. Whether tests pass, `npm test` says: counting slows the
// code down, which those that measure time do not bear. Sources run unbuilt, so that lines are those of the files.
//   npm run coverage

import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { relative } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';

/** @typedef {import('node:test').EventData.TestCoverage['summary']['files'][number]} FileCoverage */

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PARTS = ['gguf', 'quant', 'tokenizer', 'sampler'];
const LINES_MIN = 95;

process.chdir(ROOT);
/** Those that no suite loads are not in it. @type {Map<string, FileCoverage>} */
const files = new Map();
const events = run({
  files: globSync(PARTS.flatMap((part) => [`src/${part}/**/*.test.ts`, `src/${part}.test.ts`])),
  execArgv: ['--conditions=smallmind-source'],
  concurrency: 2,
  coverage: true,
  coverageIncludeGlobs: PARTS.flatMap((part) => [`src/${part}/**/*.ts`, `src/${part}.ts`]),
  coverageExcludeGlobs: ['**/*.test.ts'],
});
for await (const { type, data } of events) {
  if (type !== 'test:coverage') continue;
  for (const file of data.summary.files) files.set(relative(ROOT, file.path), file);
}

const nEnough = PARTS.filter((part) => {
  const paths = globSync([`src/${part}/**/*.ts`, `src/${part}.ts`]).filter((path) => !path.endsWith('.test.ts'));
  const missing = paths.filter((path) => !files.has(path) && hasCode(path));
  const own = paths.flatMap((path) => files.get(path) ?? []);
  const nLines = own.reduce((sum, file) => sum + file.totalLineCount, 0);
  const nCovered = own.reduce((sum, file) => sum + file.coveredLineCount, 0);
  const isEnough = missing.length === 0 && 100 * nCovered >= LINES_MIN * nLines;
  console.log(`${isEnough ? '✓' : '✗'} ${part}: ${((100 * nCovered) / nLines).toFixed(1)} % of ${nLines} lines`);
  for (const path of missing) console.log(`    ${path}: no suite loads it`);
  for (const { path, lines } of own) {
    const missed = lines.filter(({ count }) => count === 0).map(({ line }) => line);
    if (missed.length > 0) console.log(`    ${relative(ROOT, path)}: ${missed.join(', ')}`);
  }
  return isEnough;
}).length;
if (nEnough < PARTS.length) process.exitCode = 1;
console.log(`\n${nEnough} passed, ${PARTS.length - nEnough} failed (at least ${LINES_MIN} % of lines)`);

/** Whether there is more in a file than comments and types, which nobody loads. */
function hasCode(/** @type {string} */ path) {
  const code = stripTypeScriptTypes(readFileSync(path, 'utf8'));
  return code.replace(/\/\*[^]*?\*\/|\/\/.*/g, '').trim() !== '';
}
