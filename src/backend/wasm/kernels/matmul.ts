// y = x · Wᵀ over packed weights, plus a bias or the residual stream. A thread takes a run of row groups (8 rows of W);
// for each it walks the rows of x in tiles, first wide ones, then single ones, so that decoding (one row) and prefill
// (many) are the same kernel and a group's weights are read from memory once. Every result is one accumulation over the
// columns in a fixed order, whatever the tile: the bits do not depend on batch, chunk or thread count.

import { BLOCK_FORMATS } from '../../../base/dtype.ts';
import type { DType } from '../../../base/dtype.ts';
import { ACTIVATION_BLOCK_BYTES, columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Tensor } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32x4, i16x8, i32, i32x4, i8x16, ptr, v128 } from '../emit/operations.ts';
import type { QuantizedFormat } from '../../../quant/block.ts';
import { QUANTIZED_FORMATS } from '../../../quant/codecs.ts';
import { multiplyAdd, splatF32, splatI32 } from './floats.ts';
import { pairSums, quadSums, totalOf, turnProducts } from './integer-sums.ts';
import type { Sums } from './integer-sums.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody, KernelVariant } from './kernel.ts';
import {
  BlockReader,
  F16_SCALE,
  FLOAT_DTYPES,
  GroupWalk,
  SUM_MAX,
  bundleOf,
  dequantizedColumns,
  floatColumn,
  groupBlockBytes,
  interleavingOf,
  productOffsetOf,
  quantizedFormatOf,
  scaledFloatColumn,
  termsOf,
} from './weights.ts';
import type { Cursor, PairedScales, UseColumn } from './weights.ts';

/** Accumulators of a group in a tile: [row of x][rows 0..3 and 4..7 of the group]. */
type Accumulators = readonly (readonly [Local<'v128'>, Local<'v128'>])[];

/** A group of eight rows of W, and what a tile adds up of it. */
interface TileGroup {
  /** At the group's first block; may be moved. */
  readonly at: Cursor;
  readonly accumulators: Accumulators;
}

/**
 * Emits the accumulation of one tile.
 * @param x  addresses of the tile's rows of x; may be moved
 */
type Tile = (groups: readonly TileGroup[], x: readonly Local<'ptr'>[], nBlocks: Local<'i32'>) => void;

interface MatmulSource {
  /** Rows of x in a tile, widest first; the last is 1, which finishes any number of rows. */
  readonly tileRows: readonly number[];
  /** Groups that a tile of one row takes at once: what hides the latency of its few accumulators. */
  readonly groupsOfOne: number;
  /** Prepares constants in the function; the tile may then be emitted for any number of rows. */
  prepare(f: FunctionBuilder): Tile;
  /** From how many rows of x on a group is expanded to f32 columns, which tiles of F32 then read. */
  readonly expansionRows: number;
}

/** Into so many runs, at most, a thread's share of the groups is divided. */
const RUNS_OF_SHARE = 16;
/** Rows of x that all groups of a run are done with before the next ones: both stay in the core's own cache. */
const ROWS_AT_ONCE = 64;

/** A product as its tiles see it: which rows of x meet which matrix, and what becomes of the results. */
interface Product {
  readonly weights: Local<'ptr'>;
  /** Of `weights`, the first group of the matrix. */
  readonly firstGroup?: Local<'i32'>;
  readonly groupBytes: Local<'ptr'>;
  readonly nIn: Local<'i32'>;
  readonly nBlocks: Local<'i32'>;
  readonly rows: Local<'i32'>;
  /** Address of a row of x. */
  x(row: Expr<'i32'>): Expr<'ptr'>;
  /** Stores what a tile has of a group, from row `row` on. */
  finish(group: Expr<'i32'>, row: Local<'i32'>, accumulators: Accumulators): void;
}

