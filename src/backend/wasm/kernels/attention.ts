// Attention over the paged cache, and the write into it. An item is one key-value head for up to TILE_ROWS rows of the
// batch; threads take items in turn, since later rows see more keys. For each run of rows of one sequence, the cache is
// visited block by block: keys are turned into f32 columns once, and all queries that share them (rows, times the heads
// of the group) are multiplied with them in tiles; a running maximum and sum (online softmax, arXiv:1805.02867) make
// weights of the scores, which the values are added with. A query's numbers are added in the order of its own
// elements and positions, whatever the tile, so that its result does not depend on who computes it, or beside what.

import { UnsupportedError, assert } from '../../../base/errors.ts';
import { columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32, f32x4, i32, i32x4, ptr, v128 } from '../emit/operations.ts';
import {
  FloatToHalf,
  HalfToFloat,
  expInto,
  maxLanes,
  multiplyAdd,
  packHalves,
  splatF32,
  sumLanes,
  transpose,
} from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

type CacheType = 'F16' | 'F32';
const ELEMENT_BYTES = { F16: 2, F32: 4 } as const;

/** Reads four cache elements as f32. */
function cacheLoader(f: FunctionBuilder, type: CacheType): (address: Expr<'ptr'>) => Expr<'v128'> {
  if (type === 'F32') return (address) => v128.load(address);
  const half = new HalfToFloat(f);
  return (address) => half.convert(v128.load16x4_s(address));
}

/** Positions of a cache block. */
const BLOCK = 32;
/** Rows of the batch in an item. */
const TILE_ROWS = 16;
/** Queries that are worked on at once, and the columns of positions or of values that each of them then takes. */
const TILES = [
  { nQueries: 4, widths: [8, 4] },
  { nQueries: 1, widths: [32, 8, 4] },
] as const;

/** Bytes of scratch: keys and values of a block as f32, scores of a tile, maxima and sums of an item's queries. */
function scratchLayout(headDim: number, headsPerKv: number) {
  const blockBytes = 4 * BLOCK * headDim;
  const scores = 2 * blockBytes;
  const maxima = scores + 4 * 4 * BLOCK;
  const totals = maxima + 4 * TILE_ROWS * headsPerKv;
  return { values: blockBytes, scores, maxima, totals, sizeBytes: totals + 4 * TILE_ROWS * headsPerKv };
}

/** What the steps of an item share. */
interface Item {
  readonly f: FunctionBuilder;
  readonly k: KernelBody;
  readonly headDim: Local<'i32'>;
  readonly headsPerKv: Local<'i32'>;
  readonly scale: Local<'f32'>;
  readonly positions: Local<'ptr'>;
  /** Bytes between rows of queries and results, and where the group's first head begins in a row. */
  readonly queryRowBytes: Local<'ptr'>;
  readonly queries: Local<'ptr'>;
  readonly results: Local<'ptr'>;
  /** First row and number of queries of the present run. Query i is head i mod headsPerKv of row i / headsPerKv. */
  readonly firstRow: Local<'i32'>;
  readonly nQueries: Local<'i32'>;
  /** First position of the present block, and positions of it that the last row sees. */
  readonly firstPosition: Local<'i32'>;
  readonly nKeys: Local<'i32'>;
  /** f32[headDim, BLOCK] */
  readonly keyColumns: Local<'ptr'>;
  /** f32 rows of values, and their distance. */
  readonly values: Local<'ptr'>;
  readonly valueRowBytes: Local<'ptr'>;
  /** f32[4, BLOCK] */
  readonly scores: Local<'ptr'>;
  /** f32 a query. */
  readonly maxima: Local<'ptr'>;
  readonly totals: Local<'ptr'>;
}

