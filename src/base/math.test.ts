// The elementary functions against the engine's own, which are accurate though not the same everywhere; special values;
// and a hash of 60,000 results, so that a change of a single bit is seen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as math from './math.ts';
import { Random } from './random.ts';

const SAMPLES = 20_000;
const random = new Random(20_260);
const between = (min: number, max: number): number => min + (max - min) * random.uniform();

const real = new Float64Array(1);
const bits = new BigInt64Array(real.buffer);

/** Doubles between two finite doubles of the same sign. */
function ulpsApart(a: number, b: number): number {
  real[0] = a;
  const aBits = bits[0]!;
  real[0] = b;
  return Math.abs(Number(aBits - bits[0]!));
}

/** Math.* of this engine is itself within 1 ulp, so the bounds below are ours plus one. */
function assertClose(name: string, ulpsMax: number, ours: (x: number) => number, draw: () => number): void {
  const theirs = (Math as unknown as Record<string, (x: number) => number>)[name]!;
  for (let i = 0; i < SAMPLES; i++) {
    const x = draw();
    const apart = ulpsApart(ours(x), theirs(x));
    assert.ok(apart <= ulpsMax, `${name}(${x}) is ${ours(x)}, Math has ${theirs(x)}: ${apart} ulp`);
  }
}

test('exp agrees with Math.exp to 2 ulp over its whole range', () => {
  assertClose('exp', 2, math.exp, () => between(-708, 709.78));
  assertClose('exp', 2, math.exp, () => between(-1, 1));
});

test('exp underflows gradually and overflows where a double does', () => {
  for (let x = -745; x < -708; x += 0.37) {
    assert.ok(Math.abs(math.exp(x) - Math.exp(x)) <= Number.MIN_VALUE, `exp(${x})`);
  }
  assert.equal(math.exp(-745.13), Number.MIN_VALUE);
  assert.equal(math.exp(-745.14), 0);
  assert.ok(math.exp(709.782712893384) < Infinity);
  assert.equal(math.exp(709.7827128933841), Infinity);
});

test('exp is exact at 0 and follows IEEE 754 at infinities and NaN', () => {
  assert.equal(math.exp(0), 1);
  assert.equal(math.exp(-0), 1);
  assert.equal(math.exp(Infinity), Infinity);
  assert.equal(math.exp(-Infinity), 0);
  assert.equal(math.exp(NaN), NaN);
});

test('expInPlace gives the bits of exp, and leaves what follows alone', () => {
  const specials = [0, -0, Infinity, -Infinity, NaN, 709.782712893384, 709.79, 709.5, -745.13, -745.2, -744, -709, 0.3];
  const inputs = Float64Array.from({ length: SAMPLES }, (_, i) => specials[i] ?? between(-750, 712));
  const values = inputs.slice();
  math.expInPlace(values, SAMPLES - 1);
  for (let i = 0; i < SAMPLES - 1; i++) assert.ok(Object.is(values[i], math.exp(inputs[i]!)), `exp(${inputs[i]})`);
  assert.equal(values[SAMPLES - 1], inputs[SAMPLES - 1]);
});

test('log agrees with Math.log to 2 ulp from subnormal to huge, and next to 1', () => {
  assertClose('log', 2, math.log, () => Math.exp(between(-744, 709)));
  assertClose('log', 2, math.log, () => between(0.5, 2));
  assertClose('log', 2, math.log, () => 1 + between(-1e-6, 1e-6));
  assertClose('log', 2, math.log, () => Number.MIN_VALUE * Math.ceil(between(0, 1e9)));
});

test('log is exact at 1 and follows IEEE 754 at 0, infinities, negative numbers and NaN', () => {
  assert.equal(math.log(1), 0);
  assert.equal(math.log(0), -Infinity);
  assert.equal(math.log(-0), -Infinity);
  assert.equal(math.log(Infinity), Infinity);
  assert.equal(math.log(-1), NaN);
  assert.equal(math.log(NaN), NaN);
  assert.equal(ulpsApart(math.log(Number.MAX_VALUE), 709.782712893384), 0);
});

test('pow agrees with Math.pow to 2 ulp wherever the result is a normal number', () => {
  for (let i = 0; i < SAMPLES; i++) {
    const x = i % 2 ? between(0.5, 2) : Math.exp(between(-300, 300));
    const y = between(-708, 708) / Math.log(x);
    const apart = ulpsApart(math.pow(x, y), Math.pow(x, y));
    assert.ok(apart <= 2, `pow(${x}, ${y}) is ${math.pow(x, y)}: ${apart} ulp`);
  }
});

