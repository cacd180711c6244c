// Kernels that work row by row: RMSNorm, rotary positions, gathering of rows, quantisation of activations, clearing.

import { ACTIVATION_BLOCK_BYTES, ACTIVATION_HEADER_BYTES, columnsOf } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import { f32, f32x4, f64, i16x8, i32, i32x4, i8x16, memory, ptr, v128 } from '../emit/operations.ts';
import { blockScale, quantBytes, quantizeBlock, sumLanes, sumLanesI32 } from './floats.ts';
import { CLEARING, LINE_BYTES, addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';
import { SPLIT_COLUMNS } from './matmul/layout.ts';

/** Calls `body` with the address offset of each row of this thread's share. */
function forEachRow(k: KernelBody, body: (row: Local<'i32'>) => void, nRows: Expr<'i32'> = k.rows()): void {
  const { from, to } = k.share(nRows);
  const row = k.f.local('i32', 'row');
  k.f.for(row, { from, to }, () => body(row));
}

/** A row may be several runs as long as the weight: here each is a row. */
const rmsNorm: Kernel = {
  op: 'rmsNorm',
  dtypes: [],
  params: { columns: 'i32', nRuns: 'i32', eps: 'f32', quantized: 'i32' },
  values: ({ out, inputs, params }) => ({
    columns: columnsOf(inputs[1]!.tensor),
    nRuns: columnsOf(out.tensor) / columnsOf(inputs[1]!.tensor),
    eps: params['eps']!,
    quantized: params['quantized'] ?? 0,
  }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const weight = k.input(1, 'weight');
    const columns = k.param('columns');
    const eps = k.paramF32('eps');
    const nVector = f.let('nVector', i32.and(columns, ~3));
    const sums = f.localArray('v128', 'sum', 4);
    const i = f.local('i32', 'i');
    const px = f.local('ptr', 'px');
    const po = f.local('ptr', 'po');
    const pw = f.local('ptr', 'pw');
    const scale = f.local('v128', 'scale');
    const square = f.local('v128', 'square');
    const quantizer = quantizing(k);
    const norm = (row: Local<'i32'>): void => {
      px.set(addressAt(x, i32.mul(row, columns), 4));
      pw.set(weight);
      for (const sum of sums) sum.set(v128.zero());
      const addSquare = (sum: Local<'v128'>, offset: number): void => {
        square.set(v128.load(px, offset));
        sum.set(f32x4.add(sum, f32x4.mul(square, square)));
      };
      i.set(0);
      f.while(i32.le_s(i, i32.sub(nVector, 16)), () => {
        sums.forEach((sum, n) => addSquare(sum, 16 * n));
        px.set(ptr.add(px, 64));
        i.set(i32.add(i, 16));
      });
      f.while(i32.lt_s(i, nVector), () => {
        addSquare(sums[0]!, 0);
        px.set(ptr.add(px, 16));
        i.set(i32.add(i, 4));
      });
      f.while(i32.lt_s(i, columns), () => {
        square.set(v128.load32_zero(px));
        sums[0]!.set(f32x4.add(sums[0]!, f32x4.mul(square, square)));
        px.set(ptr.add(px, 4));
        i.set(i32.add(i, 1));
      });
      const total = sumLanes(f, f32x4.add(f32x4.add(sums[0]!, sums[1]!), f32x4.add(sums[2]!, sums[3]!)));
      const mean = f32.div(total, f32.convert_i32_s(columns));
      scale.set(f32x4.splat(f32.div(f32.const(1), f32.sqrt(f32.add(mean, eps)))));
      px.set(addressAt(x, i32.mul(row, columns), 4));
      const normed = (offset: number): Expr<'v128'> =>
        f32x4.mul(f32x4.mul(v128.load(px, offset), scale), v128.load(pw, offset));
      f.if(
        quantizer.isWanted,
        () => {
          const nBlocks = f.let('nBlocks', i32.shr_u(columns, 5));
          po.set(addressAt(out, i32.mul(row, nBlocks), quantizer.blockBytes));
          f.for(i, { from: 0, to: nBlocks }, () => {
            quantizer.store(po, normed);
            for (const p of [px, pw]) p.set(ptr.add(p, 128));
          });
        },
        () => {
          po.set(addressAt(out, i32.mul(row, columns), 4));
          f.for(i, { from: 0, to: nVector, step: 4 }, () => {
            v128.store(po, normed(0));
            for (const p of [px, po, pw]) p.set(ptr.add(p, 16));
          });
          f.while(i32.lt_s(i, columns), () => {
            const scaled = f32x4.mul(f32x4.mul(v128.load32_zero(px), scale), v128.load32_zero(pw));
            v128.store32_lane(po, scaled, 0);
            for (const p of [px, po, pw]) p.set(ptr.add(p, 4));
            i.set(i32.add(i, 1));
          });
        },
      );
    };
    forEachRow(k, norm, i32.mul(k.rows(), k.param('nRuns')));
  },
};

const rope: Kernel = {
  op: 'rope',
  dtypes: [],
  params: { columns: 'i32', headDim: 'i32', nRot: 'i32', neox: 'i32', inverse: 'i32' },
  values: ({ out, params }) => ({
    columns: columnsOf(out.tensor),
    headDim: params['headDim']!,
    nRot: params['nRot']!,
    neox: params['neox']!,
    inverse: params['inverse'] ?? 0,
  }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const positions = k.input(1, 'positions');
    const angles = k.input(2, 'angles');
    const rows = k.rows();
    const columns = k.param('columns');
    const headDim = k.param('headDim');
    const nRot = k.param('nRot');
    const nHead = f.let('nHead', i32.div_u(columns, headDim));
    const { from, to } = k.share(i32.mul(rows, nHead));
    // Distance of a pair's elements and of neighbouring pairs, in bytes: (2i, 2i+1) or (i, i + nRot/2).
    const isNeox = k.param('neox');
    const inverse = k.param('inverse');
    const partner = f.let(
      'partner',
      ptr.fromI32(i32.shl(i32.add(i32.mul(isNeox, i32.sub(i32.shr_u(nRot, 1), 1)), 1), 2)),
    );
    const stride = f.let('stride', ptr.fromI32(i32.sub(8, i32.shl(isNeox, 2))));
    const item = f.local('i32', 'item');
    const px = f.local('ptr', 'px');
    const po = f.local('ptr', 'po');
    const pa = f.local('ptr', 'pa');
    const end = f.local('ptr', 'end');
    const [a, b, cosine, sine] = ['a', 'b', 'cosine', 'sine'].map((name) => f.local('f32', name)) as Local<'f32'>[] & {
      length: 4;
    };
    f.for(item, { from, to }, () => {
      const row = i32.div_u(item, nHead);
      const start = i32.mul(item, headDim);
      px.set(addressAt(x, start, 4));
      po.set(addressAt(out, start, 4));
      const position = i32.load(addressAt(positions, row, 4));
      pa.set(addressAt(angles, i32.mul(position, nRot), 4));
      end.set(addressAt(pa, nRot, 4));
      f.while(ptr.lt_u(pa, end), () => {
        a!.set(f32.load(px));
        b!.set(f32.load(ptr.add(px, partner)));
        cosine!.set(f32.load(pa));
        sine!.set(f32.load(pa, 4));
        f.if(inverse, () => sine!.set(f32.neg(sine!)));
        f32.store(po, f32.sub(f32.mul(a!, cosine!), f32.mul(b!, sine!)));
        f32.store(ptr.add(po, partner), f32.add(f32.mul(b!, cosine!), f32.mul(a!, sine!)));
        px.set(ptr.add(px, stride));
        po.set(ptr.add(po, stride));
        pa.set(ptr.add(pa, 8));
      });
      // What is not rotated is carried over; in place, onto itself.
      const rest = i32.shl(i32.sub(headDim, nRot), 2);
      f.if(i32.gt_s(headDim, nRot), () => {
        const restStart = i32.add(i32.mul(item, headDim), nRot);
        memory.copy(addressAt(out, restStart, 4), addressAt(x, restStart, 4), ptr.fromI32(rest));
      });
    });
  },
};

const gatherRows: Kernel = {
  op: 'gatherRows',
  dtypes: [],
  params: { columns: 'i32' },
  values: ({ out }) => ({ columns: columnsOf(out.tensor) }),
  build(k) {
    const out = k.out();
    const x = k.input(0, 'x');
    const ids = k.input(1, 'ids');
    const columns = k.param('columns');
    const rowBytes = k.f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
    forEachRow(k, (row) => {
      const source = addressAt(x, i32.load(addressAt(ids, row, 4)), rowBytes);
      memory.copy(addressAt(out, row, rowBytes), source, rowBytes);
    });
  },
};

/**
 * For kernels whose results may be quantised where they are made, as the parameter `quantized` says: blocks of 32 to 8
 * bits, scale = max|x| / 127, quants rounded to nearest (ties to even), and their sums.
 */
export function quantizing(k: KernelBody) {
  const { f } = k;
  const quantized = k.param('quantized');
  const { Q8A, Q8W } = ACTIVATION_BLOCK_BYTES;
  const isWide = f.let('isWide', i32.eq(quantized, 2));
  const blockBytes = f.let('blockBytes', ptr.fromI32(i32.add(i32.mul(isWide, Q8W - Q8A), Q8A)));
  const v = f.localArray('v128', 'v', 8);
  return {
    isWanted: quantized,
    blockBytes,
    /** Emits the block at `po` of eight vectors, given by their offsets; moves `po` on. */
    store(po: Local<'ptr'>, vectorAt: (offset: number) => Expr<'v128'>): void {
      v.forEach((x8, i) => x8.set(vectorAt(16 * i)));
      const scale = blockScale(f, v);
      quantizeBlock(f, v, scale);
      f32.store(po, scale);
      [0, 4].forEach((first, i) => {
        const last = f.let('last', sumLanesI32(f, i32x4.add(v[first + 2]!, v[first + 3]!)));
        const all = i32x4.add(last, sumLanesI32(f, i32x4.add(v[first]!, v[first + 1]!)));
        i32.store16(po, i32x4.extract_lane(all, 0), 4 + 2 * i);
        i32.store16(po, i32x4.extract_lane(last, 0), 8 + 2 * i);
      });
      const at = ACTIVATION_HEADER_BYTES;
      f.if(
        isWide,
        () => [0, 2, 4, 6].forEach((i) => v128.store(po, i16x8.narrow_i32x4_s(v[i]!, v[i + 1]!), at + 8 * i)),
        () => {
          const [first, last] = quantBytes(v).map((bytes) => f.let('bytes', bytes)) as [Local<'v128'>, Local<'v128'>];
          [first, last].forEach((bytes, i) => {
            const places = SPLIT_COLUMNS.slice(16 * i, 16 * i + 16);
            const split = (): Expr<'v128'> => i8x16.shuffle(first, last, places);
            v128.store(po, k.variant.dot === 'i7p' ? split() : bytes, at + 16 * i);
          });
        },
      );
      po.set(ptr.add(po, blockBytes));
    },
  };
}

/** This thread's share of the blocks of 32 of dense rows: `vectorAt` reads eight vectors of the result. */
export function quantizeBlocks(
  k: KernelBody,
  { blockBytes, store }: ReturnType<typeof quantizing>,
  out: Expr<'ptr'>,
  columns: Expr<'i32'>,
  operands: readonly Expr<'ptr'>[],
  vectorAt: (addresses: readonly Local<'ptr'>[], offset: number) => Expr<'v128'>,
): void {
  const { f } = k;
  const { from, to } = k.share(i32.mul(k.rows(), i32.shr_u(columns, 5)));
  const block = f.local('i32', 'block');
  const addresses = operands.map((operand) => f.let('px', addressAt(operand, from, 128)));
  const po = f.let('po', addressAt(out, from, blockBytes));
  f.for(block, { from, to }, () => {
    store(po, (offset) => vectorAt(addresses, offset));
    for (const p of addresses) p.set(ptr.add(p, 128));
  });
}

const quantize: Kernel = {
  op: 'quantize',
  dtypes: [],
  params: { columns: 'i32', quantized: 'i32' },
  values: ({ out }) => ({ columns: columnsOf(out.tensor), quantized: out.tensor.dtype === 'Q8W' ? 2 : 1 }),
  build(k) {
    const operands = [k.out(), k.input(0, 'x')] as const;
    const quantizer = quantizing(k);
    quantizeBlocks(k, quantizer, operands[0], k.param('columns'), [operands[1]], ([x], offset) =>
      v128.load(x!, offset),
    );
  },
};

/**
 * Zeroes what is not new of a buffer. Nothing above the lines that were handed out before, in this program
 * (`nUsedLines`) or outside of it, has ever been written.
 */
const clear: Kernel = {
  op: 'clear',
  dtypes: [],
  params: { firstLine: 'i32', nLines: 'i32', nUsedLines: 'i32' },
  values: ({ out, params }) => ({
    firstLine: out.offsetBytes / LINE_BYTES,
    nLines: out.sizeBytes / LINE_BYTES,
    nUsedLines: params['usedBytes']! / LINE_BYTES,
  }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const nLines = k.param('nLines');
    const nUsed = k.param('nUsedLines');
    const nUsedBefore = f.let('nUsedBefore', i32.load(ptr.const(CLEARING.usedLines)));
    f.if(i32.gt_s(nUsedBefore, nUsed), () => nUsed.set(nUsedBefore));
    const nStale = f.let('nStale', i32.sub(nUsed, k.param('firstLine')));
    f.if(i32.lt_s(nStale, 0), () => nStale.set(0));
    f.if(i32.gt_s(nStale, nLines), () => nStale.set(nLines));
    const { from, to } = k.share(nStale);
    memory.fill(addressAt(out, from, LINE_BYTES), 0, ptr.mul(ptr.fromI32(i32.sub(to, from)), LINE_BYTES));
    const count = (address: number, n: Expr<'i32'>): void => {
      const at = ptr.const(address);
      f64.store(at, f64.add(f64.load(at), f64.convert_i32_s(n)));
    };
    f.if(i32.eqz(k.thread), () => {
      count(CLEARING.clearedLines, nStale);
      count(CLEARING.skippedLines, i32.sub(nLines, nStale));
    });
  },
};

export const ROW_KERNELS: readonly Kernel[] = [rmsNorm, rope, gatherRows, quantize, clear];
