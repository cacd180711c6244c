// The built package in a page of each browser: isolated, where memory is shared between threads, and not, where one
// thread computes. It tells the story word for word as Node does, leaves the page's own thread free meanwhile, gives
// back its threads, and fails with typed errors. What runs in a page is plain enough for all: no `using`.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import { loadModel } from '../../src/index.ts';
import { writeSource } from '../../src/cli/files.ts';
import { syntheticModel } from '../../src/convert/synthetic-model.ts';
import type { LoadOptions, Model } from '../../src/index.ts';
import { greedyStory, loadGolden, modelPath, STORIES_F32 } from '../golden/golden-data.ts';
import { ENCODER_KINDS, randomEncoderGguf } from '../random-encoder.ts';
import { needsShared } from '../shared-data.ts';
import { buildPackage, needsBrowser, openPage } from './browsers.ts';
import type { BrowserPage } from './browsers.ts';
import { chromium } from './chromium.ts';
import { firefox } from './firefox.ts';
import { longestGapMs } from './heartbeat.ts';
import { webkit, webkitSharing } from './webkit.ts';
import { countWorkerThreads, needsThreadNames } from './worker-threads.ts';

declare global {
  /** Of the page, where one call leaves it for the next. */
  var model: Model;
}

/** With the kernels and the threads that a model gets which asks for two threads. */
const PAGES = [
  { browser: chromium, isolated: true, kernels: 'relaxed', threads: 2 },
  { browser: chromium, isolated: false, kernels: 'relaxed', threads: 1 },
  { browser: firefox, isolated: true, kernels: 'relaxed', threads: 2 },
  { browser: firefox, isolated: false, kernels: 'relaxed', threads: 1 },
  { browser: webkit, isolated: true, kernels: 'simd', threads: 1 },
  { browser: webkit, isolated: false, kernels: 'simd', threads: 1 },
  { browser: webkitSharing, isolated: true, kernels: 'simd', threads: 2 },
] as const;

const STORIES_Q8 = 'stories260K-q8_0.gguf';
/** 77 MB. */
const LARGE = 'SmolLM2-135M:Q4_0';
/** A prompt of the story's tokens, for logits. */
const TOKENS = [1, 403, 407, 261, 378];
const BERT = { seed: 1, dtype: 'Q8_0', nLayer: 2, nEmbd: 64, nHead: 2, nFf: 96, nVocab: 300, nCtx: 64 } as const;
const TEXTS = ['A cat sleeps.', 'dogs, 1 2 3?'];
const GAP_MS_MAX = 50;

const folder = mkdtempSync(join(tmpdir(), 'smallmind-browser-'));
const large = join(folder, 'large.gguf');
const bert = join(folder, 'bert.gguf');
const files = {
  '/bert.gguf': bert,
  '/f32.gguf': modelPath(STORIES_F32),
  '/q8.gguf': modelPath(STORIES_Q8),
  '/large.gguf': large,
};

before(async () => {
  if (PAGES.every(({ browser }) => needsBrowser(browser).skip)) return;
  buildPackage();
  await writeSource(syntheticModel(LARGE), large);
  writeFileSync(bert, randomEncoderGguf(ENCODER_KINDS['bert']!, BERT));
});
after(() => rmSync(folder, { recursive: true }));

/** Tells the story in the page. */
function tellStory(page: BrowserPage, options: LoadOptions) {
  return page.evaluate(
    async ({ loadOptions, prompt, maxTokens }) => {
      const file = await (await fetch('/f32.gguf')).blob();
      const model = await smallmind.loadModel(file, loadOptions);
      const { text } = await model.generate(prompt, { maxTokens, temperature: 0 }).result;
      await model.close();
      return { text, threads: model.info.threads, executor: model.info.executor };
    },
    { loadOptions: options, prompt: greedyStory().prompt, maxTokens: greedyStory().tokens },
  );
}

