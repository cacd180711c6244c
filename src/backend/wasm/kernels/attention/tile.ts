// Attention's inner part, as functions of their own: a few queries with one block of the cache. Scores, their softmax,
// and the sum of the values by it.

import type { KvDtype } from '../../../../graph/step.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FuncRef, FunctionBuilder } from '../../emit/function-builder.ts';
import { f32, f32x4, i32, i32x4, ptr, v128 } from '../../emit/operations.ts';
import { expInto, maxLanes, multiplyAdd, softcapInto, splatF32, sumLanes } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { KernelBody, KernelVariant } from '../kernel.ts';
import { BLOCK, ELEMENT_BYTES, blockLoader } from './kv-cache.ts';
import type { FloatType } from './kv-cache.ts';

/** Queries that are worked on at once, and the columns of positions or of values that each of them then takes. */
export const tilesOf = ({ wide }: KernelVariant): readonly Tile[] => [
  { nQueries: 4, widths: wide ? [16, 8, 4] : [8, 4] },
  { nQueries: 3, widths: wide ? [16, 8, 4] : [8, 4] },
  { nQueries: 2, widths: [16, 8, 4] },
  { nQueries: 1, widths: [32, 8, 4] },
];

/** What a tile of queries and a block are, as the functions that bring them together get it. */
export const TILE_PARAMS = {
  headDim: 'i32',
  headsPerKv: 'i32',
  scale: 'f32',
  /** 0: none. */
  softcap: 'f32',
  /** Positions that a row sees; as many as there are integers if all. */
  window: 'i32',
  /** i32 a row of the batch: the last position that it attends to. */
  lastSeen: 'ptr',
  /** Bytes between rows of queries and results, and where the group's first head begins in a row. */
  queryRowBytes: 'ptr',
  queries: 'ptr',
  /** First row of the present run. Query i of it is head i mod headsPerKv of row i / headsPerKv. */
  firstRow: 'i32',
  /** First query of the tile. */
  first: 'i32',
  /** First position of the present block, and positions of it that the last row sees. */
  firstPosition: 'i32',
  nKeys: 'i32',
  /** f32[4, BLOCK] */
  scores: 'ptr',
  /** What the queries come to in the present chunk, and bytes between them. Behind the sums: maximum, total. */
  partials: 'ptr',
  partialBytes: 'ptr',
  /** Of the present block, as the cache has it or as f32. */
  keys: 'ptr',
  values: 'ptr',
} as const;

/** A function being built, and what its parameters say. */
export type TileBody = { readonly f: FunctionBuilder; readonly variant: KernelVariant } & {
  readonly [Name in keyof typeof TILE_PARAMS]: Local<(typeof TILE_PARAMS)[Name]>;
};

export interface Tile {
  readonly nQueries: number;
  readonly widths: readonly number[];
}

export type TileFunction = FuncRef<typeof TILE_PARAMS, readonly []>;

/** Offset of a query's head from `queries`, and of its result from `results`. */
export function queryOffset(
  { queryRowBytes, headsPerKv, headDim, firstRow }: TileBody,
  query: Expr<'i32'>,
): Expr<'ptr'> {
  const row = i32.add(firstRow, i32.div_u(query, headsPerKv));
  const head = ptr.fromI32(i32.shl(i32.mul(i32.rem_u(query, headsPerKv), headDim), 2));
  return ptr.add(ptr.mul(ptr.fromI32(row), queryRowBytes), head);
}

/** Calls `body` with the address of each vector of a head at `start`, and with the same offset from `beside`. */
export function eachVector(
  { f, headDim }: Pick<TileBody, 'f' | 'headDim'>,
  start: Expr<'ptr'>,
  body: (address: Local<'ptr'>, beside: Local<'ptr'>) => void,
  beside: Expr<'ptr'> = start,
): void {
  const p = f.let('po', start);
  const pb = f.let('pb', beside);
  const end = f.let('vectorsEnd', addressAt(p, headDim, 4));
  f.while(ptr.lt_u(p, end), () => {
    body(p, pb);
    p.set(ptr.add(p, 16));
    pb.set(ptr.add(pb, 16));
  });
}

/** What a softmax of some positions comes to: f32[headDim] sums of weighted values, the maximum, the sum of weights. */
export const partialBytes = (headDim: number): number => 4 * headDim + 16;

/** What a query comes to in the present chunk: where its sums are, its maximum, its total. */
export function partialOf(item: TileBody, query: Expr<'i32'>): { sums: Local<'ptr'>; rest: Local<'ptr'> } {
  const { f, partials, headDim } = item;
  const sums = f.let('sums', addressAt(partials, query, item.partialBytes));
  return { sums, rest: f.let('sumsEnd', addressAt(sums, headDim, 4)) };
}

/** Offsets from the end of the sums. */
export const MAXIMUM = 0;
export const TOTAL = 4;

