// Vector building blocks that several kernels share: multiply-add in the variant's way, conversions of half floats,
// the exponential, and sums over lanes. All emit code into the function at hand.

import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32, f32x4, f64x2, i16x8, i32x4, i8x16, v128 } from '../emit/operations.ts';
import type { KernelVariant } from './kernel.ts';

type Vector = Expr<'v128'>;

/** a · b + c on four lanes. Without `fma` the product is rounded first, the same on every machine. */
export function multiplyAdd(variant: KernelVariant, a: Vector, b: Vector, c: Vector): Vector {
  return variant.fma ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

export const splatF32 = (value: number): Vector => f32x4.const(value, value, value, value);
export const splatI32 = (value: number): Vector => i32x4.const(value, value, value, value);

/**
 * Binary16 → f32 for four lanes. The half is shifted so that its exponent and fraction stand where f32's do, and the
 * difference of the biases is multiplied away, which also normalises subnormals. Infinities and NaN would come out
 * finite: loading refuses weights with them, and the cache never holds any.
 */
export class HalfToFloat {
  readonly #mask: Local<'v128'>;
  readonly #magic: Local<'v128'>;

  /** @param factor  a power of two that results are multiplied by */
  constructor(f: FunctionBuilder, factor = 1) {
    this.#mask = f.let('halfMask', splatI32(0x8fffe000 | 0));
    this.#magic = f.let('halfMagic', splatF32(2 ** 112 * factor));
  }

  /** @param halves sign-extended to i32 lanes, as v128.load16x4_s leaves them */
  convert(halves: Vector): Vector {
    return f32x4.mul(v128.and(i32x4.shl(halves, 13), this.#mask), this.#magic);
  }
}

/**
 * f32 → binary16 for four lanes, ties to even, beyond ±65504 clamped to it; the results are zero-extended i32 lanes.
 */
export class FloatToHalf {
  readonly #bits: Local<'v128'>;
  readonly #sign: Local<'v128'>;

  constructor(f: FunctionBuilder) {
    this.#bits = f.local('v128', 'halfBits');
    this.#sign = f.local('v128', 'halfSign');
  }

  convertInto(target: Local<'v128'>, x: Vector): void {
    const bits = this.#bits;
    bits.set(x);
    this.#sign.set(v128.and(i32x4.shr_u(bits, 16), splatI32(0x8000)));
    bits.set(f32x4.pmin(f32x4.abs(bits), splatF32(65504)));
    // Subnormal halves: adding 0.5 leaves units of 2^-24 in the low bits, rounded by the addition itself.
    const subnormal = i32x4.sub(f32x4.add(bits, splatF32(0.5)), splatI32(0x3f000000));
    const isOdd = v128.and(i32x4.shr_u(bits, 13), splatI32(1));
    const rebiased = i32x4.add(i32x4.add(bits, splatI32(((15 - 127) << 23) + 0xfff)), isOdd);
    const isSubnormal = f32x4.lt(bits, splatF32(2 ** -14));
    target.set(v128.or(v128.bitselect(subnormal, i32x4.shr_u(rebiased, 13), isSubnormal), this.#sign));
  }
}

/** Adding it rounds an f32 below 2^22 to an integer, which then stands in the low bits: 1.5 · 2^23. */
const ROUNDER = 12582912;

/**
 * e^x on four lanes, x ≤ 88, below −87 as at −87: Cody–Waite reduction by ln 2 in two parts, a polynomial of degree 7
 * (Taylor, |r| ≤ ln2/2: truncated at 6e-9), and the power of two added to the exponent. Plain
 * multiplications and additions in every kernel set, so that all sets agree. The polynomial is evaluated in pairs
 * (Estrin), since what limits a loop of exponentials is the chain of one and not their number.
 */
export function expInto(f: FunctionBuilder, target: Local<'v128'>, x: Vector): void {
  const r = f.local('v128', 'expR');
  const square = f.local('v128', 'expSquare');
  const n = f.local('v128', 'expN');
  r.set(f32x4.pmax(x, splatF32(-87)));
  n.set(f32x4.add(f32x4.mul(r, splatF32(Math.LOG2E)), splatF32(ROUNDER)));
  target.set(f32x4.sub(n, splatF32(ROUNDER)));
  r.set(f32x4.sub(r, f32x4.mul(target, splatF32(0.693359375))));
  r.set(f32x4.sub(r, f32x4.mul(target, splatF32(-2.1219444e-4))));
  square.set(f32x4.mul(r, r));
  const pair = (low: number, high: number): Vector => f32x4.add(f32x4.mul(r, splatF32(high)), splatF32(low));
  target.set(f32x4.add(f32x4.mul(square, pair(1 / 720, 1 / 5040)), pair(1 / 24, 1 / 120)));
  target.set(f32x4.add(f32x4.mul(square, target), pair(1 / 2, 1 / 6)));
  target.set(f32x4.add(f32x4.add(r, f32x4.mul(square, target)), splatF32(1)));
  target.set(i32x4.add(target, i32x4.shl(n, 23)));
}

/** σ(x) = 1 / (1 + e^−x) on four lanes. @returns 1 − σ while `target` keeps σ, exact to a few ulp where it is small */
export function sigmoidInto(f: FunctionBuilder, target: Local<'v128'>, x: Vector): Vector {
  expInto(f, target, f32x4.pmin(f32x4.neg(x), splatF32(88)));
  return sigmoidOfExp(f, target);
}

function sigmoidOfExp(f: FunctionBuilder, target: Local<'v128'>): Vector {
  const exp = f.let('sigmoidExp', target);
  target.set(f32x4.div(splatF32(1), f32x4.add(exp, splatF32(1))));
  return f32x4.mul(exp, target);
}

/**
 * σ(2u), 2u = √(8/π) · (x + 0.044715 x³), on four lanes: GELU in GPT-2's form is x times this. The argument is computed
 * in f64 and its rounding to f32 made good afterwards: e^ would magnify it. Returns 1 − σ as `sigmoidInto` does.
 */
export function geluSigmoidInto(f: FunctionBuilder, target: Local<'v128'>, x: Local<'v128'>): Vector {
  const [argument, error] = geluArgument(f, x);
  expInto(f, target, f32x4.pmin(argument, splatF32(88)));
  target.set(f32x4.add(target, f32x4.mul(target, error)));
  return sigmoidOfExp(f, target);
}

/** −2u as f32, and what f32 lost of it. Beyond ±20 nothing changes any more, so x is clamped there. */
function geluArgument(f: FunctionBuilder, x: Local<'v128'>): readonly [Local<'v128'>, Local<'v128'>] {
  const clamped = f.let('clamped', f32x4.pmax(f32x4.pmin(x, splatF32(20)), splatF32(-20)));
  const rounded = f.local('v128', 'rounded');
  const lost = f.local('v128', 'lost');
  const half = (wide: Vector): readonly [Vector, Vector] => {
    const a = f.let('a', wide);
    const cubic = f64x2.add(f64x2.const(1, 1), f64x2.mul(f64x2.const(0.044715, 0.044715), f64x2.mul(a, a)));
    const scale = -Math.sqrt(8 / Math.PI);
    const exact = f.let('exact', f64x2.mul(f64x2.mul(f64x2.const(scale, scale), a), cubic));
    const near = f.let('near', f32x4.demote_f64x2_zero(exact));
    return [near, f32x4.demote_f64x2_zero(f64x2.sub(exact, f64x2.promote_low_f32x4(near)))];
  };
  const low = half(f64x2.promote_low_f32x4(clamped));
  rounded.set(low[0]);
  lost.set(low[1]);
  const upper = i8x16.shuffle(clamped, clamped, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]);
  const high = half(f64x2.promote_low_f32x4(upper));
  const join = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
  rounded.set(i8x16.shuffle(rounded, high[0], join));
  lost.set(i8x16.shuffle(lost, high[1], join));
  return [rounded, lost];
}

/** GELU in GPT-2's tanh form on four lanes. */
export function geluInto(f: FunctionBuilder, target: Local<'v128'>, x: Local<'v128'>): void {
  geluSigmoidInto(f, target, x);
  // Below −20 as at −20, where the result is next to nothing.
  target.set(f32x4.mul(f32x4.pmax(x, splatF32(-20)), target));
}

/** x · sigmoid(x) on four lanes. */
export function siluInto(f: FunctionBuilder, target: Local<'v128'>, x: Local<'v128'>): void {
  // Below −88 as at −88, where the result is next to nothing: e^−x would overflow.
  const bounded = f.let('siluX', f32x4.pmax(x, splatF32(-88)));
  expInto(f, target, f32x4.neg(bounded));
  target.set(f32x4.div(bounded, f32x4.add(target, splatF32(1))));
}

/** (tanh(y)/y − 1) / y² by powers of y², below TANH_SPLIT: interpolated at Chebyshev's points, good for 2e-8. */
const TANH_SPLIT = 0.625;
const TANH_SERIES = [-0.3333332894, 0.1333276974, -0.0538509096, 0.020997179, -0.0060967142] as const;

/** cap · tanh(x / cap) on four lanes, with the relative precision of floats where x is small. */
export function softcapInto(f: FunctionBuilder, target: Local<'v128'>, x: Vector, cap: Vector): void {
  const y = f.let('capped', f32x4.div(x, cap));
  const e = f.local('v128', 'capExp');
  expInto(f, e, f32x4.mul(f32x4.abs(y), splatF32(-2)));
  const sign = v128.and(y, splatI32(0x80000000 | 0));
  const large = v128.or(f32x4.div(f32x4.sub(splatF32(1), e), f32x4.add(e, splatF32(1))), sign);
  target.set(large);
  const z = f.let('capSquare', f32x4.mul(y, y));
  const series = f.let('capSeries', splatF32(TANH_SERIES.at(-1)!));
  for (const c of TANH_SERIES.slice(0, -1).reverse()) series.set(f32x4.add(f32x4.mul(series, z), splatF32(c)));
  const small = f32x4.add(y, f32x4.mul(f32x4.mul(y, z), series));
  const isSmall = f32x4.lt(f32x4.abs(y), splatF32(TANH_SPLIT));
  target.set(f32x4.mul(v128.bitselect(small, target, isSmall), cap));
}

/** Turns a matrix of n × n lanes, a row a vector of n = 4 or 8: rows become columns. */
export function transpose(f: FunctionBuilder, rows: readonly Local<'v128'>[]): void {
  const n = rows.length;
  const laneBytes = Array.from({ length: 16 / n }, (_, byte) => byte);
  const interleaved = (a: Vector, b: Vector, first: number): Vector => {
    const lanes = Array.from({ length: n / 2 }, (_, i) => (16 / n) * (first + i));
    const bytes = lanes.flatMap((lane) => [0, 16].flatMap((side) => laneBytes.map((byte) => side + lane + byte)));
    return i8x16.shuffle(a, b, bytes);
  };
  let from = rows;
  const others = f.localArray('v128', 'transposed', n);
  // Each pass moves one bit of a lane's index to the index of its row, and one the other way.
  for (let pass = 1; pass < n; pass *= 2) {
    const to = from === rows ? others : rows;
    for (let i = 0; i < n / 2; i++) {
      to[2 * i]!.set(interleaved(from[i]!, from[i + n / 2]!, 0));
      to[2 * i + 1]!.set(interleaved(from[i]!, from[i + n / 2]!, n / 2));
    }
    from = to;
  }
  if (from !== rows) rows.forEach((row, i) => row.set(from[i]!));
}

/** Sum of the four lanes: (0 + 2) + (1 + 3), always in this order. */
export function sumLanes(f: FunctionBuilder, x: Vector): Expr<'f32'> {
  const t = f.let('lanes', x);
  const folded = f.let(
    'folded',
    f32x4.add(t, i8x16.shuffle(t, t, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])),
  );
  return f32.add(f32x4.extract_lane(folded, 0), f32x4.extract_lane(folded, 1));
}

/** Largest of the four lanes. */
export function maxLanes(f: FunctionBuilder, x: Vector): Expr<'f32'> {
  const t = f.let('lanes', x);
  const folded = f.let(
    'folded',
    f32x4.pmax(t, i8x16.shuffle(t, t, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])),
  );
  return f32.max(f32x4.extract_lane(folded, 0), f32x4.extract_lane(folded, 1));
}

/** Largest of the four lanes, none of them negative; NaN if one is. */
function maxMagnitude(f: FunctionBuilder, x: Vector): Expr<'f32'> {
  const t = f.let('lanes', x);
  const folded = f.let(
    'folded',
    i32x4.max_s(t, i8x16.shuffle(t, t, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])),
  );
  return f32.max(f32x4.extract_lane(folded, 0), f32x4.extract_lane(folded, 1));
}

/** Sum of four i32 lanes. */
export function sumLanesI32(f: FunctionBuilder, x: Vector): Vector {
  const t = f.let('lanes', x);
  const folded = f.let(
    'folded',
    i32x4.add(t, i8x16.shuffle(t, t, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])),
  );
  return i32x4.add(folded, i8x16.shuffle(folded, folded, [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]));
}

