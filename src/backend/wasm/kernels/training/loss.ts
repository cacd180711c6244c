// The loss, its derivative, and the sums of training: cross-entropy, its mean, row sums, the embedding's gradient.

import { columnsOf, dimMax, elementsMax } from '../../../../graph/tensor.ts';
import type { Instruction } from '../../../../graph/plan.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32, f32x4, i32, memory, ptr, v128 } from '../../emit/operations.ts';
import { expInto, splatF32, sumLanes } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel, KernelBody } from '../kernel.ts';

/** Walks a row of `columns` values: vectors, then single values with `fill` in the other lanes. */
function eachValue(
  f: FunctionBuilder,
  row: Expr<'ptr'>,
  columns: Local<'i32'>,
  fill: number,
  body: (v: Local<'v128'>, address: Local<'ptr'>, store: (v: Expr<'v128'>, to: Expr<'ptr'>) => void) => void,
): void {
  const p = f.let('p', row);
  const left = f.let('left', columns);
  const v = f.local('v128', 'v');
  f.while(i32.ge_s(left, 4), () => {
    v.set(v128.load(p));
    body(v, p, (value, to) => v128.store(to, value));
    p.set(ptr.add(p, 16));
    left.set(i32.sub(left, 4));
  });
  f.while(i32.gt_s(left, 0), () => {
    v.set(v128.load32_lane(p, splatF32(fill), 0));
    body(v, p, (value, to) => v128.store32_lane(to, value, 0));
    p.set(ptr.add(p, 4));
    left.set(i32.sub(left, 1));
  });
}

/** Largest value of the row, and the sum of e^(value − largest). */
function softmaxSums(
  k: KernelBody,
  row: Expr<'ptr'>,
  columns: Local<'i32'>,
): { max: Local<'f32'>; total: Local<'f32'> } {
  const { f } = k;
  const maxima = f.let('maxima', splatF32(-Infinity));
  eachValue(f, row, columns, -Infinity, (v) => maxima.set(f32x4.pmax(maxima, v)));
  const lanes = [0, 1, 2, 3].map((lane) => f32x4.extract_lane(maxima, lane));
  const max = f.let('max', f32.max(f32.max(lanes[0]!, lanes[1]!), f32.max(lanes[2]!, lanes[3]!)));
  const sums = f.let('sums', v128.zero());
  const exp = f.local('v128', 'exp');
  eachValue(f, row, columns, -Infinity, (v) => {
    expInto(f, exp, f32x4.sub(v, f32x4.splat(max)));
    sums.set(f32x4.add(sums, v128.and(exp, f32x4.ne(v, splatF32(-Infinity)))));
  });
  return { max, total: f.let('total', sumLanes(f, sums)) };
}

/** ln x for a positive normal number: exponent plus atanh series of the fraction in [√½, √2). NaN for NaN. */
function logOf(f: FunctionBuilder, x: Local<'f32'>): Expr<'f32'> {
  const bits = f.let('bits', i32.reinterpret_f32(x));
  // The exponent is chosen so that the fraction lies around 1.
  const exponent = f.let('exponent', i32.shr_s(i32.sub(bits, 0x3f3504f3), 23));
  const fraction = f.let('fraction', f32.reinterpret_i32(i32.sub(bits, i32.shl(exponent, 23))));
  const s = f.let('s', f32.div(f32.sub(fraction, f32.const(1)), f32.add(fraction, f32.const(1))));
  const z = f.let('z', f32.mul(s, s));
  const series = [1 / 9, 1 / 7, 1 / 5, 1 / 3, 1].map((c) => f32.const(c));
  const polynomial = series.slice(1).reduce<Expr<'f32'>>((sum, c) => f32.add(f32.mul(sum, z), c), series[0]!);
  const e = f32.convert_i32_s(exponent);
  const log = f32.add(f32.mul(e, f32.const(Math.LN2)), f32.mul(f32.mul(f32.const(2), s), polynomial));
  // The bits of NaN would pass for a number.
  return f32.add(log, f32.sub(x, x));
}

const rowLossValues = ({ inputs, params }: Instruction): Record<string, number> => ({
  columns: columnsOf(inputs[0]!.tensor),
  nRows: dimMax(inputs[0]!.tensor.shape[0]!),
  ignore: params['ignore']!,
});

