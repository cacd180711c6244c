// The accuracy of activation functions over their whole range, against float64 rounded to f32, and what they make of
// numbers that no model should ever see.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { OpName } from '../../src/graph/operations.ts';
import { Rig, VARIANTS, createExecutor, holdThreads, runStep } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(2)));
after(() => release());

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** σ(x) and GELU as x · σ(2u), both without cancellation. */
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const geluArgument = (x: number): number => Math.sqrt(8 / Math.PI) * (x + 0.044715 * x ** 3);
const gelu = (x: number): number => x * sigmoid(geluArgument(x));
const silu = (x: number): number => x * sigmoid(x);
function geluSlope(x: number): number {
  const s = sigmoid(geluArgument(x));
  const inner = Math.sqrt(8 / Math.PI) * (1 + 3 * 0.044715 * x * x);
  return s + x * s * sigmoid(-geluArgument(x)) * inner;
}
const siluSlope = (x: number): number => sigmoid(x) * (1 + x * sigmoid(-x));

/** Numbers from −100 to 100, close together around 0, and of all magnitudes. */
const DENSE = Float32Array.from([
  ...range(40_001).map((i) => -100 + i / 200),
  ...range(48_000).map((i) => -12 + i / 2000),
  ...range(600).flatMap((i) => [1, -1].map((sign) => sign * 10 ** (-38 + i / 15))),
  0,
]);

/** Distance of neighbouring f32 around `x`. */
function ulpOf(x: number): number {
  const exponent = Math.floor(Math.log2(Math.max(Math.abs(x), 2 ** -126)));
  return 2 ** (exponent - 23);
}

/** The results of an operation for each of `values`, with 1 as other operand of derivatives, on every variant. */
async function eachVariant(
  op: OpName,
  values: Float32Array,
  judge: (actual: Float32Array, where: string) => void,
): Promise<void> {
  for (const variant of VARIANTS) {
    const rig = new Rig();
    const x = rig.constant([1, values.length], values);
    const ones = rig.constant([1, values.length], new Float32Array(values.length).fill(1));
    rig.check('y', rig.graph.apply(op, /Gradient/.test(op) ? [ones, x] : [x]), 0);
    const executor = await createExecutor(rig, variant, 2);
    try {
      judge(runStep(rig, executor, {})[0]!, executor.description);
    } finally {
      await executor.close();
    }
  }
}

for (const [op, exact] of [
  ['gelu', gelu],
  ['silu', silu],
] as const) {
  test(`${op} is within 4 ulp of the exact value, and next to 0 where that is less than 1e-35`, async (t) => {
    let worst = 0;
    await eachVariant(op, DENSE, (actual, where) => {
      DENSE.forEach((x, i) => {
        const expected = Math.fround(exact(x));
        const error = Math.abs(actual[i]! - expected);
        if (Math.abs(expected) > 1e-35) worst = Math.max(worst, error / ulpOf(expected));
        const isNear = error <= 4 * ulpOf(expected) + 1e-35;
        assert.ok(isNear, `${op}(${x}) expected ${expected}, got ${actual[i]} (${where})`);
      });
    });
    t.diagnostic(`${op}: at most ${worst.toFixed(2)} ulp`);
  });
}

for (const [op, exact] of [
  ['geluGradient', geluSlope],
  ['siluGradient', siluSlope],
] as const) {
  // The slope passes through 0, where it is the difference of two numbers around 0.2.
  test(`${op} is within 4e-7 of the exact slope`, async (t) => {
    let worst = 0;
    await eachVariant(op, DENSE, (actual, where) => {
      DENSE.forEach((x, i) => {
        const error = Math.abs(actual[i]! - exact(x));
        worst = Math.max(worst, error);
        assert.ok(error <= 4e-7, `${op}(${x}) expected ${exact(x)}, got ${actual[i]} (${where})`);
      });
    });
    t.diagnostic(`${op}: off by ${worst.toExponential(1)} at most`);
  });
}

test('huge numbers give x or next to 0, slopes of 1 or next to 0, never NaN', async () => {
  const huge = [1e4, 1e10, 1e13, 1e20, 1e30, 3e38];
  const values = Float32Array.from(huge.flatMap((x) => [x, -x]));
  for (const op of ['gelu', 'silu', 'geluGradient', 'siluGradient'] as const) {
    await eachVariant(op, values, (actual, where) => {
      values.forEach((x, i) => {
        const expected = x < 0 ? 0 : /Gradient/.test(op) ? 1 : x;
        const isNear = Math.abs(actual[i]! - expected) <= (x < 0 ? 1e-34 : 0);
        assert.ok(isNear, `${op}(${x}) expected ${expected}, got ${actual[i]} (${where})`);
      });
    });
  }
});

test('NaN is handed on', async () => {
  const values = Float32Array.of(NaN, 1, NaN, 2, NaN);
  for (const op of ['gelu', 'silu', 'geluGradient', 'siluGradient'] as const) {
    await eachVariant(op, values, (actual, where) => {
      assert.deepEqual([...actual].map(Number.isNaN), [true, false, true, false, true], `${op} (${where})`);
    });
  }
});

test('one NaN among logits makes the loss and all derivatives of its row NaN, and of no other row', async () => {
  for (const variant of VARIANTS) {
    for (const place of range(6)) {
      const rig = new Rig();
      const logits = rig.numbers(18);
      logits[6 + place] = NaN;
      const [x, targets] = [rig.constant([3, 6], logits), rig.ids([0, 3, 5])];
      const dLoss = rig.constant([3], Float32Array.of(1, 1, 1));
      rig.check('losses', rig.graph.apply('crossEntropy', [x, targets], { ignore: -1 }), 0);
      rig.check('derivative', rig.graph.apply('crossEntropyGradient', [x, targets, dLoss], { ignore: -1 }), 0);
      const executor = await createExecutor(rig, variant, 1);
      const [losses, derivative] = runStep(rig, executor, {});
      const isRowNaN = (row: number): boolean => derivative!.subarray(6 * row, 6 * row + 6).every(Number.isNaN);
      assert.deepEqual([...losses!].map(Number.isNaN), [false, true, false], executor.description);
      assert.deepEqual([0, 1, 2].map(isRowNaN), [false, true, false], executor.description);
      await executor.close();
    }
  }
});
