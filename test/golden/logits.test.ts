// Logits after known prompts against exact arithmetic, for every real file: within 1e-3 where nothing is rounded on
// purpose, and with 8-bit activations about as close as llama.cpp comes with its own.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { LoadOptions } from '../../src/index.ts';
import { needsShared } from '../shared-data.ts';
import { MODELS, decodeLogits, goldenCases, indexOfGreatest, loadGolden, rootMeanSquare } from './golden-data.ts';
import type { GoldenCase } from './golden-data.ts';

const shared = needsShared();
const LOGIT_TOLERANCE = 1e-3;
/** How much further from exact arithmetic than llama.cpp the defaults may be. */
const RMS_RATIO_MAX = 1.5;

const EXACT: LoadOptions = { activations: 'f32', kvType: 'F32' };

/** Evaluates every case of every file and hands over its logits. */
async function evaluate(
  options: LoadOptions,
  visit: (golden: GoldenCase, logits: Float32Array) => void,
): Promise<void> {
  const cases = goldenCases();
  assert.equal(cases.length, 3 * MODELS.length);
  for (const file of MODELS) {
    await using model = await loadGolden(file, options);
    for (const golden of cases.filter((c) => c.model === file)) {
      const tokens = await model.tokenize(golden.prompt);
      assert.deepEqual(tokens, golden.tokens, `${file}: tokens of ${golden.prompt}`);
      visit(golden, await model.logits(tokens));
    }
  }
}

const labelOf = ({ model, prompt }: GoldenCase): string => `${model}, ${JSON.stringify(prompt)}`;

function assertMostLikely(golden: GoldenCase, logits: Float32Array): void {
  assert.equal(indexOfGreatest(logits), golden.exact_top20_logits[0]![0], labelOf(golden));
}

/** @returns the greatest difference, and that of the sums */
function assertExact(golden: GoldenCase, logits: Float32Array): [logit: number, sum: number] {
  const label = labelOf(golden);
  const all = golden.exact_logits_f32_b64 === undefined ? [] : [...decodeLogits(golden.exact_logits_f32_b64).entries()];
  if (all.length > 0) assert.equal(all.length, logits.length, label);
  let worst = 0;
  for (const [token, exact] of [...golden.exact_top20_logits, ...all]) {
    const difference = Math.abs(logits[token]! - exact);
    assert.ok(difference <= LOGIT_TOLERANCE, `${label}: token ${token} is off by ${difference}`);
    worst = Math.max(worst, difference);
  }
  // Rounding errors have either sign, so a sum is off by far less than every logit together could be.
  const sum = Math.abs(logits.reduce((total, logit) => total + logit, 0) - golden.exact_logit_sum);
  assert.ok(sum <= LOGIT_TOLERANCE * Math.sqrt(logits.length), `${label}: the sum is off by ${sum}`);
  return [worst, sum];
}

describe('logits of real models', shared, () => {
  for (const kernels of ['reference', 'relaxed', 'simd', 'strict'] as const) {
    test(`are exact to 1e-3 with F32 activations and cache on ${kernels}`, async (t) => {
      let worstLogit = 0;
      let worstSum = 0;
      await evaluate({ ...EXACT, kernels }, (golden, logits) => {
        assertMostLikely(golden, logits);
        const [logit, sum] = assertExact(golden, logits);
        worstLogit = Math.max(worstLogit, logit);
        worstSum = Math.max(worstSum, sum);
      });
      t.diagnostic(`${kernels}: greatest difference ${worstLogit.toExponential(1)}, sum ${worstSum.toExponential(1)}`);
    });
  }

  for (const kernels of ['relaxed', 'simd', 'strict'] as const) {
    test(`are with the defaults at most ${RMS_RATIO_MAX} times as far off as llama.cpp's on ${kernels}`, async (t) => {
      const ours: number[] = [];
      const llamaCpp: number[] = [];
      await evaluate({ kernels }, (golden, logits) => {
        assertMostLikely(golden, logits);
        const exact = new Map(golden.exact_top20_logits);
        for (const [token, logit] of golden.llama_cpp_top10_logits) {
          assert.ok(exact.has(token), `${labelOf(golden)}: token ${token} is not among the exact ones`);
          ours.push(logits[token]! - exact.get(token)!);
          llamaCpp.push(logit - exact.get(token)!);
        }
      });
      const [own, theirs] = [rootMeanSquare(ours), rootMeanSquare(llamaCpp)];
      t.diagnostic(`${kernels}: ${own.toFixed(4)} from exact, llama.cpp ${theirs.toFixed(4)}, ${ours.length} logits`);
      assert.ok(own <= RMS_RATIO_MAX * theirs);
    });
  }
});
