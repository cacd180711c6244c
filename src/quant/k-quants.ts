// The K formats: blocks of 256 values, divided into sub-blocks of 16 or 32 that have small integer scales of their own,
// which a binary16 scale of the whole block multiplies. Q2_K, Q4_K and Q5_K also have a minimum a sub-block.
//   Q2_K  value = d·scale·q − dmin·min      scale, min 4 bits a sub-block of 16, q 2 bits
//   Q3_K  value = d·(scale − 32)·(q − 4)    scale 6 bits a sub-block of 16, q 2 + 1 bits
//   Q4_K  value = d·scale·q − dmin·min      scale, min 6 bits a sub-block of 32, q 4 bits
//   Q5_K  the same with q 4 + 1 bits
//   Q6_K  value = d·scale·(q − 32)          scale 8 bits, signed, a sub-block of 16, q 4 + 2 bits
// Source: block_q2_K … block_q6_K and their dequantize_row functions in ggml.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { halfAt } from './codec.ts';
import type { Codec } from './codec.ts';

/** Values of a block, and bits of `byte` from `shift` on. */
const SIZE = 256;
const bits = (byte: number, shift: number, count: number): number => (byte >> shift) & ((1 << count) - 1);
const signed = (byte: number): number => (byte << 24) >> 24;

/** Where the bytes of block `at` keep value `i`: byte `byte` from bit `shift` on. */
interface Place {
  readonly byte: number;
  readonly shift: number;
}

/**
 * Fields of less than a byte whose values i, i + span, i + 2·span … share a byte: those of 128 values (or, for the
 * half-bytes of Q4_K and Q5_K, of 64) lie in `span` bytes.
 */
const place = (i: number, span: number, width: number): Place => {
  const perByte = 8 / width;
  const chunk = Math.floor(i / (span * perByte));
  return { byte: chunk * span + (i % span), shift: width * (Math.floor(i / span) % perByte) };
};

/** A table of `place` for all values of a block. */
const places = (span: number, width: number): readonly Place[] =>
  Array.from({ length: SIZE }, (_, i) => place(i, span, width));

const TWO_BITS = places(32, 2);
const ONE_BIT = places(32, 1);
const HALF_BYTES_64 = places(32, 4);
const HALF_BYTES_128 = places(64, 4);

/** Six-bit scale (or, with `isMin`, minimum) `j` of the eight that Q4_K and Q5_K pack into twelve bytes from `at` on. */
function sixBits(bytes: Uint8Array, at: number, j: number, isMin: boolean): number {
  const low = at + (isMin ? 4 : 0);
  if (j < 4) return bytes[low + j]! & 63;
  const last = bytes[at + 4 + j]!;
  return (isMin ? last >> 4 : last & 15) | ((bytes[low + j - 4]! >> 6) << 4);
}

/** Six-bit scale `j` of the sixteen that Q3_K packs into twelve bytes: four low bits, then two high ones. */
function scaleOfQ3(bytes: Uint8Array, at: number, j: number): number {
  const low = bits(bytes[at + (j % 8)]!, j < 8 ? 0 : 4, 4);
  return (low | (bits(bytes[at + 8 + (j % 4)]!, 2 * Math.floor(j / 4), 2) << 4)) - 32;
}

/** @param decodeBlock  returns value `i` of the block at `at`, rounded where ggml rounds */
function codec(dtype: DType, decodeBlock: (bytes: Uint8Array, at: number) => (i: number) => number): Codec {
  const { blockBytes } = BLOCK_FORMATS[dtype];
  return {
    decode(bytes, out) {
      for (let block = 0, at = 0; block < out.length; block += SIZE, at += blockBytes) {
        const value = decodeBlock(bytes, at);
        for (let i = 0; i < SIZE; i++) out[block + i] = value(i);
      }
    },
  };
}

/** d·scale·q − dmin·min, every product rounded to float32. */
function affine(d: number, scale: number, q: number, dMin: number, min: number): number {
  return Math.fround(Math.fround(d * scale) * q) - Math.fround(dMin * min);
}

export const Q2_K = codec('Q2_K', (bytes, at) => {
  const [d, dMin] = [halfAt(bytes, at + 80), halfAt(bytes, at + 82)];
  return (i) => {
    const { byte, shift } = TWO_BITS[i]!;
    const scale = bytes[at + (i >> 4)]!;
    return affine(d, scale & 15, bits(bytes[at + 16 + byte]!, shift, 2), dMin, scale >> 4);
  };
});

export const Q3_K = codec('Q3_K', (bytes, at) => {
  const d = halfAt(bytes, at + 108);
  return (i) => {
    const { byte, shift } = TWO_BITS[i]!;
    const high = bits(bytes[at + ONE_BIT[i]!.byte]!, ONE_BIT[i]!.shift, 1);
    const q = (bits(bytes[at + 32 + byte]!, shift, 2) | (high << 2)) - 4;
    return Math.fround(d * scaleOfQ3(bytes, at + 96, i >> 4)) * q;
  };
});

export const Q4_K = codec('Q4_K', (bytes, at) => {
  const [d, dMin] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
  return (i) => {
    const { byte, shift } = HALF_BYTES_64[i]!;
    const j = i >> 5;
    const q = bits(bytes[at + 16 + byte]!, shift, 4);
    return affine(d, sixBits(bytes, at + 4, j, false), q, dMin, sixBits(bytes, at + 4, j, true));
  };
});

export const Q5_K = codec('Q5_K', (bytes, at) => {
  const [d, dMin] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
  return (i) => {
    const { byte, shift } = HALF_BYTES_64[i]!;
    const j = i >> 5;
    const high = bits(bytes[at + 16 + ONE_BIT[i]!.byte]!, ONE_BIT[i]!.shift, 1);
    const q = bits(bytes[at + 48 + byte]!, shift, 4) | (high << 4);
    return affine(d, sixBits(bytes, at + 4, j, false), q, dMin, sixBits(bytes, at + 4, j, true));
  };
});

export const Q6_K = codec('Q6_K', (bytes, at) => {
  const d = halfAt(bytes, at + 208);
  return (i) => {
    const { byte, shift } = HALF_BYTES_128[i]!;
    const high = bits(bytes[at + 128 + TWO_BITS[i]!.byte]!, TWO_BITS[i]!.shift, 2);
    const q = (bits(bytes[at + byte]!, shift, 4) | (high << 4)) - 32;
    return Math.fround(d * signed(bytes[at + 192 + (i >> 4)]!)) * q;
  };
});
