// Attention over the paged cache, and the write into it. In a block of the cache, keys stand in columns and values in
// rows, head by head: keys f[head, headDim, 32 positions], values f[head, 32 positions, headDim].
//
// An item is one key-value head for up to TILE_ROWS rows of the batch. For each run of rows of one sequence, the cache
// is visited block by block: all queries that share the keys (rows, times the heads of the group) are multiplied with
// them in tiles; a running maximum and sum (online softmax, arXiv:1805.02867) make weights of the scores, which the
// values are added with. Each CHUNK of positions is a softmax of its own, and they are merged in order: when there are
// only a few rows, chunks are items too, so that all threads share in one long sequence, and whichever thread ends the
// last of them merges. A query's numbers are added in the order of its own elements, positions and chunks, whatever the
// tile, so that its result does not depend on who computes it, or beside what.

import { UnsupportedError, assert } from '../../../base/errors.ts';
import { columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32, f32x4, i32, i32x4, ptr, v128 } from '../emit/operations.ts';
import { FloatToHalf, HalfToFloat, expInto, maxLanes, multiplyAdd, packHalves, splatF32, sumLanes } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

type CacheType = 'F16' | 'F32';
const ELEMENT_BYTES = { F16: 2, F32: 4 } as const;

/** Positions of a cache block. */
const BLOCK = 32;
/** Positions that make one softmax: eight blocks. */
const CHUNK = 256;
/** Rows of the batch in an item. */
const TILE_ROWS = 16;
/** Up to so many rows, threads share chunks and not only heads. */
const SPLIT_ROWS = 4;
/** More queries than this read a copy of the block in f32; fewer convert what they read. */
const DIRECT_QUERIES = 4;
/** Queries that are worked on at once, and the columns of positions or of values that each of them then takes. */
const TILES = [
  { nQueries: 4, widths: [8, 4] },
  { nQueries: 3, widths: [8, 4] },
  { nQueries: 2, widths: [16, 8, 4] },
  { nQueries: 1, widths: [32, 8, 4] },
] as const;

/** What a softmax of some positions comes to: f32[headDim] sums of weighted values, the maximum, the sum of weights. */
const partialBytes = (headDim: number): number => 4 * headDim + 16;

/** A thread's scratch: keys and values of a block as f32, scores of a tile, and what an item's queries come to. */
function scratchLayout(headDim: number, headsPerKv: number) {
  const nQueries = TILE_ROWS * headsPerKv;
  const values = 4 * BLOCK * headDim;
  const scores = 2 * values;
  const maxima = scores + 4 * 4 * BLOCK;
  const totals = maxima + 4 * nQueries;
  const partials = totals + 4 * nQueries;
  return { values, scores, maxima, totals, partials, sizeBytes: partials + nQueries * partialBytes(headDim) };
}

/** What threads share: how many chunks of a row and head are done, then what each chunk comes to. */
function sharedLayout(headDim: number, nHead: number, nBlockPerSeq: number) {
  const partials = 64 * Math.ceil((4 * SPLIT_ROWS * nHead) / 64);
  const nChunks = Math.ceil((nBlockPerSeq * BLOCK) / CHUNK);
  return { partials, sizeBytes: partials + SPLIT_ROWS * nHead * nChunks * partialBytes(headDim) };
}

