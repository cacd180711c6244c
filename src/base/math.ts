// Elementary functions in float64 whose every bit is the same on every machine. JavaScript leaves Math.exp, log, sin,
// cos, pow and tanh to the engine, so the path from weights to token uses these: only + - * /, floor and bit moves,
// which IEEE 754 fixes. Method: Cody & Waite, "Software Manual for the Elementary Functions" (1980), as fdlibm does:
// reduce the argument with constants in exact parts, then a Taylor series, long enough to vanish below half an ulp.
// pow carries its logarithm in two doubles (Dekker, 1971). No call allocates, once the engine has inlined it.

import { SmallMindError } from './errors.ts';

// The bits of a double; the high word is the second, as on every machine that runs WebAssembly (little-endian).
const real = new Float64Array(1);
const words = new Uint32Array(real.buffer);

const LOG2_E = Math.LOG2E;
// ln 2 in two parts; the first has 42 bits, so its product with an exponent is exact.
const LN2_HI = 0.6931471805598903;
const LN2_LO = 5.497923018708371e-14;
// 2^-1022 and 2^-28 as literals: the operator ** is the engine's pow.
const MIN_NORMAL = 2.2250738585072014e-308;
const TWO_POW_MINUS_28 = 3.725290298461914e-9;
// What 1/3 loses as a double.
const THIRD_LO = 1.850371707708594e-17;

const EXP_MAX = 709.782712893384;
const EXP_MIN = -745.1332191019411;

/** e^x within 1 ulp; gradual underflow, +Infinity above 709.78. */
export function exp(x: number): number {
  return expSum(x, 0);
}

/** e^(hi + lo), where |lo| is at most an ulp of hi: pow needs the extra digits. */
function expSum(hi: number, lo: number): number {
  if (!(hi <= EXP_MAX)) return hi > EXP_MAX ? Infinity : NaN;
  if (hi < EXP_MIN) return 0;
  const k = Math.floor(hi * LOG2_E + 0.5);
  const y = 1 + expm1Reduced(hi - k * LN2_HI - (k * LN2_LO - lo));
  if (k > 1023) return y * 2 * pow2(k - 1);
  return k < -1074 ? y * 0.5 * pow2(k + 1) : y * pow2(k);
}

/**
 * Replaces the first `n` values by exp of them, bit for bit. One loop without a call: wherever the engine declines to
 * inline `exp`, every returned double is boxed, which costs a sampler over a vocabulary 16 bytes a token of it.
 */
export function expInPlace(values: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const x = values[i]!;
    if (!(x <= EXP_MAX && x >= EXP_MIN)) {
      values[i] = x > EXP_MAX ? Infinity : x < EXP_MIN ? 0 : NaN;
      continue;
    }
    const k = Math.floor(x * LOG2_E + 0.5);
    const r = x - k * LN2_HI - k * LN2_LO;
    const far = 1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800)));
    const tail = 1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r * far));
    const y = 1 + (r + r * r * (0.5 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * tail))))));
    // Two factors, both in the table, where 2^k alone is not a double.
    const near = k > 1023 ? 2 : k < -1074 ? 0.5 : 1;
    values[i] = y * near * POWERS_OF_2[k + 1074 + (k > 1023 ? -1 : k < -1074 ? 1 : 0)]!;
  }
}

/** e^r - 1 for |r| <= ln(2)/2: the Taylor series up to r^13/13!, truncation below 2^-57. */
function expm1Reduced(r: number): number {
  const far = 1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800)));
  const tail = 1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r * far));
  return r + r * r * (0.5 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * tail)))));
}

/** 2^k for -1074 <= k <= 1023. From a table, because writing 32 bits and reading 64 back stalls the processor. */
function pow2(k: number): number {
  return POWERS_OF_2[k + 1074]!;
}
const POWERS_OF_2 = new Float64Array(2098);
for (let i = 0, power = Number.MIN_VALUE; i < POWERS_OF_2.length; i++, power *= 2) POWERS_OF_2[i] = power;

/** The exponent k of a positive finite normal x = 2^k · m, where m lies from about sqrt(1/2) to about sqrt(2). */
function exponentOf(x: number): number {
  real[0] = x;
  const high = words[1]!;
  // Adding what is missing from the fraction of sqrt(2) (0x6a09e) to 2 carries into the exponent.
  return ((high + (0x100000 - 0x6a09e)) >> 20) - 1023;
}