/** The function that brings one tile of queries and a block together. `type` is what it reads the block as. */
export function defineTile(
  { module, variant }: KernelBody,
  cacheType: KvDtype,
  type: FloatType,
  { nQueries, widths }: Tile,
  softmax: SoftmaxFunction,
): TileFunction {
  const name = `attention.${cacheType}.${type}.${nQueries}`;
  return module.func(name, { params: TILE_PARAMS, results: [] }, (f, params) => {
    const tile: TileBody = { ...params, f, variant };
    const queries = Array.from({ length: nQueries }, (_, i) => f.let('query', i32.add(tile.first, i)));
    scoreTile(
      tile,
      type,
      queries.map((query) => f.let('pq', ptr.add(tile.queries, queryOffset(tile, query)))),
      widths,
    );
    const sums = queries.map((query, i) => {
      const row = i32.add(tile.firstRow, i32.div_u(query, tile.headsPerKv));
      const lastSeen = i32.load(addressAt(tile.lastSeen, row, 4));
      const partial = partialOf(tile, query);
      f.exec(softmax, {
        headDim: tile.headDim,
        scores: ptr.add(tile.scores, 4 * BLOCK * i),
        softcap: tile.softcap,
        nSeen: i32.sub(i32.add(lastSeen, 1), tile.firstPosition),
        nPassed: i32.sub(i32.sub(i32.add(lastSeen, 1), tile.window), tile.firstPosition),
        ...partial,
      });
      return partial.sums;
    });
    addValues(tile, type, sums, widths);
  });
}

/** Calls `body` with a width for each run of columns, widest first. */
function eachRun(f: FunctionBuilder, n: Expr<'i32'>, widths: readonly number[], body: (width: number) => void): void {
  const left = f.let('columnsLeft', n);
  for (const width of widths) {
    f.while(i32.ge_s(left, width), () => {
      body(width);
      left.set(i32.sub(left, width));
    });
  }
}

/** scores[i][j] = scale · query i · key j */
function scoreTile(tile: TileBody, type: FloatType, queries: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, headDim, scores, nKeys } = tile;
  const load = blockLoader(f, type);
  const elementBytes = ELEMENT_BYTES[type];
  const column = f.let('column', tile.keys);
  const target = f.let('scoreTarget', scores);
  const pk = f.local('ptr', 'pk');
  const pq = f.localArray('ptr', 'pq', queries.length);
  const left = f.local('i32', 'left');
  const scale = f.let('scaleVector', f32x4.splat(tile.scale));
  const addProducts = tileProducts(tile, queries.length);
  const columnBytes = BLOCK * elementBytes;
  // Rounded up to whole vectors: what lies behind the last key is masked later.
  eachRun(f, i32.and(i32.add(nKeys, 3), i32.const(~3)), widths, (width) => {
    const sums = queries.map((_, i) => f.localArray('v128', `score${i}`, width / 4));
    for (const s of sums.flat()) s.set(v128.zero());
    pk.set(column);
    pq.forEach((p, i) => p.set(queries[i]!));
    left.set(headDim);
    f.while(i32.gt_s(left, 0), () => {
      for (let d = 0; d < 4; d++) {
        addProducts(
          sums,
          (i) => v128.load32_splat(pq[i]!, 4 * d),
          (n) => load(pk, columnBytes * d + 4 * elementBytes * n),
        );
      }
      pk.set(ptr.add(pk, 4 * columnBytes));
      for (const p of pq) p.set(ptr.add(p, 16));
      left.set(i32.sub(left, 4));
    });
    sums.forEach((vectors, i) => {
      vectors.forEach((s, n) => v128.store(target, f32x4.mul(s, scale), 4 * BLOCK * i + 16 * n));
    });
    column.set(ptr.add(column, width * elementBytes));
    target.set(ptr.add(target, 4 * width));
  });
}

/** Emits sums[i][n] += factor(i) · vector(n). What several queries share is loaded once. */
function tileProducts({ f, variant }: TileBody, nQueries: number) {
  const factors = f.localArray('v128', 'factor', nQueries);
  const shared = f.local('v128', 'sharedVector');
  return (
    sums: readonly (readonly Local<'v128'>[])[],
    factor: (i: number) => Expr<'v128'>,
    vector: (n: number) => Expr<'v128'>,
  ): void => {
    factors.forEach((local, i) => local.set(factor(i)));
    for (let n = 0; n < sums[0]!.length; n++) {
      if (nQueries > 1) shared.set(vector(n));
      const operand = nQueries > 1 ? shared : vector(n);
      sums.forEach((s, i) => s[n]!.set(multiplyAdd(variant, factors[i]!, operand, s[n]!)));
    }
  };
}

const SOFTMAX_PARAMS = {
  headDim: 'i32',
  scores: 'ptr',
  softcap: 'f32',
  nSeen: 'i32',
  nPassed: 'i32',
  sums: 'ptr',
  rest: 'ptr',
} as const;
export type SoftmaxFunction = FuncRef<typeof SOFTMAX_PARAMS, readonly []>;

/**
 * The function that turns a row of scores into e^(score − max). Of the block's positions the query sees the first
 * `nSeen`: none, some or all; of these not the first `nPassed`, which are before its window. When the maximum grows,
 * what was summed so far shrinks.
 */
