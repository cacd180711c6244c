// Instructions that do not follow a pattern: memory accesses, lanes and permutations, conversions, relaxed vectors and
// atomics, each against values worked out by hand. The regular arithmetic is in operations.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evaluate, runOnce } from './evaluate.ts';
import type { Expr } from './expression.ts';
import { atomic, f32, f32x4, f64, f64x2, i16x8, i32, i32x4, i64, i64x2, i8x16, select, v128 } from './operations.ts';

type Operation = (...args: unknown[]) => Expr;
type Group = Readonly<Record<string, unknown>>;

const OUT = 64;

/** Runs `body`, which stores at OUT, on a memory that starts with `input`. @returns the 16 bytes at OUT */
function runOn(input: Uint8Array, body: () => void): Uint8Array<ArrayBuffer> {
  return runOnce(body, input).slice(OUT, OUT + 16);
}

/** The bits of `bytes` as integers of `bits` bits. */
function lanesOf(bytes: Uint8Array, bits: number, isSigned = true): bigint[] {
  const lanes: bigint[] = [];
  for (let at = 0; at < 16; at += bits / 8) {
    let value = 0n;
    for (let k = bits / 8 - 1; k >= 0; k--) value = (value << 8n) | BigInt(bytes[at + k]!);
    lanes.push(isSigned ? BigInt.asIntN(bits, value) : value);
  }
  return lanes;
}

const bytesOf = (...values: readonly number[]) => Uint8Array.from({ length: 16 }, (_, i) => values[i] ?? 0);
const ints = (bytes: Uint8Array<ArrayBuffer>) => [...new Int32Array(bytes.buffer)];
const floats = (bytes: Uint8Array<ArrayBuffer>) => [...new Float32Array(bytes.buffer)];
const doubles = (bytes: Uint8Array<ArrayBuffer>) => [...new Float64Array(bytes.buffer)];
const COUNTING = Uint8Array.from({ length: 32 }, (_, i) => 0xf0 + i);

test('scalar loads extend by sign or by zero, stores cut to their width, both at their offset', () => {
  const cases: [Expr, bigint][] = [
    [i32.load8_s(0, 1), -15n],
    [i32.load8_u(0, 1), 0xf1n],
    [i32.load16_s(0, 1), -3343n],
    [i32.load16_u(0, 1), 0xf2f1n],
    [i64.load8_s(1), -15n],
    [i64.load8_u(1), 0xf1n],
    [i64.load16_s(1), -3343n],
    [i64.load16_u(1), 0xf2f1n],
    [i64.load32_s(1), BigInt.asIntN(32, 0xf4f3f2f1n)],
    [i64.load32_u(1), 0xf4f3f2f1n],
    [i64.load(1), BigInt.asIntN(64, 0xf8f7f6f5f4f3f2f1n)],
  ];
  for (const [expr, expected] of cases) {
    assert.equal(
      lanesOf(
        evaluate(() => expr, COUNTING),
        expr.type === 'i32' ? 32 : 64,
      )[0],
      expected,
    );
  }
  const stored = runOn(new Uint8Array(), () => {
    i32.store8(OUT, -2);
    i32.store16(OUT, -3, 1);
    i64.store8(OUT, -4, 3);
    i64.store16(OUT, -5, 4);
    i64.store32(OUT, -6, 6);
  });
  assert.deepEqual(stored, bytesOf(0xfe, 0xfd, 0xff, 0xfc, 0xfb, 0xff, 0xfa, 0xff, 0xff, 0xff));
});

test('vector loads widen, repeat or fill with zeros', () => {
  const widened: [Expr, number, number[]][] = [
    [v128.load8x8_s(0, 14), 16, [-2, -1, 0, 1, 2, 3, 4, 5]],
    [v128.load8x8_u(0, 14), 16, [254, 255, 0, 1, 2, 3, 4, 5]],
    [v128.load16x4_s(14), 32, [-2, 256, 770, 1284]],
    [v128.load16x4_u(14), 32, [0xfffe, 256, 770, 1284]],
    [v128.load32x2_s(12), 64, [-66052, 0x03020100]],
    [v128.load32x2_u(12), 64, [0xfffefdfc, 0x03020100]],
    [v128.load8_splat(17), 8, Array(16).fill(1)],
    [v128.load16_splat(17), 16, Array(8).fill(0x0201)],
    [v128.load32_splat(17), 32, Array(4).fill(0x04030201)],
    [v128.load64_splat(16), 64, Array(2).fill(0x0706050403020100)],
    [v128.load32_zero(17), 32, [0x04030201, 0, 0, 0]],
    [v128.load64_zero(16), 64, [0x0706050403020100, 0]],
  ];
  for (const [expr, bits, expected] of widened) {
    const lanes = lanesOf(
      evaluate(() => expr, COUNTING),
      bits,
    ).map(Number);
    assert.deepEqual(lanes, expected);
  }
});

