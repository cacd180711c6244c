// What `smallmind/eval` says of the real files, against exact arithmetic on the same token sequence.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { evaluatePerplexity } from '../../src/eval.ts';
import { needsShared } from '../shared-data.ts';
import { MODELS, goldenPerplexities, modelPath } from './golden-data.ts';

const RELATIVE_TOLERANCE = 1e-3;

describe('perplexity as it is published for a known text', needsShared(), () => {
  test('is within 0.1 % of exact arithmetic on every model', async (t) => {
    const { text, results } = goldenPerplexities();
    assert.deepEqual(results.map((r) => r.model).sort(), [...MODELS].sort());
    for (const golden of results) {
      const result = await evaluatePerplexity(modelPath(golden.model), text, { activations: 'f32', kvType: 'F32' });
      const relative = Math.abs(result.perplexity / golden.perplexity - 1);
      t.diagnostic(`${golden.model}: ${result.perplexity.toFixed(4)}, ${result.bitsPerByte.toFixed(4)} bits per byte`);
      assert.equal(result.nPredicted, golden.tokens);
      assert.ok(relative <= RELATIVE_TOLERANCE, `${golden.model}: ${result.perplexity}, not ${golden.perplexity}`);
      assert.ok(Math.abs(result.meanNll - golden.mean_nll) < 1e-3);
      const bits = (golden.mean_nll * golden.tokens) / Math.LN2;
      assert.ok(Math.abs(result.bitsPerByte - bits / text.length) < 1e-3);
    }
  });

  test('gets worse with shorter windows, which see less', async () => {
    const { text } = goldenPerplexities();
    const path = modelPath(MODELS[0]);
    const of = async (nCtx?: number): Promise<number> => (await evaluatePerplexity(path, text, { nCtx })).perplexity;
    const [long, short, shortest] = [await of(), await of(32), await of(2)];
    assert.ok(long < short && short < shortest, `${long}, ${short}, ${shortest}`);
  });

  test('can be aborted between windows', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const onProgress = (nDone: number): void => {
      if (nDone > 0) controller.abort(reason);
    };
    const { text } = goldenPerplexities();
    const options = { nCtx: 16, signal: controller.signal, onProgress };
    await assert.rejects(evaluatePerplexity(modelPath(MODELS[0]), text, options), reason);
  });
});
