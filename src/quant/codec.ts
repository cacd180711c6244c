// What a block format's file provides: blocks ↔ values. The doors in `codecs.ts` check sizes; a codec trusts its
// caller.

import { SmallMindError } from '../base/errors.ts';
import { f32ToF16 } from '../base/float16.ts';

export interface Codec {
  /** Decodes whole blocks exactly, as ggml does: `out` has as many elements as the blocks of `bytes` hold. */
  decode(bytes: Uint8Array, out: Float32Array): void;
  /**
   * Encodes whole blocks with ggml's reference rounding; `values` are finite for formats that have a scale a block.
   * @throws {SmallMindError} NUMERIC when a scale does not fit binary16
   */
  encode?(values: Float32Array, out: Uint8Array): void;
}

/**
 * Bit pattern of the binary16 nearest to a block's scale.
 * @throws {SmallMindError} NUMERIC when it overflows, since the block would then decode to infinities
 */
export function scaleToF16(scale: number): number {
  const bits = f32ToF16(scale);
  if ((bits & 0x7c00) !== 0x7c00) return bits;
  throw new SmallMindError(
    'NUMERIC',
    `a block needs the scale ${scale}, the largest that fits is 65504; keep this tensor in F32 or BF16`,
    { value: String(scale), limit: 65504 },
  );
}
