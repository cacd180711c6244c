// How packed weights are read. Rows are interleaved by eight (see pack.ts): lane = row, so that eight results are two
// vectors and need no sums over lanes. A format contributes only the unpacking of one block of eight rows; the
// matrix kernels are shared.

import { BLOCK_FORMATS } from '../../../base/dtype.ts';
import type { DType } from '../../../base/dtype.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32x4, i16x8, i32x4, v128 } from '../emit/operations.ts';
import { HalfToFloat, splatI32 } from './floats.ts';
import type { KernelVariant } from './kernel.ts';

type Vector = Expr<'v128'>;

/** Receives column `k` of the block: the weights of rows 0..3 and of rows 4..7. */
type UseColumn = (k: number, low: Vector, high: Vector) => void;

export interface WeightFormat {
  readonly dtype: DType;
  /** Emits the block at `w` as exact f32 values, one column after the other. */
  unpack(f: FunctionBuilder, variant: KernelVariant): (w: Local<'ptr'>, use: UseColumn) => void;
  /** For formats with integer kernels. */
  readonly integer?: IntegerFormat;
}

export interface IntegerFormat {
  /** What must be subtracted from an unsigned quant; 0 where quants are read as signed. A power of two. */
  offset(variant: KernelVariant): number;
  /** Columns whose 16-bit products can be added up in 16 bits without overflow, counted in steps of four columns. */
  readonly stepsPer16Bit: number;
  /** Emits the quants, four columns a step: 16 bytes = 4 rows × 4 columns, for rows 0..3 and 4..7. */
  quants(f: FunctionBuilder): (w: Local<'ptr'>, use: (step: number, low: Vector, high: Vector) => void) => void;
}

/** Bytes of one block of eight rows. */
export const groupBlockBytes = (dtype: DType): number => 8 * BLOCK_FORMATS[dtype].blockBytes;

/** f16 scales of the eight rows stand in front of a quantised block. */
const SCALES_BYTES = 16;

/**
 * Whether Q8_0 quants are packed with 128 added, as the 8-bit unsigned operand of the relaxed dot product wants them.
 */
export const isBiased = (variant: KernelVariant): boolean => variant.dot === 'u8';

const F32: WeightFormat = {
  dtype: 'F32',
  unpack: () => (w, use) => use(0, v128.load(w, 0), v128.load(w, 16)),
};

const F16: WeightFormat = {
  dtype: 'F16',
  unpack(f) {
    const half = new HalfToFloat(f);
    return (w, use) => use(0, half.convert(v128.load16x4_s(w, 0)), half.convert(v128.load16x4_s(w, 8)));
  },
};

const BF16: WeightFormat = {
  dtype: 'BF16',
  unpack: () => (w, use) => use(0, i32x4.shl(v128.load16x4_u(w, 0), 16), i32x4.shl(v128.load16x4_u(w, 8), 16)),
};

/** Emits each of `nSteps` pairs of vectors at `w` into the same two locals. */
function loadSteps(f: FunctionBuilder, nSteps: number) {
  const low = f.local('v128', 'quantsLow');
  const high = f.local('v128', 'quantsHigh');
  return (w: Local<'ptr'>, use: (step: number, low: Local<'v128'>, high: Local<'v128'>) => void): void => {
    for (let step = 0; step < nSteps; step++) {
      low.set(v128.load(w, SCALES_BYTES + 32 * step));
      high.set(v128.load(w, SCALES_BYTES + 32 * step + 16));
      use(step, low, high);
    }
  };
}

/** f32 scales of the block's rows, in two locals that the returned function sets. */
function blockScales(f: FunctionBuilder) {
  const half = new HalfToFloat(f);
  const low = f.local('v128', 'scaleLow');
  const high = f.local('v128', 'scaleHigh');
  const load = (w: Local<'ptr'>): void => {
    low.set(half.convert(v128.load16x4_s(w, 0)));
    high.set(half.convert(v128.load16x4_s(w, 8)));
  };
  return { low, high, load };
}

const Q8_0: WeightFormat = {
  dtype: 'Q8_0',
  unpack(f, variant) {
    const scales = blockScales(f);
    const steps = loadSteps(f, 8);
    const byteOf = (q: Vector, j: number): Vector =>
      isBiased(variant)
        ? i32x4.sub(v128.and(i32x4.shr_u(q, 8 * j), splatI32(255)), splatI32(128))
        : i32x4.shr_s(i32x4.shl(q, 24 - 8 * j), 24);
    const value = (q: Vector, j: number, scale: Vector): Vector =>
      f32x4.mul(f32x4.convert_i32x4_s(byteOf(q, j)), scale);
    return (w, use) => {
      scales.load(w);
      steps(w, (step, low, high) => {
        for (let j = 0; j < 4; j++) use(4 * step + j, value(low, j, scales.low), value(high, j, scales.high));
      });
    };
  },
  integer: {
    offset: (variant) => (isBiased(variant) ? 128 : 0),
    // |product| ≤ 128 · 127 = 16,256: two fit.
    stepsPer16Bit: 2,
    quants: (f) => loadSteps(f, 8),
  },
};

const Q4_0: WeightFormat = {
  dtype: 'Q4_0',
  unpack(f) {
    const scales = blockScales(f);
    const steps = loadSteps(f, 4);
    const value = (q: Vector, shift: number, scale: Vector): Vector => {
      const nibble = v128.and(i32x4.shr_u(q, shift), splatI32(15));
      return f32x4.mul(f32x4.convert_i32x4_s(i32x4.sub(nibble, splatI32(8))), scale);
    };
    return (w, use) => {
      scales.load(w);
      steps(w, (step, low, high) => {
        for (const shift of [0, 4]) {
          for (let j = 0; j < 4; j++) {
            const bits = 8 * j + shift;
            use(4 * (step + shift) + j, value(low, bits, scales.low), value(high, bits, scales.high));
          }
        }
      });
    };
  },
  integer: {
    offset: () => 8,
    // Products are at most 15 · 127 = 1,905: all eight fit, with room to spare.
    stepsPer16Bit: 8,
    quants(f) {
      const steps = loadSteps(f, 4);
      const nibble = f.let('nibble', i32x4.const(0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f));
      return (w, use) => {
        steps(w, (step, low, high) => {
          use(step, v128.and(low, nibble), v128.and(high, nibble));
          use(step + 4, v128.and(i16x8.shr_u(low, 4), nibble), v128.and(i16x8.shr_u(high, 4), nibble));
        });
      };
    },
  },
};

export const WEIGHT_FORMATS: readonly WeightFormat[] = [F32, F16, BF16, Q8_0, Q4_0];
