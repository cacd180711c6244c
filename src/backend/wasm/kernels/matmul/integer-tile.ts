// Tiles of x in 8 bits: integer products, multiplied with scales once for 32 columns.

import { ACTIVATION_BLOCK_BYTES } from '../../../../graph/tensor.ts';
import type { QuantizedFormat } from '../../../../quant/block.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32x4, i16x8, i32x4, ptr, v128 } from '../../emit/operations.ts';
import { multiplyAdd, splatI32 } from '../floats.ts';
import type { KernelVariant } from '../kernel.ts';
import { BlockReader, SUM_MAX, each32 } from './block-reader.ts';
import type { PairedScales } from './block-reader.ts';
import { pairSums, quadSums, totalOf, turnProducts } from './integer-sums.ts';
import type { Sums } from './integer-sums.ts';
import { interleavingOf, productOffsetOf, termsOf } from './layout.ts';
import type { Accumulators, MatmulSource, Tile } from './tile.ts';

/** x in 8 bits: integer dot products of a part, then one multiply-add with the product of the scales. */
export function integerSource(format: QuantizedFormat, variant: KernelVariant): MatmulSource {
  const interleaving = interleavingOf(format, variant);
  const xBlockBytes = ACTIVATION_BLOCK_BYTES[interleaving === 'pairs' ? 'Q8W' : 'Q8A'];
  const prepare = (f: FunctionBuilder): Tile => {
    const reader = new BlockReader(f, format, variant, true);
    const { pairs } = reader;
    // Sums of 16 bits stay apart by themselves.
    const nParts = !pairs ? reader.parts.length : interleaving === 'split' ? 1 : 2;
    const addBlock = (pairs ? addPairs : addParts)(f, reader, variant);
    return ([{ w, accumulators }], x, nBlocks) => {
      const sums =
        interleaving === 'pairs'
          ? pairSums(f, x.length, nParts)
          : quadSums(f, x.length, nParts, format, variant, pairs?.scale);
      const addTurns = turnProducts(f, sums, x);
      each32(f, reader, w, nBlocks, () => {
        for (const each of sums) each.begin();
        addTurns(reader.turns(w));
        x.forEach((p, c) => addBlock(p, sums, c, accumulators[c]!));
        for (const p of x) p.set(ptr.add(p, xBlockBytes));
      });
    };
  };
  // Two terms take twice the registers.
  const tileRows = variant.wide && termsOf(format).length === 1 ? [8, 4, 1] : [4, 1];
  return { tileRows, groupsOfOne: 1, expansionRows: Infinity, prepare };
}

/** Emits what the integers of 32 columns add to the accumulators of row `c` of x, whose block is at `p`. */
type AddBlock = (p: Expr<'ptr'>, sums: readonly Sums[], c: number, accumulators: Accumulators[number]) => void;

/** Parts one by one, each with its scale. */
function addParts(f: FunctionBuilder, { format, parts }: BlockReader, variant: KernelVariant): AddBlock {
  const offset = productOffsetOf(format, variant);
  const scale = f.local('v128', 'xScale');
  const offsetSums = f.localArray('v128', 'offsetSum', 2);
  const scaledSums = f.localArray('v128', 'xScaledSum', 2);
  const { scaleColumns, hasMinima } = format;
  const nParts = scaleColumns === 16 ? 2 : 1;
  return (p, sums, c, accumulators) => {
    scale.set(v128.load32_splat(p, 0));
    for (let i = 0; i < nParts; i++) {
      if (offset !== 0) offsetSums[i]!.set(activationSum(p, nParts, i, offset));
      if (hasMinima) scaledSums[i]!.set(f32x4.mul(f32x4.convert_i32x4_s(activationSum(p, nParts, i, 1)), scale));
    }
    parts.forEach((part, i) => {
      accumulators.forEach((acc, h) => {
        const dot = totalOf(sums, c, i, h);
        const centred = offset === 0 ? dot : i32x4.sub(dot, offsetSums[i]!);
        const value = f32x4.convert_i32x4_s(centred);
        acc.set(multiplyAdd(variant, value, f32x4.mul(part.scale[h]!, scale), acc));
        if (part.minimum) acc.set(multiplyAdd(variant, part.minimum[h]!, scaledSums[i]!, acc));
      });
    });
  };
}