function buildAttention(k: KernelBody, type: CacheType): void {
  const { f } = k;
  const out = k.out();
  const q = k.input(0, 'q');
  const keys = k.input(1, 'keys');
  const values = k.input(2, 'values');
  const positions = k.input(3, 'positions');
  const sequences = k.input(4, 'sequences');
  const tables = k.input(5, 'tables');
  const nHead = k.param('nHead');
  const headsPerKv = k.param('headsPerKv');
  const headDim = k.param('headDim');
  const nBlockPerSeq = k.param('nBlockPerSeq');
  const scratch = k.scratch();
  const part = (name: string): Local<'ptr'> => f.let(name, ptr.add(scratch, ptr.fromI32(k.param(name))));
  const nRows = k.rows();
  const nKvHead = f.let('nKvHead', i32.div_u(nHead, headsPerKv));
  const cacheRowBytes = f.let('cacheRowBytes', ptr.fromI32(i32.mul(i32.mul(nKvHead, headDim), ELEMENT_BYTES[type])));
  const convertedValues = part('valuesOffset');
  const item: Item = {
    f,
    k,
    headDim,
    headsPerKv,
    scale: k.paramF32('scale'),
    positions,
    queryRowBytes: f.let('queryRowBytes', ptr.fromI32(i32.shl(i32.mul(nHead, headDim), 2))),
    queries: f.local('ptr', 'queries'),
    results: f.local('ptr', 'results'),
    firstRow: f.local('i32', 'firstRow'),
    nQueries: f.local('i32', 'nQueries'),
    firstPosition: f.local('i32', 'firstPosition'),
    nKeys: f.local('i32', 'nKeys'),
    keyColumns: scratch,
    values: f.local('ptr', 'blockValues'),
    valueRowBytes: type === 'F32' ? cacheRowBytes : f.let('valueRowBytes', ptr.fromI32(i32.shl(headDim, 2))),
    scores: part('scoresOffset'),
    maxima: part('maximaOffset'),
    totals: part('totalsOffset'),
  };
  const nTiles = i32.div_u(i32.add(nRows, TILE_ROWS - 1), i32.const(TILE_ROWS));
  const nItems = f.let('nItems', i32.mul(nTiles, nKvHead));
  const index = f.let('index', k.thread);
  const kvHead = f.local('i32', 'kvHead');
  const endRow = f.local('i32', 'endRow');
  const row = f.local('i32', 'row');
  const sequence = f.local('i32', 'sequence');
  const table = f.local('ptr', 'table');
  const lastPosition = f.local('i32', 'lastPosition');
  const cacheOffset = f.local('ptr', 'cacheOffset');
  const toF32 = blockConverter(item, type, cacheRowBytes);

  f.while(i32.lt_s(index, nItems), () => {
    kvHead.set(i32.rem_u(index, nKvHead));
    row.set(i32.mul(i32.div_u(index, nKvHead), TILE_ROWS));
    endRow.set(i32.add(row, TILE_ROWS));
    f.if(i32.gt_s(endRow, nRows), () => endRow.set(nRows));
    const headStart = f.let('headStart', i32.mul(i32.mul(kvHead, headsPerKv), headDim));
    item.queries.set(addressAt(q, headStart, 4));
    item.results.set(addressAt(out, headStart, 4));
    f.while(i32.lt_s(row, endRow), () => {
      item.firstRow.set(row);
      sequence.set(i32.load(addressAt(sequences, row, 4)));
      const isSameRun = i32.and(i32.lt_s(row, endRow), i32.eq(i32.load(addressAt(sequences, row, 4)), sequence));
      f.while(isSameRun, () => row.set(i32.add(row, 1)));
      item.nQueries.set(i32.mul(i32.sub(row, item.firstRow), headsPerKv));
      beginQueries(item);
      table.set(addressAt(tables, i32.mul(sequence, nBlockPerSeq), 4));
      lastPosition.set(i32.load(addressAt(positions, i32.sub(row, 1), 4)));
      item.firstPosition.set(0);
      f.while(i32.le_s(item.firstPosition, lastPosition), () => {
        item.nKeys.set(i32.sub(i32.add(lastPosition, 1), item.firstPosition));
        f.if(i32.gt_s(item.nKeys, BLOCK), () => item.nKeys.set(BLOCK));
        const blockStart = addressAt(ptr.const(0), i32.mul(i32.load(table), BLOCK), cacheRowBytes);
        const headOffset = ptr.fromI32(i32.mul(i32.mul(kvHead, headDim), ELEMENT_BYTES[type]));
        cacheOffset.set(ptr.add(blockStart, headOffset));
        toF32.keys(f.let('keyBlock', ptr.add(keys, cacheOffset)));
        item.values.set(ptr.add(values, cacheOffset));
        if (type !== 'F32') toF32.values(item.values, convertedValues);
        eachQueryTile(item, (first, tile) => attendTile(item, first, tile));
        item.firstPosition.set(i32.add(item.firstPosition, BLOCK));
        table.set(ptr.add(table, 4));
      });
      endQueries(item);
    });
    index.set(i32.add(index, k.nThreads));
  });
}