/** Natural logarithm within 1 ulp; log(0) is -Infinity, of a negative number NaN. */
export function log(x: number): number {
  if (!(x > 0)) return x === 0 ? -Infinity : NaN;
  if (x === Infinity) return x;
  const lift = x < MIN_NORMAL ? 54 : 0;
  const normal = x * pow2(lift);
  const shift = exponentOf(normal);
  const k = shift - lift;
  // log(1 + f) = 2 atanh(s), s = f/(2 + f); written with f, which is exact, as the leading term:
  // 2s = f - f²/2 + s·f²/2.
  const f = normal * pow2(-shift) - 1;
  const s = f / (2 + f);
  const z = s * s;
  const rest = 2 * z * (1 / 3 + z * atanhTail(z));
  const half = 0.5 * f * f;
  return k * LN2_HI - (half - (s * (half + rest) + k * LN2_LO) - f);
}

/** 1/5 + z/7 + z²/9 + …: atanh(s) = s·(1 + z/3 + z²·tail) with z = s² <= 0.0295; truncation below 2^-57. */
function atanhTail(z: number): number {
  const tail = 1 / 13 + z * (1 / 15 + z * (1 / 17 + z * (1 / 19 + z * (1 / 21 + z * (1 / 23)))));
  return 1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * tail)));
}

/** The rounding error of the sum s = a + b, exactly (Knuth's two-sum). */
function sumError(a: number, b: number, s: number): number {
  const bPart = s - a;
  return a - (s - bPart) + (b - bPart);
}

/** The rounding error of the product p = a·b, exactly, for magnitudes below 2^996 (Dekker's product). */
function productError(a: number, b: number, p: number): number {
  const aSplit = a * 134217729;
  const bSplit = b * 134217729;
  const aHi = aSplit - (aSplit - a);
  const bHi = bSplit - (bSplit - b);
  const aLo = a - aHi;
  const bLo = b - bHi;
  return aLo * bLo - (p - aHi * bHi - aLo * bHi - aHi * bLo);
}

/**
 * x^y for x >= 0 within 1 ulp; a negative x gives NaN. Special cases otherwise as Math.pow: pow(x, 0) is 1 for every
 * x, NaN too, and pow(1, ±Infinity) is NaN.
 */
export function pow(x: number, y: number): number {
  if (y === 0) return 1;
  if (!(x >= 0) || y !== y) return NaN;
  if (x === 1) return y - y === 0 ? 1 : NaN;
  const grows = x > 1 ? y > 0 : y < 0;
  if (x === 0 || x === Infinity || y - y !== 0) return grows ? Infinity : 0;

  // y·log(x) reaches 745, so its absolute error must be far below an ulp of log(x): every value v is vHi + vLo.
  const lift = x < MIN_NORMAL ? 54 : 0;
  const normal = x * pow2(lift);
  const shift = exponentOf(normal);
  const k = shift - lift;
  const m = normal * pow2(-shift);
  const f = m - 1;
  // s = f / (m + 1)
  const dHi = m + 1;
  const dLo = sumError(m, 1, dHi);
  const sHi = f / dHi;
  const back = sHi * dHi;
  const sLo = (f - back - productError(sHi, dHi, back) - sHi * dLo) / dHi;
  // w = z/3 + z²·tail(z), z = s²; only its leading term needs both parts
  const zHi = sHi * sHi;
  const zLo = productError(sHi, sHi, zHi) + 2 * sHi * sLo;
  const thirdHi = zHi * (1 / 3);
  const thirdLo = productError(zHi, 1 / 3, thirdHi) + zHi * THIRD_LO + zLo * (1 / 3);
  const far = zHi * zHi * atanhTail(zHi);
  const wHi = thirdHi + far;
  const wLo = sumError(thirdHi, far, wHi) + thirdLo;
  // a = atanh(s) = s + s·w
  const swHi = sHi * wHi;
  const swLo = productError(sHi, wHi, swHi) + sHi * wLo + sLo * wHi;
  const aHi = sHi + swHi;
  const aLo = sumError(sHi, swHi, aHi) + swLo + sLo;
  // log(x) = k·ln 2 + 2a
  const logHi = k * LN2_HI + 2 * aHi;
  const logLo = sumError(k * LN2_HI, 2 * aHi, logHi) + (k * LN2_LO + 2 * aLo);
  const hi = y * logHi;
  if (!(hi > -750 && hi < 710)) return hi > 0 ? Infinity : 0;
  return expSum(hi, productError(y, logHi, hi) + y * logLo);
}

