// Perplexity of a known text on every real file: the logits of all positions at once, in one call.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { needsShared } from '../shared-data.ts';
import { MODELS, goldenPerplexities, loadGolden } from './golden-data.ts';

const shared = needsShared();
const RELATIVE_TOLERANCE = 1e-3;

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
    test(`is within 0.1 % of exact arithmetic on ${kernels}`, async (t) => {
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
        assert.ok(relative <= RELATIVE_TOLERANCE, `${golden.model}: ${perplexity}, expected ${golden.perplexity}`);
        worst = Math.max(worst, relative);
      }
      t.diagnostic(`${kernels}: off by at most ${(100 * worst).toFixed(4)} %`);
    });
  }
});