/** Turns a block of the cache into f32: keys into columns, values into rows; as far as the last row sees them. */
function blockConverter(item: Item, type: CacheType, cacheRowBytes: Local<'ptr'>) {
  const { f, headDim, nKeys, keyColumns } = item;
  const load = cacheLoader(f, type);
  const rows = f.localArray('v128', 'cacheRow', 4);
  const [source, target, pastKeys] = ['source', 'target', 'pastKeys'].map((name) => f.local('ptr', name)) as [
    Local<'ptr'>,
    Local<'ptr'>,
    Local<'ptr'>,
  ];
  const j = f.local('i32', 'j');
  const left = f.local('i32', 'left');
  const vectorBytes = 4 * ELEMENT_BYTES[type];
  return {
    keys(block: Expr<'ptr'>): void {
      const keyRow = f.let('keyRow', block);
      // Whole groups of four: what lies behind the last key is read, and its scores are masked.
      f.for(j, { from: 0, to: nKeys, step: 4 }, () => {
        source.set(keyRow);
        target.set(addressAt(keyColumns, j, 4));
        left.set(headDim);
        f.while(i32.gt_s(left, 0), () => {
          pastKeys.set(source);
          for (const v of rows) {
            v.set(load(pastKeys));
            pastKeys.set(ptr.add(pastKeys, cacheRowBytes));
          }
          transpose(f, rows);
          rows.forEach((v, i) => v128.store(target, v, 4 * BLOCK * i));
          source.set(ptr.add(source, vectorBytes));
          target.set(ptr.add(target, 4 * BLOCK * 4));
          left.set(i32.sub(left, 4));
        });
        keyRow.set(ptr.add(keyRow, ptr.shl(cacheRowBytes, 2)));
      });
    },
    /** Sets `block` to the copy. */
    values(block: Local<'ptr'>, copy: Local<'ptr'>): void {
      target.set(copy);
      f.for(j, { from: 0, to: nKeys }, () => {
        source.set(block);
        left.set(headDim);
        f.while(i32.gt_s(left, 0), () => {
          v128.store(target, load(source));
          source.set(ptr.add(source, vectorBytes));
          target.set(ptr.add(target, 16));
          left.set(i32.sub(left, 4));
        });
        block.set(ptr.add(block, cacheRowBytes));
      });
      block.set(copy);
    },
  };
}

type Tile = (typeof TILES)[number];

/** Calls `body` with the first query of each tile, largest tiles first. */
function eachQueryTile({ f, nQueries }: Item, body: (first: Local<'i32'>, tile: Tile) => void): void {
  const first = f.let('firstQuery', i32.const(0));
  for (const tile of TILES) {
    f.while(i32.le_s(i32.add(first, tile.nQueries), nQueries), () => {
      body(first, tile);
      first.set(i32.add(first, tile.nQueries));
    });
  }
}

/** Offset of a query's head from `queries`, and of its result from `results`. */
function queryOffset({ queryRowBytes, headsPerKv, headDim, firstRow }: Item, query: Expr<'i32'>): Expr<'ptr'> {
  const row = i32.add(firstRow, i32.div_u(query, headsPerKv));
  const head = ptr.fromI32(i32.shl(i32.mul(i32.rem_u(query, headsPerKv), headDim), 2));
  return ptr.add(ptr.mul(ptr.fromI32(row), queryRowBytes), head);
}