function buildMatmul(k: KernelBody, dtype: DType, source: MatmulSource): void {
  const { f } = k;
  const out = k.out();
  const x = k.input(0, 'x');
  const weights = k.input(1, 'weights');
  const rows = k.rows();
  const nOut = k.param('nOut');
  const nBlocks = k.param('nBlocks');
  const nIn = k.param('nIn');
  const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
  const xRowBytes = f.let('xRowBytes', ptr.fromI32(k.param('xRowBytes')));
  const nAddends = k.param('nAddends');
  const addends = [0, 1].map((i) => {
    return {
      base: k.input(2 + i, 'addend'),
      rowBytes: f.let('addendRowBytes', ptr.fromI32(k.param(`addendBytes${i}`))),
    };
  });
  const groups = productOf(k, dtype, source, {
    weights,
    groupBytes,
    nIn,
    nBlocks,
    rows,
    x: (row) => addressAt(x, row, xRowBytes),
    finish(group, row, accumulators) {
      addends.forEach((addend, i) => {
        f.if(i32.gt_s(nAddends, i), () => {
          accumulators.forEach((sums, c) => addGroup(k, addend, group, i32.add(row, c), sums));
        });
      });
      accumulators.forEach((sums, c) => storeGroup(k, out, nOut, group, i32.add(row, c), sums));
    },
  });
  const nGroups = f.let('nGroups', i32.shr_u(i32.add(nOut, 7), 3));
  const bundle = bundleOf(dtype, k.variant);
  const nBundles = f.let('nBundles', i32.div_u(i32.add(nGroups, bundle - 1), bundle));
  const grain = i32.add(i32.div_u(nBundles, i32.mul(k.nThreads, RUNS_OF_SHARE)), 1);
  const [first, end] = [f.local('i32', 'first'), f.local('i32', 'end')];
  k.eachRun(nBundles, grain, (from, to) => {
    first.set(i32.mul(from, bundle));
    end.set(i32.mul(to, bundle));
    f.if(i32.gt_s(end, nGroups), () => end.set(nGroups));
    groups(first, end);
  });
}