/** How a tile reads the present block as f32. */
interface BlockReader {
  /** Four elements of f32. */
  load(address: Expr<'ptr'>, offset: number): Expr<'v128'>;
  readonly elementBytes: number;
  readonly keys: Local<'ptr'>;
  readonly values: Local<'ptr'>;
  /** From one position's values to the next one's. */
  readonly valueRowBytes: Local<'ptr'>;
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
  /** f32[4, BLOCK] */
  readonly scores: Local<'ptr'>;
  /** What the queries come to in the present chunk, and bytes between them. Behind the sums: maximum, total. */
  readonly partials: Local<'ptr'>;
  readonly partialBytes: Local<'ptr'>;
  /** f32 a query: of the chunks merged so far. */
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
  const headBytes = f.let('headBytes', ptr.fromI32(i32.mul(headDim, BLOCK * ELEMENT_BYTES[type])));
  const blockBytes = f.let('blockBytes', ptr.mul(headBytes, ptr.fromI32(nKvHead)));
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
    scores: part('scoresOffset'),
    partials: f.local('ptr', 'partials'),
    partialBytes: f.let('partialBytes', ptr.fromI32(i32.add(i32.shl(headDim, 2), partialBytes(0)))),
    maxima: part('maximaOffset'),
    totals: part('totalsOffset'),
  };
  const ownPartials = part('partialsOffset');
  const shared = k.sharedScratch();
  const sharedPartials = f.let('sharedPartials', ptr.add(shared, ptr.fromI32(k.param('sharedPartialsOffset'))));
  const lastPositionOf = (row: Expr<'i32'>): Expr<'i32'> => i32.load(addressAt(positions, row, 4));

  // The number of parts that a run is divided into: 1, or the chunks of the longest.
  const nParts = f.let('nParts', i32.const(1));
  const row = f.local('i32', 'row');
  const isSplit = f.let(
    'isSplit',
    k.isShared ? i32.and(i32.le_s(nRows, SPLIT_ROWS), i32.gt_s(k.nThreads, 1)) : i32.const(0),
  );
  f.if(isSplit, () => {
    f.for(row, { from: 0, to: nRows }, () => {
      const nChunks = f.let('nChunks', i32.add(i32.div_u(lastPositionOf(row), i32.const(CHUNK)), 1));
      f.if(i32.gt_s(nChunks, nParts), () => nParts.set(nChunks));
    });
  });
  const nTiles = i32.div_u(i32.add(nRows, TILE_ROWS - 1), i32.const(TILE_ROWS));
  const nItemsOfTile = f.let('nItemsOfTile', i32.mul(nKvHead, nParts));
  const nItems = f.let('nItems', i32.mul(nTiles, nItemsOfTile));
  const index = f.let('index', k.thread);
  const kvHead = f.local('i32', 'kvHead');
  const partIndex = f.local('i32', 'part');
  const endRow = f.local('i32', 'endRow');
  const sequence = f.local('i32', 'sequence');
  const table = f.local('ptr', 'table');
  const lastPosition = f.local('i32', 'lastPosition');
  const cacheOffset = f.local('ptr', 'cacheOffset');
  const readers = blockReaders(item, type, scratch, part('valuesOffset'));

  f.while(i32.lt_s(index, nItems), () => {
    kvHead.set(i32.rem_u(index, nKvHead));
    partIndex.set(i32.div_u(i32.rem_u(index, nItemsOfTile), nKvHead));
    row.set(i32.mul(i32.div_u(index, nItemsOfTile), TILE_ROWS));
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
      lastPosition.set(lastPositionOf(i32.sub(row, 1)));
      const nChunks = f.let('nChunks', i32.add(i32.div_u(lastPosition, i32.const(CHUNK)), 1));
      const chunk = f.let('chunk', partIndex);
      const endChunk = f.let('endChunk', nChunks);
      const runPartials = f.let('runPartials', ownPartials);
      const chunkBytes = f.let('chunkBytes', ptr.const(0));
      f.if(isSplit, () => {
        f.if(i32.gt_s(endChunk, i32.add(chunk, 1)), () => endChunk.set(i32.add(chunk, 1)));
        chunkBytes.set(ptr.mul(ptr.fromI32(item.nQueries), item.partialBytes));
        const nBefore = i32.add(i32.mul(item.firstRow, nHead), i32.mul(kvHead, item.nQueries));
        const capacity = i32.div_u(i32.add(i32.mul(nBlockPerSeq, BLOCK), CHUNK - 1), i32.const(CHUNK));
        runPartials.set(addressAt(sharedPartials, i32.mul(nBefore, capacity), item.partialBytes));
      });
      f.while(i32.lt_s(chunk, endChunk), () => {
        item.partials.set(ptr.add(runPartials, ptr.mul(ptr.fromI32(chunk), chunkBytes)));
        beginChunk(item);
        item.firstPosition.set(i32.mul(chunk, CHUNK));
        table.set(addressAt(tables, i32.add(i32.mul(sequence, nBlockPerSeq), i32.mul(chunk, CHUNK / BLOCK)), 4));
        const endPosition = f.let('endPosition', i32.add(item.firstPosition, CHUNK - 1));
        f.if(i32.gt_s(endPosition, lastPosition), () => endPosition.set(lastPosition));
        f.while(i32.le_s(item.firstPosition, endPosition), () => {
          item.nKeys.set(i32.sub(i32.add(lastPosition, 1), item.firstPosition));
          f.if(i32.gt_s(item.nKeys, BLOCK), () => item.nKeys.set(BLOCK));
          cacheOffset.set(addressAt(ptr.mul(headBytes, ptr.fromI32(kvHead)), i32.load(table), blockBytes));
          readers.open(ptr.add(keys, cacheOffset), ptr.add(values, cacheOffset), (reader) => {
            eachQueryTile(item, (first, tile) => attendTile(item, reader, first, tile));
          });
          item.firstPosition.set(i32.add(item.firstPosition, BLOCK));
          table.set(ptr.add(table, 4));
        });
        // What is ready to be merged now: this chunk, or all of them if this is the last that was missing.
        const merged = f.let('merged', chunk);
        const endMerged = f.let('endMerged', i32.add(chunk, 1));
        if (k.isShared) {
          f.if(isSplit, () => {
            const counter = f.let('counter', addressAt(shared, i32.add(i32.mul(item.firstRow, nKvHead), kvHead), 4));
            const isLast = i32.eq(i32.add(i32.atomic_rmw_add(counter, 1), 1), nChunks);
            merged.set(nChunks);
            f.if(isLast, () => {
              i32.atomic_store(counter, 0);
              merged.set(0);
            });
            endMerged.set(nChunks);
          });
        }
        f.while(i32.lt_s(merged, endMerged), () => {
          item.partials.set(ptr.add(runPartials, ptr.mul(ptr.fromI32(merged), chunkBytes)));
          f.if(i32.eqz(merged), () => beginQueries(item));
          mergeChunk(item);
          merged.set(i32.add(merged, 1));
          f.if(i32.eq(merged, nChunks), () => endQueries(item));
        });
        chunk.set(i32.add(chunk, 1));
      });
    });
    index.set(i32.add(index, k.nThreads));
  });
}