test('lanes are loaded and stored one at a time', () => {
  const one = (x: Expr<'v128'>) => v128.load8_lane(17, v128.load16_lane(17, x, 1), 0);
  const loaded = evaluate(() => one(v128.load32_lane(17, v128.load64_lane(17, v128.zero(), 1), 1)), COUNTING);
  assert.deepEqual(loaded, bytesOf(1, 0, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8));
  const stored = runOn(COUNTING, () => {
    const x = v128.load(16);
    v128.store8_lane(OUT, x, 15);
    v128.store16_lane(OUT, x, 7, 1);
    v128.store32_lane(OUT, x, 3, 3);
    v128.store64_lane(OUT, x, 1, 7);
  });
  assert.deepEqual(stored, bytesOf(15, 14, 15, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
});

test('shuffles, swizzles, bit operations and selects choose the right bits', () => {
  const [a, b] = [() => v128.load(0), () => v128.load(16)];
  const mixed = Uint8Array.from({ length: 48 }, (_, i) => i * 37 + 11);
  const reversed = Array.from({ length: 16 }, (_, i) => 31 - 2 * i);
  const bitwise = (expr: () => Expr) => lanesOf(evaluate(expr, mixed), 64, false);
  const [x, y, z] = [0, 16, 32].map((at) => lanesOf(mixed.subarray(at, at + 16), 64, false));
  const each = (pick: (x: bigint, y: bigint, z: bigint) => bigint) =>
    x!.map((lane, i) => BigInt.asUintN(64, pick(lane, y![i]!, z![i]!)));
  assert.deepEqual(
    evaluate(() => i8x16.shuffle(a(), b(), reversed), COUNTING),
    bytesOf(...reversed.map((i) => COUNTING[i]!)),
  );
  assert.deepEqual(
    evaluate(() => i8x16.swizzle(a(), i8x16.const(3, 16, 255, 0, ...Array<number>(12).fill(15))), COUNTING),
    bytesOf(0xf3, 0, 0, 0xf0, ...Array<number>(12).fill(0xff)),
  );
  assert.deepEqual(
    bitwise(() => v128.not(a())),
    each((p) => ~p),
  );
  assert.deepEqual(
    bitwise(() => v128.and(a(), b())),
    each((p, q) => p & q),
  );
  assert.deepEqual(
    bitwise(() => v128.andnot(a(), b())),
    each((p, q) => p & ~q),
  );
  assert.deepEqual(
    bitwise(() => v128.or(a(), b())),
    each((p, q) => p | q),
  );
  assert.deepEqual(
    bitwise(() => v128.xor(a(), b())),
    each((p, q) => p ^ q),
  );
  assert.deepEqual(
    bitwise(() => v128.bitselect(a(), b(), v128.load(32))),
    each((p, q, m) => (p & m) | (q & ~m)),
  );
  assert.equal(ints(evaluate(() => v128.any_true(v128.zero())))[0], 0);
  assert.equal(ints(evaluate(() => v128.any_true(i32x4.const(0, 0, 4, 0))))[0], 1);
  assert.deepEqual(
    [1, 0].map((c) => ints(evaluate(() => select(i32.const(5), i32.const(6), c)))[0]),
    [5, 6],
  );
});

test('lanes are extracted with the sign that the name says, and replaced where the lane says', () => {
  const x = i8x16.const(-1, -2, -3, -4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, -16);
  const values = [
    i8x16.extract_lane_s(x, 15),
    i8x16.extract_lane_u(x, 15),
    i16x8.extract_lane_s(x, 1),
    i16x8.extract_lane_u(x, 1),
    i32x4.extract_lane(x, 1),
  ].map((expr) => ints(evaluate(() => expr, COUNTING))[0]);
  assert.deepEqual(values, [-16, 240, -0x303, 0xfcfd, 0x08070605]);
  const singles = f32x4.replace_lane(f32x4.const(1, 2, 3, 4), 9, 2);
  assert.deepEqual(floats(evaluate(() => singles)), [1, 2, 9, 4]);
  assert.equal(floats(evaluate(() => f32x4.extract_lane(singles, 2)))[0], 9);
  const pair = f64x2.replace_lane(f64x2.const(1, 2), 9, 1);
  assert.deepEqual(doubles(evaluate(() => pair)), [1, 9]);
  assert.equal(doubles(evaluate(() => f64x2.extract_lane(pair, 1)))[0], 9);
  assert.equal(
    lanesOf(
      evaluate(() => i64x2.extract_lane(i32x4.const(0, 0, 7, 0), 1)),
      64,
    )[0],
    7n,
  );
});

test('scalar conversions saturate, extend, round and reinterpret as their names say', () => {
  const big = 2 ** 40;
  const integers: [Expr, bigint][] = [
    [i32.wrap_i64(2n ** 32n + 5n), 5n],
    [i32.trunc_f32_s(-1.9), -1n],
    [i32.trunc_f32_u(3e9), BigInt.asIntN(32, 3000000000n)],
    [i32.trunc_f64_s(-1.9), -1n],
    [i32.trunc_f64_u(3e9), BigInt.asIntN(32, 3000000000n)],
    [i32.trunc_sat_f32_s(-big), -(2n ** 31n)],
    [i32.trunc_sat_f32_u(-big), 0n],
    [i32.trunc_sat_f64_s(big), 2n ** 31n - 1n],
    [i32.trunc_sat_f64_u(big), -1n],
    [i32.reinterpret_f32(1), 0x3f800000n],
    [i32.extend8_s(0x1ff), -1n],
    [i32.extend16_s(0x1fffe), -2n],
    [i64.extend_i32_s(-1), -1n],
    [i64.extend_i32_u(-1), 2n ** 32n - 1n],
    [i64.trunc_f32_s(-big), BigInt(-big)],
    [i64.trunc_f32_u(2 ** 63), -(2n ** 63n)],
    [i64.trunc_f64_s(-big), BigInt(-big)],
    [i64.trunc_f64_u(2 ** 63), -(2n ** 63n)],
    [i64.trunc_sat_f32_s(1e30), 2n ** 63n - 1n],
    [i64.trunc_sat_f32_u(-1), 0n],
    [i64.trunc_sat_f64_s(NaN), 0n],
    [i64.trunc_sat_f64_u(1e30), -1n],
    [i64.reinterpret_f64(1), 0x3ff0000000000000n],
    [i64.extend8_s(0x1ff), -1n],
    [i64.extend16_s(0x1fffe), -2n],
    [i64.extend32_s(0x1fffffffdn), -3n],
  ];
  for (const [i, [expr, expected]] of integers.entries()) {
    const bits = expr.type === 'i32' ? 32 : 64;
    assert.equal(
      lanesOf(
        evaluate(() => expr, COUNTING),
        bits,
      )[0],
      expected,
      `conversion ${i}`,
    );
  }
  const reals: [Expr, number][] = [
    [f32.convert_i32_s(-1), -1],
    [f32.convert_i32_u(-1), 2 ** 32],
    [f32.convert_i64_s(-1), -1],
    [f32.convert_i64_u(-1), 2 ** 64],
    [f32.demote_f64(0.1), Math.fround(0.1)],
    [f32.reinterpret_i32(0x40000000), 2],
    [f64.convert_i32_s(-1), -1],
    [f64.convert_i32_u(-1), 2 ** 32 - 1],
    [f64.convert_i64_s(-1), -1],
    [f64.convert_i64_u(-1), 2 ** 64],
    [f64.promote_f32(0.1), Math.fround(0.1)],
    [f64.reinterpret_i64(0x4000000000000000n), 2],
  ];
  for (const [i, [expr, expected]] of reals.entries()) {
    const bytes = evaluate(() => expr, COUNTING);
    assert.equal((expr.type === 'f32' ? floats(bytes) : doubles(bytes))[0], expected, `real conversion ${i}`);
  }
});

test('vector conversions saturate and widen as their names say', () => {
  const x = f32x4.const(-1.5, 2.5, 3e9, 1e10);
  const pair = f64x2.const(-1.5, 3e9);
  const max = 2 ** 31 - 1;
  assert.deepEqual(ints(evaluate(() => i32x4.trunc_sat_f32x4_s(x))), [-1, 2, max, max]);
  assert.deepEqual(ints(evaluate(() => i32x4.trunc_sat_f32x4_u(x))), [0, 2, 3e9 | 0, -1]);
  assert.deepEqual(ints(evaluate(() => i32x4.trunc_sat_f64x2_s_zero(pair))), [-1, max, 0, 0]);
  assert.deepEqual(ints(evaluate(() => i32x4.trunc_sat_f64x2_u_zero(pair))), [0, 3e9 | 0, 0, 0]);
  const n = i32x4.const(-1, 5, 6, 7);
  assert.deepEqual(floats(evaluate(() => f32x4.convert_i32x4_s(n))), [-1, 5, 6, 7]);
  assert.deepEqual(floats(evaluate(() => f32x4.convert_i32x4_u(n))), [2 ** 32, 5, 6, 7]);
  assert.deepEqual(doubles(evaluate(() => f64x2.convert_low_i32x4_s(n))), [-1, 5]);
  assert.deepEqual(doubles(evaluate(() => f64x2.convert_low_i32x4_u(n))), [2 ** 32 - 1, 5]);
  assert.deepEqual(doubles(evaluate(() => f64x2.promote_low_f32x4(x))), [-1.5, 2.5]);
  assert.deepEqual(floats(evaluate(() => f32x4.demote_f64x2_zero(pair))), [-1.5, 3e9, 0, 0]);
});

test('relaxed instructions agree with the exact ones where the standard leaves no choice', () => {
  const [one, two, three] = [1, 2, 3].map((k) => f32x4.const(k, k + 1, k + 2, k + 3));
  assert.deepEqual(floats(evaluate(() => f32x4.relaxed_madd(one!, two!, three!))), [5, 10, 17, 26]);
  assert.deepEqual(floats(evaluate(() => f32x4.relaxed_nmadd(one!, two!, three!))), [1, -2, -7, -14]);
  const [p, q, r] = [1, 2, 3].map((k) => f64x2.const(k, k + 1));
  assert.deepEqual(doubles(evaluate(() => f64x2.relaxed_madd(p!, q!, r!))), [5, 10]);
  assert.deepEqual(doubles(evaluate(() => f64x2.relaxed_nmadd(p!, q!, r!))), [1, -2]);

  const signed = i8x16.const(...Array.from({ length: 16 }, (_, i) => i * 9 - 70));
  const small = i8x16.const(...Array.from({ length: 16 }, (_, i) => 127 - i));
  const product = (i: number) => (i * 9 - 70) * (127 - i);
  const pairs = lanesOf(
    evaluate(() => i16x8.relaxed_dot_i8x16_i7x16_s(signed, small)),
    16,
  ).map(Number);
  assert.deepEqual(
    pairs,
    Array.from({ length: 8 }, (_, i) => product(2 * i) + product(2 * i + 1)),
  );
  const start = i32x4.const(1, 10, 100, 1000);
  const sums = ints(evaluate(() => i32x4.relaxed_dot_i8x16_i7x16_add_s(signed, small, start)));
  assert.deepEqual(
    sums,
    [0, 1, 2, 3].map((i) => 10 ** i + [0, 1, 2, 3].reduce((sum, k) => sum + product(4 * i + k), 0)),
  );

  const chosen = evaluate(() => signed);
  const others = evaluate(() => small);
  for (const [group, widthBytes] of [
    [i8x16, 1],
    [i16x8, 2],
    [i32x4, 4],
    [i64x2, 8],
  ] as const) {
    const takesFirst = (i: number) => Math.floor(i / widthBytes) % 2 === 0;
    const mask = i8x16.const(...Array.from({ length: 16 }, (_, i) => (takesFirst(i) ? -1 : 0)));
    const expected = chosen.map((byte, i) => (takesFirst(i) ? byte : others[i]!));
    assert.deepEqual(
      evaluate(() => group.relaxed_laneselect(signed, small, mask)),
      expected,
    );
  }
  const order = i8x16.const(...Array.from({ length: 16 }, (_, i) => 15 - i));
  assert.deepEqual(
    evaluate(() => i8x16.relaxed_swizzle(signed, order)),
    chosen.toReversed(),
  );
  const below = f32x4.const(1.5, -2.5, -7, 100);
  const above = f32x4.const(1.5, 2.5, 3e9, 100);
  assert.deepEqual(ints(evaluate(() => i32x4.relaxed_trunc_f32x4_s(below))), [1, -2, -7, 100]);
  assert.deepEqual(ints(evaluate(() => i32x4.relaxed_trunc_f32x4_u(above))), [1, 2, 3e9 | 0, 100]);
  assert.deepEqual(ints(evaluate(() => i32x4.relaxed_trunc_f64x2_s_zero(f64x2.const(1.5, -7)))), [1, -7, 0, 0]);
  assert.deepEqual(ints(evaluate(() => i32x4.relaxed_trunc_f64x2_u_zero(f64x2.const(1.5, 3e9)))), [1, 3e9 | 0, 0, 0]);
});

test('atomic updates give the old value and store the new one, at both widths', () => {
  const updates: [name: string, expected: bigint][] = [
    ['add', 0b1100n + 0b1010n],
    ['sub', 0b1100n - 0b1010n],
    ['and', 0b1000n],
    ['or', 0b1110n],
    ['xor', 0b0110n],
    ['xchg', 0b1010n],
  ];
  for (const [name, expected] of updates) {
    const bytes = runOn(bytesOf(0b1100, 0, 0, 0, 0, 0, 0, 0, 0b1100), () => {
      i32.store(OUT, (i32 as Group as Record<string, Operation>)[`atomic_rmw_${name}`]!(0, 0b1010) as Expr<'i32'>);
      i64.store32(OUT + 4, (i64 as Group as Record<string, Operation>)[`atomic_rmw_${name}`]!(8, 10) as Expr<'i64'>);
      i32.store(OUT + 8, i32.atomic_load(0));
      i64.store32(OUT + 12, i64.atomic_load(8));
    });
    assert.deepEqual(lanesOf(bytes, 32), [12n, 12n, expected, expected], name);
  }
  const swapped = runOn(bytesOf(7), () => {
    i32.store(OUT, i32.atomic_rmw_cmpxchg(0, 7, 9));
    i64.store32(OUT + 4, i64.atomic_rmw_cmpxchg(0, 7, 11));
    i32.store(OUT + 8, i32.atomic_load(0));
  });
  assert.deepEqual(ints(swapped), [7, 9, 9, 0]);
});

test('narrow atomic loads extend by zero, narrow atomic stores cut', () => {
  const loads: [Expr, bigint][] = [
    [i32.atomic_load8_u(1), 0xf1n],
    [i32.atomic_load16_u(2), 0xf3f2n],
    [i64.atomic_load8_u(1), 0xf1n],
    [i64.atomic_load16_u(2), 0xf3f2n],
    [i64.atomic_load32_u(4), 0xf7f6f5f4n],
  ];
  for (const [expr, expected] of loads) {
    assert.equal(
      lanesOf(
        evaluate(() => expr, COUNTING),
        expr.type === 'i32' ? 32 : 64,
        false,
      )[0],
      expected,
    );
  }
  const stored = runOn(new Uint8Array(), () => {
    i64.atomic_store(OUT, 0x0807060504030201n);
    i32.atomic_store8(OUT, 0x1ff);
    i32.atomic_store16(OUT, 0x1fffe, 2);
    i64.atomic_store8(OUT, 0x1fd, 4);
    i64.atomic_store16(OUT, 0x1fffc, 6);
    i64.atomic_store32(OUT, -5, 8);
    i32.atomic_store(OUT, -6, 12);
    atomic.fence();
  });
  assert.deepEqual(
    stored,
    bytesOf(0xff, 2, 0xfe, 0xff, 0xfd, 6, 0xfc, 0xff, 0xfb, 0xff, 0xff, 0xff, 0xfa, 0xff, 0xff, 0xff),
  );
});

test('an atomic access traps on an unaligned address, the plain one of the same shape does not', () => {
  const loads = [i32.load, i64.load, i32.load16_u, i64.load16_u, i64.load32_u];
  const atomicLoads = [i32.atomic_load, i64.atomic_load, i32.atomic_load16_u, i64.atomic_load16_u, i64.atomic_load32_u];
  const stores = [i32.store, i64.store, i32.store16, i64.store16, i64.store32];
  const atomicStores = [i32.atomic_store, i64.atomic_store, i32.atomic_store16, i64.atomic_store16, i64.atomic_store32];
  for (const load of loads) assert.doesNotThrow(() => evaluate(() => load(1)));
  for (const load of atomicLoads) assert.throws(() => evaluate(() => load(1)), WebAssembly.RuntimeError);
  for (const store of stores) assert.doesNotThrow(() => runOnce(() => store(1, 0)));
  for (const store of atomicStores) assert.throws(() => runOnce(() => store(1, 0)), WebAssembly.RuntimeError);
});
