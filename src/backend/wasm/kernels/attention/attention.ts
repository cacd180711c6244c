// Attention over the paged cache. An item is one key-value head for up to TILE_ROWS rows of the batch. For each run of
// rows of one sequence, the cache is visited block by block: all queries that share the keys (rows, times the heads of
// the group) are multiplied with them in tiles; a running maximum and sum (online softmax, arXiv:1805.02867) make
// weights of the scores, which the values are added with. Each CHUNK of positions is a softmax of its own, and they are
// merged in order: when there are only a few rows, chunks are items too, so that all threads share in one long
// sequence, and whichever thread ends the last of them merges. A query's numbers are added in the order of its own
// elements, positions and chunks, whatever the tile, so that its result does not depend on who computes it, or beside
// what.

import { assert } from '../../../../base/errors.ts';
import { columnsOf } from '../../../../graph/tensor.ts';
import type { Instruction } from '../../../../graph/plan.ts';
import { KV_DTYPES } from '../../../../graph/step.ts';
import type { KvDtype } from '../../../../graph/step.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { CallArgs } from '../../emit/function-builder.ts';
import { f32, f32x4, i32, ptr, v128 } from '../../emit/operations.ts';
import {
  MAXIMUM,
  tilesOf,
  TILE_PARAMS,
  TOTAL,
  defineSoftmax,
  defineTile,
  eachVector,
  partialBytes,
  partialOf,
  queryOffset,
} from './tile.ts';
import type { TileBody } from './tile.ts';
import { expInto } from '../floats.ts';
import { LINE_BYTES, addressAt } from '../kernel.ts';
import type { Kernel, KernelBody } from '../kernel.ts';
import { BLOCK, columnBytes, copyBlock, requireHeadDim } from './kv-cache.ts';
import type { FloatType } from './kv-cache.ts';

/** Positions that make one softmax: eight blocks. */
const CHUNK = 256;
/** A window that nothing is before. */
const ALL_POSITIONS = 2 ** 31 - 1;
/** Rows of the batch in an item. */
const TILE_ROWS = 16;
/** Up to so many rows, threads share chunks and not only heads. */
const SPLIT_ROWS = 4;
/** More queries than this read a copy of the block in f32; fewer convert what they read. */
const DIRECT_QUERIES = 4;

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

/** What the steps of an item share. */
interface Item extends TileBody {
  readonly results: Local<'ptr'>;
  /** Of the present run. */
  readonly nQueries: Local<'i32'>;
  /** f32 a query: of the chunks merged so far. */
  readonly maxima: Local<'ptr'>;
  readonly totals: Local<'ptr'>;
  readonly hasSinks: Local<'i32'>;
  /** f32 a head of the group. */
  readonly sinks: Local<'ptr'>;
}

