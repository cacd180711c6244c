// The formats without blocks: F32 (copied), F16 and BF16 (converted bit pattern by bit pattern, ties to even).
// Special values survive: ±0, infinities, and NaN as NaN (its payload only in F32 and BF16 decoding).

import { f16ToF32, f32ToBf16, f32ToF16 } from '../base/float16.ts';
import type { Codec } from './codec.ts';

export const F32: Codec = {
  decode(bytes, out) {
    bytesOf(out).set(bytes);
  },
  encode(values, out) {
    out.set(bytesOf(values));
  },
};

export const F16: Codec = {
  decode(bytes, out) {
    for (let i = 0; i < out.length; i++) out[i] = f16ToF32(bytes[2 * i]! | (bytes[2 * i + 1]! << 8));
  },
  encode(values, out) {
    encode16(values, out, f32ToF16);
  },
};

export const BF16: Codec = {
  decode(bytes, out) {
    // On bit patterns, not numbers: a NaN may change on its way through a number.
    const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < out.length; i++) words[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24);
  },
  encode(values, out) {
    encode16(values, out, f32ToBf16);
  },
};

function encode16(values: Float32Array, out: Uint8Array, toBits: (x: number) => number): void {
  for (let i = 0; i < values.length; i++) {
    const bits = toBits(values[i]!);
    out[2 * i] = bits;
    out[2 * i + 1] = bits >> 8;
  }
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
