// The generator against published known answers, its place in a sequence, and that its numbers are spread as they
// should be. All seeds are fixed: a statistical bound is passed or failed for good.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { philox, Random } from './random.ts';

const hex = (words: Uint32Array): string => Array.from(words, (w) => w.toString(16).padStart(8, '0')).join(' ');

/** Counter, key and result of the Random123 distribution's known answers for philox4x32, 10 rounds. */
const KNOWN_ANSWERS = [
  [[0, 0, 0, 0], [0, 0], '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
  [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], '408f276d 41c83b0e a20bc7c6 6d5451fd'],
  [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], 'd16cfe09 94fdcceb 5001e420 24126ea1'],
] as const;

test('philox gives the known answers of Random123', () => {
  for (const [counter, key, expected] of KNOWN_ANSWERS) {
    const out = new Uint32Array(4);
    philox(Uint32Array.from(counter), Uint32Array.from(key), out);
    assert.equal(hex(out), expected);
  }
});

test('philox may write over its counter', () => {
  const words = new Uint32Array(4);
  philox(words, new Uint32Array(2), words);
  assert.equal(hex(words), KNOWN_ANSWERS[0][2]);
});

test('a generator draws the words of block 0, 1, … of its seed and stream', () => {
  const random = new Random(0x299f31d0a4093822n, 0x03707344);
  const counter = Uint32Array.of(0, 0, 0x03707344, 0);
  const key = Uint32Array.of(0xa4093822, 0x299f31d0);
  const block = new Uint32Array(4);
  for (let n = 0; n < 3; n++) {
    counter[0] = n;
    philox(counter, key, block);
    const drawn = Uint32Array.from({ length: 4 }, () => random.uint32());
    assert.equal(hex(drawn), hex(block));
  }
});

test('the counter carries into its second word', () => {
  const random = new Random(5);
  random.position = (2 ** 32 - 1) * 4;
  for (let i = 0; i < 4; i++) random.uint32();
  const block = new Uint32Array(4);
  philox(Uint32Array.of(0, 1, 0, 0), Uint32Array.of(5, 0), block);
  assert.equal(random.uint32(), block[0]);
  assert.equal(random.position, 2 ** 34 + 1);
});

test('a saved state continues the sequence from any position', () => {
  const property = fc.property(fc.nat(50), fc.maxSafeNat(), fc.maxSafeNat(), (skip, seed, stream) => {
    const random = new Random(seed, stream);
    for (let i = 0; i < skip; i++) random.uint32();
    assert.equal(random.position, skip);
    const restored = Random.from(JSON.parse(JSON.stringify(random.state)));
    assert.equal(restored.position, skip);
    for (let i = 0; i < 6; i++) assert.equal(restored.uint32(), random.uint32());
  });
  fc.assert(property, { seed: 1, numRuns: 200 });
});

test('different seeds and different streams give different numbers', () => {
  const first = (seed: number | bigint, stream?: number): number => new Random(seed, stream).uint32();
  const all = [first(0), first(1), first(-1), first(2 ** 32), first(0, 1), first(0, 2 ** 32)];
  assert.equal(new Set(all).size, all.length);
  assert.equal(first(-1), first(2n ** 64n - 1n));
});

test('uniform numbers fill [0, 1) evenly', () => {
  const random = new Random(7);
  const nBuckets = 64;
  const counts = new Uint32Array(nBuckets);
  const draws = 64_000;
  for (let i = 0; i < draws; i++) {
    const u = random.uniform();
    assert.ok(u >= 0 && u < 1);
    counts[Math.floor(u * nBuckets)]!++;
  }
  const expected = draws / nBuckets;
  const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 63 degrees of freedom: the 0.1 % and the 99.9 % quantile.
  assert.ok(chiSquare > 34 && chiSquare < 104, `chi-square ${chiSquare}`);
});

test('normal numbers have the moments and the tails of a standard normal distribution', () => {
  const values = new Float64Array(50_000);
  new Random(11).fillNormal(values);
  const moment = (n: number): number => values.reduce((sum, v) => sum + v ** n, 0) / values.length;
  assert.ok(Math.abs(moment(1)) < 0.02);
  assert.ok(Math.abs(moment(2) - 1) < 0.02);
  assert.ok(Math.abs(moment(4) - 3) < 0.15);
  const beyondTwo = values.filter((v) => Math.abs(v) > 2).length / values.length;
  assert.ok(Math.abs(beyondTwo - 0.0455) < 0.004);
});

test('filling an array gives what single draws give', () => {
  const uniform = new Float64Array(5);
  new Random(3).fillUniform(uniform);
  const single = new Random(3);
  assert.deepEqual(
    [...uniform],
    Array.from({ length: 5 }, () => single.uniform()),
  );
  const normal = new Float64Array(5);
  new Random(3).fillNormal(normal, 10, 2);
  const other = new Random(3);
  assert.deepEqual(
    [...normal],
    Array.from({ length: 5 }, () => 10 + 2 * other.normal()),
  );
});

test('refuses seeds, streams and positions that are not safe integers', () => {
  assert.throws(() => new Random(0.5), { code: 'INVALID_OPTION', message: /"seed"/ });
  assert.throws(() => new Random(2 ** 53), { code: 'INVALID_OPTION' });
  assert.throws(() => new Random(1, -1), { code: 'INVALID_OPTION', message: /"stream"/ });
  assert.throws(() => (new Random(1).position = NaN), { code: 'INVALID_OPTION', message: /"position"/ });
});