export function defineSoftmax({ module }: KernelBody, type: KvDtype): SoftmaxFunction {
  return module.func(`attention.${type}.softmax`, { params: SOFTMAX_PARAMS, results: [] }, (f, params) => {
    const { headDim, scores, sums, rest } = params;
    const offsets = Array.from({ length: BLOCK / 4 }, (_, n) => 16 * n);
    const score = f.localArray('v128', 'score', offsets.length);
    const largest = f.let('largest', splatF32(-Infinity));
    const known = f.let('known', f32.load(rest, MAXIMUM));
    const total = f.let('total', f32.load(rest, TOTAL));
    const exp = f.local('v128', 'exp');
    /** @param isSeen  which lanes of vector `n` count; undefined if all do */
    const softmax = (isSeen?: (n: number) => Expr<'v128'>): void => {
      largest.set(splatF32(-Infinity));
      offsets.forEach((offset, n) => {
        const all = v128.load(scores, offset);
        score[n]!.set(isSeen ? v128.bitselect(all, splatF32(-Infinity), isSeen(n)) : all);
        largest.set(f32x4.pmax(largest, score[n]!));
      });
      const max = f.let('max', f32.max(maxLanes(f, largest), known));
      f.if(f32.gt(max, known), () => {
        expInto(f, exp, f32x4.splat(f32.sub(known, max)));
        // The first block has nothing to shrink: e^−∞ stands for 0 there.
        const shrink = f.let('shrink', v128.and(exp, f32x4.ne(f32x4.splat(total), v128.zero())));
        total.set(f32.mul(total, f32x4.extract_lane(shrink, 0)));
        eachVector({ f, headDim }, sums, (p) => v128.store(p, f32x4.mul(v128.load(p), shrink)));
        f32.store(rest, max, MAXIMUM);
      });
      const maxVector = f.let('maxVector', f32x4.splat(max));
      const sum = f.let('blockSum', v128.zero());
      offsets.forEach((offset, n) => {
        expInto(f, exp, f32x4.sub(score[n]!, maxVector));
        if (isSeen) exp.set(v128.and(exp, isSeen(n)));
        sum.set(f32x4.add(sum, exp));
        v128.store(scores, exp, offset);
      });
      f32.store(rest, f32.add(total, sumLanes(f, sum)), TOTAL);
    };
    f.if(f32.ne(params.softcap, f32.const(0)), () => {
      const cap = f.let('cap', f32x4.splat(params.softcap));
      // All are read before one is written: else V8 makes no vectors of 256 bits.
      offsets.forEach((offset, n) => score[n]!.set(v128.load(scores, offset)));
      offsets.forEach((offset, n) => {
        softcapInto(f, exp, score[n]!, cap);
        v128.store(scores, exp, offset);
      });
    });
    const lanes = (n: number): Expr<'v128'> => i32x4.const(4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3);
    f.if(
      i32.and(i32.ge_s(params.nSeen, BLOCK), i32.le_s(params.nPassed, 0)),
      () => softmax(),
      () => {
        const nSeen = f.let('seen', i32x4.splat(params.nSeen));
        const nPassed = f.let('passed', i32x4.splat(params.nPassed));
        softmax((n) => v128.andnot(i32x4.gt_s(nSeen, lanes(n)), i32x4.gt_s(nPassed, lanes(n))));
      },
    );
  });
}

/** sums i += Σ scores[i][j] · values[j] */
function addValues(tile: TileBody, type: FloatType, queries: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, headDim, scores, nKeys } = tile;
  const load = blockLoader(f, type);
  const elementBytes = ELEMENT_BYTES[type];
  const rowBytes = f.let('valueRowBytes', ptr.fromI32(i32.mul(headDim, elementBytes)));
  const column = f.let('valueColumn', tile.values);
  const pv = f.local('ptr', 'pv');
  const ps = f.local('ptr', 'ps');
  const end = f.local('ptr', 'scoresEnd');
  const addProducts = tileProducts(tile, queries.length);
  eachRun(f, headDim, widths, (width) => {
    const sums = queries.map((_, i) => f.localArray('v128', `sum${i}`, width / 4));
    sums.forEach((vectors, i) => vectors.forEach((s, n) => s.set(v128.load(queries[i]!, 16 * n))));
    pv.set(column);
    ps.set(scores);
    end.set(addressAt(scores, nKeys, 4));
    f.while(ptr.lt_u(ps, end), () => {
      addProducts(
        sums,
        (i) => v128.load32_splat(ps, 4 * BLOCK * i),
        (n) => load(pv, 4 * elementBytes * n),
      );
      pv.set(ptr.add(pv, rowBytes));
      ps.set(ptr.add(ps, 4));
    });
    sums.forEach((vectors, i) => vectors.forEach((s, n) => v128.store(queries[i]!, s, 16 * n)));
    for (const p of queries) p.set(ptr.add(p, 4 * width));
    column.set(ptr.add(column, width * elementBytes));
  });
}