/** Gives tiles access to a block of the cache: as it is, or as a copy in f32 where many queries read it. */
function blockReaders(item: Item, type: CacheType, keyCopy: Local<'ptr'>, valueCopy: Local<'ptr'>) {
  const { f, headDim, nKeys, nQueries } = item;
  const rowBytes = (elementBytes: number): Local<'ptr'> =>
    f.let('valueRowBytes', ptr.fromI32(i32.mul(headDim, elementBytes)));
  const halves = type === 'F16' ? new HalfToFloat(f) : undefined;
  const direct: BlockReader = {
    load: (address, offset) => halves?.convert(v128.load16x4_s(address, offset)) ?? v128.load(address, offset),
    elementBytes: ELEMENT_BYTES[type],
    keys: f.local('ptr', 'blockKeys'),
    values: f.local('ptr', 'blockValues'),
    valueRowBytes: rowBytes(ELEMENT_BYTES[type]),
  };
  const copy: BlockReader = {
    load: (address, offset) => v128.load(address, offset),
    elementBytes: 4,
    keys: keyCopy,
    values: valueCopy,
    valueRowBytes: rowBytes(4),
  };
  const [source, target, end] = ['source', 'target', 'copyEnd'].map((name) => f.local('ptr', name)) as [
    Local<'ptr'>,
    Local<'ptr'>,
    Local<'ptr'>,
  ];
  /** Whole rows or columns, which are multiples of four elements. */
  const convert = (from: Local<'ptr'>, to: Local<'ptr'>, n: Expr<'i32'>): void => {
    source.set(from);
    target.set(to);
    end.set(addressAt(to, n, 4));
    f.while(ptr.lt_u(target, end), () => {
      v128.store(target, direct.load(source, 0));
      source.set(ptr.add(source, 4 * direct.elementBytes));
      target.set(ptr.add(target, 16));
    });
  };
  return {
    /** Calls `body` with the way to read the block at `keys` and `values`. */
    open(keys: Expr<'ptr'>, values: Expr<'ptr'>, body: (reader: BlockReader) => void): void {
      direct.keys.set(keys);
      direct.values.set(values);
      if (type === 'F32') return body(direct);
      f.if(
        i32.le_s(nQueries, DIRECT_QUERIES),
        () => body(direct),
        () => {
          convert(direct.keys, copy.keys, i32.mul(headDim, BLOCK));
          convert(direct.values, copy.values, i32.mul(headDim, nKeys));
          body(copy);
        },
      );
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

/** Calls `body` with the address of each vector of a head at `start`, and with the same offset from `beside`. */
function eachVector(
  { f, headDim }: Item,
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

/** What a query comes to in the present chunk: where its sums are, its maximum, its total. */
function partialOf(item: Item, query: Expr<'i32'>): { sums: Local<'ptr'>; rest: Local<'ptr'> } {
  const { f, partials, headDim } = item;
  const sums = f.let('sums', addressAt(partials, query, item.partialBytes));
  return { sums, rest: f.let('sumsEnd', addressAt(sums, headDim, 4)) };
}
/** Offsets from the end of the sums. */
const MAXIMUM = 0;
const TOTAL = 4;

function eachQuery({ f, nQueries }: Item, body: (query: Local<'i32'>) => void): void {
  const query = f.local('i32', 'query');
  f.for(query, { from: 0, to: nQueries }, () => body(query));
}

function beginChunk(item: Item): void {
  eachQuery(item, (query) => {
    const { sums, rest } = partialOf(item, query);
    f32.store(rest, f32.const(-Infinity), MAXIMUM);
    f32.store(rest, f32.const(0), TOTAL);
    eachVector(item, sums, (p) => v128.store(p, v128.zero()));
  });
}

const resultOf = (item: Item, query: Expr<'i32'>): Local<'ptr'> =>
  item.f.let('result', ptr.add(item.results, queryOffset(item, query)));

function beginQueries(item: Item): void {
  eachQuery(item, (query) => {
    f32.store(addressAt(item.maxima, query, 4), f32.const(-Infinity));
    f32.store(addressAt(item.totals, query, 4), f32.const(0));
    eachVector(item, resultOf(item, query), (p) => v128.store(p, v128.zero()));
  });
}

/** Adds what the queries came to in a chunk to what the chunks before came to, each in units of its own maximum. */
function mergeChunk(item: Item): void {
  const { f } = item;
  const exp = f.local('v128', 'exp');
  const weights = ['shrink', 'grow'].map((name) => f.local('v128', name)) as [Local<'v128'>, Local<'v128'>];
  eachQuery(item, (query) => {
    const { sums, rest } = partialOf(item, query);
    const chunkTotal = f.let('chunkTotal', f32.load(rest, TOTAL));
    // A row that sees nothing of the chunk. A total that is NaN is something.
    f.if(f32.ne(chunkTotal, f32.const(0)), () => {
      const maxAddress = f.let('maxAddress', addressAt(item.maxima, query, 4));
      const totalAddress = f.let('totalAddress', addressAt(item.totals, query, 4));
      const total = f.let('total', f32.load(totalAddress));
      const known = f.let('known', f32.load(maxAddress));
      const found = f.let('found', f32.load(rest, MAXIMUM));
      const max = f.let('max', f32.max(known, found));
      [known, found].forEach((own, i) => {
        expInto(f, exp, f32x4.splat(f32.sub(own, max)));
        weights[i]!.set(exp);
      });
      // The first chunk has nothing before it: e^−∞ stands for 0 there.
      weights[0].set(v128.and(weights[0], f32x4.ne(f32x4.splat(total), v128.zero())));
      const weighted = (value: Local<'f32'>, i: 0 | 1): Expr<'f32'> =>
        f32.mul(value, f32x4.extract_lane(weights[i], 0));
      f32.store(totalAddress, f32.add(weighted(total, 0), weighted(chunkTotal, 1)));
      f32.store(maxAddress, max);
      eachVector(
        item,
        resultOf(item, query),
        (p, partial) => {
          const before = f32x4.mul(v128.load(p), weights[0]);
          v128.store(p, f32x4.add(before, f32x4.mul(v128.load(partial), weights[1])));
        },
        sums,
      );
    });
  });
}

function endQueries(item: Item): void {
  const inverse = item.f.local('v128', 'inverse');
  eachQuery(item, (query) => {
    inverse.set(f32x4.splat(f32.div(f32.const(1), f32.load(addressAt(item.totals, query, 4)))));
    eachVector(item, resultOf(item, query), (p) => v128.store(p, f32x4.mul(v128.load(p), inverse)));
  });
}

/** One tile of queries with the present block. */
function attendTile(item: Item, reader: BlockReader, first: Local<'i32'>, { nQueries, widths }: Tile): void {
  const { f, queries } = item;
  const numbers = Array.from({ length: nQueries }, (_, i) => f.let('query', i32.add(first, i)));
  scoreTile(
    item,
    reader,
    numbers.map((query) => f.let('pq', ptr.add(queries, queryOffset(item, query)))),
    widths,
  );
  const sums = numbers.map((query, i) => softmaxRow(item, query, i));
  addValues(item, reader, sums, widths);
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
function scoreTile(item: Item, reader: BlockReader, queries: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, headDim, scores, nKeys } = item;
  const column = f.let('column', reader.keys);
  const target = f.let('scoreTarget', scores);
  const pk = f.local('ptr', 'pk');
  const pq = f.localArray('ptr', 'pq', queries.length);
  const left = f.local('i32', 'left');
  const scale = f.let('scaleVector', f32x4.splat(item.scale));
  const addProducts = tileProducts(item, queries.length);
  const columnBytes = BLOCK * reader.elementBytes;
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
          (n) => reader.load(pk, columnBytes * d + 4 * reader.elementBytes * n),
        );
      }
      pk.set(ptr.add(pk, 4 * columnBytes));
      for (const p of pq) p.set(ptr.add(p, 16));
      left.set(i32.sub(left, 4));
    });
    sums.forEach((vectors, i) => {
      vectors.forEach((s, n) => v128.store(target, f32x4.mul(s, scale), 4 * BLOCK * i + 16 * n));
    });
    column.set(ptr.add(column, width * reader.elementBytes));
    target.set(ptr.add(target, 4 * width));
  });
}

