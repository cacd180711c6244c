// What a program notices of the engine when it ends, or forgets something: an idle model does not keep the process
// alive, a busy one does, no rejection goes unheard, no worker outlives its model. Each program is its own process.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { THREADS, smallModel } from './small-model.ts';

/** A program that hangs is ended after this long. */
const SECONDS_MAX = 20;
const INDEX = JSON.stringify(new URL('../../src/index.ts', import.meta.url).href);

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let folder: string;
let path: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'smallmind-'));
  path = join(folder, 'small.gguf');
  writeFileSync(path, smallModel());
});
after(() => rmSync(folder, { recursive: true }));

/** What else keeps a process alive, once what is about to end has ended; a busy machine takes its time for that. */
async function resourcesLeft(): Promise<string> {
  let left: string[] = [];
  for (let tries = 0; tries < 100 && (tries === 0 || left.length > 0); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    left = process.getActiveResourcesInfo().filter((name) => !/TTY|Pipe|Immediate/.test(name));
  }
  return left.join();
}

/** Runs statements in which these names are known, where every unheard rejection is fatal. */
async function runProgram(statements: string, options: object): Promise<Outcome> {
  const program = `
    const loadModel = async (...args) => (await import(${INDEX})).loadModel(...args);
    const [path, options] = [${JSON.stringify(path)}, ${JSON.stringify(options)}];
    ${resourcesLeft}
    ${statements}
  `;
  const flags = ['--conditions=smallmind-source', '--unhandled-rejections=strict', '--input-type=module', '--eval'];
  const child = spawn(process.execPath, [...flags, program], { timeout: SECONDS_MAX * 1000 });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  const exitCode = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { exitCode, ...output };
}

/** That a program ends by itself, without an error, and prints `expected`. */
async function assertPrints(statements: string, options: object, expected: string): Promise<void> {
  const { exitCode, stdout, stderr } = await runProgram(statements, options);
  assert.deepEqual([stderr, exitCode, stdout.trim()], ['', 0, expected]);
}

for (const options of [
  { thread: 'worker', threads: 3 },
  { thread: 'inline', threads: 1 },
  { thread: 'inline', threads: 3 },
]) {
  describe(`thread: ${options.thread}, threads: ${options.threads}`, () => {
    test('an idle model does not keep the process alive', () =>
      assertPrints(`await loadModel(path, options); console.log('loaded');`, options, 'loaded'));

    test('nor does one that has generated and was stopped', () =>
      assertPrints(
        `const model = await loadModel(path, options);
           await model.generate('1', { maxTokens: 3 }).result;
           for await (const _ of model.generate('1')) break;
           console.log((await model.logits([1])).length);`,
        options,
        '320',
      ));

    test('a text that is awaited keeps it alive', () =>
      assertPrints(
        `const model = await loadModel(path, options);
           model.generate('1', { maxTokens: 50, temperature: 0 }).result.then((r) => console.log(r.tokens.length));`,
        options,
        '50',
      ));

    test('no rejection goes unheard when nobody listens', () =>
      assertPrints(
        `const abort = new AbortController();
           const model = await loadModel(path, { ...options, nCtx: 4096, parallel: 8 });
           model.generate('aborted', { signal: abort.signal });
           model.generate('aborted already', { signal: AbortSignal.abort() });
           model.generate([]);
           model.generate(Array.from({ length: 5000 }, () => 5));
           const left = model.generate('left');
           for await (const _ of model.generate('broken off')) { abort.abort(); break; }
           const closed = model.generate('closed');
           await model.close();
           model.generate('after the end');
           await left.result.catch((error) => console.log(error.code));`,
        options,
        'MODEL_CLOSED',
      ));
  });
}

for (const thread of THREADS) {
  test(`closing the last model leaves nothing behind, thread: ${thread}`, () =>
    assertPrints(
      `const models = await Promise.all([1, 2].map(() => loadModel(path, options)));
       await Promise.all(models.map((model) => model.generate('1', { maxTokens: 5 }).result));
       await models[0].close();
       await models[1].generate('2', { maxTokens: 5 }).result;
       await models[1].close();
       console.log(await resourcesLeft());`,
      { thread, threads: 2 },
      '',
    ));

  test(`failing to load leaves nothing behind, thread: ${thread}`, () =>
    assertPrints(
      `for (const source of [path + 'x', new Uint8Array(9), 'ftp://example.com/m.gguf']) {
         await loadModel(source, options).catch((error) => console.log(error.code));
       }
       const abort = new AbortController();
       const onProgress = () => abort.abort();
       await loadModel(path, { ...options, signal: abort.signal, onProgress }).catch((error) => console.log(error.name));
       console.log(await resourcesLeft());`,
      { thread, threads: 2 },
      'FILE_NOT_FOUND\nGGUF_INVALID\nUNSUPPORTED_FEATURE\nAbortError',
    ));
}