const lossParams = { columns: 'i32', nRows: 'i32', ignore: 'i32' } as const;

const crossEntropy: Kernel = {
  op: 'crossEntropy',
  dtypes: [],
  params: lossParams,
  values: rowLossValues,
  build(k) {
    const { f } = k;
    const out = k.out();
    const logits = k.input(0, 'logits');
    const targets = k.input(1, 'targets');
    const columns = k.param('columns');
    const ignore = k.param('ignore');
    const { from, to } = k.share(k.param('nRows'));
    const row = f.local('i32', 'row');
    const loss = f.local('f32', 'loss');
    const target = f.local('i32', 'target');
    f.for(row, { from, to }, () => {
      loss.set(f32.const(0));
      target.set(i32.load(addressAt(targets, row, 4)));
      f.if(i32.ne(target, ignore), () => {
        const start = f.let('start', addressAt(logits, i32.mul(row, columns), 4));
        const { max, total } = softmaxSums(k, start, columns);
        const chosen = f32.load(addressAt(start, target, 4));
        loss.set(f32.sub(f32.add(logOf(f, total), max), chosen));
      });
      f32.store(addressAt(out, row, 4), loss);
    });
  },
};

const crossEntropyGradient: Kernel = {
  op: 'crossEntropyGradient',
  dtypes: [],
  params: lossParams,
  values: rowLossValues,
  build(k) {
    const { f } = k;
    const out = k.out();
    const logits = k.input(0, 'logits');
    const targets = k.input(1, 'targets');
    const dLoss = k.input(2, 'dLoss');
    const columns = k.param('columns');
    const ignore = k.param('ignore');
    const { from, to } = k.share(k.param('nRows'));
    const row = f.local('i32', 'row');
    const target = f.local('i32', 'target');
    const start = f.local('ptr', 'start');
    const result = f.local('ptr', 'result');
    const exp = f.local('v128', 'exp');
    const d = f.local('f32', 'd');
    f.for(row, { from, to }, () => {
      target.set(i32.load(addressAt(targets, row, 4)));
      d.set(f32.load(addressAt(dLoss, row, 4)));
      start.set(addressAt(logits, i32.mul(row, columns), 4));
      result.set(addressAt(out, i32.mul(row, columns), 4));
      f.if(
        i32.eq(target, ignore),
        () => memory.fill(result, 0, ptr.fromI32(i32.shl(columns, 2))),
        () => {
          const { max, total } = softmaxSums(k, start, columns);
          const scale = f.let('scale', f32x4.splat(f32.div(d, total)));
          eachValue(f, start, columns, -Infinity, (v, address, store) => {
            expInto(f, exp, f32x4.sub(v, f32x4.splat(max)));
            store(f32x4.mul(exp, scale), ptr.add(result, ptr.sub(address, start)));
          });
          const at = f.let('at', addressAt(result, target, 4));
          f32.store(at, f32.sub(f32.load(at), d));
        },
      );
    });
  },
};

/** Number of targets that count, at least 1, as f32. */
function countTargets(k: KernelBody, targets: Local<'ptr'>, n: Local<'i32'>, ignore: Local<'i32'>): Expr<'f32'> {
  const { f } = k;
  const count = f.let('count', i32.const(0));
  const i = f.local('i32', 'i');
  f.for(i, { from: 0, to: n }, () => {
    count.set(i32.add(count, i32.ne(i32.load(addressAt(targets, i, 4)), ignore)));
  });
  f.if(i32.eqz(count), () => count.set(1));
  return f32.convert_i32_s(count);
}

const meanParams = { n: 'i32', ignore: 'i32' } as const;
const meanValues = ({ params, inputs }: Instruction): Record<string, number> => ({
  n: elementsMax(inputs[1]!.tensor),
  ignore: params['ignore']!,
});

/** Few numbers: one thread does it. */
const meanLoss: Kernel = {
  op: 'meanLoss',
  dtypes: [],
  params: meanParams,
  values: meanValues,
  build(k) {
    const { f } = k;
    f.if(k.thread, () => f.return());
    const out = k.out();
    const losses = k.input(0, 'losses');
    const n = k.param('n');
    const count = f.let('n', countTargets(k, k.input(1, 'targets'), n, k.param('ignore')));
    const sum = f.let('sum', f32.const(0));
    const i = f.local('i32', 'i');
    f.for(i, { from: 0, to: n }, () => sum.set(f32.add(sum, f32.load(addressAt(losses, i, 4)))));
    f32.store(out, f32.div(sum, count));
  },
};

