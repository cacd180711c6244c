// Unfused attention's other parts: rows ↔ heads, and the causal softmax with its derivative.

import { columnsOf, dimMax, elementsMax } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import { f32, f32x4, i32, memory, ptr, v128 } from '../emit/operations.ts';
import { expInto, maxLanes, splatF32, sumLanes } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

/** [B·T, columns] ↔ [B, H, T, headDim]: copies runs of headDim; merging clears the columns without a head. */
function headsKernel(op: 'splitHeads' | 'mergeHeads'): Kernel {
  return {
    op,
    dtypes: [],
    params: { nRows: 'i32', nHead: 'i32', nPositions: 'i32', headDim: 'i32', columns: 'i32', column: 'i32' },
    values({ out, inputs, params }) {
      const [heads, rows] = op === 'splitHeads' ? [out.tensor, inputs[0]!.tensor] : [inputs[0]!.tensor, out.tensor];
      const [nSeq, nHead, nPositions, headDim] = heads.shape.map(dimMax) as [number, number, number, number];
      const columns = columnsOf(rows);
      return { nRows: nSeq * nPositions, nHead, nPositions, headDim, columns, column: params['column']! };
    },
    build(k) {
      const { f } = k;
      const out = k.out();
      const x = k.input(0, 'x');
      const [nHead, nPositions] = [k.param('nHead'), k.param('nPositions')];
      const columns = k.param('columns');
      const column = k.param('column');
      const runBytes = f.let('runBytes', ptr.fromI32(i32.shl(k.param('headDim'), 2)));
      const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
      const { from, to } = k.share(k.param('nRows'));
      const row = f.local('i32', 'row');
      const head = f.local('i32', 'head');
      const inRows = f.local('ptr', 'inRows');
      const inHeads = f.local('ptr', 'inHeads');
      f.for(row, { from, to }, () => {
        if (op === 'mergeHeads') memory.fill(addressAt(out, row, rowBytes), 0, rowBytes);
        inRows.set(addressAt(addressAt(op === 'splitHeads' ? x : out, row, rowBytes), column, 4));
        f.for(head, { from: 0, to: nHead }, () => {
          const matrix = i32.add(i32.mul(i32.div_u(row, nPositions), nHead), head);
          const run = i32.add(i32.mul(matrix, nPositions), i32.rem_u(row, nPositions));
          inHeads.set(addressAt(op === 'splitHeads' ? out : x, run, runBytes));
          if (op === 'splitHeads') memory.copy(inHeads, inRows, runBytes);
          else memory.copy(inRows, inHeads, runBytes);
          inRows.set(ptr.add(inRows, runBytes));
        });
      });
    },
  };
}

/** Loads up to four elements of a row, `fill` beyond its end. */
function loadTail(body: KernelBody, from: Expr<'ptr'>, left: Expr<'i32'>, fill: number): Local<'v128'> {
  const { f } = body;
  const address = f.let('tailAddress', from);
  const v = f.let('tail', splatF32(fill));
  for (let i = 0; i < 4; i++) f.if(i32.gt_s(left, i), () => v.set(v128.load32_lane(address, v, i, 4 * i)));
  return v;
}

function storeTail(body: KernelBody, address: Expr<'ptr'>, left: Expr<'i32'>, v: Expr<'v128'>): void {
  for (let i = 0; i < 4; i++) body.f.if(i32.gt_s(left, i), () => v128.store32_lane(address, v, i, 4 * i));
}

/** Reads the vector at the present place of another row of the same length, 0 beyond its end. */
type LoadBeside = (row: Expr<'ptr'>) => Expr<'v128'>;

/** Walks a row of `n` elements four at a time; the last vector is read with `fill` and written in part. */
function mapRow(
  body: KernelBody,
  row: Expr<'ptr'>,
  n: Expr<'i32'>,
  fill: number,
  change: (v: Local<'v128'>, beside: LoadBeside) => Expr<'v128'> | undefined,
): void {
  const { f } = body;
  const p = f.let('p', row);
  const offset = f.let('offset', ptr.const(0));
  const left = f.let('left', n);
  const v = f.local('v128', 'v');
  f.while(i32.ge_s(left, 4), () => {
    v.set(v128.load(p));
    const changed = change(v, (other) => v128.load(ptr.add(other, offset)));
    if (changed) v128.store(p, changed);
    p.set(ptr.add(p, 16));
    offset.set(ptr.add(offset, 16));
    left.set(i32.sub(left, 4));
  });
  f.if(i32.gt_s(left, 0), () => {
    v.set(loadTail(body, p, left, fill));
    const changed = change(v, (other) => loadTail(body, ptr.add(other, offset), left, 0));
    if (changed) storeTail(body, p, left, f.let('changed', changed));
  });
}

