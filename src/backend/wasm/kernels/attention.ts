// Attention over the paged cache, and the write into it. An item is one head of one row; threads take items in turn,
// since later rows see more keys. Keys are visited block by block with a running maximum and sum (online softmax,
// arXiv:1805.02867), always from position 0 on, so that the result does not depend on who computes it or on what else
// is in the batch.

import { UnsupportedError, assert } from '../../../base/errors.ts';
import { columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32, f32x4, i32, ptr, v128 } from '../emit/operations.ts';
import { FloatToHalf, HalfToFloat, expInto, maxLanes, multiplyAdd, packHalves, sumLanes } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

/** How four cache elements are read as f32, and the bytes they take. */
interface CacheFormat {
  readonly vectorBytes: number;
  load(address: Expr<'ptr'>, offset?: number): Expr<'v128'>;
}

type CacheType = 'F16' | 'F32';

function cacheFormat(f: FunctionBuilder, type: CacheType): CacheFormat {
  if (type === 'F32') return { vectorBytes: 16, load: (address, offset = 0) => v128.load(address, offset) };
  const half = new HalfToFloat(f);
  return { vectorBytes: 8, load: (address, offset = 0) => half.convert(v128.load16x4_s(address, offset)) };
}

/** Positions of a cache block; the scores of one block lie in the thread's scratch. */
const BLOCK = 32;

/** Vectors that are worked on at once: enough chains to hide the latency of a multiply-add. */
const UNROLL = 4;

/** Runs `body` for 4 vectors at a time, then for one, until `left` elements are done; `body` moves its own pointers. */
function forVectors(f: FunctionBuilder, left: Local<'i32'>, body: (nVectors: number) => void): void {
  for (const n of [UNROLL, 1]) {
    f.while(i32.ge_s(left, 4 * n), () => {
      body(n);
      left.set(i32.sub(left, 4 * n));
    });
  }
}

/** What the steps of one item share. */
interface Item {
  readonly q: Local<'ptr'>;
  readonly out: Local<'ptr'>;
  readonly scores: Local<'ptr'>;
  readonly headDim: Local<'i32'>;
  readonly scale: Local<'f32'>;
  /** Address of the head's keys, or values, in the first row of the present block, and the distance of rows. */
  readonly keys: Local<'ptr'>;
  readonly values: Local<'ptr'>;
  readonly rowBytes: Local<'ptr'>;
  /** Positions of the present block that the row sees. */
  readonly nKeys: Local<'i32'>;
  /** Largest score so far, and the sum of e^(score − max). */
  readonly max: Local<'f32'>;
  readonly total: Local<'f32'>;
}