const meanLossGradient: Kernel = {
  op: 'meanLossGradient',
  dtypes: [],
  params: meanParams,
  values: meanValues,
  build(k) {
    const { f } = k;
    f.if(k.thread, () => f.return());
    const out = k.out();
    const dLoss = k.input(0, 'dLoss');
    const targets = k.input(1, 'targets');
    const n = k.param('n');
    const ignore = k.param('ignore');
    const share = f.let('share', f32.div(f32.load(dLoss), countTargets(k, targets, n, ignore)));
    const i = f.local('i32', 'i');
    f.for(i, { from: 0, to: n }, () => {
      const counts = i32.ne(i32.load(addressAt(targets, i, 4)), ignore);
      f32.store(addressAt(out, i, 4), f32.mul(share, f32.convert_i32_s(counts)));
    });
  },
};

/** Calls `body` for each run of four columns (or one, at the end) of this thread's share; `load` and `store` fit it. */
function eachColumnRun(
  k: KernelBody,
  columns: Local<'i32'>,
  body: (
    column: Local<'i32'>,
    load: (address: Expr<'ptr'>) => Expr<'v128'>,
    store: (address: Expr<'ptr'>, v: Expr<'v128'>) => void,
  ) => void,
): void {
  const { f } = k;
  const { from, to } = k.share(i32.shr_u(i32.add(columns, 15), 4));
  const column = f.let('column', i32.shl(from, 4));
  const end = f.let('columnEnd', i32.shl(to, 4));
  f.if(i32.gt_s(end, columns), () => end.set(columns));
  f.while(i32.le_s(i32.add(column, 4), end), () => {
    body(
      column,
      (a) => v128.load(a),
      (a, v) => v128.store(a, v),
    );
    column.set(i32.add(column, 4));
  });
  f.while(i32.lt_s(column, end), () => {
    body(
      column,
      (a) => v128.load32_zero(a),
      (a, v) => v128.store32_lane(a, v, 0),
    );
    column.set(i32.add(column, 1));
  });
}

const sumRows: Kernel = {
  op: 'sumRows',
  dtypes: [],
  params: { columns: 'i32', nRows: 'i32' },
  values: ({ inputs }) => {
    const columns = columnsOf(inputs[0]!.tensor);
    return { columns, nRows: elementsMax(inputs[0]!.tensor) / columns };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const columns = k.param('columns');
    const nRows = k.param('nRows');
    const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
    const sum = f.local('v128', 'sum');
    const p = f.local('ptr', 'p');
    const row = f.local('i32', 'row');
    eachColumnRun(k, columns, (column, load, store) => {
      sum.set(v128.zero());
      p.set(addressAt(x, column, 4));
      f.for(row, { from: 0, to: nRows }, () => {
        sum.set(f32x4.add(sum, load(p)));
        p.set(ptr.add(p, rowBytes));
      });
      store(addressAt(out, column, 4), sum);
    });
  },
};

/** Threads share the columns, so that rows are added in order whatever their ids. */
const embedGradient: Kernel = {
  op: 'embedGradient',
  dtypes: [],
  params: { columns: 'i32', nIds: 'i32' },
  values: ({ inputs }) => ({ columns: columnsOf(inputs[0]!.tensor), nIds: elementsMax(inputs[1]!.tensor) }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const dOut = k.input(0, 'dOut');
    const ids = k.input(1, 'ids');
    const columns = k.param('columns');
    const nIds = k.param('nIds');
    const target = f.local('ptr', 'target');
    const row = f.local('i32', 'row');
    eachColumnRun(k, columns, (column, load, store) => {
      f.for(row, { from: 0, to: nIds }, () => {
        const id = i32.load(addressAt(ids, row, 4));
        target.set(addressAt(out, i32.add(i32.mul(id, columns), column), 4));
        const d = load(addressAt(dOut, i32.add(i32.mul(row, columns), column), 4));
        store(target, f32x4.add(load(target), d));
      });
    });
  },
};

export const LOSS_KERNELS: readonly Kernel[] = [
  crossEntropy,
  crossEntropyGradient,
  meanLoss,
  meanLossGradient,
  sumRows,
  embedGradient,
];
