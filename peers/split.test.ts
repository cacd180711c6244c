// Split models against llama.cpp: it takes the parts that our tests write for the model that they were, and so do we.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadModel } from '../src/index.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { partName, splitGguf } from '../test/split-gguf.ts';
import { describeFile, describeRuns } from './described-file.ts';
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

test('the parts give the text of the whole, here and in llama.cpp', needsPeers(), async () => {
  const theirs: number[][] = [];
  const ours: (readonly number[])[] = [];
  const executors: string[] = [];
  for (const name of ['whole.gguf', partName(0, N_PARTS)]) {
    const llama = await openLlama(join(folder, name));
    theirs.push(await llama.greedy(PROMPT, N_TOKENS));
    await llama.close();
    await using model = await loadModel(join(folder, name), { thread: 'inline', threads: 1 });
    ours.push((await model.generate(PROMPT, { temperature: 0, maxTokens: N_TOKENS }).result).tokens);
    executors.push(model.info.executor);
  }
  assert.equal(theirs[0]!.length, N_TOKENS);
  for (const text of [...theirs, ...ours]) assert.deepEqual(text, theirs[0]);
  const { architecture, dtypes } = await describeFile(readFileSync(WHOLE));
  recordComparison('models', {
    what: `the bundled model, whole and in ${N_PARTS} files`,
    architecture,
    dtype: dtypes[0]!,
    dtypes,
    kvType: 'F16',
    ...describeRuns(executors),
    nModel: 1,
    nTokens: PROMPT.length + N_TOKENS,
    nPosition: N_TOKENS,
    nDecided: N_TOKENS,
    nSame: N_TOKENS,
  });
});