/** Both halves at once: sums side by side, times scales that stand so, all of it in integers. */
function addPairs(f: FunctionBuilder, { format, pairs, d, dMin }: BlockReader, variant: KernelVariant): AddBlock {
  const offset = productOffsetOf(format, variant);
  const isSplit = interleavingOf(format, variant) === 'split';
  const [scale, xSums] = [f.local('v128', 'xScale'), f.local('v128', 'xSums')];
  const offsetSums = f.local('v128', 'offsetSums');
  const { shift: unit, scaleColumns } = format;
  const shiftSum = unit === undefined ? undefined : shiftSumOf(f, unit, scaleColumns, xSums);
  return (p, sums, c, accumulators) => {
    scale.set(v128.load32_splat(p, 0));
    xSums.set(v128.load32_splat(p, 4));
    const fits = offset * SUM_MAX < 2 ** 15;
    if (fits && offset > 1) offsetSums.set(i16x8.mul(xSums, splatI32(offset * 0x00010001)));
    const offsetOf = (scales: Expr<'v128'>): Expr<'v128'> =>
      fits
        ? i32x4.dot_i16x8_s(scales, offset > 1 ? offsetSums : xSums)
        : i32x4.mul(i32x4.dot_i16x8_s(scales, xSums), splatI32(offset));
    const shifted = shiftSum?.(p);
    const { scale: scales, minimum, shift } = pairs!;
    accumulators.forEach((acc, h) => {
      const both = (): Expr<'v128'> => {
        const [first, last] = [0, 1].map((i) => totalOf(sums, c, i, h)) as [Expr<'v128'>, Expr<'v128'>];
        return v128.or(v128.and(first, splatI32(0xffff)), i32x4.shl(last, 16));
      };
      const dot = isSplit ? totalOf(sums, c, 0, h) : i32x4.dot_i16x8_s(both(), scales[h]!);
      const centred = offset === 0 ? dot : i32x4.sub(dot, offsetOf(scales[h]!));
      const [value, factor] = shifted ? [shifted(centred, shift!, h), dMin![h]!] : [centred, d[h]!];
      acc.set(multiplyAdd(variant, f32x4.convert_i32x4_s(value), f32x4.mul(factor, scale), acc));
      if (!minimum) return;
      const minima = f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(minimum[h]!, xSums));
      acc.set(multiplyAdd(variant, minima, f32x4.mul(dMin![h]!, scale), acc));
    });
  };
}

/** Values in units of the shift: the unshifted one, and what the shift adds for the activations that it meets. */
function shiftSumOf(f: FunctionBuilder, unit: number, scaleColumns: number, xSums: Local<'v128'>) {
  const total = f.local('v128', 'xTotal');
  const [last, turned] = [f.local('v128', 'lastSums'), f.local('v128', 'turnedSums')];
  return (p: Expr<'ptr'>) => {
    if (scaleColumns === 32) total.set(i32x4.dot_i16x8_s(xSums, splatI32(0x00010001)));
    else {
      last.set(i16x8.shl(v128.load32_splat(p, 8), 1));
      turned.set(i16x8.sub(xSums, last));
    }
    return (value: Expr<'v128'>, { first, both }: NonNullable<PairedScales['shift']>, h: number): Expr<'v128'> => {
      const scaled = i32x4.shl(value, 31 - Math.clz32(1 / unit));
      // In this order of operands, or V8 does not pair the halves.
      if (scaleColumns === 32) return i32x4.add(scaled, i32x4.mul(total, first[h]!));
      const turnedSum = i32x4.add(scaled, i32x4.dot_i16x8_s(first[h]!, turned));
      return i32x4.add(turnedSum, i32x4.dot_i16x8_s(both[h]!, last));
    };
  };
}

/**
 * `factor` times the sum of the activations that part `i` of a block meets, in every lane. The block keeps the sums of
 * its two halves.
 */
function activationSum(x: Expr<'ptr'>, nParts: number, i: number, factor: number): Expr<'v128'> {
  const [first, last] = [0, 1].map((half) => (nParts === 1 || half === i ? factor : 0)) as [number, number];
  return i32x4.dot_i16x8_s(v128.load32_splat(x, 4), splatI32((last << 16) | first));
}
