// The block formats by dtype, and the two doors to them: bytes → float32 values and back. A new format is a file of its
// family with a `QuantizedFormat`, and a line in this table.

import { BLOCK_FORMATS, rowBytes } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { ShapeError, SmallMindError, UnsupportedError } from '../base/errors.ts';
import { codecOf } from './block.ts';
import type { QuantizedFormat } from './block.ts';
import type { Codec } from './codec.ts';
import { BF16, F16, F32 } from './floats.ts';
import { IQ4_NL, IQ4_XS } from './iq4.ts';
import { IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS } from './grids/formats.ts';
import { Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } from './k-quants.ts';
import { MXFP4 } from './mxfp4.ts';
import { Q4_0, Q4_1, encodeQ4_0 } from './q4.ts';
import { Q5_0, Q5_1 } from './q5.ts';
import { Q8_0, Q8_1, Q8_K, encodeQ8_0 } from './q8.ts';
import { TQ1_0, TQ2_0 } from './ternary.ts';

/** Formats whose blocks are integers with scales. */
export const QUANTIZED_FORMATS: readonly QuantizedFormat[] = [
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  IQ4_NL,
  IQ4_XS,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  Q8_1,
  Q8_K,
  MXFP4,
  TQ1_0,
  TQ2_0,
  IQ1_S,
  IQ1_M,
  IQ2_XXS,
  IQ2_XS,
  IQ2_S,
  IQ3_XXS,
  IQ3_S,
];

const ENCODERS: Readonly<Partial<Record<DType, Codec['encode']>>> = { Q8_0: encodeQ8_0, Q4_0: encodeQ4_0 };

export const CODECS: Readonly<Partial<Record<DType, Codec>>> = {
  F32,
  F16,
  BF16,
  ...Object.fromEntries(QUANTIZED_FORMATS.map((format) => [format.dtype, codecOf(format, ENCODERS[format.dtype])])),
};

/**
 * Decodes blocks to f32[bytes / blockBytes · blockElements], exactly as ggml's dequantize does.
 * @throws {UnsupportedError} UNSUPPORTED_DTYPE for a dtype that cannot be decoded yet
 * @throws {ShapeError} when `bytes` are not whole blocks
 */
export function dequantize(dtype: DType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const codec = codecFor(dtype);
  if (codec === undefined) throw unsupported(dtype, 'decoded', Object.keys(CODECS));
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  checkWhole(dtype, 'bytes', bytes.length, blockBytes);
  const out = new Float32Array((bytes.length / blockBytes) * blockElements);
  codec.decode(bytes, out);
  return out;
}

/**
 * Encodes values, rounding as ggml's reference quantisation does, to the bytes of their blocks.
 * @throws {UnsupportedError} UNSUPPORTED_DTYPE for a dtype that cannot be encoded yet
 * @throws {ShapeError} when `values` are not whole blocks
 * @throws {SmallMindError} NUMERIC for NaN, infinities or too large values, in formats with a scale a block
 */
export function quantize(dtype: DType, values: Float32Array): Uint8Array<ArrayBuffer> {
  const encode = codecFor(dtype)?.encode;
  if (encode === undefined) {
    const works = Object.entries(CODECS).filter(([, codec]) => codec.encode !== undefined);
    throw unsupported(
      dtype,
      'encoded',
      works.map(([name]) => name),
    );
  }
  const { blockElements } = BLOCK_FORMATS[dtype];
  checkWhole(dtype, 'values', values.length, blockElements);
  if (blockElements > 1) checkFinite(dtype, values);
  const out = new Uint8Array(rowBytes(dtype, values.length));
  encode(values, out);
  return out;
}

/** A name may be anything, `toString` too. */
function codecFor(dtype: DType): Codec | undefined {
  return Object.hasOwn(CODECS, dtype) ? CODECS[dtype] : undefined;
}

function unsupported(dtype: DType, what: string, works: readonly string[]): UnsupportedError {
  const message = `dtype ${dtype} cannot be ${what} yet; use one of ${works.join(', ')}`;
  return new UnsupportedError('UNSUPPORTED_DTYPE', message, { value: dtype });
}

function checkWhole(dtype: DType, what: string, length: number, unit: number): void {
  if (length % unit === 0) return;
  const message = `${dtype} expected whole blocks of ${unit} ${what}, got ${length} ${what}; pass whole rows`;
  throw new ShapeError(message, { value: length, limit: unit });
}

function checkFinite(dtype: DType, values: Float32Array): void {
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index === -1) return;
  const message = `${dtype} expected finite values, got ${values[index]} at index ${index}; check the weights`;
  throw new SmallMindError('NUMERIC', message, { index, value: String(values[index]) });
}