/** Prepares a product; what is returned emits it for the groups [from, to). */
export function productOf(
  k: KernelBody,
  dtype: DType,
  source: MatmulSource,
  { weights, firstGroup, groupBytes, nIn, nBlocks, rows, x, finish }: Product,
): (from: Local<'i32'>, to: Local<'i32'>) => void {
  const { f } = k;
  const group = f.local('i32', 'group');
  const row = f.local('i32', 'row');

  const walk = new GroupWalk(dtype, k.variant);
  const absolute = firstGroup ? f.local('i32', 'absoluteGroup') : group;
  const setCursor = (at: Cursor, beside: number): void => {
    if (firstGroup) absolute.set(i32.add(firstGroup, group));
    walk.start(at, weights, absolute, groupBytes, { beside });
  };

  /** A tile of `nGroups` groups from `group` on, for `n` rows from `row` on; `startAt` sets where they begin. */
  const emitTile = (
    tile: Tile,
    n: number,
    nGroups: number,
    startAt: (at: Cursor, beside: number) => void,
    blocks: Local<'i32'>,
  ): void => {
    const groups = Array.from({ length: nGroups }, (_, g) => {
      const at = walk.cursor(f);
      startAt(at, g);
      const accumulators = Array.from({ length: n }, (__, c) => {
        return [f.let(`low${c}`, v128.zero()), f.let(`high${c}`, v128.zero())] as const;
      });
      return { at, accumulators };
    });
    const px = Array.from({ length: n }, (_, c) => f.let('px', x(i32.add(row, c))));
    tile(groups, px, blocks);
    groups.forEach(({ accumulators }, g) => finish(i32.add(group, g), row, accumulators));
  };
  /** The rows of x from `row` up to `end`, with the present group. */
  const eachTile = (
    tile: Tile,
    tileRows: readonly number[],
    end: Local<'i32'>,
    startAt: (at: Cursor, beside: number) => void,
    blocks: Local<'i32'>,
  ): void => {
    for (const n of tileRows) {
      f.while(i32.le_s(i32.add(row, n), end), () => {
        emitTile(tile, n, 1, startAt, blocks);
        row.set(i32.add(row, n));
      });
    }
  };

  const tile = source.prepare(f);
  const { groupsOfOne } = source;
  const direct = (from: Expr<'i32'>, to: Local<'i32'>): void => {
    group.set(from);
    if (groupsOfOne > 1) {
      const isAligned = firstGroup ? i32.eqz(i32.rem_u(i32.add(firstGroup, from), walk.nBundled)) : i32.const(1);
      f.if(i32.and(i32.eq(rows, 1), isAligned), () => {
        row.set(0);
        f.while(i32.le_s(i32.add(group, groupsOfOne), to), () => {
          emitTile(tile, 1, groupsOfOne, setCursor, nBlocks);
          group.set(i32.add(group, groupsOfOne));
        });
      });
    }
    const startGroup = f.let('startGroup', group);
    const firstRow = f.local('i32', 'firstRow');
    const endRow = f.local('i32', 'endRow');
    f.for(firstRow, { from: 0, to: rows, step: ROWS_AT_ONCE }, () => {
      endRow.set(i32.add(firstRow, ROWS_AT_ONCE));
      f.if(i32.gt_s(endRow, rows), () => endRow.set(rows));
      f.for(group, { from: startGroup, to }, () => {
        row.set(firstRow);
        eachTile(tile, source.tileRows, endRow, setCursor, nBlocks);
      });
    });
  };
  const expanded = (from: Expr<'i32'>, to: Local<'i32'>): void => {
    const plain = floatSource('F32', k.variant);
    const plainTile = plain.prepare(f);
    const unpack = blockUnpacker(f, dtype, k.variant);
    const scratch = k.scratch();
    const at = walk.cursor(f);
    const target = f.local('ptr', 'target');
    const store: UseColumn = (column, ...halves) => {
      halves.forEach((half, h) => v128.store(target, half, COLUMN_BYTES * column + 16 * h));
    };
    f.for(group, { from, to }, () => {
      setCursor(at, 0);
      target.set(scratch);
      unpack(at, nBlocks, store, (n) => target.set(ptr.add(target, COLUMN_BYTES * n)));
      row.set(0);
      eachTile(plainTile, plain.tileRows, rows, ({ part }) => part.set(scratch), nIn);
    });
  };
  return (from, to) => {
    const { expansionRows } = source;
    if (expansionRows === Infinity) return direct(from, to);
    if (expansionRows === 0) return expanded(from, to);
    f.if(
      i32.ge_s(rows, expansionRows),
      () => expanded(from, to),
      () => direct(from, to),
    );
  };
}

/** A bias, of which every row is the same, or the residual stream. */
interface Addend {
  readonly base: Local<'ptr'>;
  readonly rowBytes: Local<'ptr'>;
}

/**
 * Adds the eight values that belong to a group's results. In the last group some may not exist: what memory has there
 * is added, and not stored. Without a branch both halves are one stretch of code, of which V8 can make 256-bit vectors.
 */
function addGroup(
  { f }: KernelBody,
  { base, rowBytes }: Addend,
  group: Expr<'i32'>,
  row: Expr<'i32'>,
  halves: Accumulators[number],
): void {
  const source = f.let('source', addressAt(addressAt(base, row, rowBytes), i32.shl(group, 3), 4));
  halves.forEach((acc, h) => acc.set(f32x4.add(acc, v128.load(source, 16 * h))));
}

/** Stores the eight results of a group; of the last group only those that exist. */
export function storeGroup(
  k: KernelBody,
  out: Expr<'ptr'>,
  nOut: Expr<'i32'>,
  group: Expr<'i32'>,
  row: Expr<'i32'>,
  halves: Accumulators[number],
): void {
  const { f } = k;
  const first = f.let('first', i32.shl(group, 3));
  const target = f.let('target', addressAt(out, i32.add(i32.mul(row, nOut), first), 4));
  f.if(
    i32.le_s(i32.add(first, 8), nOut),
    () => halves.forEach((acc, h) => v128.store(target, acc, 16 * h)),
    () => {
      for (let i = 0; i < 7; i++) {
        f.if(i32.lt_s(i32.add(first, i), nOut), () => v128.store32_lane(target, halves[i >> 2]!, i % 4, 4 * i));
      }
    },
  );
}

