// What the arithmetic instructions compute, lane by lane, against oracles in plain JavaScript: a code that validates
// but belongs to another instruction (min_s for min_u) is found here. Each group's methods must all have an oracle.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runOnce } from './evaluate.ts';
import type { Expr } from './expression.ts';
import { f32, f32x4, f64, f64x2, i16x8, i32, i32x4, i64, i64x2, i8x16, v128 } from './operations.ts';

type Operation = (...args: unknown[]) => Expr;
type Group = Readonly<Record<string, unknown>>;

const OUT = 64;

/** Runs `body`, which stores at OUT, on a memory that starts with `input`. @returns the 16 bytes at OUT */
function runOn(input: Uint8Array, body: () => void): Uint8Array<ArrayBuffer> {
  return runOnce(body, input).slice(OUT, OUT + 16);
}

/** 48 bytes: three vectors of a fixed sequence, with the extremes of a byte among them. */
function makeInput(seed: number): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({ length: 48 }, (_, i) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return i % 7 === seed % 7 ? [0, 127, 128, 255][state >>> 30]! : state >>> 24;
  });
}

const INPUTS = [1, 2, 3, 4].map(makeInput);

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

const wrap = (lanes: readonly bigint[], bits: number) => lanes.map((lane) => BigInt.asIntN(bits, lane));

function clamp(value: bigint, bits: number, isSigned: boolean): bigint {
  const min = isSigned ? -(1n << BigInt(bits - 1)) : 0n;
  const max = isSigned ? -min - 1n : (1n << BigInt(bits)) - 1n;
  return value < min ? min : value > max ? max : value;
}

const INTEGER_PAIRS: Record<string, (a: bigint, b: bigint, bits: number, isSigned: boolean) => bigint> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  add_sat: (a, b, bits, isSigned) => clamp(a + b, bits, isSigned),
  sub_sat: (a, b, bits, isSigned) => clamp(a - b, bits, isSigned),
  q15mulr_sat: (a, b, bits) => clamp((a * b + 0x4000n) >> 15n, bits, true),
  relaxed_q15mulr: (a, b) => (a * b + 0x4000n) >> 15n,
  min: (a, b) => (a < b ? a : b),
  max: (a, b) => (a > b ? a : b),
  avgr: (a, b) => (a + b + 1n) >> 1n,
  eq: (a, b) => (a === b ? -1n : 0n),
  ne: (a, b) => (a !== b ? -1n : 0n),
  lt: (a, b) => (a < b ? -1n : 0n),
  gt: (a, b) => (a > b ? -1n : 0n),
  le: (a, b) => (a <= b ? -1n : 0n),
  ge: (a, b) => (a >= b ? -1n : 0n),
};

const countOnes = (value: bigint) => BigInt(value.toString(2).replaceAll('0', '').length);

/** The expected lanes of `method` of an integer shape, or undefined if it is none of the regular ones. */
function integerOracle(method: string, bits: number, a: Uint8Array, b: Uint8Array): bigint[] | undefined {
  const [, stem = method, sign] = /^(.*?)(?:_([su]))?$/.exec(method)!;
  const isSigned = sign !== 'u';
  const pair = INTEGER_PAIRS[stem];
  const x = lanesOf(a, bits, isSigned);
  const y = lanesOf(b, bits, isSigned);
  if (pair) return x.map((lane, i) => pair(lane, y[i]!, bits, isSigned));
  if (stem === 'abs') return x.map((lane) => (lane < 0 ? -lane : lane));
  if (stem === 'neg') return x.map((lane) => -lane);
  if (stem === 'popcnt') return lanesOf(a, bits, false).map(countOnes);
  if (stem.startsWith('narrow_')) {
    const wide = [...lanesOf(a, bits * 2), ...lanesOf(b, bits * 2)];
    return wide.map((lane) => clamp(lane, bits, isSigned));
  }
  const [p, q] = [lanesOf(a, bits / 2, isSigned), lanesOf(b, bits / 2, isSigned)];
  const start = stem.includes('_high_') ? x.length : 0;
  if (stem.startsWith('extend_')) return x.map((_, i) => p[start + i]!);
  if (stem.startsWith('extmul_')) return x.map((_, i) => p[start + i]! * q[start + i]!);
  if (stem.startsWith('extadd_pairwise_')) return x.map((_, i) => p[2 * i]! + p[2 * i + 1]!);
  if (stem === 'dot_i16x8') return x.map((_, i) => p[2 * i]! * q[2 * i]! + p[2 * i + 1]! * q[2 * i + 1]!);
  return undefined;
}

/** Methods of the integer shapes that have a test of their own below, or are no arithmetic. */
const IRREGULAR =
  /^(const|shuffle|swizzle|splat|extract|replace|all_true|bitmask|sh[lr]|trunc_sat|relaxed_(swiz|trunc|lane|dot))/;

