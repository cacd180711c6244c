// The built package in a page of Chromium: isolated, where memory is shared between threads, and not, where one thread
// computes. It tells the story word for word as Node does, gives back its threads, and fails with typed errors.

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import type { LoadOptions } from '../../src/index.ts';
import { greedyStory, loadGolden, modelPath, STORIES_F32 } from '../golden/golden-data.ts';
import { needsShared } from '../shared-data.ts';
import { buildPackage, needsChromium, openPage } from './chromium.ts';
import type { ChromiumPage } from './chromium.ts';

const STORIES_Q8 = 'stories260K-q8_0.gguf';
const FILES = { '/f32.gguf': modelPath(STORIES_F32), '/q8.gguf': modelPath(STORIES_Q8) };
/** A prompt of the story's tokens, for logits. */
const TOKENS = [1, 403, 407, 261, 378];

const skip = needsShared().skip || needsChromium().skip;

/** Tells the story in the page. */
function tellStory(page: Page, options: LoadOptions) {
  return page.evaluate(
    async ({ loadOptions, prompt, maxTokens }) => {
      const file = await (await fetch('/f32.gguf')).blob();
      await using model = await smallmind.loadModel(file, loadOptions);
      const { text } = await model.generate(prompt, { maxTokens, temperature: 0 }).result;
      return { text, threads: model.info.threads };
    },
    { loadOptions: options, prompt: greedyStory().prompt, maxTokens: greedyStory().tokens },
  );
}

before(() => {
  if (!skip) buildPackage();
});

for (const isolated of [true, false]) {
  describe(`a page that is ${isolated ? 'isolated' : 'not isolated'}`, { skip }, () => {
    let chromium: ChromiumPage;
    before(async () => {
      chromium = await openPage({ isolated, files: FILES, modules: { smallmindGguf: '/dist/gguf.js' } });
    });
    after(() => chromium?.[Symbol.asyncDispose]());

    test(`tells the story that Node tells, on ${isolated ? 'two threads' : 'one thread'} in a worker`, async () => {
      const { text, threads } = await tellStory(chromium.page, { threads: 2 });
      assert.equal(text, greedyStory().text);
      assert.equal(threads, isolated ? 2 : 1);
    });

    test('tells it on its own thread, which may not wait for others', async () => {
      const { text, threads } = await tellStory(chromium.page, { thread: 'inline', threads: 2 });
      assert.deepEqual({ text, threads }, { text: greedyStory().text, threads: 1 });
    });

    test('has the same bits as Node with strict kernels, from a Blob, bytes, a ByteSource and a URL', async () => {
      await using model = await loadGolden(STORIES_Q8, { kernels: 'strict' });
      const expected = Array.from(await model.logits(TOKENS, { all: true }));
      const logits = await chromium.page.evaluate(async (tokens) => {
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
          await using loaded = await smallmind.loadModel(from, { kernels: 'strict', threads: 2 });
          rows.push(Array.from(await loaded.logits(tokens, { all: true })));
        }
        return rows;
      }, TOKENS);
      assert.deepEqual(logits, [expected, expected, expected, expected]);
    });

    test('reads the head of a file by its URL with smallmind/gguf, and a tensor', async () => {
      const info = await chromium.page.evaluate(async () => {
        await using file = await smallmindGguf.readGguf(new URL('/q8.gguf', location.href));
        const values = await file.readValues('output_norm.weight');
        return [file.metadata.get('general.architecture'), file.tensors.size, values.length];
      });
      assert.deepEqual(info, ['llama', 48, 64]);
    });

    test('fails with typed errors, for a path and for a file that is cut off', async () => {
      const errors = await chromium.page.evaluate(async () => {
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

    test('ends its workers with the last model', async () => {
      // The page hears of a worker's end a moment later.
      for (let tries = 0; tries < 50 && chromium.page.workers().length > 0; tries++) await setTimeout(100);
      assert.equal(chromium.page.workers().length, 0);
    });
  });
}