/**
 * F16 weights are left too small by `F16_SCALE`, which saves a multiplication each. x makes good most of it, and the
 * sums the rest. Powers of two change no bit of a result, as long as x is below 2^48 and its products above 2^-94.
 */
const F16_X_SCALE = 2 ** 80;

/** x in f32, weights that are floats: a column at a time. */
function floatSource(dtype: FloatDType, variant: KernelVariant): MatmulSource {
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
            add(groups, x, 4 * k, ({ at }) => load(at.part, columnBytes * k));
          }
          for (const { at } of groups) at.part.set(ptr.add(at.part, columnBytes * n));
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
const COLUMN_BYTES = 32;

/**
 * Emits exact f32 values of `nBlocks` blocks of a group at `at`, which moves along. Columns are counted anew after each
 * call of `advance`, which says how many they were.
 */
type UnpackBlocks = (at: Cursor, nBlocks: Expr<'i32'>, use: UseColumn, advance: (nColumns: number) => void) => void;

function blockUnpacker(f: FunctionBuilder, dtype: DType, variant: KernelVariant): UnpackBlocks {
  const format = quantizedFormatOf(dtype);
  if (format) {
    const reader = new BlockReader(f, format, variant);
    return (at, nBlocks, use, advance) => {
      each32(f, variant, [{ reader, at }], nBlocks, () => {
        dequantizedColumns(f, reader, variant, at.part, use);
        advance(32);
      });
    };
  }
  const load = floatColumn(f, dtype as FloatDType);
  return ({ part }, nBlocks, use, advance) => {
    const left = f.let('left', nBlocks);
    f.while(i32.gt_s(left, 0), () => {
      use(0, ...load(part, 0));
      advance(1);
      part.set(ptr.add(part, groupBlockBytes(dtype)));
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

/** A group of eight rows of W, and what reads it. */
interface ReadGroup {
  readonly reader: BlockReader;
  readonly at: Cursor;
}

/** Runs `body` for each 32 columns of `nBlocks` blocks of some groups, with the scales read; moves them along. */
function each32(
  f: FunctionBuilder,
  variant: KernelVariant,
  groups: readonly ReadGroup[],
  nBlocks: Expr<'i32'>,
  body: () => void,
): void {
  const { format, nParts32 } = groups[0]!.reader;
  const walk = new GroupWalk(format.dtype, variant);
  const left = f.let('left', nBlocks);
  const one = (): void => {
    for (const { reader, at } of groups) reader.scales(at.part);
    body();
    for (const { at } of groups) walk.nextPart(at);
  };
  f.while(i32.gt_s(left, 0), () => {
    for (const { reader, at } of groups) reader.header(at.header);
    if (nParts32 === 1) one();
    else f.for(f.local('i32', 'part'), { from: 0, to: nParts32 }, one);
    for (const { at } of groups) walk.nextBlock(at);
    left.set(i32.sub(left, 1));
  });
}

/** x in f32, quantised weights: their exact values. */
const dequantizingSource = (variant: KernelVariant): MatmulSource => ({
  ...floatSource('F32', variant),
  expansionRows: 0,
});

/** x in 8 bits: integer dot products of a part, then one multiply-add with the product of the scales. */
function integerSource(format: QuantizedFormat, variant: KernelVariant): MatmulSource {
  const interleaving = interleavingOf(format, variant);
  const xBlockBytes = ACTIVATION_BLOCK_BYTES[interleaving === 'pairs' ? 'Q8W' : 'Q8A'];
  const groupsOfOne = bundleOf(format.dtype, variant);
  const prepare = (f: FunctionBuilder): Tile => {
    const readers = Array.from({ length: groupsOfOne }, () => new BlockReader(f, format, variant, true));
    const { pairs } = readers[0]!;
    // Sums of 16 bits stay apart by themselves.
    const nParts = !pairs ? readers[0]!.parts.length : interleaving === 'split' ? 1 : 2;
    const addBlock = (pairs ? addPairs : addParts)(f, format, variant);
    return (groups, x, nBlocks) => {
      const walks = groups.map(({ at, accumulators }, g) => {
        const reader = readers[g]!;
        const sums =
          interleaving === 'pairs'
            ? pairSums(f, x.length, nParts)
            : quadSums(f, x.length, nParts, format, variant, reader.pairs?.scale);
        return { reader, at, accumulators, sums };
      });
      const addTurns = turnProducts(
        f,
        walks.map(({ sums }) => sums),
        x,
      );
      each32(f, variant, walks, nBlocks, () => {
        for (const { sums } of walks) for (const each of sums) each.begin();
        addTurns(
          walks.map(({ reader, at }) =>
            (interleaving === 'pairs' ? reader.words : reader.numbers).call(reader, at.part),
          ),
        );
        x.forEach((p, c) => {
          const add = addBlock(p);
          for (const { reader, sums, accumulators } of walks) add(reader, sums, c, accumulators[c]!);
        });
        for (const p of x) p.set(ptr.add(p, xBlockBytes));
      });
    };
  };
  // Two terms take twice the registers.
  const tileRows = variant.wide && termsOf(format).length === 1 ? [8, 4, 1] : [4, 1];
  return { tileRows, groupsOfOne, expansionRows: Infinity, prepare };
}

/**
 * Emits what the integers of 32 columns add to accumulators: first what all groups need of the block of x at `p`, then
 * for each group what it adds of its sums with that row of x.
 */
type AddBlock = (
  p: Expr<'ptr'>,
) => (reader: BlockReader, sums: readonly Sums[], c: number, accumulators: Accumulators[number]) => void;

/** Parts one by one, each with its scale. */
function addParts(f: FunctionBuilder, format: QuantizedFormat, variant: KernelVariant): AddBlock {
  const offset = productOffsetOf(format, variant);
  const scale = f.local('v128', 'xScale');
  const offsetSums = f.localArray('v128', 'offsetSum', 2);
  const scaledSums = f.localArray('v128', 'xScaledSum', 2);
  const { scaleColumns, hasMinima } = format;
  const nParts = scaleColumns === 16 ? 2 : 1;
  return (p) => {
    scale.set(v128.load32_splat(p, 0));
    for (let i = 0; i < nParts; i++) {
      if (offset !== 0) offsetSums[i]!.set(activationSum(p, nParts, i, offset));
      if (hasMinima) scaledSums[i]!.set(f32x4.mul(f32x4.convert_i32x4_s(activationSum(p, nParts, i, 1)), scale));
    }
    return ({ parts }, sums, c, accumulators) => {
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
  };
}

/** Both halves at once: sums side by side, times scales that stand so, all of it in integers. */
function addPairs(f: FunctionBuilder, format: QuantizedFormat, variant: KernelVariant): AddBlock {
  const offset = productOffsetOf(format, variant);
  const isSplit = interleavingOf(format, variant) === 'split';
  const [scale, xSums] = [f.local('v128', 'xScale'), f.local('v128', 'xSums')];
  const offsetSums = f.local('v128', 'offsetSums');
  const shiftSum = shiftSumOf(f, format, xSums);
  return (p) => {
    scale.set(v128.load32_splat(p, 0));
    xSums.set(v128.load32_splat(p, 4));
    const fits = offset * SUM_MAX < 2 ** 15;
    if (fits && offset > 1) offsetSums.set(i16x8.mul(xSums, splatI32(offset * 0x00010001)));
    const offsetOf = (scales: Expr<'v128'>): Expr<'v128'> =>
      fits
        ? i32x4.dot_i16x8_s(scales, offset > 1 ? offsetSums : xSums)
        : i32x4.mul(i32x4.dot_i16x8_s(scales, xSums), splatI32(offset));
    const shiftOf = shiftSum(p);
    return ({ pairs, d, dMin }, sums, c, accumulators) => {
      const { scale: scales, minimum, shift } = pairs!;
      accumulators.forEach((acc, h) => {
        const both = (): Expr<'v128'> => {
          const [first, last] = [0, 1].map((i) => totalOf(sums, c, i, h)) as [Expr<'v128'>, Expr<'v128'>];
          return v128.or(v128.and(first, splatI32(0xffff)), i32x4.shl(last, 16));
        };
        const dot = isSplit ? totalOf(sums, c, 0, h) : i32x4.dot_i16x8_s(both(), scales[h]!);
        const centred = offset === 0 ? dot : i32x4.sub(dot, offsetOf(scales[h]!));
        const [value, factor] = shift ? [shiftOf(centred, shift, h), dMin![h]!] : [centred, d[h]!];
        acc.set(multiplyAdd(variant, f32x4.convert_i32x4_s(value), f32x4.mul(factor, scale), acc));
        if (!minimum) return;
        const minima = f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(minimum[h]!, xSums));
        acc.set(multiplyAdd(variant, minima, f32x4.mul(dMin![h]!, scale), acc));
      });
    };
  };
}

/** Prepares values in units of the shift: unshifted ones, and the shift times the activations it meets. */
function shiftSumOf(f: FunctionBuilder, { shift = 1, scaleColumns }: QuantizedFormat, xSums: Local<'v128'>) {
  const total = f.local('v128', 'xTotal');
  const [last, turned] = [f.local('v128', 'lastSums'), f.local('v128', 'turnedSums')];
  return (p: Expr<'ptr'>) => {
    if (shift !== 1 && scaleColumns === 32) total.set(i32x4.dot_i16x8_s(xSums, splatI32(0x00010001)));
    if (shift !== 1 && scaleColumns === 16) {
      last.set(i16x8.shl(v128.load32_splat(p, 8), 1));
      turned.set(i16x8.sub(xSums, last));
    }
    return (value: Expr<'v128'>, { first, both }: NonNullable<PairedScales['shift']>, h: number): Expr<'v128'> => {
      const scaled = i32x4.shl(value, -Math.log2(shift));
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

function matmulValues({ out, inputs }: Instruction, dtype: DType): Record<string, number> {
  const [x, weights, ...addends] = inputs.map(({ tensor }) => tensor) as [Tensor, Tensor, ...Tensor[]];
  const nIn = columnsOf(weights);
  const nBlocks = nIn / BLOCK_FORMATS[dtype].blockElements;
  const xBlockBytes = x.dtype === 'Q8A' || x.dtype === 'Q8W' ? ACTIVATION_BLOCK_BYTES[x.dtype] : 128;
  // A bias is the same row for all.
  const addendBytes = (t: Tensor | undefined): number =>
    t === undefined || t.shape.length === 1 ? 0 : 4 * columnsOf(t);
  return {
    nAddends: addends.length,
    addendBytes0: addendBytes(addends[0]),
    addendBytes1: addendBytes(addends[1]),
    nOut: columnsOf(out.tensor),
    nIn,
    nBlocks,
    groupBytes: nBlocks * groupBlockBytes(dtype),
    xRowBytes: (nIn / 32) * xBlockBytes,
  };
}

/** A way to multiply: the types of the operands, and what makes tiles of them. */
export interface SourceOf {
  readonly x: 'F32' | 'Q8A';
  readonly dtype: DType;
  readonly create: (variant: KernelVariant) => MatmulSource;
}

/** Scratch for a group that is expanded. */
export const expansionBytes = ({ x, dtype }: SourceOf, nIn: number): number =>
  x === 'F32' && dtype !== 'F32' ? COLUMN_BYTES * nIn : 0;

const matmulKernel = (source: SourceOf): Kernel => ({
  op: 'matmul',
  dtypes: [source.x, source.dtype],
  params: {
    nOut: 'i32',
    nIn: 'i32',
    nBlocks: 'i32',
    groupBytes: 'i32',
    xRowBytes: 'i32',
    nAddends: 'i32',
    addendBytes0: 'i32',
    addendBytes1: 'i32',
  },
  values: (instruction) => matmulValues(instruction, source.dtype),
  scratchBytes: ({ inputs }) => expansionBytes(source, columnsOf(inputs[1]!.tensor)),
  build: (k) => buildMatmul(k, source.dtype, source.create(k.variant)),
});

/** Rows of a packed table by id: all eight rows of a group are unpacked, the wanted lane is stored. */
const embedKernel = (dtype: DType): Kernel => ({
  op: 'embed',
  dtypes: [dtype],
  params: { nBlocks: 'i32', groupBytes: 'i32', nBeside: 'i32' },
  values({ out, inputs }) {
    const nBlocks = columnsOf(inputs[0]!.tensor) / BLOCK_FORMATS[dtype].blockElements;
    const nBeside = columnsOf(out.tensor) / columnsOf(inputs[0]!.tensor);
    return { nBlocks, groupBytes: nBlocks * groupBlockBytes(dtype), nBeside };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const weights = k.input(0, 'weights');
    const ids = k.input(1, 'ids');
    const nBlocks = k.param('nBlocks');
    const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
    const { from, to } = k.share(i32.mul(i32.mul(k.rows(), k.param('nBeside')), nBlocks));
    const item = f.local('i32', 'item');
    const id = f.local('i32', 'id');
    const walk = new GroupWalk(dtype, k.variant);
    const at = walk.cursor(f);
    const group = f.local('i32', 'group');
    const target = f.local('ptr', 'target');
    const lane = f.local('v128', 'lane');
    const value = f.local('v128', 'value');
    const store = (column: number, low: Expr<'v128'>, high: Expr<'v128'>): void => {
      value.set(low);
      f.if(i32.and(id, 4), () => value.set(high));
      v128.store32_lane(target, i8x16.swizzle(value, lane), 0, 4 * column);
    };
    const unpack = blockUnpacker(f, dtype, k.variant);
    f.for(item, { from, to }, () => {
      id.set(i32.load(addressAt(ids, i32.div_u(item, nBlocks), 4)));
      group.set(i32.shr_u(id, 3));
      walk.start(at, weights, group, groupBytes, { block: i32.rem_u(item, nBlocks) });
      target.set(addressAt(out, item, 4 * BLOCK_FORMATS[dtype].blockElements));
      // Swizzle indices that bring row (id mod 4) of a vector to lane 0.
      const firstByte = i32.mul(i32.and(id, 3), 0x04040404);
      lane.set(i32x4.splat(i32.add(firstByte, 0x03020100)));
      unpack(at, i32.const(1), store, (n) => target.set(ptr.add(target, 4 * n)));
    });
  },
});

type FloatDType = (typeof FLOAT_DTYPES)[number];

/** Types of weights that the kernels run. */
const PACKED_DTYPES: readonly DType[] = [...FLOAT_DTYPES, ...QUANTIZED_FORMATS.map(({ dtype }) => dtype)];

export const MATMUL_SOURCES: readonly SourceOf[] = [
  ...FLOAT_DTYPES.map((dtype): SourceOf => ({ x: 'F32', dtype, create: (variant) => floatSource(dtype, variant) })),
  ...QUANTIZED_FORMATS.flatMap((format): SourceOf[] => [
    { x: 'F32', dtype: format.dtype, create: dequantizingSource },
    { x: 'Q8A', dtype: format.dtype, create: (variant) => integerSource(format, variant) },
  ]),
];

export const MATMUL_KERNELS: readonly Kernel[] = [
  ...MATMUL_SOURCES.map(matmulKernel),
  ...PACKED_DTYPES.map(embedKernel),
];