const SHAPES: [name: string, group: Group, bits: number][] = [
  ['i8x16', i8x16, 8],
  ['i16x8', i16x8, 16],
  ['i32x4', i32x4, 32],
  ['i64x2', i64x2, 64],
];

for (const [shape, group, bits] of SHAPES) {
  test(`${shape}: every regular operation agrees with integer arithmetic`, () => {
    for (const [method, operation] of Object.entries(group)) {
      if (IRREGULAR.test(method)) continue;
      for (const input of INPUTS) {
        const [a, b] = [input.slice(0, 16), input.slice(16, 32)];
        // Half of the lanes equal, so that comparisons see that case too.
        b.set(a.subarray(0, 8));
        const expected = integerOracle(method, bits, a, b);
        assert.ok(expected, `no oracle for ${shape}.${method}`);
        const nOperands = /^(abs|neg|popcnt|extend_|extadd_)/.test(method) ? 1 : 2;
        const operands = [v128.load(0), v128.load(16)].slice(0, nOperands);
        const bytes = runOn(Uint8Array.of(...a, ...b), () => {
          v128.store(OUT, (operation as Operation)(...operands) as Expr<'v128'>);
        });
        assert.deepEqual(lanesOf(bytes, bits), wrap(expected, bits), `${shape}.${method}`);
      }
    }
  });

  test(`${shape}: shifts take the count modulo the width; all_true, bitmask, splat and lanes agree`, () => {
    const { shl, shr_s, shr_u, all_true, bitmask, splat, replace_lane } = group as Record<string, Operation>;
    const [x] = INPUTS;
    const count = bits + 3;
    const results = [shl, shr_s, shr_u].map((operation) =>
      lanesOf(
        runOn(x!, () => v128.store(OUT, operation!(v128.load(0), count) as Expr<'v128'>)),
        bits,
      ),
    );
    const signed = lanesOf(x!, bits);
    const shifted = [
      signed.map((v) => v << 3n),
      signed.map((v) => v >> 3n),
      lanesOf(x!, bits, false).map((v) => v >> 3n),
    ];
    assert.deepEqual(
      results,
      shifted.map((lanes) => wrap(lanes, bits)),
    );

    const truth = lanesOf(
      runOn(x!, () => {
        i32.store(OUT, bitmask!(v128.load(0)) as Expr<'i32'>);
        i32.store(OUT + 4, all_true!(v128.load(0)) as Expr<'i32'>);
        i32.store(OUT + 8, all_true!(replace_lane!(v128.load(0), 0, 1)) as Expr<'i32'>);
      }),
      32,
    );
    const mask = signed.reduce((bitsSoFar, lane, i) => bitsSoFar | (lane < 0n ? 1n << BigInt(i) : 0n), 0n);
    assert.deepEqual(truth.slice(0, 3), [mask, signed.every((lane) => lane !== 0n) ? 1n : 0n, 0n]);

    const spread = runOn(x!, () => v128.store(OUT, replace_lane!(splat!(-7), 5, 1) as Expr<'v128'>));
    assert.deepEqual(
      lanesOf(spread, bits),
      signed.map((_, i) => (i === 1 ? 5n : -7n)),
    );
  });
}