/** Hyperbolic tangent within 3 ulp. */
export function tanh(x: number): number {
  if (x !== x) return NaN;
  const magnitude = Math.abs(x);
  if (magnitude > 22) return x > 0 ? 1 : -1;
  // Below 2^-28 the next term, x³/3, is lost in rounding; and -0 stays -0.
  if (magnitude < TWO_POW_MINUS_28) return x;
  // t = e^(2|x|) - 1 without cancellation: 2^k·(1 + p) - 1 = (2^k - 1) + 2^k·p.
  const k = Math.floor(2 * magnitude * LOG2_E + 0.5);
  const scale = pow2(k);
  const t = scale - 1 + scale * expm1Reduced(2 * magnitude - k * LN2_HI - k * LN2_LO);
  const y = t / (t + 2);
  return x > 0 ? y : -y;
}

const TWO_OVER_PI = 0.6366197723675814;
// π/2 in three parts; the first two have 30 bits, so their products with n < 2^23 are exact.
const HALF_PI_1 = 1.570796325802803;
const HALF_PI_2 = 9.920935791635221e-10;
const HALF_PI_3 = 5.170182981794105e-19;
/** sin and cos are defined for |x| up to this (n < 2^23 quarter turns): positions of any context length. */
export const ANGLE_MAX = 1.3e7;

const reduced = new Float64Array(2);

/** x = n·π/2 + r: leaves r, |r| <= π/4, in two parts in `reduced` and returns n mod 4. */
function reduceAngle(x: number): number {
  if (Math.abs(x) > ANGLE_MAX) throw angleError(x);
  const n = Math.floor(x * TWO_OVER_PI + 0.5);
  const first = x - n * HALF_PI_1;
  const second = n * HALF_PI_2;
  const hi = first - second;
  const lo = sumError(first, -second, hi) - n * HALF_PI_3;
  const r = hi + lo;
  reduced[0] = r;
  reduced[1] = hi - r + lo;
  return n & 3;
}

function angleError(x: number): SmallMindError {
  return new SmallMindError('NUMERIC', `sin and cos take angles within ±${ANGLE_MAX}, got ${x}`, { angle: x });
}

/**
 * Sine of x radians within 1 ulp, next to its zeros within 1e-27; NaN for NaN and the infinities.
 * @throws {SmallMindError} NUMERIC beyond ±1.3e7, where the reduction would lose digits.
 */
export function sin(x: number): number {
  if (x - x !== 0) return NaN;
  if (Math.abs(x) < TWO_POW_MINUS_28) return x;
  const quadrant = reduceAngle(x);
  const y = quadrant & 1 ? cosReduced(reduced[0]!, reduced[1]!) : sinReduced(reduced[0]!, reduced[1]!);
  return quadrant & 2 ? -y : y;
}

/** Cosine of x radians; accuracy, domain and errors as for sin. */
export function cos(x: number): number {
  if (x - x !== 0) return NaN;
  const quadrant = reduceAngle(x);
  const y = quadrant & 1 ? sinReduced(reduced[0]!, reduced[1]!) : cosReduced(reduced[0]!, reduced[1]!);
  return (quadrant + 1) & 2 ? -y : y;
}

/** sin(r + t) for |r| <= π/4 and t below an ulp of r: Taylor up to r^17/17!. */
function sinReduced(r: number, t: number): number {
  const z = r * r;
  const tail = -1 / 39916800 + z * (1 / 6227020800 + z * (-1 / 1307674368000 + z * (1 / 355687428096000)));
  const series = -1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * (1 / 362880 + z * tail)));
  return r + (r * z * series + t * (1 - 0.5 * z));
}

/** cos(r + t), likewise: Taylor up to r^16/16!; what 1 - r²/2 rounds away is added back. */
function cosReduced(r: number, t: number): number {
  const z = r * r;
  const tail = 1 / 479001600 + z * (-1 / 87178291200 + z * (1 / 20922789888000));
  const series = 1 / 24 + z * (-1 / 720 + z * (1 / 40320 + z * (-1 / 3628800 + z * tail)));
  const half = 0.5 * z;
  const main = 1 - half;
  return main + (1 - main - half + (z * z * series - r * t));
}
