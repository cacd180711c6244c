// The probe: what it says of the relaxed dot product is what the instruction computes, and a set that is asked for is
// the one that is given.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evaluate } from './emit/evaluate.ts';
import { wasmFeatures } from './emit/features.ts';
import { i32x4, v128 } from './emit/operations.ts';
import { chooseVariant, probeRelaxedDot } from './probe.ts';

const { relaxedSimd } = wasmFeatures();

/** The relaxed dot product of 16 pairs, from run-time values. */
function relaxedDot(signed: Int8Array, unsigned: Uint8Array): Int32Array {
  const input = new Uint8Array(32);
  input.set(new Uint8Array(signed.buffer), 0);
  input.set(unsigned, 16);
  return new Int32Array(
    evaluate(() => {
      const zero = i32x4.const(0, 0, 0, 0);
      return i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(0), v128.load(16), zero);
    }, input).buffer,
  );
}

/** Whether it is exact on many operands up to `max`. */
function isExactUpTo(max: number): boolean {
  for (let round = 0; round < 40; round++) {
    const signed = Int8Array.from({ length: 16 }, (_, i) => ((i * 89 + round * 53) % 255) - 127);
    const unsigned = Uint8Array.from({ length: 16 }, (_, i) =>
      round === 0 ? max : (i * 101 + round * 31) % (max + 1),
    );
    if (round % 3 === 0) signed.fill(round % 2 === 0 ? 127 : -127);
    const got = relaxedDot(signed, unsigned);
    for (let lane = 0; lane < 4; lane++) {
      let sum = 0;
      for (let i = 4 * lane; i < 4 * lane + 4; i++) sum += signed[i]! * unsigned[i]!;
      if (got[lane] !== sum) return false;
    }
  }
  return true;
}

test('the mode that the probe chooses is the best that is exact', () => {
  const mode = probeRelaxedDot();
  if (!relaxedSimd) return assert.equal(mode, 'i16');
  if (isExactUpTo(255)) return assert.equal(mode, 'u8');
  if (!isExactUpTo(127)) return assert.equal(mode, 'i16');
  const [saturated] = relaxedDot(new Int8Array(16).fill(127), new Uint8Array(16).fill(255));
  assert.equal(mode, saturated === 2 * 32767 ? 'i7p' : 'i7');
});

test('sets are what their names say, and auto is the best there is', () => {
  assert.deepEqual(chooseVariant('strict'), { set: 'strict', dot: 'i16', fma: false, wide: false });
  assert.deepEqual(chooseVariant('simd'), { set: 'simd', dot: 'i16', fma: false, wide: false });
  const best = chooseVariant('auto');
  assert.equal(best.set, relaxedSimd ? 'relaxed' : 'simd');
  if (relaxedSimd) {
    assert.deepEqual(chooseVariant('relaxed'), { set: 'relaxed', dot: probeRelaxedDot(), fma: true, wide: false });
    assert.deepEqual(best, chooseVariant('relaxed'));
  } else {
    assert.throws(() => chooseVariant('relaxed'), { code: 'UNSUPPORTED_MACHINE', message: /"simd" or "auto"/ });
  }
});
