// Where tests find the real models, vocabularies and vectors, which are not part of the repository. A test that needs
// them takes `needsShared()` as its options: without the data it is skipped and says so; in CI that is a failure.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = process.env['SMALLMIND_SHARED'] ?? fileURLToPath(new URL('../../shared/data', import.meta.url));

/** Absolute path of a file of the shared data, e.g. `sharedPath('models', 'golden.json')`. */
export function sharedPath(...parts: string[]): string {
  return join(ROOT, ...parts);
}

/** Options for `test()`/`describe()`: skips when the shared data is missing, except in CI, where it then fails. */
export function needsShared(): { skip: string | false } {
  if (existsSync(ROOT) || process.env['CI'] === 'true') return { skip: false };
  return { skip: `needs the shared data folder at ${ROOT} (or SMALLMIND_SHARED)` };
}