const FLOAT_PAIRS: Record<string, (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  min: Math.min,
  max: Math.max,
  pmin: (a, b) => (b < a ? b : a),
  pmax: (a, b) => (a < b ? b : a),
  relaxed_min: Math.min,
  relaxed_max: Math.max,
  copysign: (a, b) => (b < 0 || Object.is(b, -0) ? -Math.abs(a) : Math.abs(a)),
};
const FLOAT_COMPARISONS: Record<string, (a: number, b: number) => boolean> = {
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
  lt: (a, b) => a < b,
  gt: (a, b) => a > b,
  le: (a, b) => a <= b,
  ge: (a, b) => a >= b,
};
const FLOAT_SINGLES: Record<string, (a: number) => number> = {
  abs: Math.abs,
  neg: (a) => -a,
  sqrt: Math.sqrt,
  ceil: Math.ceil,
  floor: Math.floor,
  trunc: Math.trunc,
  nearest: (a) => {
    const rounded = Math.round(a);
    return Math.abs(a % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  },
};
const FLOAT_IRREGULAR = /^(const|splat|extract|replace|load|store|convert|demote|promote|reinterpret|relaxed_n?madd)/;
const A = [1.5, -2.5, 0.1, -7, 3.5, 2];
const B = [2.25, -2.5, -3, 100, -0.3, 2];

for (const [name, group, isVector] of [
  ['f32x4', f32x4, true],
  ['f64x2', f64x2, true],
  ['f32', f32, false],
  ['f64', f64, false],
] as [name: string, group: Group, isVector: boolean][]) {
  test(`${name}: every regular operation agrees with JavaScript's arithmetic`, () => {
    const isSingle = name.startsWith('f32');
    const round = isSingle ? Math.fround : (x: number) => x;
    const scalar = isSingle ? f32 : f64;
    const literal = (x: number) => (isVector ? (group['splat'] as Operation)(x) : scalar.const(x));
    for (const [method, operation] of Object.entries(group)) {
      if (FLOAT_IRREGULAR.test(method)) continue;
      A.forEach((a, i) => {
        const [x, y] = [round(a), round(B[i]!)];
        const compare = FLOAT_COMPARISONS[method];
        const single = FLOAT_SINGLES[method];
        const expected = compare ? (compare(x, y) ? 1 : 0) : round(single ? single(x) : FLOAT_PAIRS[method]!(x, y));
        const result = (operation as Operation)(...(single ? [literal(a)] : [literal(a), literal(B[i]!)]));
        const bytes = runOn(new Uint8Array(), () => {
          if (isVector) v128.store(OUT, result as Expr<'v128'>);
          else if (compare) i32.store(OUT, result as Expr<'i32'>);
          else if (isSingle) f32.store(OUT, result as Expr<'f32'>);
          else f64.store(OUT, result as Expr<'f64'>);
        });
        const lanes = [...(isSingle ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer))];
        const last = isVector ? lanes.at(-1)! : lanes[0]!;
        const actual = compare ? Math.abs(new Int32Array(bytes.buffer)[0]!) : last;
        assert.equal(actual, expected, `${name}.${method}(${a}, ${B[i]})`);
      });
    }
  });
}

const SCALAR_PAIRS: Record<string, (a: bigint, b: bigint, bits: bigint) => bigint> = {
  ...INTEGER_PAIRS,
  div: (a, b) => a / b,
  rem: (a, b) => a % b,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b, bits) => a << (b & (bits - 1n)),
  shr: (a, b, bits) => a >> (b & (bits - 1n)),
};
const rotate = (a: bigint, by: bigint, bits: bigint) => {
  const value = BigInt.asUintN(Number(bits), a);
  return (value << (by & (bits - 1n))) | (value >> ((bits - by) & (bits - 1n)));
};

for (const [name, group, bits] of [
  ['i32', i32, 32],
  ['i64', i64, 64],
] as [name: 'i32' | 'i64', group: Group, bits: number][]) {
  test(`${name}: every regular operation agrees with integer arithmetic`, () => {
    const irregular = /^(const|load|store|atomic|wrap|trunc|reinterpret|extend)/;
    const values = [3n, -3n, 17n, -1n << BigInt(bits - 1), 0x1234567n, 40n];
    for (const [method, operation] of Object.entries(group)) {
      if (irregular.test(method)) continue;
      const [, stem = method, sign] = /^(.*?)(?:_([su]))?$/.exec(method)!;
      const digits = (value: bigint) => BigInt.asUintN(bits, value).toString(2).padStart(bits, '0');
      const singles: Record<string, (a: bigint) => bigint> = {
        eqz: (a) => (a === 0n ? 1n : 0n),
        clz: (a) => BigInt((digits(a) + '1').indexOf('1')),
        ctz: (a) => BigInt(bits - 1 - digits(a).lastIndexOf('1')),
        popcnt: (a) => countOnes(BigInt.asUintN(bits, a)),
      };
      const read = (value: bigint) => (sign === 'u' ? BigInt.asUintN(bits, value) : value);
      const wide = BigInt(bits);
      for (const [i, a] of values.entries()) {
        const b = values[(i + 1 + method.length) % values.length]!;
        const isComparison = /^(eq|eqz|ne|[lg][te])$/.test(stem);
        const pairs: typeof SCALAR_PAIRS = {
          ...SCALAR_PAIRS,
          rotl: rotate,
          rotr: (x: bigint, by: bigint) => rotate(x, wide - by, wide),
        };
        const single = singles[stem];
        const raw = single ? single(a) : pairs[stem]!(read(a), read(b), wide);
        const expected = isComparison ? (raw === 0n ? 0n : 1n) : BigInt.asIntN(bits, raw);
        const literal = (x: bigint) => (bits === 32 ? i32.const(Number(x)) : i64.const(x));
        const result = (operation as Operation)(...(single ? [literal(a)] : [literal(a), literal(b)]));
        const bytes = runOn(new Uint8Array(), () => {
          if (result.type === 'i32') i32.store(OUT, result as Expr<'i32'>);
          else i64.store(OUT, result as Expr<'i64'>);
        });
        assert.equal(lanesOf(bytes, isComparison ? 32 : bits)[0], expected, `${name}.${method}(${a}, ${b})`);
      }
    }
  });
}
