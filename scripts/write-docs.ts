// Writes what of the documents follows from the code: docs/api from types and their comments, docs/cli.md from the
// definitions of the commands, the tables of docs/formats.md from the registries. With --check it
// changes nothing and fails if a document is not as it would write it.
//   node --conditions=smallmind-source scripts/write-docs.ts [--check]

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pageFile, writeApi } from './docs/api.ts';
import { writeCli } from './docs/cli.ts';
import { fillMarks } from './docs/marks.ts';
import { TABLES } from './docs/tables.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FILLED = ['docs/formats.md'];

const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, string | Record<string, string>>;
};
const entries = new Map(
  Object.entries(exports).flatMap(([path, conditions]) =>
    typeof conditions === 'string'
      ? []
      : [[`smallmind${path.slice(1)}`, conditions['smallmind-source']!.slice(2)] as const],
  ),
);

const documents = new Map<string, string>();
for (const { name, markdown } of writeApi(entries)) documents.set(`docs/api/${pageFile(name)}`, markdown);
documents.set('docs/cli.md', await writeCli());
for (const path of FILLED) documents.set(path, fillMarks(readFileSync(join(ROOT, path), 'utf8'), TABLES));

const stale = [...documents].filter(([path, markdown]) => {
  const formatted = format(path, markdown);
  const before = existsSync(join(ROOT, path)) ? readFileSync(join(ROOT, path), 'utf8') : '';
  if (before === formatted) return false;
  if (process.argv.includes('--check')) return true;
  mkdirSync(dirname(join(ROOT, path)), { recursive: true });
  writeFileSync(join(ROOT, path), formatted);
  console.log(path);
  return false;
});
if (stale.length > 0) {
  console.error(`not what the code says: ${stale.map(([path]) => path).join(', ')}\nwrite it anew: npm run docs`);
  process.exitCode = 1;
}

/** As `npm run format` leaves it. */
function format(path: string, markdown: string): string {
  const args = [join(ROOT, 'node_modules/oxfmt/bin/oxfmt'), '--stdin-filepath', path];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: ROOT,
    input: markdown,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`oxfmt ${path}: ${stderr}`);
  return stdout;
}
