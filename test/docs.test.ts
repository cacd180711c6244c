// The documents are run: every TypeScript block of the README and of docs/ as a program, every shell line as a command,
// in their order, with a real model in the place of MODEL.gguf. A line that this test does not know how to run fails
// it. Each document has a folder of its own, with the files that its lines name; JSON blocks become train.json there.
// What takes long is cut short: steps of training, lengths of texts, benchmarks and the models that they make up.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import GithubSlugger from 'github-slugger';
import { propertyComments } from '../scripts/docs/api.ts';
import { findNotCompared, findNotShared, NOT_COMPARED } from '../scripts/docs/models.ts';
import { resolveEmbedOptions, resolveGenerateOptions, resolveLoadOptions } from '../src/options.ts';
import { resolveTrainingOptions } from '../src/training/options.ts';
import { needsShared, sharedPath } from './shared-data.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Programs import the package by its own name, which works below its folder only. */
const SCRATCH = join(ROOT, 'tmp', `docs-${process.pid}`);
const MODEL = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
const SOURCE = '--conditions=smallmind-source';
/** npx and jq, as far as the documents use them. */
const SHELL = `set -euo pipefail
npx() { shift; "${process.execPath}" ${SOURCE} "${join(ROOT, 'src/cli/main.ts')}" "$@"; }
jq() { "${process.execPath}" -p 'JSON.parse(require("node:fs").readFileSync(0, "utf8"))[process.argv[1].slice(1)]' "$1"; }
`;
const SMALL_CONFIG = '{ "data": ["stories.txt"], "layers": 1, "embd": 32, "steps": 2 }';
const TEXTS = ['stories.txt', 'text.txt', 'play.txt', 'more.txt'];

const documents = ['README.md', ...globSync('docs/**/*.md', { cwd: ROOT }).sort()].map((name) => ({
  name,
  text: readFileSync(join(ROOT, name), 'utf8'),
  folder: join(SCRATCH, name.replaceAll('/', '-')),
}));

before(() => {
  if (needsShared().skip) return;
  const stories = readFileSync(sharedPath('text', 'tinystories-train.txt'), 'utf8');
  for (const { text, folder } of documents) {
    mkdirSync(folder, { recursive: true });
    for (const name of TEXTS) writeFileSync(join(folder, name), stories.slice(0, 30_000));
    writeFileSync(join(folder, 'prompt.txt'), 'Once upon a time');
    writeFileSync(join(folder, 'sentences.txt'), 'The cat sleeps.\nA cat is asleep.\n');
    const [config = SMALL_CONFIG] = blocks(text, 'json');
    writeFileSync(join(folder, 'train.json'), cutShort(config));
    copyFileSync(MODEL, join(folder, 'model.gguf'));
  }
});
after(() => rmSync(SCRATCH, { recursive: true, force: true }));

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map((match) => match[1]!);
}

/** What a text says of steps of training, made few. */
function cutShort(text: string): string {
  return text.replace(/(--steps |"steps": |nSteps: )\d+/g, (_, what: string) => `${what}4`);
}

/** A line as it is run: not longer than a test may take. Flags that come later win. */
function affordable(line: string): string {
  if (line.includes('smallmind chat')) {
    const command = `${line.replaceAll('MODEL.gguf', 'model.gguf')} --template chatml -n 20`;
    return command.startsWith('echo ') ? command : `echo "Hello" | ${command}`;
  }
  const [, begin, redirection = ''] = /^(.*?)((?: [<>|] .*)?)$/.exec(
    cutShort(line.replaceAll('MODEL.gguf', 'model.gguf')),
  )!;
  let command = begin!.replace(/(-n )\d{4,}/, '$1600');
  if (command.includes('smallmind bench')) {
    command = command.replace(/--synthetic \S+/, 'model.gguf').replace(' --against llama.cpp', '');
    command = `${command.replace(/ -[tpnr] \S+/g, '')} -t 1 -p 8 -n 4 -r 1`;
  }
  if (command.includes('smallmind train')) command += ' --eval-batches 1';
  if (/smallmind train(?!.*(--steps|--resume))/.test(command)) command += ' --steps 4';
  if (command.includes('smallmind train') && !command.includes('--resume')) command += ' --batch 2';
  return command + redirection;
}

async function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  const child = promisify(execFile)(command, args, { cwd, encoding: 'utf8', timeout: 60_000 });
  child.child.stdin!.end();
  const { stdout } = await child.catch((error: Error & { stdout: string; stderr: string }) =>
    assert.fail(`${command} ${args.join(' ')}\n${error.stdout}${error.stderr}${error.message}`),
  );
  return stdout;
}

