// What all quantised formats have in common: a block is small integers (quants), scales and perhaps minima. A format's
// file says how the fields are read from the bytes; decoding them is the same for all, and so is repacking for kernels.
//   value = d · scale · (q − offset)   or   d · scale · level[q]   or   d · scale · q + minimum
// where scale is 1, or a small integer that 16 or 32 values share, and minimum is m itself or −dMin · min.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { f16ToF32 } from '../base/float16.ts';
import type { Codec } from './codec.ts';

/** The fields of a block, to be filled again and again. */
export interface Block {
  /** Bit patterns of binary16. `dMinBits` is m where there are no `mins`. */
  dBits: number;
  dMinBits: number;
  /** One a value; bytes of Q8_0 are signed ones. */
  readonly quants: Uint8Array;
  /** One for every `scaleColumns` values. */
  readonly scales: Int8Array;
  readonly mins: Uint8Array;
}

export interface QuantizedFormat {
  readonly dtype: DType;
  /** Bits of a quant. Those of 8 bits are signed. */
  readonly bits: 8 | 6 | 5 | 4 | 3 | 2;
  readonly offset: number;
  /** Quants are indices of these. */
  readonly levels?: readonly number[];
  /** Values that share an integer scale; 0: there are none. */
  readonly scaleColumns: 0 | 16 | 32;
  readonly hasMinima: boolean;
  /** Reads the block at `at`. */
  read(bytes: Uint8Array, at: number, block: Block): void;
}

/** The largest block has 256 values in sixteen parts. */
export function newBlock(): Block {
  return { dBits: 0, dMinBits: 0, quants: new Uint8Array(256), scales: new Int8Array(16), mins: new Uint8Array(16) };
}

export const wordAt = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);

/** Decodes as ggml does: every product is rounded to float32. */
export function codecOf(format: QuantizedFormat, encode?: Codec['encode']): Codec {
  const { dtype, bits, offset, levels, scaleColumns, hasMinima, read } = format;
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const block = newBlock();
  const integer = (q: number): number => levels?.[q] ?? (bits === 8 ? (q << 24) >> 24 : q - offset);
  const partSize = scaleColumns || blockElements;
  const decode: Codec['decode'] = (bytes, out) => {
    for (let first = 0, at = 0; first < out.length; first += blockElements, at += blockBytes) {
      read(bytes, at, block);
      const d = f16ToF32(block.dBits);
      const dMin = hasMinima ? f16ToF32(block.dMinBits) : 0;
      for (let part = 0; part * partSize < blockElements; part++) {
        const scale = scaleColumns ? Math.fround(d * block.scales[part]!) : d;
        const minimum = scaleColumns ? -Math.fround(dMin * block.mins[part]!) : dMin;
        for (let i = part * partSize; i < (part + 1) * partSize; i++) {
          const value = scale * integer(block.quants[i]!);
          out[first + i] = hasMinima ? Math.fround(value) + minimum : value;
        }
      }
    }
  };
  return encode ? { decode, encode } : { decode };
}