/** Calls `body` with the address of each vector of a query's result. */
function eachResultVector({ f, headDim }: Item, result: Expr<'ptr'>, body: (address: Local<'ptr'>) => void): void {
  const p = f.let('po', result);
  const end = f.let('resultEnd', addressAt(p, headDim, 4));
  f.while(ptr.lt_u(p, end), () => {
    body(p);
    p.set(ptr.add(p, 16));
  });
}

function eachQuery(item: Item, body: (query: Local<'i32'>, result: Local<'ptr'>) => void): void {
  const { f, nQueries, results } = item;
  const query = f.local('i32', 'query');
  f.for(query, { from: 0, to: nQueries }, () => {
    body(query, f.let('result', ptr.add(results, queryOffset(item, query))));
  });
}

function beginQueries(item: Item): void {
  eachQuery(item, (query, result) => {
    f32.store(addressAt(item.maxima, query, 4), f32.const(-Infinity));
    f32.store(addressAt(item.totals, query, 4), f32.const(0));
    eachResultVector(item, result, (p) => v128.store(p, v128.zero()));
  });
}

function endQueries(item: Item): void {
  const inverse = item.f.local('v128', 'inverse');
  eachQuery(item, (query, result) => {
    inverse.set(f32x4.splat(f32.div(f32.const(1), f32.load(addressAt(item.totals, query, 4)))));
    eachResultVector(item, result, (p) => v128.store(p, f32x4.mul(v128.load(p), inverse)));
  });
}

/** One tile of queries with the present block. */
function attendTile(item: Item, first: Local<'i32'>, { nQueries, widths }: Tile): void {
  const { f, queries, results } = item;
  const offsets = f.localArray('ptr', 'queryOffset', nQueries);
  offsets.forEach((offset, i) => offset.set(queryOffset(item, i32.add(first, i))));
  scoreTile(
    item,
    offsets.map((offset) => f.let('pq', ptr.add(queries, offset))),
    widths,
  );
  const result = offsets.map((offset) => f.let('result', ptr.add(results, offset)));
  result.forEach((p, i) => softmaxRow(item, f.let('query', i32.add(first, i)), i, p));
  addValues(item, result, widths);
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
function scoreTile(item: Item, queries: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, k, headDim, keyColumns, scores, nKeys } = item;
  const column = f.let('column', keyColumns);
  const target = f.let('scoreTarget', scores);
  const pk = f.local('ptr', 'pk');
  const pq = f.localArray('ptr', 'pq', queries.length);
  const left = f.local('i32', 'left');
  const splat = f.local('v128', 'qSplat');
  const keys = f.localArray('v128', 'key', 2);
  const scale = f.let('scaleVector', f32x4.splat(item.scale));
  // Rounded up to whole vectors: what lies behind the last key is masked later.
  eachRun(f, i32.and(i32.add(nKeys, 3), i32.const(~3)), widths, (width) => {
    const nVectors = width / 4;
    const sums = queries.map((_, i) => f.localArray('v128', `score${i}`, nVectors));
    for (const s of sums.flat()) s.set(v128.zero());
    pk.set(column);
    pq.forEach((p, i) => p.set(queries[i]!));
    left.set(headDim);
    f.while(i32.gt_s(left, 0), () => {
      for (let d = 0; d < 4; d++) {
        const load = (i: number): Expr<'v128'> => v128.load(pk, 4 * BLOCK * d + 16 * i);
        if (queries.length > 1) keys.slice(0, nVectors).forEach((key, i) => key.set(load(i)));
        pq.forEach((p, i) => {
          splat.set(v128.load32_splat(p, 4 * d));
          sums[i]!.forEach((s, n) => s.set(multiplyAdd(k.variant, splat, queries.length > 1 ? keys[n]! : load(n), s)));
        });
      }
      pk.set(ptr.add(pk, 4 * BLOCK * 4));
      for (const p of pq) p.set(ptr.add(p, 16));
      left.set(i32.sub(left, 4));
    });
    sums.forEach((vectors, i) => {
      vectors.forEach((s, n) => v128.store(target, f32x4.mul(s, scale), 4 * BLOCK * i + 16 * n));
    });
    column.set(ptr.add(column, 4 * width));
    target.set(ptr.add(target, 4 * width));
  });
}