// Lines of a document build on those before; documents do not build on each other.
describe('documents', { concurrency: 2 }, () => {
  const measured = new Set<string>();
  for (const { name, text, folder } of documents) {
    describe(name, { concurrency: 1 }, () => {
      for (const line of blocks(text, 'sh').flatMap((block) => block.trim().split('\n'))) {
        if (line.startsWith('npm ')) {
          test(`the line of ${name} names what is there: ${line}`, needsShared(), () => checkNpmLine(line, folder));
          continue;
        }
        test(`the line of ${name} runs: ${line}`, needsShared(), async () => {
          assert.match(line, /^(echo "[^"]*" \| )?npx smallmind /);
          const command = affordable(line);
          // A benchmark takes 5 s, whatever it measures.
          if (command.includes('smallmind bench') && measured.has(command)) return;
          measured.add(command);
          const output = await run('bash', ['-c', SHELL + command], folder);
          assert.ok(/ > /.test(line) || output.length > (line.includes('| jq ') ? 2 : 20), `it printed ${output}`);
        });
      }

      blocks(text, 'ts').forEach((code, i) => {
        test(`program ${i + 1} of ${name} runs`, needsShared(), async () => {
          const file = join(folder, `program-${i}.ts`);
          writeFileSync(file, cutShort(code).replaceAll('MODEL.gguf', MODEL));
          const output = await run(process.execPath, [SOURCE, file], folder);
          assert.ok(output.trim().length > 20, `it should print something, it printed ${JSON.stringify(output)}`);
        });
      });
    });
  }
});

/** `npm ci` and `npm test` are what CI does; here their scripts must exist, and the story must be told. */
async function checkNpmLine(line: string, folder: string): Promise<void> {
  const { name, scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    name: string;
    scripts: Record<string, string>;
  };
  const ci = readFileSync(join(ROOT, '.ci/run'), 'utf8');
  if (line === `npm install ${name}`) return;
  const [install, command] = line.split(' && ');
  assert.equal(install, 'npm ci');
  assert.match(ci, /npm ci /);
  if (command === 'npm test') return assert.match(ci, /npm test/);
  assert.equal(command, 'npm run story');
  const story = scripts['story']!;
  assert.match(story, /^node bin\/smallmind\.js run /);
  const told = await run('bash', ['-c', SHELL + story.replace('node bin/smallmind.js', 'npx smallmind')], folder);
  assert.match(told, /^Once upon/);
}

test('the documents have programs and lines to run', () => {
  const readme = documents.find(({ name }) => name === 'README.md')!.text;
  assert.ok(blocks(readme, 'ts').length >= 2);
  assert.ok(blocks(readme, 'sh').length >= 3);
  assert.ok(documents.length >= 10);
});

test('measured numbers in the documents are those of the files that the benchmarks wrote', async () => {
  await run(process.execPath, [join(ROOT, 'scripts/write-tables.ts'), '--check'], ROOT);
});

test('what of the documents follows from the code is what the code says', async () => {
  await run(process.execPath, [SOURCE, join(ROOT, 'scripts/write-docs.ts'), '--check'], ROOT);
});

test('what is supported was compared with llama.cpp, or the page on models says why not', () => {
  const remedy = 'add it to a suite of peers/, then: npm run models';
  assert.deepEqual(findNotCompared().toSorted(), Object.keys(NOT_COMPARED).toSorted(), remedy);
  assert.deepEqual(findNotShared(), [], remedy);
});

test('defaults that comments state are those that options get', () => {
  const resolved = { ...resolveLoadOptions({}), ...resolveGenerateOptions({}), ...resolveGenerateOptions({}).sampler };
  const stated = [
    ...propertyComments('src/options.ts', 'LoadOptions').map((each) => [each, resolved] as const),
    ...propertyComments('src/options.ts', 'GenerateOptions').map((each) => [each, resolved] as const),
    ...propertyComments('src/options.ts', 'EmbedOptions').map((each) => [each, resolveEmbedOptions({})] as const),
    ...propertyComments('src/training/options.ts', 'TrainingOptions').map(
      (each) => [each, resolveTrainingOptions({})] as const,
    ),
  ];
  let nCompared = 0;
  for (const [{ property, fallback }, options] of stated) {
    const value = (options as unknown as Record<string, unknown>)[property];
    const literal = /^(?:`(\w+)`|(-?[\d.]+|true|false))$/.exec(fallback);
    if (!literal || value === undefined || literal[1] === 'nHead') continue;
    assert.equal(String(value), literal[1] ?? literal[2], property);
    nCompared++;
  }
  assert.ok(nCompared > 30, `${nCompared} compared`);
});

test('the page on troubleshooting has every error code, and no other', () => {
  const page = readFileSync(join(ROOT, 'docs/troubleshooting.md'), 'utf8');
  const headings = [...page.matchAll(/^### ([A-Z_]+)$/gm)].map((match) => match[1]);
  const union = /type ErrorCode =([^;]*);/.exec(readFileSync(join(ROOT, 'src/base/errors.ts'), 'utf8'))![1]!;
  assert.deepEqual(headings.toSorted(), [...union.matchAll(/'(\w+)'/g)].map((match) => match[1]!).toSorted());
});

test('links to headings lead to one', () => {
  const linked = [...documents, ...['ARCHITECTURE.md', 'CONTRIBUTING.md', 'assets/README.md'].map(readDocument)];
  const dead = linked.flatMap(({ name, text }) =>
    [...text.matchAll(/\]\(([^)\s#:]*)#([^)\s]+)\)/g)]
      .filter(([, path, anchor]) => {
        const target = path === '' ? name : join(dirname(name), path!);
        return target.endsWith('.md') && !anchorsOf(readDocument(target).text).has(anchor!);
      })
      .map(([link]) => `${name}: ${link}`),
  );
  assert.deepEqual(dead, []);
});

function readDocument(name: string): { name: string; text: string } {
  return { name, text: readFileSync(join(ROOT, name), 'utf8') };
}

/** As GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const slugger = new GithubSlugger();
  const prose = text.replace(/^```[^]*?^```$/gm, '');
  return new Set([...prose.matchAll(/^#+ (.*)$/gm)].map((match) => slugger.slug(match[1]!.replaceAll('`', ''))));
}