/** max|x| / 127 of a block: 32 values, in eight vectors. NaN if one of them is. */
export function blockScale(f: FunctionBuilder, values: readonly Local<'v128'>[]): Local<'f32'> {
  // Magnitudes are compared as integers: the order is the same, and a NaN is the largest and not lost.
  const max = f.let('max', f32x4.abs(values[0]!));
  for (const x of values.slice(1)) max.set(i32x4.max_s(max, f32x4.abs(x)));
  return f.let('scale', f32.div(maxMagnitude(f, max), f32.const(127)));
}

/** Turns the values of a block into i32 quants: x / scale, to nearest, ties to even. */
export function quantizeBlock(f: FunctionBuilder, values: readonly Local<'v128'>[], scale: Local<'f32'>): void {
  // Where 1 / scale may be infinite (zeros, and next to nothing), it is masked away and the quants are 0.
  const isNormal = f32x4.ge(f32x4.splat(scale), splatF32(2 ** -126));
  const inverse = f.let('inverse', v128.and(f32x4.div(splatF32(1), f32x4.splat(scale)), isNormal));
  for (const x of values) x.set(i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(x, inverse))));
}

/** The quants of a block as signed bytes, in two vectors; beyond 8 bits they saturate. */
export function quantBytes(quants: readonly Local<'v128'>[]): readonly [Vector, Vector] {
  const eight = (i: number): Vector => i16x8.narrow_i32x4_s(quants[i]!, quants[i + 1]!);
  return [i8x16.narrow_i16x8_s(eight(0), eight(2)), i8x16.narrow_i16x8_s(eight(4), eight(6))];
}

/** Eight halves from two vectors of zero-extended i32 lanes. */
export const packHalves = (low: Vector, high: Vector): Vector => i16x8.narrow_i32x4_u(low, high);