/** Row `i` of the scores becomes e^(score − max); when the maximum grows, what was summed so far shrinks. */
function softmaxRow(item: Item, query: Local<'i32'>, i: number, result: Local<'ptr'>): void {
  const { f, scores, maxima, totals } = item;
  const row = item.firstRow;
  const position = i32.load(addressAt(item.positions, i32.add(row, i32.div_u(query, item.headsPerKv)), 4));
  // Positions of the block that this query sees: none, some or all.
  const nSeen = f.let('nSeen', i32x4.splat(i32.sub(i32.add(position, 1), item.firstPosition)));
  const offsets = Array.from({ length: BLOCK / 4 }, (_, n) => 4 * BLOCK * i + 16 * n);
  const score = f.local('v128', 'score');
  const largest = f.let('largest', splatF32(-Infinity));
  offsets.forEach((offset, n) => {
    const isSeen = i32x4.gt_s(nSeen, i32x4.const(4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3));
    score.set(v128.bitselect(v128.load(scores, offset), splatF32(-Infinity), isSeen));
    v128.store(scores, score, offset);
    largest.set(f32x4.pmax(largest, score));
  });
  const maxAddress = f.let('maxAddress', addressAt(maxima, query, 4));
  const totalAddress = f.let('totalAddress', addressAt(totals, query, 4));
  const known = f.let('known', f32.load(maxAddress));
  const total = f.let('total', f32.load(totalAddress));
  const max = f.let('max', f32.max(maxLanes(f, largest), known));
  const exp = f.local('v128', 'exp');
  f.if(f32.gt(max, known), () => {
    expInto(f, exp, f32x4.splat(f32.sub(known, max)));
    // The first block has nothing to shrink: e^−∞ stands for 0 there.
    const shrink = f.let('shrink', v128.and(exp, f32x4.ne(f32x4.splat(total), v128.zero())));
    total.set(f32.mul(total, f32x4.extract_lane(shrink, 0)));
    eachResultVector(item, result, (p) => v128.store(p, f32x4.mul(v128.load(p), shrink)));
    f32.store(maxAddress, max);
  });
  const maxVector = f.let('maxVector', f32x4.splat(max));
  const sum = f.let('blockSum', v128.zero());
  for (const offset of offsets) {
    score.set(v128.load(scores, offset));
    expInto(f, exp, f32x4.sub(score, maxVector));
    exp.set(v128.and(exp, f32x4.ne(score, splatF32(-Infinity))));
    sum.set(f32x4.add(sum, exp));
    v128.store(scores, exp, offset);
  }
  f32.store(totalAddress, f32.add(total, sumLanes(f, sum)));
}

/** result i += Σ scores[i][j] · values[j] */
function addValues(item: Item, results: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, k, headDim, scores, nKeys, valueRowBytes } = item;
  const column = f.let('valueColumn', item.values);
  const pv = f.local('ptr', 'pv');
  const ps = f.local('ptr', 'ps');
  const end = f.local('ptr', 'scoresEnd');
  const weight = f.local('v128', 'weight');
  const values = f.localArray('v128', 'value', 2);
  eachRun(f, headDim, widths, (width) => {
    const nVectors = width / 4;
    const sums = results.map((_, i) => f.localArray('v128', `sum${i}`, nVectors));
    sums.forEach((vectors, i) => vectors.forEach((s, n) => s.set(v128.load(results[i]!, 16 * n))));
    pv.set(column);
    ps.set(scores);
    end.set(addressAt(scores, nKeys, 4));
    f.while(ptr.lt_u(ps, end), () => {
      const load = (n: number): Expr<'v128'> => v128.load(pv, 16 * n);
      if (results.length > 1) values.slice(0, nVectors).forEach((value, n) => value.set(load(n)));
      results.forEach((_, i) => {
        weight.set(v128.load32_splat(ps, 4 * BLOCK * i));
        sums[i]!.forEach((s, n) => s.set(multiplyAdd(k.variant, weight, results.length > 1 ? values[n]! : load(n), s)));
      });
      pv.set(ptr.add(pv, valueRowBytes));
      ps.set(ptr.add(ps, 4));
    });
    sums.forEach((vectors, i) => vectors.forEach((s, n) => v128.store(results[i]!, s, 16 * n)));
    for (const p of results) p.set(ptr.add(p, 4 * width));
    column.set(ptr.add(column, 4 * width));
  });
}

