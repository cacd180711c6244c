// y = x · Wᵀ over packed weights, plus a bias or the residual stream. A thread takes a run of row groups (8 rows of W);
// for each it walks the rows of x in tiles, first wide ones, then single ones, so that decoding (one row) and prefill
// (many) are the same kernel and a group's weights are read from memory once. Every result is one accumulation over the
// columns in a fixed order, whatever the tile: the bits do not depend on batch, chunk or thread count.

import { BLOCK_FORMATS } from '../../../../base/dtype.ts';
import type { DType } from '../../../../base/dtype.ts';
import type { Instruction } from '../../../../graph/plan.ts';
import { ACTIVATION_BLOCK_BYTES, columnsOf } from '../../../../graph/tensor.ts';
import type { Tensor } from '../../../../graph/tensor.ts';
import { QUANTIZED_FORMATS } from '../../../../quant/codecs.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import { f32x4, i32, i32x4, i8x16, ptr, v128 } from '../../emit/operations.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel, KernelBody, KernelVariant } from '../kernel.ts';
import { COLUMN_BYTES, blockUnpacker, dequantizingSource, floatSource } from './float-tile.ts';
import { integerSource } from './integer-tile.ts';
import { FLOAT_DTYPES, groupBlockBytes } from './layout.ts';
import type { UseColumn } from './block-reader.ts';
import type { Accumulators, MatmulSource, Tile, TileGroup } from './tile.ts';

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
  const grain = i32.add(i32.div_u(nGroups, i32.mul(k.nThreads, RUNS_OF_SHARE)), 1);
  k.eachRun(nGroups, grain, groups);
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

  const groupAt = (beside: number): Expr<'ptr'> => {
    const index = i32.add(group, beside);
    return addressAt(weights, firstGroup ? i32.add(firstGroup, index) : index, groupBytes);
  };

  /** A tile of `nGroups` groups from `group` on, for `n` rows from `row` on; `at` says where they begin. */
  const emitTile = (
    tile: Tile,
    n: number,
    nGroups: number,
    at: (beside: number) => Expr<'ptr'>,
    blocks: Local<'i32'>,
  ): void => {
    const groups = Array.from({ length: nGroups }, (_, g): TileGroup => {
      const accumulators = Array.from({ length: n }, (__, c) => {
        return [f.let(`low${c}`, v128.zero()), f.let(`high${c}`, v128.zero())] as const;
      });
      return { w: f.let('w', at(g)), accumulators };
    });
    const px = Array.from({ length: n }, (_, c) => f.let('px', x(i32.add(row, c))));
    tile(groups as [TileGroup, ...TileGroup[]], px, blocks);
    groups.forEach(({ accumulators }, g) => finish(i32.add(group, g), row, accumulators));
  };
  /** The rows of x from `row` up to `end`, with the present group. */
  const eachTile = (
    tile: Tile,
    tileRows: readonly number[],
    end: Local<'i32'>,
    at: (beside: number) => Expr<'ptr'>,
    blocks: Local<'i32'>,
  ): void => {
    for (const n of tileRows) {
      f.while(i32.le_s(i32.add(row, n), end), () => {
        emitTile(tile, n, 1, at, blocks);
        row.set(i32.add(row, n));
      });
    }
  };

  const tile = source.prepare(f);
  const { groupsOfOne } = source;
  const direct = (from: Expr<'i32'>, to: Local<'i32'>): void => {
    group.set(from);
    if (groupsOfOne > 1) {
      f.if(i32.eq(rows, 1), () => {
        row.set(0);
        f.while(i32.le_s(i32.add(group, groupsOfOne), to), () => {
          emitTile(tile, 1, groupsOfOne, groupAt, nBlocks);
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
        eachTile(tile, source.tileRows, endRow, groupAt, nBlocks);
      });
    });
  };
  const expanded = (from: Expr<'i32'>, to: Local<'i32'>): void => {
    const plain = floatSource('F32', k.variant);
    const plainTile = plain.prepare(f);
    const unpack = blockUnpacker(f, dtype, k.variant);
    const scratch = k.scratch();
    const w = f.local('ptr', 'w');
    const target = f.local('ptr', 'target');
    const store: UseColumn = (column, ...halves) => {
      halves.forEach((half, h) => v128.store(target, half, COLUMN_BYTES * column + 16 * h));
    };
    f.for(group, { from, to }, () => {
      w.set(groupAt(0));
      target.set(scratch);
      unpack(w, nBlocks, store, (n) => target.set(ptr.add(target, COLUMN_BYTES * n)));
      row.set(0);
      eachTile(plainTile, plain.tileRows, rows, () => scratch, nIn);
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
    const w = f.local('ptr', 'w');
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
      w.set(addressAt(weights, i32.shr_u(id, 3), groupBytes));
      w.set(addressAt(w, i32.rem_u(item, nBlocks), groupBlockBytes(dtype)));
      target.set(addressAt(out, item, 4 * BLOCK_FORMATS[dtype].blockElements));
      // Swizzle indices that bring row (id mod 4) of a vector to lane 0.
      const firstByte = i32.mul(i32.and(id, 3), 0x04040404);
      lane.set(i32x4.splat(i32.add(firstByte, 0x03020100)));
      unpack(w, i32.const(1), store, (n) => target.set(ptr.add(target, 4 * n)));
    });
  },
});

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
