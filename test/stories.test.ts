// The model that comes with the package: it is small enough, it is what its card says, it tells stories where nothing
// else is present, and it predicts real stories that it has not seen at least as well as a well-known model does.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, test } from 'node:test';
import { evaluatePerplexity } from '../src/eval.ts';
import { inspectModel, loadModel } from '../src/index.ts';
import { storiesModel } from '../src/stories.ts';
import { runCommand } from './cli/command.ts';
import { needsShared, sharedPath } from './shared-data.ts';

const SIZE_BYTES_MAX = 4_000_000;
const path = fileURLToPath(storiesModel);
const card = readFileSync(new URL('../assets/README.md', import.meta.url), 'utf8');

test('it is a llama file in Q8_0 of at most 4 MB', async () => {
  assert.ok(statSync(path).size <= SIZE_BYTES_MAX);
  const { architecture, tensors, problem } = await inspectModel(path);
  assert.equal(architecture, 'llama');
  assert.equal(problem, undefined);
  for (const { dtype, shape } of tensors) assert.equal(dtype, shape.length === 2 ? 'Q8_0' : 'F32');
});

test('its card names its data, their licences and its own', () => {
  for (const part of [
    /CDLA-Sharing-1\.0/,
    /GPT-3\.5/,
    /Apache-2\.0/,
    /stories260K/,
    /TinyStories-656K/,
    /\(LICENSE\)/,
  ]) {
    assert.match(card, part);
  }
});

test('smallmind run tells a story where no model is named', async () => {
  const { code, stdout, stderr } = await runCommand(['run', '-p', 'Once upon a time', '-n', '60', '--seed', '3']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^Once upon a time, there was an? /);
});

test('its stories come to an end, and are the same for the same seed on any number of threads', async () => {
  const stories: string[] = [];
  for (const threads of [1, 2]) {
    await using model = await loadModel(storiesModel, { kernels: 'strict', threads });
    const { text, finishReason } = await model.generate('Once upon a time', { temperature: 0.7, seed: 1 }).result;
    assert.equal(finishReason, 'stop');
    stories.push(text);
  }
  assert.equal(stories[0], stories[1]);
  assert.ok(stories[0]!.length > 200);
});

describe('on the part of the real stories that was kept out of its training', needsShared(), () => {
  const text = needsShared().skip ? '' : readFileSync(sharedPath('text', 'tinystories-train.txt'), 'utf8');
  // As scripts/stories/prepare.ts cuts it.
  const atLeast = text.length * 0.95;
  const cut = [...text.matchAll(/(?<=[^\n])\n(?=[A-Z])/g)].find(({ index }) => index >= atLeast)?.index ?? 0;
  const heldOut = text.slice(cut + 1);

  test('it needs no more bits a byte than stories260K and TinyStories-656K', async (t) => {
    const bitsOf = async (model: string): Promise<number> => (await evaluatePerplexity(model, heldOut)).bitsPerByte;
    const ours = await bitsOf(path);
    const stories260K = await bitsOf(sharedPath('models', 'stories260K', 'stories260K-f32.gguf'));
    const tinyStories = await bitsOf(sharedPath('models', 'tinystories-656k', 'TinyStories-656K-f16.gguf'));
    t.diagnostic(
      `bits per byte: ${ours.toFixed(4)}, stories260K ${stories260K.toFixed(4)}, TinyStories-656K ${tinyStories.toFixed(4)}`,
    );
    assert.ok(ours <= stories260K && ours <= tinyStories);
    assert.ok(card.includes(ours.toFixed(2)), `the card does not say ${ours.toFixed(2)}`);
  });
});