function buildAttention(k: KernelBody, type: KvDtype): void {
  const { f } = k;
  const out = k.out();
  const q = k.input(0, 'q');
  const keys = k.input(1, 'keys');
  const values = k.input(2, 'values');
  const lastSeen = k.input(3, 'lastSeen');
  const sequences = k.input(4, 'sequences');
  const tables = k.input(5, 'tables');
  const allSinks = k.input(6, 'allSinks');
  const nHead = k.param('nHead');
  const headsPerKv = k.param('headsPerKv');
  const headDim = k.param('headDim');
  const nBlockPerSeq = k.param('nBlockPerSeq');
  const scratch = k.scratch();
  const part = (name: string): Local<'ptr'> => f.let(name, ptr.add(scratch, ptr.fromI32(k.param(name))));
  const nRows = k.rows();
  const nKvHead = f.let('nKvHead', i32.div_u(nHead, headsPerKv));
  const headBytes = f.let('headBytes', ptr.fromI32(i32.mul(headDim, columnBytes(type))));
  const blockBytes = f.let('blockBytes', ptr.mul(headBytes, ptr.fromI32(nKvHead)));
  const item: Item = {
    f,
    variant: k.variant,
    headDim,
    headsPerKv,
    scale: k.paramF32('scale'),
    softcap: k.paramF32('softcap'),
    window: k.param('window'),
    lastSeen,
    queryRowBytes: f.let('queryRowBytes', ptr.fromI32(i32.shl(i32.mul(nHead, headDim), 2))),
    queries: f.local('ptr', 'queries'),
    results: f.local('ptr', 'results'),
    firstRow: f.local('i32', 'firstRow'),
    first: f.local('i32', 'firstQuery'),
    keys: f.local('ptr', 'blockKeys'),
    values: f.local('ptr', 'blockValues'),
    nQueries: f.local('i32', 'nQueries'),
    firstPosition: f.local('i32', 'firstPosition'),
    nKeys: f.local('i32', 'nKeys'),
    scores: part('scoresOffset'),
    partials: f.local('ptr', 'partials'),
    partialBytes: f.let('partialBytes', ptr.fromI32(i32.add(i32.shl(headDim, 2), partialBytes(0)))),
    maxima: part('maximaOffset'),
    totals: part('totalsOffset'),
    hasSinks: k.param('hasSinks'),
    sinks: f.local('ptr', 'sinks'),
  };
  const ownPartials = part('partialsOffset');
  const shared = k.sharedScratch();
  const sharedPartials = f.let('sharedPartials', ptr.add(shared, ptr.fromI32(k.param('sharedPartialsOffset'))));
  const lastSeenBy = (row: Expr<'i32'>): Expr<'i32'> => i32.load(addressAt(lastSeen, row, 4));

  // The number of parts that a run is divided into: 1, or the chunks of the longest.
  const nParts = f.let('nParts', i32.const(1));
  const row = f.local('i32', 'row');
  const isSplit = f.let(
    'isSplit',
    k.isShared ? i32.and(i32.le_s(nRows, SPLIT_ROWS), i32.gt_s(k.nThreads, 1)) : i32.const(0),
  );
  f.if(isSplit, () => {
    f.for(row, { from: 0, to: nRows }, () => {
      const nChunks = f.let('nChunks', i32.add(i32.div_u(lastSeenBy(row), i32.const(CHUNK)), 1));
      f.if(i32.gt_s(nChunks, nParts), () => nParts.set(nChunks));
    });
  });
  const nTiles = i32.div_u(i32.add(nRows, TILE_ROWS - 1), i32.const(TILE_ROWS));
  const nItemsOfTile = f.let('nItemsOfTile', i32.mul(nKvHead, nParts));
  const nItems = f.let('nItems', i32.mul(nTiles, nItemsOfTile));
  const index = f.local('i32', 'index');
  const kvHead = f.local('i32', 'kvHead');
  const partIndex = f.local('i32', 'part');
  const endRow = f.local('i32', 'endRow');
  const sequence = f.local('i32', 'sequence');
  const table = f.local('ptr', 'table');
  const lastPosition = f.local('i32', 'lastPosition');
  const firstBlock = f.local('i32', 'firstBlock');
  const cacheOffset = f.local('ptr', 'cacheOffset');
  const attendBlock = blockAttention(k, item, type, { keys: scratch, values: part('valuesOffset') });

  k.eachRun(nItems, i32.const(1), (from, to) =>
    f.for(index, { from, to }, () => {
      kvHead.set(i32.rem_u(index, nKvHead));
      partIndex.set(i32.div_u(i32.rem_u(index, nItemsOfTile), nKvHead));
      row.set(i32.mul(i32.div_u(index, nItemsOfTile), TILE_ROWS));
      endRow.set(i32.add(row, TILE_ROWS));
      f.if(i32.gt_s(endRow, nRows), () => endRow.set(nRows));
      const headStart = f.let('headStart', i32.mul(i32.mul(kvHead, headsPerKv), headDim));
      item.sinks.set(addressAt(allSinks, i32.mul(kvHead, headsPerKv), 4));
      item.queries.set(addressAt(q, headStart, 4));
      item.results.set(addressAt(out, headStart, 4));
      f.while(i32.lt_s(row, endRow), () => {
        item.firstRow.set(row);
        sequence.set(i32.load(addressAt(sequences, row, 4)));
        const isSameRun = i32.and(i32.lt_s(row, endRow), i32.eq(i32.load(addressAt(sequences, row, 4)), sequence));
        f.while(isSameRun, () => row.set(i32.add(row, 1)));
        item.nQueries.set(i32.mul(i32.sub(row, item.firstRow), headsPerKv));
        lastPosition.set(lastSeenBy(i32.sub(row, 1)));
        // What rows of a run see moves forward: what is before the window of the first, none sees.
        firstBlock.set(i32.sub(i32.add(lastSeenBy(item.firstRow), 1), item.window));
        f.if(i32.lt_s(firstBlock, 0), () => firstBlock.set(0));
        firstBlock.set(i32.and(firstBlock, ~(BLOCK - 1)));
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
          const endPosition = f.let('endPosition', i32.add(item.firstPosition, CHUNK - 1));
          f.if(i32.gt_s(firstBlock, item.firstPosition), () => item.firstPosition.set(firstBlock));
          const block = i32.div_u(item.firstPosition, i32.const(BLOCK));
          table.set(addressAt(tables, i32.add(i32.mul(sequence, nBlockPerSeq), block), 4));
          f.if(i32.gt_s(endPosition, lastPosition), () => endPosition.set(lastPosition));
          f.while(i32.le_s(item.firstPosition, endPosition), () => {
            item.nKeys.set(i32.sub(i32.add(lastPosition, 1), item.firstPosition));
            f.if(i32.gt_s(item.nKeys, BLOCK), () => item.nKeys.set(BLOCK));
            cacheOffset.set(addressAt(ptr.mul(headBytes, ptr.fromI32(kvHead)), i32.load(table), blockBytes));
            item.keys.set(ptr.add(keys, cacheOffset));
            item.values.set(ptr.add(values, cacheOffset));
            attendBlock();
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
    }),
  );
}

/**
 * Emits the present run's queries with the present block, which is read as it is, or from a copy in f32: where many
 * queries read it, and always in Q8_0, whose copy takes less time than reading F16 directly once the cache is larger
 * than L2 (one query, 2048 positions: 0.7 to 0.95 of it; of 256 positions: up to 1.2). Tiles are functions of their
 * own: V8 allocates registers badly in very large ones.
 */
function blockAttention(
  k: KernelBody,
  item: Item,
  type: KvDtype,
  copies: { readonly keys: Local<'ptr'>; readonly values: Local<'ptr'> },
): () => void {
  const { f, nQueries } = item;
  const softmax = defineSoftmax(k, type);
  /** The way to read the block as a type. */
  const attendAs = (read: FloatType): (() => void) => {
    const tiles = tilesOf(k.variant);
    const functions = tiles.map((tile) => defineTile(k, type, read, tile, softmax));
    return () => {
      item.first.set(0);
      tiles.forEach((tile, i) => {
        f.while(i32.le_s(i32.add(item.first, tile.nQueries), nQueries), () => {
          f.exec(functions[i]!, tileArgs(item));
          item.first.set(i32.add(item.first, tile.nQueries));
        });
      });
    };
  };
  const attendF32 = attendAs('F32');
  if (type === 'F32') {
    return () => {
      f.if(i32.le_s(nQueries, DIRECT_QUERIES), () => touchBlock(item, columnBytes(type)));
      attendF32();
    };
  }

  const attendCopy = (): void => {
    copyBlock(f, type, item, copies);
    item.keys.set(copies.keys);
    item.values.set(copies.values);
    attendF32();
  };
  if (type === 'Q8_0') return attendCopy;

  const attendDirectly = attendAs(type);
  return () =>
    f.if(
      i32.le_s(nQueries, DIRECT_QUERIES),
      () => {
        touchBlock(item, columnBytes(type));
        attendDirectly();
      },
      attendCopy,
    );
}

/**
 * Reads a word of every cache line of the block, one after the other, so that all of it is under way before the first
 * is needed: the processor sees too few lines ahead through the arithmetic.
 */
function touchBlock({ f, keys, values, headDim, scores }: Item, bytesOfColumn: number): void {
  const seen = f.let('seen', i32.const(0));
  const [k, v] = [f.let('touchedKeys', keys), f.let('touchedValues', values)];
  const end = f.let('touchEnd', addressAt(k, headDim, bytesOfColumn));
  const nLines = 4;
  f.while(ptr.lt_u(k, end), () => {
    for (let line = 0; line < nLines; line++) {
      for (const p of [k, v]) seen.set(i32.or(seen, i32.load(p, LINE_BYTES * line)));
    }
    for (const p of [k, v]) p.set(ptr.add(p, LINE_BYTES * nLines));
  });
  // Without a use the reads might be left out. Scores are written next.
  i32.store(scores, seen);
}

/** What a function of a tile gets. */
function tileArgs(item: Item): CallArgs<typeof TILE_PARAMS> {
  const names = Object.keys(TILE_PARAMS) as (keyof typeof TILE_PARAMS)[];
  return Object.fromEntries(names.map((name) => [name, item[name]])) as unknown as CallArgs<typeof TILE_PARAMS>;
}

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

/** A sink is one more weight; a result of which it is all but everything is next to nothing. */
function endQueries(item: Item): void {
  const { f, hasSinks, sinks, headsPerKv } = item;
  const inverse = f.local('v128', 'inverse');
  const exp = f.local('v128', 'sinkExp');
  eachQuery(item, (query) => {
    const total = f.let('total', f32.load(addressAt(item.totals, query, 4)));
    f.if(hasSinks, () => {
      const sink = f32.load(addressAt(sinks, i32.rem_u(query, headsPerKv), 4));
      const score = f32.sub(sink, f32.load(addressAt(item.maxima, query, 4)));
      expInto(f, exp, f32x4.splat(f32.min(score, f32.const(88))));
      total.set(f32.add(total, f32x4.extract_lane(exp, 0)));
    });
    inverse.set(f32x4.splat(f32.div(f32.const(1), total)));
    eachVector(item, resultOf(item, query), (p) => v128.store(p, f32x4.mul(v128.load(p), inverse)));
  });
}

const attention = (type: KvDtype): Kernel => ({
  op: 'attention',
  dtypes: [type],
  params: {
    nHead: 'i32',
    headsPerKv: 'i32',
    headDim: 'i32',
    nBlockPerSeq: 'i32',
    scale: 'f32',
    softcap: 'f32',
    window: 'i32',
    hasSinks: 'i32',
    valuesOffset: 'i32',
    scoresOffset: 'i32',
    maximaOffset: 'i32',
    totalsOffset: 'i32',
    partialsOffset: 'i32',
    sharedPartialsOffset: 'i32',
  },
  values({ params, inputs }: Instruction) {
    const { nHead, nHeadKv, headDim, blockSize, scale, softcap = 0, window = 0 } = params as Record<string, number>;
    assert(blockSize === BLOCK, `attention kernels work on blocks of ${BLOCK} positions, not ${blockSize}`);
    requireHeadDim(type, headDim!);
    const layout = scratchLayout(headDim!, nHead! / nHeadKv!);
    const nBlockPerSeq = columnsOf(inputs[5]!.tensor);
    return {
      nHead: nHead!,
      headsPerKv: nHead! / nHeadKv!,
      headDim: headDim!,
      nBlockPerSeq,
      scale: scale!,
      softcap,
      window: window || ALL_POSITIONS,
      hasSinks: inputs.length > 6 ? 1 : 0,
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

export const ATTENTION_KERNELS: readonly Kernel[] = KV_DTYPES.map(attention);
