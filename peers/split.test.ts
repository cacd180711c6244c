// Split models against llama.cpp: it takes the parts that our tests write for the model that they were, and so do we.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadModel } from '../src/index.ts';
import { partName, splitGguf } from '../test/split-gguf.ts';
import { needsPeers, openLlama } from './llama.ts';

const WHOLE = new URL('../assets/stories.gguf', import.meta.url);
const N_PARTS = 3;
const PROMPT = [1, 20, 30];
const N_TOKENS = 20;

let folder: string;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'smallmind-'));
  for (const [name, bytes] of await splitGguf(readFileSync(WHOLE), N_PARTS)) writeFileSync(join(folder, name), bytes);
  writeFileSync(join(folder, 'whole.gguf'), readFileSync(WHOLE));
});
after(() => rmSync(folder, { recursive: true }));

test('llama.cpp generates the same from the parts as from the whole', needsPeers(), async () => {
  const texts: number[][] = [];
  for (const name of ['whole.gguf', partName(0, N_PARTS)]) {
    const llama = await openLlama(join(folder, name));
    texts.push(await llama.greedy(PROMPT, N_TOKENS));
    await llama.close();
  }
  assert.equal(texts[0]!.length, N_TOKENS);
  assert.deepEqual(texts[1], texts[0]);
});

test('we generate the same from the parts as from the whole', async () => {
  const texts: (readonly number[])[] = [];
  for (const name of ['whole.gguf', partName(0, N_PARTS)]) {
    await using model = await loadModel(join(folder, name), { thread: 'inline', threads: 1 });
    texts.push((await model.generate(PROMPT, { temperature: 0, maxTokens: N_TOKENS }).result).tokens);
  }
  assert.equal(texts[0]!.length, N_TOKENS);
  assert.deepEqual(texts[1], texts[0]);
});
