// Builds dist/ from src/ with the TypeScript compiler: JavaScript, declarations and source maps, no tests; and in
// dist/browser/ what pages without a bundler import. Plain JavaScript for any Node >= 20, because `prepare` may run
// anywhere. The new tree is complete before it takes the place of the old one, so that a failed build leaves the last
// good one standing. Silent when all is well.

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, posix, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DIST = join(ROOT, 'dist');
// Beside dist/, at the same depth: the source maps point at ../src with relative paths.
const STAGED = join(ROOT, 'dist.tmp');
const TSC = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');

/** `new URL('./x.ts', import.meta.url)`: how a worker names its module. tsc rewrites imports, but not these. */
const SOURCE_URL = /(new URL\(\s*)(['"])(\.{1,2}\/[^'"]+)\.ts\2(\s*,\s*import\.meta\.url)/g;

/** How a module of dist/ names another: imports, and workers by URL. */
const SPECIFIER = /(\bfrom |\bimport |\bimport\(|\bnew URL\()(['"])([.#][^'"]+\.js|#\w+|@huggingface\/jinja)\2/g;
/** The one package that a page may need: a module without imports, which is copied with its licence. */
const JINJA = { package: '@huggingface/jinja', module: 'dist/index.js', copy: 'jinja/index.js' };
/** What names other than paths are in a page; import maps do not reach into workers. */
const BROWSER_IMPORTS = {
  [JINJA.package]: JINJA.copy,
  '#files': 'files.browser.js',
  '#platform': 'platform.browser.js',
  '#spawnEngine': 'spawn-direct.browser.js',
  '#spawnPool': 'spawn-direct.browser.js',
};
const BROWSER_ENTRIES = ['index.js', 'training.js', 'eval.js', 'gguf.js'];

try {
  build();
} catch (error) {
  console.error(`build failed: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
} finally {
  rmSync(STAGED, { recursive: true, force: true });
}

function build() {
  rmSync(STAGED, { recursive: true, force: true });
  compile();
  for (const file of readdirSync(STAGED, { recursive: true, encoding: 'utf8' })) {
    if (file.endsWith('.js')) rewriteWorkerUrls(join(STAGED, file));
  }
  writeBrowserTree();
  rmSync(DIST, { recursive: true, force: true });
  renameSync(STAGED, DIST);
}

function compile() {
  if (!existsSync(TSC)) {
    throw new Error('the compiler is missing. Install the development dependencies first: npm ci');
  }
  const args = [TSC, '-p', join(ROOT, 'tsconfig.build.json'), '--outDir', STAGED, '--pretty', 'false'];
  const { status, signal, error, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
  if (error) throw error;
  if (status !== 0) throw new Error(`tsc ended with ${signal ?? `exit code ${status}`}\n${stdout}${stderr}`.trimEnd());
}

/** Makes the worker URLs of one emitted module name what was emitted, and checks that it is there. */
function rewriteWorkerUrls(/** @type {string} */ file) {
  const before = readFileSync(file, 'utf8');
  const after = before.replace(SOURCE_URL, (_, opening, quote, path, closing) => {
    if (!existsSync(resolve(dirname(file), `${path}.js`)))
      throw new Error(`${file} names ${path}.ts, which is not built`);
    return `${opening}${quote}${path}.js${quote}${closing}`;
  });
  // A `.ts` that is left over would only fail when a user starts a worker.
  const leftover = after.match(/new URL\([^)]*\.ts['"`]/);
  if (leftover) throw new Error(`${file}: cannot rewrite ${leftover[0]}…`);
  if (after !== before) writeFileSync(file, after);
}

/** Copies what the entries reach, with paths in the place of names such as `#platform`. */
function writeBrowserTree() {
  const reached = new Set(BROWSER_ENTRIES);
  for (const file of reached) {
    const folder = posix.dirname(file);
    mkdirSync(join(STAGED, 'browser', folder), { recursive: true });
    if (file === JINJA.copy) {
      copyJinja(join(STAGED, 'browser', folder));
      continue;
    }
    const text = readFileSync(join(STAGED, file), 'utf8').replace(SPECIFIER, (_, opening, quote, specifier) => {
      const target = BROWSER_IMPORTS[specifier] ?? posix.join(folder, specifier);
      reached.add(target);
      const path = posix.relative(folder, target);
      return `${opening}${quote}${path.startsWith('.') ? path : `./${path}`}${quote}`;
    });
    const map = posix.relative(posix.join('browser', folder), `${file}.map`);
    writeFileSync(join(STAGED, 'browser', file), text.replace(/(?<=^\/\/# sourceMappingURL=).*$/m, map));
  }
}

function copyJinja(/** @type {string} */ folder) {
  const from = join(ROOT, 'node_modules', JINJA.package);
  copyFileSync(join(from, JINJA.module), join(folder, posix.basename(JINJA.copy)));
  copyFileSync(join(from, 'LICENSE'), join(folder, 'LICENSE'));
}
