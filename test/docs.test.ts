// The documents are run: every TypeScript block of the README as a program, every shell line as a command, with a real
// model in the place of MODEL.gguf. A line that this test does not know how to run fails it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needsShared, sharedPath } from './shared-data.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Programs import the package by its own name, which works below its folder only. */
const SCRATCH = join(ROOT, 'tmp', `docs-${process.pid}`);
const MODEL = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
const SOURCE = '--conditions=smallmind-source';
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');

after(() => rmSync(SCRATCH, { recursive: true, force: true }));

function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map((match) => match[1]!);
}

function run(command: string, args: readonly string[], input?: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: ROOT, input, encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** Words of a shell line with plain and double-quoted words. */
const words = (line: string): string[] => [...line.matchAll(/"([^"]*)"|(\S+)/g)].map((m) => m[1] ?? m[2]!);

function runCli(line: string, input?: string): string {
  const args = words(line.replaceAll('MODEL.gguf', MODEL)).slice(2);
  return run(process.execPath, [SOURCE, join(ROOT, 'src/cli/main.ts'), ...args], input);
}

blocks('ts').forEach((code, i) => {
  test(`the README's program ${i + 1} runs`, needsShared(), () => {
    mkdirSync(SCRATCH, { recursive: true });
    const file = join(SCRATCH, `program-${i}.ts`);
    writeFileSync(file, code.replaceAll('MODEL.gguf', MODEL));
    const output = run(process.execPath, [SOURCE, file]);
    assert.ok(output.trim().length > 20, `it should print something, it printed ${JSON.stringify(output)}`);
  });
});

for (const line of blocks('sh').flatMap((block) => block.trim().split('\n'))) {
  test(`the README's line runs: ${line}`, needsShared(), () => {
    const piped = /^echo "(.*)" \| (npx smallmind .*)$/.exec(line);
    if (piped) assert.ok(runCli(piped[2]!, `${piped[1]}\n`).length > 20);
    else if (line.startsWith('npx smallmind ')) assert.ok(runCli(line).length > 20);
    else assertInstallLine(line);
  });
}

/** `npm ci` and `npm test` are what CI does; here their scripts must exist, and the story must be told. */
function assertInstallLine(line: string): void {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const ci = readFileSync(join(ROOT, '.ci/run'), 'utf8');
  const [install, command] = line.split(' && ');
  assert.equal(install, 'npm ci');
  assert.match(ci, /npm ci /);
  if (command === 'npm test') return assert.match(ci, /npm test/);
  assert.equal(command, 'npm run story -- MODEL.gguf');
  const story = words(scripts['story']!.replaceAll('\\"', '"'));
  assert.deepEqual(story.slice(0, 3), ['node', 'bin/smallmind.js', 'run']);
  assert.match(
    runCli(['npx', 'smallmind', ...story.slice(2)].map((w) => `"${w}"`).join(' ') + ' MODEL.gguf'),
    /^Once upon a time/,
  );
}

test('the README has programs and lines to run', () => {
  assert.ok(blocks('ts').length >= 2);
  assert.ok(blocks('sh').length >= 3);
});
