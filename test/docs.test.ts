// The documents are run: every TypeScript block of the README and of docs/ as a program, every shell line as a command,
// in their order, with a real model in the place of MODEL.gguf. A line that this test does not know how to run fails
// it. In docs/ the file stories.txt holds real stories, JSON blocks become train.json, and training is cut short.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needsShared, sharedPath } from './shared-data.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Programs import the package by its own name, which works below its folder only. */
const SCRATCH = join(ROOT, 'tmp', `docs-${process.pid}`);
const MODEL = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
const SOURCE = '--conditions=smallmind-source';
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
const documents = [
  { name: 'README', text: readme, folder: ROOT },
  ...globSync('docs/*.md', { cwd: ROOT }).map((name) => ({
    name,
    text: readFileSync(join(ROOT, name), 'utf8').replace(
      /(--steps |"steps": |nSteps: )\d+/g,
      (_, what: string) => `${what}8`,
    ),
    folder: SCRATCH,
  })),
];

before(() => {
  mkdirSync(SCRATCH, { recursive: true });
  if (needsShared().skip) return;
  const stories = readFileSync(sharedPath('text', 'tinystories-train.txt'), 'utf8');
  writeFileSync(join(SCRATCH, 'stories.txt'), stories.slice(0, 40_000));
});
after(() => rmSync(SCRATCH, { recursive: true, force: true }));

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map((match) => match[1]!);
}

function run(command: string, args: readonly string[], cwd: string, input?: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, input, encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** Words of a shell line with plain and double-quoted words. */
const words = (line: string): string[] => [...line.matchAll(/"([^"]*)"|(\S+)/g)].map((m) => m[1] ?? m[2]!);

function runCli(line: string, cwd = ROOT, input?: string): string {
  const args = words(line.replaceAll('MODEL.gguf', MODEL)).slice(2);
  return run(process.execPath, [SOURCE, join(ROOT, 'src/cli/main.ts'), ...args], cwd, input);
}

for (const { name, text, folder } of documents) {
  blocks(text, 'json').forEach((json) => {
    before(() => writeFileSync(join(SCRATCH, 'train.json'), json));
  });

  for (const line of blocks(text, 'sh').flatMap((block) => block.trim().split('\n'))) {
    test(`the line of ${name} runs: ${line}`, needsShared(), () => {
      const piped = /^echo "(.*)" \| (npx smallmind .*)$/.exec(line);
      if (piped) assert.ok(runCli(piped[2]!, folder, `${piped[1]}\n`).length > 20);
      else if (line.startsWith('npx smallmind ')) assert.ok(runCli(line, folder).length > 20);
      else assertInstallLine(line);
    });
  }

  blocks(text, 'ts').forEach((code, i) => {
    test(`program ${i + 1} of ${name} runs`, needsShared(), () => {
      const file = join(SCRATCH, `program-${i}.ts`);
      writeFileSync(file, code.replaceAll('MODEL.gguf', MODEL));
      const output = run(process.execPath, [SOURCE, file], folder);
      assert.ok(output.trim().length > 20, `it should print something, it printed ${JSON.stringify(output)}`);
    });
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
  assert.equal(command, 'npm run story');
  const story = words(scripts['story']!.replaceAll('\\"', '"'));
  assert.deepEqual(story.slice(0, 3), ['node', 'bin/smallmind.js', 'run']);
  assert.match(runCli(['npx', 'smallmind', ...story.slice(2)].map((w) => `"${w}"`).join(' ')), /^Once upon a time/);
}

test('the documents have programs and lines to run', () => {
  assert.ok(blocks(readme, 'ts').length >= 2);
  assert.ok(blocks(readme, 'sh').length >= 3);
  assert.ok(documents.length >= 2);
});

test('measured numbers in the documents are those of the files that the benchmarks wrote', () => {
  run(process.execPath, [join(ROOT, 'scripts/write-tables.ts'), '--check'], ROOT);
});