test('pow is exact where the power is a double', () => {
  for (let base = 2; base <= 10; base++) {
    for (let n = 0, power = 1n; power < 2n ** 53n; n++, power *= BigInt(base)) {
      assert.equal(math.pow(base, n), Number(power), `${base}^${n}`);
    }
  }
  for (let n = -1074, power = Number.MIN_VALUE; n <= 1023; n++, power *= 2) {
    assert.equal(math.pow(2, n), power, `2^${n}`);
  }
  assert.equal(math.pow(1e300, 1), 1e300);
  assert.equal(math.pow(2.25, 0.5), 1.5);
});

test('pow follows Math.pow at 0, 1, infinities and NaN, and refuses negative bases', () => {
  const specials = [0, -0, 1, 0.5, 2, 1e-310, Number.MAX_VALUE, Number.MIN_VALUE, Infinity, NaN];
  const exponents = [0, -0, 1, -1, 0.5, -0.5, 2, 1e300, -1e300, 1e-300, Infinity, -Infinity, NaN];
  for (const x of specials) {
    for (const y of exponents) {
      const expected = x === 0 ? Math.pow(0, y) : Math.pow(x, y);
      const isOrdinary = expected > 0 && expected < Infinity;
      if (isOrdinary) assert.ok(ulpsApart(math.pow(x, y), expected) <= 1, `pow(${x}, ${y})`);
      else assert.equal(math.pow(x, y), expected, `pow(${x}, ${y})`);
    }
  }
  assert.equal(math.pow(-8, 3), NaN);
  assert.equal(math.pow(-8, 0), 1);
});

test('tanh agrees with Math.tanh to 4 ulp, is odd, and saturates at 1', () => {
  assertClose('tanh', 4, math.tanh, () => between(-1, 1));
  assertClose('tanh', 4, math.tanh, () => between(-25, 25));
  assertClose('tanh', 4, math.tanh, () => between(-1e-7, 1e-7));
  assert.equal(math.tanh(-0.7), -math.tanh(0.7));
  assert.equal(math.tanh(-0), -0);
  assert.equal(math.tanh(Infinity), 1);
  assert.equal(math.tanh(-1e300), -1);
  assert.equal(math.tanh(NaN), NaN);
});

test('sin and cos agree with Math to 2 ulp for every position of a long context', () => {
  for (const range of [1, 100, 1e6, 1.2e7]) {
    assertClose('sin', 2, math.sin, () => between(-range, range));
    assertClose('cos', 2, math.cos, () => between(-range, range));
  }
});

test('sin and cos are right to 1e-27 or 2 ulp next to their zeros', () => {
  for (let quarter = 1; quarter < 8e6; quarter += 397) {
    const x = quarter * (Math.PI / 2);
    const [ours, theirs] = quarter % 2 ? [math.cos(x), Math.cos(x)] : [math.sin(x), Math.sin(x)];
    assert.ok(
      Math.abs(ours - theirs) < 1e-27 + 2 ** -51 * Math.abs(theirs),
      `${quarter} quarter turns: ${ours} and ${theirs}`,
    );
    assert.ok(Math.abs(ours) < 1e-8 && ours !== 0);
  }
});

test('sin and cos give NaN for infinities and NaN, and refuse angles beyond their reduction', () => {
  for (const f of [math.sin, math.cos]) {
    assert.equal(f(Infinity), NaN);
    assert.equal(f(NaN), NaN);
    assert.throws(() => f(1.4e7), { code: 'NUMERIC' });
  }
  assert.equal(math.sin(-0), -0);
  assert.equal(math.cos(0), 1);
});

/** Number of a multiplicative generator, 1 .. 2^31 - 2: independent of the functions under test. */
let hashSeed = 1;
function nextFraction(): number {
  hashSeed = (hashSeed * 48_271) % 2_147_483_647;
  return hashSeed / 2_147_483_647;
}

test('no bit of any result changes', () => {
  // FNV-1a over the bit patterns; a change of any constant, order of operations or engine shows here.
  let hash = 0x811c9dc5;
  const mix = (value: number): void => {
    real[0] = value;
    for (const word of new Int32Array(real.buffer)) hash = Math.imul(hash ^ word, 0x01000193);
  };
  for (let i = 0; i < 10_000; i++) {
    const u = nextFraction();
    mix(math.exp(u * 1400 - 700));
    mix(math.log(u * 100));
    mix(math.sin(u * 2e6 - 1e6));
    mix(math.cos(u * 2e6 - 1e6));
    mix(math.pow(u * 10, nextFraction() * 40 - 20));
    mix(math.tanh(u * 12 - 6));
  }
  assert.equal((hash >>> 0).toString(16), 'e7ac84b0');
});