/** Remembers in `workers` all that are started, with what `options` says. */
const WATCH_WORKERS = `
  const threads = (await import('node:worker_threads')).default;
  const workers = [];
  let workerOptions = {};
  threads.Worker = class extends threads.Worker {
    constructor(url, options) {
      workers.push(super(url, { ...options, ...workerOptions }));
    }
  };
  (await import('node:module')).syncBuiltinESMExports();
  const codeOf = (promise) => promise.then(() => 'fine', (error) => error.code);`;

test('a worker that dies takes its models with it, says so, and the next load gets a new one', () =>
  assertPrints(
    `${WATCH_WORKERS}
     const model = await loadModel(path, options);
     // The first text is long enough to be under way, and the second waits for it.
     const runs = ['1', '2'].map((prompt) => model.generate(prompt, { temperature: 0 }).result);
     const codes = runs.map(codeOf);
     await workers[0].terminate();
     console.log(...(await Promise.all(codes)));
     console.log(...(await Promise.all([model.logits([1]), model.generate('2').result].map(codeOf))));
     await model.close();
     const next = await loadModel(path, options);
     console.log((await next.generate('1', { temperature: 0, maxTokens: 3 }).result).tokens.length, workers.length);
     await next.close();`,
    { thread: 'worker', threads: 1, nCtx: 8192 },
    'ENGINE_CRASHED ENGINE_CRASHED\nENGINE_CRASHED ENGINE_CRASHED\n3 2',
  ));

test('a worker that dies while a model is loaded fails the load, and the next load gets a new one', () =>
  assertPrints(
    `${WATCH_WORKERS}
     let nCloses = 0;
     const bytes = (await import('node:fs')).readFileSync(path);
     const source = (onRead) => ({
       name: 'source',
       sizeBytes: bytes.length,
       async read(offsetBytes, target) {
         await onRead();
         target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
       },
       close: async () => void nCloses++,
     });
     let nReads = 0;
     console.log(await codeOf(loadModel(source(async () => ++nReads === 4 && workers[0].terminate()), options)));
     const model = await loadModel(source(() => {}), options);
     console.log((await model.generate('1', { temperature: 0, maxTokens: 3 }).result).tokens.length, workers.length, nCloses);
     await model.close();`,
    { thread: 'worker', threads: 1 },
    'ENGINE_CRASHED\n3 2 2',
  ));

test('a worker that runs out of heap is a typed error, and so is what follows', () =>
  assertPrints(
    `${WATCH_WORKERS}
     workerOptions = { resourceLimits: { maxOldGenerationSizeMb: 24, maxYoungGenerationSizeMb: 2 } };
     const model = await loadModel(path, options);
     console.log(await codeOf(model.tokenize('a long text '.repeat(1_000_000))));
     console.log(await codeOf(model.tokenize('1')));
     await model.close();
     workerOptions = {};
     const next = await loadModel(path, options);
     console.log((await next.tokenize('1')).length > 0);
     await next.close();`,
    { thread: 'worker', threads: 1 },
    'ENGINE_CRASHED\nENGINE_CRASHED\ntrue',
  ));

test('a thread of the pool that dies is a typed error and no hang, and a model loaded after the close works', () =>
  assertPrints(
    `${WATCH_WORKERS}
     const model = await loadModel(path, options);
     const other = await loadModel(path, options);
     await model.generate('1', { maxTokens: 2 }).result;
     await workers[1].terminate();
     console.log(await codeOf(model.generate('1').result), await codeOf(other.logits([1])));
     console.log(await codeOf(loadModel(path, options)));
     await model.close();
     await other.close();
     const next = await loadModel(path, options);
     console.log((await next.generate('1', { temperature: 0, maxTokens: 3 }).result).tokens.length);
     await next.close();`,
    { thread: 'inline', threads: 3 },
    'ENGINE_CRASHED ENGINE_CRASHED\nENGINE_CRASHED\n3',
  ));

for (const thread of THREADS) {
  for (const death of ['exit', 'memory']) {
    test(`a thread that dies amid a step (${death}) is a typed error and no hang, thread: ${thread}`, () =>
      assertPrints(
        `process.env.DEATH = ${JSON.stringify(death)};
         await import(${JSON.stringify(new URL('./mortal-threads.ts', import.meta.url).href)});
         const model = await loadModel(path, options);
         const run = model.generate('1', { temperature: 0 });
         let dieMs = 0;
         const error = await (async () => { for await (const _ of run) dieMs = performance.now(); })().catch((e) => e);
         const waitMs = performance.now() - dieMs;
         console.log(error.code, error.message, waitMs < 2000 ? 'soon' : waitMs);
         console.log((await model.logits([1]).catch((e) => e)).code);
         await model.close();
         const next = await loadModel(path, { ...options, threads: 1 });
         console.log((await next.generate('1', { temperature: 0, maxTokens: 3 }).result).tokens.length);
         await next.close();`,
        { thread, threads: 3, nCtx: 8192 },
        `ENGINE_CRASHED a pool thread died: it ended amid a step; close all models and load again soon\nENGINE_CRASHED\n3`,
      ));
  }
}
