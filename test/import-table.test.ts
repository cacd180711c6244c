// The import table is enforced: oxlint, with the project's own configuration, reports what the table forbids in every
// form an import can take, and nothing else. The sources judged here are written to a scratch folder for the purpose.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { IMPORT_TABLE, judgeImport } from '../scripts/import-table.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'smallmind-lint-'));
after(() => rmSync(scratch, { recursive: true }));

/** Lints one file of a scratch repository and returns the messages of the import rule. */
function lint(file: string, source: string): string[] {
  for (const part of ['.oxlintrc.json', 'scripts', 'package.json']) {
    cpSync(join(ROOT, part), join(scratch, part), { recursive: true, force: true });
  }
  const path = join(scratch, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, source);
  const oxlint = join(ROOT, 'node_modules', 'oxlint', 'bin', 'oxlint');
  try {
    execFileSync(process.execPath, [oxlint, '--format', 'json', file], { cwd: scratch, stdio: 'pipe' });
    return [];
  } catch (error) {
    const { stdout } = error as { stdout?: Buffer };
    const report = JSON.parse(String(stdout)) as { diagnostics: { code: string; message: string }[] };
    return report.diagnostics.filter(({ code }) => code.includes('import-table')).map(({ message }) => message);
  }
}

const FORMS: Readonly<Record<string, string>> = {
  value: `import { run } from '../engine/engine.ts';\nexport const x = run;`,
  type: `import type { Run } from '../engine/engine.ts';\nexport const x: Run | null = null;`,
  're-export': `export { run } from '../engine/engine.ts';`,
  'star re-export': `export * from '../engine/engine.ts';`,
  dynamic: `export const x = () => import('../engine/engine.ts');`,
  'type in place': `export const x: import('../engine/engine.ts').Run | null = null;`,
};

for (const [form, source] of Object.entries(FORMS)) {
  test(`oxlint reports a forbidden import as ${form}`, () => {
    const messages = lint('src/gguf/reader.ts', source);
    assert.deepEqual(messages, ['gguf may not import engine/engine.ts; it may import base']);
  });
}

test('oxlint accepts what the table allows, and leaves tests alone', () => {
  const allowed = `import { assert } from '../base/errors.ts';\nimport { x } from './limits.ts';\nexport { assert, x };`;
  assert.deepEqual(lint('src/gguf/reader.ts', allowed), []);
  assert.deepEqual(lint('src/gguf/reader.test.ts', `import 'node:fs';\n${FORMS['value']}`), []);
});

const FORBIDDEN: readonly [file: string, specifier: string][] = [
  ['src/backend/wasm/kernels/matmul/matmul.ts', '../../../../engine/engine.ts'],
  ['src/backend/wasm/kernels/matmul/matmul.ts', '../../pool.ts'],
  ['src/backend/wasm/emit/listing.ts', '../kernels/matmul/matmul.ts'],
  ['src/backend/reference/executor.ts', '../../graph/plan.ts'],
  ['src/backend/reference/executor.ts', '../wasm/memory.ts'],
  ['src/base/dtype.ts', '../gguf/reader.ts'],
  ['src/base/dtype.ts', '../index.ts'],
  ['src/nowhere/new.ts', '../base/errors.ts'],
  ['src/index.ts', './cli/main.ts'],
  ['src/cli/run.ts', '../engine/engine.ts'],
  ['src/gguf/reader.ts', '../../test/shared-data.ts'],
  ['src/gguf/reader.ts', 'node:fs'],
  ['src/index.ts', 'node:fs'],
  ['src/platform.browser.ts', 'node:fs'],
  ['src/graph/plan.ts', '#platform'],
  ['src/gguf/reader.ts', '#files'],
  ['src/engine/engine.ts', 'commander'],
  ['src/index.ts', 'commander'],
];
for (const [file, specifier] of FORBIDDEN) {
  test(`${file} may not import ${specifier}`, () => assert.notEqual(judgeImport(file, specifier), undefined));
}

const ALLOWED: readonly [file: string, specifier: string][] = [
  ['src/backend/wasm/kernels/matmul/matmul.ts', '../../emit/expression.ts'],
  ['src/backend/wasm/kernels/matmul/matmul.ts', '../../../../graph/plan.ts'],
  ['src/backend/wasm/pool.ts', './kernels/table.ts'],
  ['src/backend/reference/executor.ts', '../../graph/operations.ts'],
  ['src/backend/reference/executor.ts', '../executor.ts'],
  ['src/engine/engine.ts', '#platform'],
  ['src/source.ts', '#files'],
  ['src/index.ts', './engine/engine.ts'],
  ['src/worker.ts', './index.ts'],
  ['src/cli/run.ts', '../index.ts'],
  ['src/cli/run.ts', 'commander'],
  ['src/cli/run.ts', 'node:process'],
  ['src/platform.node.ts', 'node:fs'],
];
for (const [file, specifier] of ALLOWED) {
  test(`${file} may import ${specifier}`, () => assert.equal(judgeImport(file, specifier), undefined));
}

test('every folder of src has a row in the table', () => {
  const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  assert.deepEqual(
    folders.map(({ name }) => name).filter((name) => !(name in IMPORT_TABLE)),
    [],
  );
});

test('no two folders may import each other, directly or in a circle', () => {
  const visit = (folder: string, path: readonly string[]): void => {
    assert.ok(!path.includes(folder), `circle: ${[...path, folder].join(' → ')}`);
    for (const next of IMPORT_TABLE[folder] ?? []) if (next in IMPORT_TABLE) visit(next, [...path, folder]);
  };
  for (const folder of Object.keys(IMPORT_TABLE)) visit(folder, []);
});