function buildAttention(k: KernelBody, type: CacheType): void {
  const { f } = k;
  const cache = cacheFormat(f, type);
  const out = k.out();
  const q = k.input(0, 'q');
  const keys = k.input(1, 'keys');
  const values = k.input(2, 'values');
  const positions = k.input(3, 'positions');
  const sequences = k.input(4, 'sequences');
  const tables = k.input(5, 'tables');
  const nHead = k.param('nHead');
  const headsPerKv = k.param('headsPerKv');
  const nBlockPerSeq = k.param('nBlockPerSeq');
  const nItems = f.let('nItems', i32.mul(k.rows(), nHead));
  const item: Item = {
    q: f.local('ptr', 'qHead'),
    out: f.local('ptr', 'outHead'),
    scores: k.scratch(),
    headDim: k.param('headDim'),
    scale: k.paramF32('scale'),
    keys: f.local('ptr', 'blockKeys'),
    values: f.local('ptr', 'blockValues'),
    rowBytes: f.let('rowBytes', ptr.fromI32(i32.mul(k.param('kvColumns'), cache.vectorBytes / 4))),
    nKeys: f.local('i32', 'nKeys'),
    max: f.local('f32', 'max'),
    total: f.local('f32', 'sum'),
  };
  const index = f.let('index', k.thread);
  const row = f.local('i32', 'row');
  const left = f.local('i32', 'keysLeft');
  const table = f.local('ptr', 'table');
  const headOffset = f.local('ptr', 'headOffset');
  const blockOffset = f.local('ptr', 'blockOffset');

  f.while(i32.lt_s(index, nItems), () => {
    row.set(i32.div_u(index, nHead));
    item.q.set(addressAt(q, i32.mul(index, item.headDim), 4));
    item.out.set(addressAt(out, i32.mul(index, item.headDim), 4));
    const kvHead = i32.div_u(i32.rem_u(index, nHead), headsPerKv);
    headOffset.set(ptr.fromI32(i32.mul(i32.mul(kvHead, item.headDim), cache.vectorBytes / 4)));
    table.set(addressAt(tables, i32.mul(i32.load(addressAt(sequences, row, 4)), nBlockPerSeq), 4));
    left.set(i32.add(i32.load(addressAt(positions, row, 4)), 1));
    item.max.set(f32.const(-Infinity));
    item.total.set(f32.const(0));
    eachOutVector(f, item, (address, offset) => v128.store(address, v128.zero(), offset));
    f.while(i32.gt_s(left, 0), () => {
      item.nKeys.set(left);
      f.if(i32.gt_s(left, BLOCK), () => item.nKeys.set(BLOCK));
      blockOffset.set(addressAt(headOffset, i32.mul(i32.load(table), BLOCK), item.rowBytes));
      item.keys.set(ptr.add(keys, blockOffset));
      item.values.set(ptr.add(values, blockOffset));
      scoreBlock(k, item, cache);
      softmaxBlock(k, item);
      addValues(k, item, cache);
      left.set(i32.sub(left, BLOCK));
      table.set(ptr.add(table, 4));
    });
    const inverse = f.let('inverse', f32x4.splat(f32.div(f32.const(1), item.total)));
    eachOutVector(f, item, (address, offset) => {
      v128.store(address, f32x4.mul(v128.load(address, offset), inverse), offset);
    });
    index.set(i32.add(index, k.nThreads));
  });
}

function eachOutVector(f: FunctionBuilder, item: Item, body: (address: Expr<'ptr'>, offset: number) => void): void {
  const p = f.let('po', item.out);
  forVectors(f, f.let('left', item.headDim), (n) => {
    for (let i = 0; i < n; i++) body(p, 16 * i);
    p.set(ptr.add(p, 16 * n));
  });
}

/** scores[j] = scale · q·keys[j]; positions of the block that the row does not see get −∞. */
function scoreBlock(k: KernelBody, item: Item, cache: CacheFormat): void {
  const { f } = k;
  const j = f.local('i32', 'j');
  const keyRow = f.let('keyRow', item.keys);
  const pq = f.local('ptr', 'pq');
  const pk = f.local('ptr', 'pk');
  const left = f.local('i32', 'left');
  const sums = f.localArray('v128', 'sum', UNROLL);
  f.for(j, { from: 0, to: item.nKeys }, () => {
    pq.set(item.q);
    pk.set(keyRow);
    left.set(item.headDim);
    for (const s of sums) s.set(v128.zero());
    forVectors(f, left, (n) => {
      sums.slice(0, n).forEach((s, i) => {
        s.set(multiplyAdd(k.variant, v128.load(pq, 16 * i), cache.load(pk, cache.vectorBytes * i), s));
      });
      pq.set(ptr.add(pq, 16 * n));
      pk.set(ptr.add(pk, cache.vectorBytes * n));
    });
    const folded = f32x4.add(f32x4.add(sums[0]!, sums[1]!), f32x4.add(sums[2]!, sums[3]!));
    const score = f.let('score', f32.mul(sumLanes(f, folded), item.scale));
    f32.store(addressAt(item.scores, j, 4), score);
    keyRow.set(ptr.add(keyRow, item.rowBytes));
  });
  f.while(i32.lt_s(j, BLOCK), () => {
    f32.store(addressAt(item.scores, j, 4), f32.const(-Infinity));
    j.set(i32.add(j, 1));
  });
}

