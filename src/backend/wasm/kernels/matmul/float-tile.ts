// Tiles of x in f32, whose weights are floats, and how weights of any type become f32.

import type { DType } from '../../../../base/dtype.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32x4, i32, i32x4, ptr, v128 } from '../../emit/operations.ts';
import { multiplyAdd, splatF32, splatI32 } from '../floats.ts';
import type { KernelVariant } from '../kernel.ts';
import { BlockReader, dequantizedColumns, each32 } from './block-reader.ts';
import type { UseColumn } from './block-reader.ts';
import { groupBlockBytes, quantizedFormatOf } from './layout.ts';
import type { FLOAT_DTYPES } from './layout.ts';
import type { MatmulSource, Tile, TileGroup } from './tile.ts';

type Vector = Expr<'v128'>;
type FloatDType = (typeof FLOAT_DTYPES)[number];

/** Two vectors of f32 for weights that are floats themselves. */
function floatColumn(f: FunctionBuilder, dtype: FloatDType) {
  const load = scaledFloatColumn(f, dtype);
  return (w: Expr<'ptr'>, offset: number): readonly [Vector, Vector] => {
    const [low, high] = load(w, offset);
    if (dtype !== 'F16') return [low, high];
    const scale = splatF32(F16_SCALE);
    return [f32x4.mul(low, scale), f32x4.mul(high, scale)];
  };
}

/** By what values of F16 are too small as `scaledFloatColumn` gives them. */
const F16_SCALE = 2 ** 112;

/** As `floatColumn`, but F16 as it comes when the bits are moved to where f32 has them: the exponent's bias differs. */
function scaledFloatColumn(f: FunctionBuilder, dtype: FloatDType) {
  const pairs = f.local('v128', 'rowPairs');
  return (w: Expr<'ptr'>, offset: number): readonly [Vector, Vector] => {
    if (dtype === 'F32') return [v128.load(w, offset), v128.load(w, offset + 16)];
    pairs.set(v128.load(w, offset));
    if (dtype === 'BF16') return [i32x4.shl(pairs, 16), v128.and(pairs, splatI32(0xffff0000 | 0))];
    const mask = splatI32(0x8fffe000 | 0);
    return [v128.and(i32x4.shr_s(i32x4.shl(pairs, 16), 3), mask), v128.and(i32x4.shr_s(pairs, 3), mask)];
  };
}

/**
 * F16 weights are left too small by `F16_SCALE`, which saves a multiplication each. x makes good most of it, and the
 * sums the rest. Powers of two change no bit of a result, as long as x is below 2^48 and its products above 2^-94.
 */
const F16_X_SCALE = 2 ** 80;

/** x in f32, weights that are floats: a column at a time. */
export function floatSource(dtype: FloatDType, variant: KernelVariant): MatmulSource {
  const columnBytes = groupBlockBytes(dtype);
  const prepare = (f: FunctionBuilder): Tile => {
    const load = scaledFloatColumn(f, dtype);
    const add = columnProducts(f, variant, dtype === 'F16' ? F16_X_SCALE : 1);
    const left = f.local('i32', 'left');
    return (groups, x, nColumns) => {
      left.set(nColumns);
      for (const n of [4, 1]) {
        f.while(i32.ge_s(left, n), () => {
          for (let k = 0; k < n; k++) {
            add(groups, x, 4 * k, ({ w }) => load(w, columnBytes * k));
          }
          for (const { w } of groups) w.set(ptr.add(w, columnBytes * n));
          for (const p of x) p.set(ptr.add(p, 4 * n));
          left.set(i32.sub(left, n));
        });
      }
      if (dtype !== 'F16') return;
      const rest = splatF32(F16_SCALE / F16_X_SCALE);
      for (const sum of groups.flatMap(({ accumulators }) => accumulators.flat())) sum.set(f32x4.mul(sum, rest));
    };
  };
  // Six rows hide the latency of the multiply-add; what has to be unpacked needs the registers itself.
  if (dtype === 'F32') return { tileRows: [6, 4, 1], groupsOfOne: 4, expansionRows: Infinity, prepare };
  return { tileRows: [4, 1], groupsOfOne: 4, expansionRows: 8, prepare };
}

/** Of a column of eight rows in f32. */
export const COLUMN_BYTES = 32;

/**
 * Emits exact f32 values of `nBlocks` blocks of a group at `w`, which moves along. Columns are counted anew after each
 * call of `advance`, which says how many they were.
 */
type UnpackBlocks = (
  w: Local<'ptr'>,
  nBlocks: Expr<'i32'>,
  use: UseColumn,
  advance: (nColumns: number) => void,
) => void;

export function blockUnpacker(f: FunctionBuilder, dtype: DType, variant: KernelVariant): UnpackBlocks {
  const format = quantizedFormatOf(dtype);
  if (format) {
    const reader = new BlockReader(f, format, variant);
    return (w, nBlocks, use, advance) => {
      each32(f, reader, w, nBlocks, () => {
        dequantizedColumns(f, reader, variant, w, use);
        advance(32);
      });
    };
  }
  const load = floatColumn(f, dtype as FloatDType);
  return (w, nBlocks, use, advance) => {
    const left = f.let('left', nBlocks);
    f.while(i32.gt_s(left, 0), () => {
      use(0, ...load(w, 0));
      advance(1);
      w.set(ptr.add(w, groupBlockBytes(dtype)));
      left.set(i32.sub(left, 1));
    });
  };
}

/** Emits accumulator += column · x for every group and row of a tile. */
function columnProducts(f: FunctionBuilder, variant: KernelVariant, xScale: number) {
  const [low, high] = [f.local('v128', 'weightLow'), f.local('v128', 'weightHigh')];
  const splat = f.local('v128', 'xSplat');
  return (
    groups: readonly TileGroup[],
    x: readonly Local<'ptr'>[],
    offset: number,
    columnOf: (group: TileGroup) => readonly [Expr<'v128'>, Expr<'v128'>],
  ): void => {
    const [first, ...others] = x as [Local<'ptr'>, ...Local<'ptr'>[]];
    const load = (p: Local<'ptr'>): Expr<'v128'> => {
      const value = v128.load32_splat(p, offset);
      return xScale === 1 ? value : f32x4.mul(value, splatF32(xScale));
    };
    splat.set(load(first));
    for (const group of groups) {
      const [lowValue, highValue] = columnOf(group);
      low.set(lowValue);
      high.set(highValue);
      group.accumulators.forEach(([accLow, accHigh], c) => {
        if (c > 0) splat.set(load(others[c - 1]!));
        accLow.set(multiplyAdd(variant, low, splat, accLow));
        accHigh.set(multiplyAdd(variant, high, splat, accHigh));
      });
    }
  };
}

/** x in f32, quantised weights: their exact values. */
export const dequantizingSource = (variant: KernelVariant): MatmulSource => ({
  ...floatSource('F32', variant),
  expansionRows: 0,
});