for (const { browser, isolated, kernels, threads } of PAGES) {
  const skip = needsShared().skip || needsBrowser(browser).skip;

  describe(`a page of ${browser.name} that is ${isolated ? 'isolated' : 'not isolated'}`, { skip }, () => {
    let page: BrowserPage;
    before(async () => {
      page = await openPage(browser, { isolated, files, modules: { smallmindGguf: '/dist/browser/gguf.js' } });
    });
    after(() => page?.[Symbol.asyncDispose]());

    test('tells the story that Node tells, in a worker, with the kernels and threads that it has', async (t) => {
      const told = await tellStory(page, { threads: 2 });
      t.diagnostic(`${browser.name} ${page.version}, ${isolated ? 'isolated' : 'not isolated'}: ${told.executor}`);
      assert.equal(told.text, greedyStory().text);
      assert.equal(told.threads, threads);
      assert.match(told.executor, new RegExp(`^wasm ${kernels} `));
    });

    test('tells it on its own thread, which may not wait for others', async () => {
      const told = await tellStory(page, { thread: 'inline', threads: 2 });
      assert.deepEqual([told.text, told.threads], [greedyStory().text, 1]);
    });

    test('has the same bits as Node with strict kernels, from a Blob, bytes, a ByteSource and a URL', async () => {
      await using model = await loadGolden(STORIES_Q8, { kernels: 'strict' });
      const expected = Array.from(await model.logits(TOKENS, { all: true }));
      const logits = await page.evaluate(async (tokens) => {
        const file = await (await fetch('/q8.gguf')).blob();
        const source = {
          name: 'slices',
          sizeBytes: file.size,
          read: async (offset: number, target: Uint8Array) =>
            target.set(new Uint8Array(await file.slice(offset, offset + target.length).arrayBuffer())),
          close: async () => {},
        };
        const rows: number[][] = [];
        for (const from of [file, await file.arrayBuffer(), source, new URL('/q8.gguf', location.href)]) {
          const loaded = await smallmind.loadModel(from, { kernels: 'strict', threads: 2 });
          rows.push(Array.from(await loaded.logits(tokens, { all: true })));
          await loaded.close();
        }
        return rows;
      }, TOKENS);
      assert.deepEqual(logits, [expected, expected, expected, expected]);
    });

    test('makes the vectors that Node makes with strict kernels, in a worker', async () => {
      await using model = await loadModel(bert, { kernels: 'strict', thread: 'inline' });
      const expected = (await model.embed(TEXTS)).data.map(({ embedding }) => Array.from(embedding));
      const made = await page.evaluate(async (texts) => {
        const loaded = await smallmind.loadModel(new URL('/bert.gguf', location.href), { kernels: 'strict' });
        const { data } = await loaded.embed(texts);
        await loaded.close();
        return data.map(({ embedding }) => Array.from(embedding));
      }, TEXTS);
      assert.deepEqual(made, expected);
    });

    // Once: what differs between browsers is above.
    if (browser === chromium && isolated) {
      test('answers as in Node in a conversation, by a template that the package brings', async () => {
        const questions = ['Tell me of the little dog.', 'And then?'];
        await using model = await loadGolden(STORIES_Q8, { kernels: 'strict' });
        const chat = model.chat({ template: 'chatml', system: 'You tell stories.' });
        for (const question of questions) await chat.send(question, { maxTokens: 24, temperature: 0 }).result;
        assert.equal(chat.messages.length, 5);
        const messages = await page.evaluate(async (asked) => {
          const file = await (await fetch('/q8.gguf')).blob();
          const loaded = await smallmind.loadModel(file, { kernels: 'strict', threads: 2 });
          const talk = loaded.chat({ template: 'chatml', system: 'You tell stories.' });
          for (const question of asked) await talk.send(question, { maxTokens: 24, temperature: 0 }).result;
          await loaded.close();
          return talk.messages;
        }, questions);
        assert.deepEqual(messages, chat.messages);
      });
    }

    test('reads the head of a file by its URL with smallmind/gguf, and a tensor', async () => {
      const info = await page.evaluate(async () => {
        const file = await smallmindGguf.readGguf(new URL('/q8.gguf', location.href));
        const values = await file.readValues('output_norm.weight');
        await file.close();
        return [file.metadata.get('general.architecture'), file.tensors.size, values.length];
      });
      assert.deepEqual(info, ['llama', 48, 64]);
    });

    test('fails with typed errors, for a path and for a file that is cut off', async () => {
      const errors = await page.evaluate(async () => {
        const file = await (await fetch('/q8.gguf')).blob();
        const attempts = [smallmind.loadModel('q8.gguf'), smallmind.loadModel(file.slice(0, 100_000))];
        return (await Promise.allSettled(attempts)).map((attempt) => {
          if (attempt.status === 'fulfilled') return 'it loaded';
          const { name, code } = attempt.reason as InstanceType<typeof smallmind.SmallMindError>;
          return `${name} ${code} ${attempt.reason instanceof smallmind.SmallMindError}`;
        });
      });
      assert.deepEqual(errors, ['UnsupportedError UNSUPPORTED_FEATURE true', 'GgufError GGUF_TRUNCATED true']);
    });

    // Once a browser, where threads are as many as cores.
    if (threads === 2) {
      test(`is never kept from its events for more than ${GAP_MS_MAX} ms by a large model in a worker`, async (t) => {
        const inline = await longestGapMs(page, '/large.gguf', { thread: 'inline' });
        assert.ok(inline > 2 * GAP_MS_MAX, `${inline} ms at most on the page's own thread: the model is too small`);
        // The machine may stop any thread for a while; what blocks does so every time.
        const gaps: number[] = [];
        do gaps.push(await longestGapMs(page, '/large.gguf', { thread: 'worker', threads }));
        while (gaps.at(-1)! > GAP_MS_MAX && gaps.length < 10);
        t.diagnostic(`${gaps.join(', then ')} ms at most; on the page's own thread ${inline} ms`);
        assert.ok(gaps.at(-1)! <= GAP_MS_MAX, `${gaps.join(', ')} ms`);
      });
    }

    test('ends its workers with the last model', needsThreadNames(), async () => {
      await workersEnded();
      const nStarted = await page.evaluate(async () => {
        const { Worker } = globalThis;
        let n = 0;
        globalThis.Worker = class extends Worker {
          constructor(url: string | URL, options?: WorkerOptions) {
            super(url, options);
            n++;
          }
        };
        globalThis.model = await smallmind.loadModel(await (await fetch('/q8.gguf')).blob(), { threads: 2 });
        globalThis.Worker = Worker;
        return n;
      });
      // All of them by the page: in Firefox a worker that starts another may hang.
      assert.deepEqual([nStarted, countWorkerThreads()], [threads, threads]);
      await page.evaluate(() => globalThis.model.close());
      await workersEnded();
    });
  });
}

/** Chromium gives a worker that waits for others two seconds to end by itself. */
async function workersEnded(): Promise<void> {
  for (let tries = 0; tries < 400 && countWorkerThreads() > 0; tries++) await setTimeout(50);
  assert.equal(countWorkerThreads(), 0);
}