/** Emits sums[i][n] += factor(i) · vector(n). What several queries share is loaded once. */
function tileProducts({ f, k }: Item, nQueries: number) {
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
      sums.forEach((s, i) => s[n]!.set(multiplyAdd(k.variant, factors[i]!, operand, s[n]!)));
    }
  };
}

/**
 * Row `i` of the scores becomes e^(score − max); when the maximum grows, what was summed so far shrinks.
 * @returns the address of the query's sums
 */
function softmaxRow(item: Item, query: Local<'i32'>, i: number): Local<'ptr'> {
  const { f, scores } = item;
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
  const { sums, rest } = partialOf(item, query);
  const known = f.let('known', f32.load(rest, MAXIMUM));
  const total = f.let('total', f32.load(rest, TOTAL));
  const max = f.let('max', f32.max(maxLanes(f, largest), known));
  const exp = f.local('v128', 'exp');
  f.if(f32.gt(max, known), () => {
    expInto(f, exp, f32x4.splat(f32.sub(known, max)));
    // The first block has nothing to shrink: e^−∞ stands for 0 there.
    const shrink = f.let('shrink', v128.and(exp, f32x4.ne(f32x4.splat(total), v128.zero())));
    total.set(f32.mul(total, f32x4.extract_lane(shrink, 0)));
    eachVector(item, sums, (p) => v128.store(p, f32x4.mul(v128.load(p), shrink)));
    f32.store(rest, max, MAXIMUM);
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
  f32.store(rest, f32.add(total, sumLanes(f, sum)), TOTAL);
  return sums;
}

/** sums i += Σ scores[i][j] · values[j] */
function addValues(item: Item, reader: BlockReader, queries: readonly Local<'ptr'>[], widths: readonly number[]): void {
  const { f, headDim, scores, nKeys } = item;
  const column = f.let('valueColumn', reader.values);
  const pv = f.local('ptr', 'pv');
  const ps = f.local('ptr', 'ps');
  const end = f.local('ptr', 'scoresEnd');
  const addProducts = tileProducts(item, queries.length);
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
        (n) => reader.load(pv, 4 * reader.elementBytes * n),
      );
      pv.set(ptr.add(pv, reader.valueRowBytes));
      ps.set(ptr.add(ps, 4));
    });
    sums.forEach((vectors, i) => vectors.forEach((s, n) => v128.store(queries[i]!, s, 16 * n)));
    for (const p of queries) p.set(ptr.add(p, 4 * width));
    column.set(ptr.add(column, width * reader.elementBytes));
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
    partialsOffset: 'i32',
    sharedPartialsOffset: 'i32',
  },
  values({ params, inputs }: Instruction) {
    const { nHead, nHeadKv, headDim, blockSize, scale } = params as Record<string, number>;
    assert(blockSize === BLOCK, `attention kernels work on blocks of ${BLOCK} positions, not ${blockSize}`);
    requireWholeVectors(headDim!);
    const layout = scratchLayout(headDim!, nHead! / nHeadKv!);
    const nBlockPerSeq = columnsOf(inputs[5]!.tensor);
    return {
      nHead: nHead!,
      headsPerKv: nHead! / nHeadKv!,
      headDim: headDim!,
      nBlockPerSeq,
      scale: scale!,
      valuesOffset: layout.values,
      scoresOffset: layout.scores,
      maximaOffset: layout.maxima,
      totalsOffset: layout.totals,
      partialsOffset: layout.partials,
      sharedPartialsOffset: sharedLayout(headDim!, nHead!, nBlockPerSeq).partials,
    };
  },
  scratchBytes({ params }) {
    const { nHead, nHeadKv, headDim } = params as Record<string, number>;
    return scratchLayout(headDim!, nHead! / nHeadKv!).sizeBytes;
  },
  sharedScratchBytes({ params, inputs }) {
    const { nHead, headDim } = params as Record<string, number>;
    return sharedLayout(headDim!, nHead!, columnsOf(inputs[5]!.tensor)).sizeBytes;
  },
  build: (k) => buildAttention(k, type),
});