const causalSoftmax: Kernel = {
  op: 'causalSoftmax',
  dtypes: [],
  params: { columns: 'i32', nRows: 'i32', scale: 'f32' },
  values: ({ out, params }) => {
    const columns = columnsOf(out.tensor);
    return { columns, nRows: elementsMax(out.tensor) / columns, scale: params['scale']! };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const columns = k.param('columns');
    const scale = f.let('scaleVector', f32x4.splat(k.paramF32('scale')));
    const { from, to } = k.share(k.param('nRows'));
    const row = f.local('i32', 'row');
    const nSeen = f.local('i32', 'nSeen');
    const po = f.local('ptr', 'po');
    const max = f.local('v128', 'max');
    const total = f.local('v128', 'total');
    const exp = f.local('v128', 'exp');
    const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
    f.for(row, { from, to }, () => {
      nSeen.set(i32.add(i32.rem_u(row, columns), 1));
      po.set(addressAt(out, row, rowBytes));
      f.if(ptr.ne(out, x), () => memory.copy(po, addressAt(x, row, rowBytes), rowBytes));
      max.set(splatF32(-Infinity));
      mapRow(k, po, nSeen, -Infinity, (v) => {
        v.set(f32x4.mul(v, scale));
        max.set(f32x4.pmax(max, v));
        return v;
      });
      max.set(f32x4.splat(maxLanes(f, max)));
      total.set(v128.zero());
      mapRow(k, po, nSeen, -Infinity, (v) => {
        expInto(f, exp, f32x4.sub(v, max));
        exp.set(v128.and(exp, f32x4.ne(v, splatF32(-Infinity))));
        total.set(f32x4.add(total, exp));
        return exp;
      });
      total.set(f32x4.splat(f32.div(f32.const(1), sumLanes(f, total))));
      mapRow(k, po, nSeen, 0, (v) => f32x4.mul(v, total));
      const unseen = i32.sub(columns, nSeen);
      memory.fill(addressAt(po, nSeen, 4), 0, ptr.fromI32(i32.shl(unseen, 2)));
    });
  },
};

const softmaxGradient: Kernel = {
  op: 'softmaxGradient',
  dtypes: [],
  params: { columns: 'i32', nRows: 'i32', scale: 'f32' },
  values: causalSoftmax.values,
  build(k) {
    const { f } = k;
    const out = k.out();
    const dP = k.input(0, 'dP');
    const p = k.input(1, 'p');
    const columns = k.param('columns');
    const scale = k.paramF32('scale');
    const { from, to } = k.share(k.param('nRows'));
    const row = f.local('i32', 'row');
    const po = f.local('ptr', 'po');
    const pp = f.local('ptr', 'pp');
    const inner = f.local('v128', 'inner');
    const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
    f.for(row, { from, to }, () => {
      po.set(addressAt(out, row, rowBytes));
      pp.set(addressAt(p, row, rowBytes));
      f.if(ptr.ne(out, dP), () => memory.copy(po, addressAt(dP, row, rowBytes), rowBytes));
      inner.set(v128.zero());
      mapRow(k, po, columns, 0, (v, beside) => {
        inner.set(f32x4.add(inner, f32x4.mul(v, beside(pp))));
        return undefined;
      });
      inner.set(f32x4.splat(sumLanes(f, inner)));
      mapRow(k, po, columns, 0, (v, beside) => {
        const weighted = f32x4.mul(f32x4.sub(v, inner), beside(pp));
        return f32x4.mul(weighted, f32x4.splat(scale));
      });
    });
  },
};

export const HEAD_KERNELS: readonly Kernel[] = [
  headsKernel('splitHeads'),
  headsKernel('mergeHeads'),
  causalSoftmax,
  softmaxGradient,
];
