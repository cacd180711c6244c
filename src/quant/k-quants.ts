// The K formats: blocks of 256 values, divided into sub-blocks of 16 or 32 that have small integer scales of their own,
// which a binary16 scale of the whole block multiplies. Q2_K, Q4_K and Q5_K also have a minimum a sub-block.
//   Q2_K  d·scale·q − dMin·min      scale, min 4 bits a sub-block of 16, q 2 bits
//   Q3_K  d·scale·(q − 4)           scale 6 bits, less 32, a sub-block of 16, q 2 + 1 bits
//   Q4_K  d·scale·q − dMin·min      scale, min 6 bits a sub-block of 32, q 4 bits
//   Q5_K  the same with q 4 + 1 bits
//   Q6_K  d·scale·(q − 32)          scale 8 bits, signed, a sub-block of 16, q 4 + 2 bits
// Source: block_q2_K … block_q6_K and their dequantize_row functions in ggml.

import { wordAt } from './block.ts';
import type { Block, QuantizedFormat } from './block.ts';

const SIZE = 256;

/**
 * A field of `width` bits of each of the 256 values, put at bit `to` of the quants. Values i, i + span, i + 2·span …
 * share byte i of `span` bytes, from the low bits on; when these are used up, the next `span` bytes follow.
 */
function readField(bytes: Uint8Array, at: number, span: number, width: number, quants: Uint8Array, to = 0): void {
  const mask = (1 << width) - 1;
  for (let value = 0, chunk = at; value < SIZE; chunk += span) {
    for (let shift = 0; shift < 8; shift += width, value += span) {
      for (let i = 0; i < span; i++) {
        const bits = ((bytes[chunk + i]! >> shift) & mask) << to;
        quants[value + i] = to === 0 ? bits : quants[value + i]! | bits;
      }
    }
  }
}

/** The eight six-bit scales and minima that Q4_K and Q5_K pack into twelve bytes. */
function readSixBits(bytes: Uint8Array, at: number, { scales, mins }: Block): void {
  for (let j = 0; j < 4; j++) {
    const [scale, min, last] = [bytes[at + j]!, bytes[at + 4 + j]!, bytes[at + 8 + j]!];
    scales[j] = scale & 63;
    mins[j] = min & 63;
    scales[j + 4] = (last & 15) | ((scale >> 6) << 4);
    mins[j + 4] = (last >> 4) | ((min >> 6) << 4);
  }
}

export const Q2_K: QuantizedFormat = {
  dtype: 'Q2_K',
  bits: 2,
  offset: 0,
  scaleColumns: 16,
  hasMinima: true,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at + 80);
    block.dMinBits = wordAt(bytes, at + 82);
    for (let j = 0; j < 16; j++) {
      block.scales[j] = bytes[at + j]! & 15;
      block.mins[j] = bytes[at + j]! >> 4;
    }
    readField(bytes, at + 16, 32, 2, block.quants);
  },
};

export const Q3_K: QuantizedFormat = {
  dtype: 'Q3_K',
  bits: 3,
  offset: 4,
  scaleColumns: 16,
  hasMinima: false,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at + 108);
    for (let j = 0; j < 16; j++) {
      const low = (bytes[at + 96 + (j & 7)]! >> (j < 8 ? 0 : 4)) & 15;
      const high = (bytes[at + 104 + (j & 3)]! >> (2 * (j >> 2))) & 3;
      block.scales[j] = (low | (high << 4)) - 32;
    }
    readField(bytes, at + 32, 32, 2, block.quants);
    readField(bytes, at, 32, 1, block.quants, 2);
  },
};

export const Q4_K: QuantizedFormat = {
  dtype: 'Q4_K',
  bits: 4,
  offset: 0,
  scaleColumns: 32,
  hasMinima: true,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    block.dMinBits = wordAt(bytes, at + 2);
    readSixBits(bytes, at + 4, block);
    readField(bytes, at + 16, 32, 4, block.quants);
  },
};

export const Q5_K: QuantizedFormat = {
  dtype: 'Q5_K',
  bits: 5,
  offset: 0,
  scaleColumns: 32,
  hasMinima: true,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at);
    block.dMinBits = wordAt(bytes, at + 2);
    readSixBits(bytes, at + 4, block);
    readField(bytes, at + 48, 32, 4, block.quants);
    readField(bytes, at + 16, 32, 1, block.quants, 4);
  },
};

export const Q6_K: QuantizedFormat = {
  dtype: 'Q6_K',
  bits: 6,
  offset: 32,
  scaleColumns: 16,
  hasMinima: false,
  read(bytes, at, block) {
    block.dBits = wordAt(bytes, at + 208);
    for (let j = 0; j < 16; j++) block.scales[j] = bytes[at + 192 + j]!;
    readField(bytes, at, 64, 4, block.quants);
    readField(bytes, at + 128, 32, 2, block.quants, 4);
  },
};