/** Heads are read, and cache rows written, by whole vectors. */
function requireWholeVectors(headDim: number): void {
  if (headDim % 4 === 0) return;
  const message = `heads of ${headDim} elements are not supported: use a multiple of 4, or the kernels "reference"`;
  throw new UnsupportedError('UNSUPPORTED_FEATURE', message, { headDim });
}

const attention = (type: CacheType): Kernel => ({
  op: 'attention',
  dtypes: [type],
  params: {
    nHead: 'i32',
    headsPerKv: 'i32',
    headDim: 'i32',
    nBlockPerSeq: 'i32',
    scale: 'f32',
    valuesOffset: 'i32',
    scoresOffset: 'i32',
    maximaOffset: 'i32',
    totalsOffset: 'i32',
  },
  values({ params, inputs }: Instruction) {
    const { nHead, nHeadKv, headDim, blockSize, scale } = params as Record<string, number>;
    assert(blockSize === BLOCK, `attention kernels work on blocks of ${BLOCK} positions, not ${blockSize}`);
    requireWholeVectors(headDim!);
    const layout = scratchLayout(headDim!, nHead! / nHeadKv!);
    return {
      nHead: nHead!,
      headsPerKv: nHead! / nHeadKv!,
      headDim: headDim!,
      nBlockPerSeq: columnsOf(inputs[5]!.tensor),
      scale: scale!,
      valuesOffset: layout.values,
      scoresOffset: layout.scores,
      maximaOffset: layout.maxima,
      totalsOffset: layout.totals,
    };
  },
  scratchBytes({ params }) {
    const { nHead, nHeadKv, headDim } = params as Record<string, number>;
    return scratchLayout(headDim!, nHead! / nHeadKv!).sizeBytes;
  },
  build: (k) => buildAttention(k, type),
});

/** Rows of keys or values into the cache. Threads share the columns, in runs of 16. */
const kvWrite = (type: CacheType): Kernel => ({
  op: 'kvWrite',
  dtypes: [type],
  params: { columns: 'i32' },
  values: ({ out }) => ({ columns: columnsOf(out.tensor) }),
  build(k) {
    const { f } = k;
    const state = k.input(0, 'state');
    const x = k.input(1, 'x');
    const slots = k.input(2, 'slots');
    const rows = k.rows();
    const columns = k.param('columns');
    const { from, to } = k.share(i32.shr_u(i32.add(columns, 3), 2));
    const toHalf = new FloatToHalf(f);
    const elementBytes = type === 'F16' ? 2 : 4;
    const row = f.local('i32', 'row');
    const i = f.local('i32', 'i');
    const px = f.local('ptr', 'px');
    const po = f.local('ptr', 'po');
    const value = f.local('v128', 'value');
    f.for(row, { from: 0, to: rows }, () => {
      const slot = i32.load(addressAt(slots, row, 4));
      px.set(addressAt(x, i32.add(i32.mul(row, columns), i32.shl(from, 2)), 4));
      // The row's start may lie beyond 2 GB of a large cache: the product is taken at pointer width.
      const rowStart = ptr.add(ptr.mul(ptr.fromI32(slot), ptr.fromI32(columns)), ptr.fromI32(i32.shl(from, 2)));
      po.set(ptr.add(state, ptr.mul(rowStart, elementBytes)));
      f.for(i, { from, to }, () => {
        if (type === 'F16') {
          toHalf.convertInto(value, v128.load(px));
          v128.store64_lane(po, packHalves(value, value), 0);
        } else {
          v128.store(po, v128.load(px));
        }
        px.set(ptr.add(px, 16));
        po.set(ptr.add(po, 4 * elementBytes));
      });
    });
  },
});

export const ATTENTION_KERNELS: readonly Kernel[] = [
  attention('F16'),
  attention('F32'),
  kvWrite('F16'),
  kvWrite('F32'),
];