/** Rows of keys or values into the cache. Threads share the columns, in runs of 4. */
const kvWrite = (type: CacheType): Kernel => ({
  op: 'kvWrite',
  dtypes: [type],
  params: { columns: 'i32', headDim: 'i32', isKeys: 'i32' },
  values({ out, params }) {
    const columns = columnsOf(out.tensor);
    const { headDim, isKeys } = params as Record<string, number>;
    requireWholeVectors(headDim!);
    return { columns, headDim: headDim!, isKeys: isKeys! };
  },
  build(k) {
    const { f } = k;
    const state = k.input(0, 'state');
    const x = k.input(1, 'x');
    const slots = k.input(2, 'slots');
    const rows = k.rows();
    const columns = k.param('columns');
    const headDim = k.param('headDim');
    const isKeys = k.param('isKeys');
    const elementBytes = ELEMENT_BYTES[type];
    const { from, to } = k.share(i32.shr_u(columns, 2));
    const toHalf = new FloatToHalf(f);
    const row = f.local('i32', 'row');
    const i = f.local('i32', 'i');
    const px = f.local('ptr', 'px');
    const po = f.local('ptr', 'po');
    const block = f.local('ptr', 'block');
    const position = f.local('i32', 'position');
    const value = f.local('v128', 'value');
    f.for(row, { from: 0, to: rows }, () => {
      const slot = f.let('slot', i32.load(addressAt(slots, row, 4)));
      px.set(addressAt(x, i32.add(i32.mul(row, columns), i32.shl(from, 2)), 4));
      // The block's start may lie beyond 2 GB of a large cache: the product is taken at pointer width.
      const blockBytes = ptr.mul(ptr.fromI32(columns), BLOCK * elementBytes);
      block.set(addressAt(state, i32.div_u(slot, i32.const(BLOCK)), blockBytes));
      position.set(i32.rem_u(slot, i32.const(BLOCK)));
      f.for(i, { from, to }, () => {
        if (type === 'F16') {
          toHalf.convertInto(value, v128.load(px));
          value.set(packHalves(value, value));
        } else {
          value.set(v128.load(px));
        }
        const column = f.let('column', i32.shl(i, 2));
        f.if(
          isKeys,
          () => {
            po.set(addressAt(block, i32.add(i32.mul(column, BLOCK), position), elementBytes));
            for (let lane = 0; lane < 4; lane++) {
              const store = type === 'F16' ? v128.store16_lane : v128.store32_lane;
              store(po, value, lane, BLOCK * elementBytes * lane);
            }
          },
          () => {
            const head = i32.mul(i32.div_u(column, headDim), headDim);
            const start = i32.add(i32.mul(head, BLOCK), i32.mul(position, headDim));
            po.set(addressAt(block, i32.add(start, i32.sub(column, head)), elementBytes));
            if (type === 'F16') v128.store64_lane(po, value, 0);
            else v128.store(po, value);
          },
        );
        px.set(ptr.add(px, 16));
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
