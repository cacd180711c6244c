// The package as a user gets it, packed into a tarball; and running programs as a user does, whom no test has started.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import type { SpawnSyncReturns } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** What tells a program that a test of a project run by npm started it, or has it keep what it compiles. */
const OF_TESTS = ['NODE_OPTIONS', 'NODE_TEST_CONTEXT', 'NODE_COMPILE_CACHE', 'npm_config_local_prefix'];

/** Runs a program to its end, as a user does; stdin is empty. */
export function run(program: string, args: readonly string[], cwd: string): SpawnSyncReturns<string> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !OF_TESTS.includes(name)));
  return spawnSync(program, args, { cwd, encoding: 'utf8', env, input: '', timeout: 120_000 });
}

/** @returns what it wrote to stdout; it fails where the program does */
export function runOk(program: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = run(program, args, cwd);
  assert.equal(status, 0, `${program} ${args.join(' ')}\n${stdout}${stderr}${error ?? ''}`);
  return stdout;
}

/** Packs the package, built from the sources first (`prepare`). @returns the path of the tarball, in `folder` */
export function packPackage(folder: string): string {
  runOk('npm', ['pack', '--silent', '--pack-destination', folder], ROOT);
  return join(folder, globSync('*.tgz', { cwd: folder })[0]!);
}
