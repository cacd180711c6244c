// IEEE 754 binary16 and bfloat16 ↔ binary32, on bit patterns. Exact in decoding, round-to-nearest-even in encoding.
// Browsers and Node 22 lack Float16Array, so the conversion is ours everywhere.

const word = new Uint32Array(1);
const real = new Float32Array(word.buffer);

/** Value of the binary16 bit pattern `h` (0..65535). Exact; NaN payloads are not kept. */
export function f16ToF32(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 31;
  const fraction = h & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  word[0] = ((h & 0x8000) << 16) | ((exponent + 112) << 23) | (fraction << 13);
  return real[0]!;
}

/** Bit pattern (0..65535) of the binary16 nearest to `x`, ties to even; overflow gives infinity. */
export function f32ToF16(x: number): number {
  real[0] = x;
  const bits = word[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal half: count units of 2^-24. The product is exact, so one rounding happens.
    return sign | roundTiesToEven(Math.abs(real[0]!) * 2 ** 24);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** Value of the bfloat16 bit pattern `h` (0..65535). */
export function bf16ToF32(h: number): number {
  word[0] = h << 16;
  return real[0]!;
}

/** Bit pattern of the bfloat16 nearest to `x`, ties to even; NaN stays NaN. */
export function f32ToBf16(x: number): number {
  real[0] = x;
  const bits = word[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 64;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

function roundTiesToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest > 0.5 || (rest === 0.5 && floor % 2 === 1)) return floor + 1;
  return floor;
}
