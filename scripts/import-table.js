// Who may import whom: the table of ARCHITECTURE.md as data, and the one judgement over it. The lint plugin asks for
// every import, the tidy test for what a linter does not see. Paths are relative to the repository, with slashes.
// Tests are free, and so is everything outside src/.

import { posix } from 'node:path';

/**
 * Folder of src/ → what of src/ it may import besides itself: folders, or single files. A longer folder stands for
 * itself alone: it inherits nothing from the one around it.
 * @type {Readonly<Record<string, readonly string[]>>}
 */
export const IMPORT_TABLE = {
  base: [],
  gguf: ['base'],
  quant: ['base'],
  tokenizer: ['base'],
  sampler: ['base'],
  graph: ['base'],
  backend: ['base', 'quant', 'graph'],
  // The oracle shares no lowering and no planning with what it judges.
  'backend/reference': [
    'base',
    'quant',
    'graph/tensor.ts',
    'graph/operation.ts',
    'graph/operations.ts',
    'graph/operations-experts.ts',
    'graph/operations-training.ts',
    'backend/executor.ts',
  ],
  // The code generator knows no operation of the graph; kernels know neither threads nor memory.
  'backend/wasm/emit': ['base'],
  'backend/wasm/kernels': ['base', 'quant', 'graph', 'backend/wasm/emit'],
  nn: ['base', 'graph'],
  models: ['base', 'gguf', 'graph', 'nn'],
  grammar: ['base', 'tokenizer'],
  engine: ['base', 'graph', 'backend', 'models', 'sampler', 'grammar'],
  chat: ['base', 'tokenizer', 'grammar', 'engine'],
  training: ['base', 'gguf', 'quant', 'tokenizer', 'graph', 'backend', 'nn', 'models'],
  convert: ['base', 'gguf', 'quant', 'tokenizer'],
  hub: ['base', 'gguf'],
  eval: ['base', 'graph', 'backend', 'models', 'tokenizer', 'engine'],
  server: ['index.ts'],
  cli: ['*.ts'],
};

/** The entry files src/*.ts put the parts together: they may import each other and everything but these. */
const ABOVE_ENTRY_FILES = ['server', 'cli'];

/**
 * Folder of src/ → the packages it may import. The engine has none.
 * @type {Readonly<Record<string, readonly string[]>>}
 */
export const PACKAGE_TABLE = {
  chat: ['@huggingface/jinja'],
  cli: ['commander', 'cli-progress'],
};

/** Folders that run in Node only; elsewhere `node:*` is for files named *.node.ts. */
const NODE_FOLDERS = ['cli', 'server'];
/** Besides the entry files, which may import `#platform` and `#files`. */
const PLATFORM_FOLDERS = ['engine', 'backend'];

/**
 * Says why `file` may not import `specifier`, or undefined when it may.
 * @param {string} file       e.g. 'src/gguf/reader.ts'
 * @param {string} specifier  as written: './x.ts', '#platform', 'node:fs', 'commander'
 * @returns {string | undefined}
 */
export function judgeImport(file, specifier) {
  if (!file.startsWith('src/') || file.endsWith('.test.ts')) return undefined;
  const from = file.slice('src/'.length);
  const top = from.includes('/') ? from.slice(0, from.indexOf('/')) : '';
  if (specifier.startsWith('.')) return judgeRelative(from, posix.join(posix.dirname(file), specifier));
  if (specifier.startsWith('node:')) {
    const allowed = NODE_FOLDERS.includes(top) || from.endsWith('.node.ts');
    return allowed ? undefined : `only *.node.ts, ${NODE_FOLDERS.join('/ and ')}/ may import ${specifier}`;
  }
  if (specifier.startsWith('#')) {
    const allowed = top === '' || PLATFORM_FOLDERS.includes(top);
    return allowed ? undefined : `only entry files, ${PLATFORM_FOLDERS.join('/ and ')}/ may import ${specifier}`;
  }
  const allowed = PACKAGE_TABLE[top] ?? [];
  if (allowed.some((name) => specifier === name || specifier.startsWith(`${name}/`))) return undefined;
  return `${top || 'an entry file'} may not import the package ${specifier}`;
}

function judgeRelative(/** @type {string} */ from, /** @type {string} */ target) {
  if (!target.startsWith('src/')) return `${target} is not part of what is published`;
  const to = target.slice('src/'.length);
  const folder = findFolder(from);
  if (folder === undefined) {
    const above = ABOVE_ENTRY_FILES.find((name) => isWithin(to, name));
    return above === undefined ? undefined : `an entry file may not import ${above}`;
  }
  // A subfolder with a rule of its own guards itself, not those who import it.
  if (isWithin(to, folder)) return undefined;
  const allowed = IMPORT_TABLE[folder];
  if (allowed === undefined) return `${folder} is not in the import table (scripts/import-table.js)`;
  if (allowed.some((entry) => isWithin(to, entry))) return undefined;
  return `${folder} may not import ${to}; it may import ${allowed.join(', ') || 'nothing'}`;
}

/** The row of the table that rules `from`: the longest folder that holds it; undefined for an entry file. */
function findFolder(/** @type {string} */ from) {
  for (let folder = posix.dirname(from); folder !== '.'; folder = posix.dirname(folder)) {
    if (folder in IMPORT_TABLE || !folder.includes('/')) return folder;
  }
  return undefined;
}

/** `entry` is a folder, a file, or '*.ts' for the entry files. */
function isWithin(/** @type {string} */ to, /** @type {string} */ entry) {
  if (entry === '*.ts') return !to.includes('/');
  return to === entry || to.startsWith(`${entry}/`);
}
