// What linters miss, held to on every run: headers, names, sizes, worker URLs, links, and the mathematics that engines
// round differently. Reads the tree as it is on disk. Prints the line count of src/, which is to be weighed, not fixed.

import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { judgeImport } from '../scripts/import-table.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NOT_OURS = new Set(['node_modules', 'dist', 'dist.tmp', 'tmp', 'coverage', '.git']);
const LINES_MAX = 600;
const WIDTH_MAX = 120;
const FILES_A_FOLDER_MAX = 12;
const BANNED_NAMES = new Set(['utils', 'util', 'helpers', 'helper', 'manager', 'common', 'misc']);

interface SourceFile {
  /** Relative to the repository, with slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

function readFiles(pattern: string): SourceFile[] {
  const paths = globSync(pattern, { cwd: ROOT, exclude: (name) => NOT_OURS.has(basename(name)) });
  return paths.sort().map((path) => {
    const text = readFileSync(join(ROOT, path), 'utf8');
    return { path, text, lines: text.trimEnd().split('\n') };
  });
}

const isTest = ({ path }: SourceFile): boolean => path.endsWith('.test.ts');
const code = readFiles('{src,test,scripts,bench,peers,bin,web}/**/*.{ts,js}');
const published = code.filter((file) => file.path.startsWith('src/') && !isTest(file));
const documents = readFiles('**/*.md');
const everything = [...code, ...documents, ...readFiles('**/*.{json,html,css}'), ...readFiles('.ci/*')];

/** "path:line: text" of every line that `isBad`. */
function findLines(files: readonly SourceFile[], isBad: (line: string) => boolean): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, i) => (isBad(line) ? [`${path}:${i + 1}: ${line.trim().slice(0, 100)}`] : [])),
  );
}

function findFiles(files: readonly SourceFile[], isBad: (file: SourceFile) => boolean): string[] {
  return files.filter(isBad).map(({ path }) => path);
}

test('there is something to judge', () => {
  assert.ok(published.length > 10 && documents.length > 0);
});

test('every file opens with a comment that says what it is', () => {
  const hasHeader = ({ lines }: SourceFile): boolean =>
    /^(\/\/ |\/\*\*)/.test(lines[lines[0]?.startsWith('#!') ? 1 : 0]!);
  assert.deepEqual(
    findFiles(code, (file) => !hasHeader(file)),
    [],
  );
});

test('no file and no folder has a name that says nothing', () => {
  const isBanned = ({ path }: SourceFile): boolean => path.split(/[/.]/).some((part) => BANNED_NAMES.has(part));
  assert.deepEqual(findFiles(code, isBanned), []);
});

test(`no file is longer than ${LINES_MAX} lines`, () => {
  assert.deepEqual(
    findFiles(code, ({ lines }) => lines.length > LINES_MAX),
    [],
  );
});

test(`no comment is wider than ${WIDTH_MAX} columns`, () => {
  assert.deepEqual(
    findLines(code, (line) => line.length > WIDTH_MAX && /^\s*(\/\/|\/?\*)/.test(line)),
    [],
  );
});

test(`no folder of src holds more than ${FILES_A_FOLDER_MAX} files`, () => {
  const folders = Map.groupBy(published, ({ path }) => dirname(path));
  // src/ itself holds an entry file for each thing that the package exports, and what puts the parts together.
  const isFree = (folder: string): boolean => /^src(\/(models|cli))?$/.test(folder);
  const full = [...folders].filter(([folder, files]) => files.length > FILES_A_FOLDER_MAX && !isFree(folder));
  assert.deepEqual(
    full.map(([folder, files]) => `${folder}: ${files.length}`),
    [],
  );
});

test('only platform files name worker modules by URL, and only modules that they may import', () => {
  const bad = published.flatMap(({ path, text }) =>
    [...text.matchAll(/new URL\(\s*['"`](\.[^'"`]*\.ts)['"`]/g)].flatMap(([, target]) => {
      if (!/\.(node|browser)\.ts$/.test(path)) return [`${path} names ${target}; only *.node.ts and *.browser.ts may`];
      if (!existsSync(join(ROOT, dirname(path), target!))) return [`${path} names ${target}, which does not exist`];
      return judgeImport(path, target!) ?? [];
    }),
  );
  assert.deepEqual(bad, []);
});

test('links in documents lead somewhere', () => {
  const dead = documents.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target]) => target!)
      .filter((target) => !/^(https?:|mailto:|#)/.test(target))
      .filter((target) => !existsSync(join(ROOT, dirname(path), decodeURI(target.split('#')[0]!))))
      .map((target) => `${path} → ${target}`),
  );
  assert.deepEqual(dead, []);
});

test('no test is switched on alone', () => {
  assert.deepEqual(
    findLines(code, (line) => /\b(test|it|describe|suite)\.only\(|\bonly: true/.test(line)),
    [],
  );
});

test('whoever leaves a TODO says what and why', () => {
  const open = /\b(TODO|FIXME|XXX|HACK)\b(?!(\([^)]+\))?: .{15})/;
  assert.deepEqual(
    findLines(code, (line) => /^\s*(\/\/|\*)/.test(line) && open.test(line)),
    [],
  );
});

test('no file names a path of one machine', () => {
  const path = /(^|[^A-Za-z0-9_.])\/(work|farm|root|home|Users)\//;
  assert.deepEqual(
    findLines(everything, (line) => path.test(line)),
    [],
  );
});

test('only base/math calls the functions that engines round differently', () => {
  const call =
    /\bMath\.(exp|expm1|log|log2|log10|log1p|pow|sin|cos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|cbrt|hypot)\b/;
  const isFree = ({ path }: SourceFile): boolean => /^src\/(base\/math\.ts|backend\/reference\/)/.test(path);
  const codeOf = (line: string): string => line.replace(/^\s*(\/\/|\/?\*).*|\s\/\/.*/, '');
  assert.deepEqual(
    findLines(
      published.filter((file) => !isFree(file)),
      (line) => call.test(codeOf(line)),
    ),
    [],
  );
});

test('the size of src is known', (t) => {
  const count = (files: readonly SourceFile[]): number => files.reduce((sum, { lines }) => sum + lines.length, 0);
  const tests = code.filter(isTest);
  t.diagnostic(
    `src: ${count(published)} lines in ${published.length} files; tests: ${count(tests)} in ${tests.length}`,
  );
  assert.ok(count(published) > 0);
});
