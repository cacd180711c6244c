// Perplexity of the real files against exact arithmetic: of a known text, the logits of all positions at once, in one
// call; and of a text long enough to tell what activations in 8 bits cost.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import { evaluatePerplexity } from '../../src/eval.ts';
import { needsShared, sharedPath } from '../shared-data.ts';
import { storiesModel } from '../../src/stories.ts';
import { MODELS, goldenPerplexities, loadGolden, modelPath } from './golden-data.ts';

const shared = needsShared();
/** Of kernels without 8-bit rounding: the published perplexities have four decimals, of 2.9 that is 2e-5. */
const EXACT_TOLERANCE = 5e-5;
const DEFAULT_TOLERANCE = 1e-3;

/** Mean negative log likelihood of every token after the first. */
function meanNll(tokens: readonly number[], logits: Float32Array, nVocab: number): number {
  assert.equal(logits.length, tokens.length * nVocab);
  let sum = 0;
  for (let i = 0; i + 1 < tokens.length; i++) {
    const row = logits.subarray(i * nVocab, (i + 1) * nVocab);
    const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const norm = row.reduce((total, logit) => total + Math.exp(logit - max), 0);
    sum += max + Math.log(norm) - row[tokens[i + 1]!]!;
  }
  return sum / (tokens.length - 1);
}

describe('perplexity with F32 activations and cache', shared, () => {
  for (const kernels of ['reference', 'relaxed', 'simd', 'strict'] as const) {
    test(`is that of exact arithmetic on ${kernels}`, async (t) => {
      const { text, results } = goldenPerplexities();
      assert.deepEqual(results.map((r) => r.model).sort(), [...MODELS].sort());
      let worst = 0;
      for (const golden of results) {
        await using model = await loadGolden(golden.model, { kernels, activations: 'f32', kvType: 'F32' });
        const tokens = await model.tokenize(text);
        if (golden.token_ids !== null) assert.deepEqual(tokens, golden.token_ids);
        assert.equal(tokens.length, golden.tokens + 1, golden.model);
        const logits = await model.logits(tokens, { all: true });
        const perplexity = Math.exp(meanNll(tokens, logits, model.info.nVocab));
        const relative = Math.abs(perplexity / golden.perplexity - 1);
        assert.ok(relative <= EXACT_TOLERANCE, `${golden.model}: ${perplexity}, expected ${golden.perplexity}`);
        worst = Math.max(worst, relative);
      }
      t.diagnostic(`${kernels}: off by at most ${(100 * worst).toFixed(4)} %`);
    });
  }
});

/**
 * Activations in 8 bits change the surprise of one token by some 4 %, either way: of a known text of 69 tokens that
 * says 0.5 % and nothing, of 11,000 to 24,000 tokens it leaves ±0.03 %. Float64 would take minutes for so many; the
 * kernels without any 8-bit rounding stand for it, which the tests above hold to a twentieth of the tolerance.
 */
const N_CHARACTERS = 48_000;

for (const file of ['stories260K-q8_0.gguf', 'TinyStories-656K-f16.gguf', 'TinyStories-656K-q8_0.gguf'] as const) {
  describe(`perplexity of ${file} as it runs by default`, shared, () => {
    let text: string;
    let exact: number;
    before(async () => {
      text = readFileSync(sharedPath('text', 'tinystories-train.txt'), 'utf8').slice(0, N_CHARACTERS);
      const options = { kernels: 'strict', activations: 'f32', kvType: 'F32' } as const;
      ({ perplexity: exact } = await evaluatePerplexity(modelPath(file), text, options));
    });
    for (const kernels of ['relaxed', 'simd', 'strict'] as const) {
      test(`is within 0.1 % of exact arithmetic on ${kernels}`, async (t) => {
        const { perplexity, nPredicted } = await evaluatePerplexity(modelPath(file), text, { kernels });
        assert.ok(nPredicted > 10_000);
        const relative = perplexity / exact - 1;
        t.diagnostic(`${file}, ${kernels}: off by ${(100 * relative).toFixed(4)} % over ${nPredicted} tokens`);
        assert.ok(Math.abs(relative) <= DEFAULT_TOLERANCE, `${perplexity}, expected ${exact}`);
      });
    }
  });
}

/** Of the real models here, only the bundled one has heads that a Q8_0 cache takes. */
describe('perplexity of the bundled model with a Q8_0 cache', shared, () => {
  for (const kernels of ['relaxed', 'strict'] as const) {
    test(`is within 0.2 % of that with an F16 cache on ${kernels}`, async (t) => {
      const text = readFileSync(sharedPath('text', 'tinystories-train.txt'), 'utf8').slice(0, N_CHARACTERS);
      const { perplexity: ofF16 } = await evaluatePerplexity(storiesModel, text, { kernels });
      const { perplexity } = await evaluatePerplexity(storiesModel, text, { kernels, kvType: 'Q8_0' });
      assert.notEqual(perplexity, ofF16);
      const relative = perplexity / ofF16 - 1;
      t.diagnostic(`${kernels}: off by ${(100 * relative).toFixed(4)} %`);
      assert.ok(Math.abs(relative) <= 2e-3, `${perplexity}, with F16 ${ofF16}`);
    });
  }
});