/** scores[j] = e^(scores[j] − max); when the maximum grows, what was summed so far shrinks accordingly. */
function softmaxBlock(k: KernelBody, item: Item): void {
  const { f } = k;
  const vectors = Array.from({ length: BLOCK / 4 }, (_, i) => 16 * i);
  const load = (offset: number): Expr<'v128'> => v128.load(item.scores, offset);
  const largest = vectors.slice(1).reduce((m, offset) => f32x4.pmax(m, load(offset)), load(0));
  const max = f.let('blockMax', f32.max(maxLanes(f, largest), item.max));
  const exp = f.local('v128', 'exp');
  f.if(f32.gt(max, item.max), () => {
    expInto(f, exp, f32x4.splat(f32.sub(item.max, max)));
    // The first block has nothing to shrink: e^−∞ stands for 0 there.
    const shrink = f.let('shrink', v128.and(exp, f32x4.ne(f32x4.splat(item.total), v128.zero())));
    item.total.set(f32.mul(item.total, f32x4.extract_lane(shrink, 0)));
    eachOutVector(f, item, (address, offset) => {
      v128.store(address, f32x4.mul(v128.load(address, offset), shrink), offset);
    });
    item.max.set(max);
  });
  const maxVector = f.let('maxVector', f32x4.splat(max));
  const unseen = f.let('unseen', f32x4.splat(f32.const(-Infinity)));
  const sum = f.let('blockSum', v128.zero());
  for (const offset of vectors) {
    const isSeen = f32x4.ne(load(offset), unseen);
    expInto(f, exp, f32x4.sub(load(offset), maxVector));
    exp.set(v128.and(exp, isSeen));
    sum.set(f32x4.add(sum, exp));
    v128.store(item.scores, exp, offset);
  }
  item.total.set(f32.add(item.total, sumLanes(f, sum)));
}

/** out += Σ scores[j] · values[j] */
function addValues(k: KernelBody, item: Item, cache: CacheFormat): void {
  const { f } = k;
  const po = f.let('po', item.out);
  const column = f.let('column', item.values);
  const left = f.let('left', item.headDim);
  const j = f.local('i32', 'j');
  const pv = f.local('ptr', 'pv');
  const ps = f.local('ptr', 'ps');
  const sums = f.localArray('v128', 'sum', UNROLL);
  const weight = f.local('v128', 'weight');
  forVectors(f, left, (n) => {
    const used = sums.slice(0, n);
    used.forEach((s, i) => s.set(v128.load(po, 16 * i)));
    pv.set(column);
    ps.set(item.scores);
    f.for(j, { from: 0, to: item.nKeys }, () => {
      weight.set(v128.load32_splat(ps));
      used.forEach((s, i) => s.set(multiplyAdd(k.variant, weight, cache.load(pv, cache.vectorBytes * i), s)));
      pv.set(ptr.add(pv, item.rowBytes));
      ps.set(ptr.add(ps, 4));
    });
    used.forEach((s, i) => v128.store(po, s, 16 * i));
    po.set(ptr.add(po, 16 * n));
    column.set(ptr.add(column, cache.vectorBytes * n));
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
  params: { nHead: 'i32', headsPerKv: 'i32', headDim: 'i32', kvColumns: 'i32', nBlockPerSeq: 'i32', scale: 'f32' },
  values({ params, inputs }: Instruction) {
    const { nHead, nHeadKv, headDim, blockSize, scale } = params as Record<string, number>;
    assert(blockSize === BLOCK, `attention kernels work on blocks of ${BLOCK} positions, not ${blockSize}`);
    requireWholeVectors(headDim!);
    return {
      nHead: nHead!,
      headsPerKv: nHead! / nHeadKv!,
      headDim: headDim!,
      kvColumns: nHeadKv! * headDim!,
      nBlockPerSeq: columnsOf(inputs[5]!.tensor),
      scale: scale!,
    };
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
