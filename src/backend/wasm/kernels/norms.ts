// Normalisation for training and GPT-style models: LayerNorm, x̂ alone, and the derivative by x of both norms.
// Mean and variance are taken in two passes; sums are four lanes wide and folded in a fixed order.

import { columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Expr, Local } from '../emit/expression.ts';
import { f32, f32x4, i32, ptr, v128 } from '../emit/operations.ts';
import { sumLanes } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

/** Reads an element or a vector of an operand at the present column. */
type Read = (row: Expr<'ptr'>) => Expr<'v128'>;

/** Sums `term` over a row: vectors first, then single elements. */
function sumRow(k: KernelBody, columns: Local<'i32'>, term: (read: Read) => Expr<'v128'>): Local<'f32'> {
  const { f } = k;
  const sum = f.let('rowSum', v128.zero());
  eachColumn(k, columns, (read) => sum.set(f32x4.add(sum, term(read))));
  return f.let('sum', sumLanes(f, sum));
}

/** Walks the columns: `body` is emitted for four at a time and for one; single elements come with three zero lanes. */
function eachColumn(
  k: KernelBody,
  columns: Local<'i32'>,
  body: (read: Read, write: (row: Expr<'ptr'>, v: Expr<'v128'>) => void) => void,
): void {
  const { f } = k;
  const offset = f.let('offset', ptr.const(0));
  const at = (row: Expr<'ptr'>): Expr<'ptr'> => ptr.add(row, offset);
  const vectorEnd = f.let('vectorEnd', ptr.fromI32(i32.shl(i32.and(columns, ~3), 2)));
  const end = f.let('end', ptr.fromI32(i32.shl(columns, 2)));
  f.while(ptr.lt_u(offset, vectorEnd), () => {
    body(
      (row) => v128.load(at(row)),
      (row, v) => v128.store(at(row), v),
    );
    offset.set(ptr.add(offset, 16));
  });
  f.while(ptr.lt_u(offset, end), () => {
    body(
      (row) => v128.load32_zero(at(row)),
      (row, v) => v128.store32_lane(at(row), v, 0),
    );
    offset.set(ptr.add(offset, 4));
  });
}

/** Sets `mean` (0 unless centred) and `inverse` = 1 / sqrt(variance + eps) of the row at `x`, in all lanes. */
function statistics(
  k: KernelBody,
  columns: Local<'i32'>,
  x: Local<'ptr'>,
  eps: Local<'f32'>,
  centred: boolean,
): { mean: Local<'v128'>; inverse: Local<'v128'> } {
  const { f } = k;
  const n = f.let('n', f32.convert_i32_s(columns));
  const mean = f.let('mean', v128.zero());
  const variance = f.local('f32', 'variance');
  const d = f.local('v128', 'd');
  if (centred) {
    mean.set(
      f32x4.splat(
        f32.div(
          sumRow(k, columns, (read) => read(x)),
          n,
        ),
      ),
    );
    const squares = f.let('squares', v128.zero());
    // A single element leaves three lanes of 0 − mean: they must not count, so the lanes are masked by its width.
    eachDifference(k, columns, x, mean, d, () => squares.set(f32x4.add(squares, f32x4.mul(d, d))));
    variance.set(f32.div(sumLanes(f, squares), n));
  } else {
    variance.set(
      f32.div(
        sumRow(k, columns, (read) => squareOf(k, d, read(x))),
        n,
      ),
    );
  }
  const inverse = f.let('inverse', f32x4.splat(f32.div(f32.const(1), f32.sqrt(f32.add(variance, eps)))));
  return { mean, inverse };
}

function squareOf(_k: KernelBody, d: Local<'v128'>, value: Expr<'v128'>): Expr<'v128'> {
  d.set(value);
  return f32x4.mul(d, d);
}

/** d = x − mean, lane by lane; lanes beyond the row's end are 0. */
function eachDifference(
  k: KernelBody,
  columns: Local<'i32'>,
  x: Local<'ptr'>,
  mean: Local<'v128'>,
  d: Local<'v128'>,
  use: () => void,
): void {
  const { f } = k;
  const offset = f.let('offset', ptr.const(0));
  const vectorEnd = f.let('vectorEnd', ptr.fromI32(i32.shl(i32.and(columns, ~3), 2)));
  const end = f.let('end', ptr.fromI32(i32.shl(columns, 2)));
  f.while(ptr.lt_u(offset, vectorEnd), () => {
    d.set(f32x4.sub(v128.load(ptr.add(x, offset)), mean));
    use();
    offset.set(ptr.add(offset, 16));
  });
  f.while(ptr.lt_u(offset, end), () => {
    const difference = f32.sub(f32.load(ptr.add(x, offset)), f32x4.extract_lane(mean, 0));
    d.set(f32x4.replace_lane(v128.zero(), difference, 0));
    use();
    offset.set(ptr.add(offset, 4));
  });
}

/** Rows of this thread's share, with the addresses of the operands' rows. */
function forEachRow(
  k: KernelBody,
  columns: Local<'i32'>,
  addresses: readonly Local<'ptr'>[],
  body: (rows: Local<'ptr'>[], row: Local<'i32'>) => void,
  nRows: Expr<'i32'> = k.rows(),
): void {
  const { f } = k;
  const { from, to } = k.share(nRows);
  const row = f.local('i32', 'row');
  const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(columns, 2)));
  const rows = addresses.map((_, i) => f.local('ptr', `row${i}`));
  f.for(row, { from, to }, () => {
    rows.forEach((r, i) => r.set(addressAt(addresses[i]!, row, rowBytes)));
    body(rows, row);
  });
}

const values = ({ out, params }: Instruction): Record<string, number> => ({
  columns: columnsOf(out.tensor),
  eps: params['eps']!,
  centred: params['centred'] ?? 1,
});

const normParams = { columns: 'i32', eps: 'f32', centred: 'i32' } as const;

/** A run of a row is a row of its own, but that its weights are those of its place. */
const layerNorm: Kernel = {
  op: 'layerNorm',
  dtypes: [],
  params: { columns: 'i32', eps: 'f32', nRuns: 'i32' },
  values({ out, params }) {
    const { eps, nRuns = 1 } = params;
    return { columns: columnsOf(out.tensor) / nRuns, eps: eps!, nRuns };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const weight = k.input(1, 'weight');
    const bias = k.input(2, 'bias');
    const columns = k.param('columns');
    const eps = k.paramF32('eps');
    const nRuns = k.param('nRuns');
    const runBytes = f.let('runBytes', ptr.fromI32(i32.shl(columns, 2)));
    const [w, b] = [f.local('ptr', 'runWeight'), f.local('ptr', 'runBias')];
    const run = f.local('i32', 'run');
    const normRun = (rows: readonly Local<'ptr'>[], row: Local<'i32'>): void => {
      const [o, r] = rows as [Local<'ptr'>, Local<'ptr'>];
      run.set(i32.rem_u(row, nRuns));
      w.set(addressAt(weight, run, runBytes));
      b.set(addressAt(bias, run, runBytes));
      const { mean, inverse } = statistics(k, columns, r, eps, true);
      eachColumn(k, columns, (read, write) => {
        const hat = f32x4.mul(f32x4.sub(read(r), mean), inverse);
        write(o, f32x4.add(f32x4.mul(hat, read(w)), read(b)));
      });
    };
    forEachRow(k, columns, [out, x], normRun, i32.mul(k.rows(), nRuns));
  },
};

/** Emits `body` for both kinds of norm; the record says which. */
function byCentring(k: KernelBody, body: (centred: boolean) => void): void {
  k.f.if(
    k.param('centred'),
    () => body(true),
    () => body(false),
  );
}

const normalize: Kernel = {
  op: 'normalize',
  dtypes: [],
  params: normParams,
  values,
  build(k) {
    const out = k.out();
    const x = k.input(0, 'x');
    const columns = k.param('columns');
    const eps = k.paramF32('eps');
    byCentring(k, (centred) => {
      forEachRow(k, columns, [out, x], (rows) => {
        const [o, r] = rows as [Local<'ptr'>, Local<'ptr'>];
        const { mean, inverse } = statistics(k, columns, r, eps, centred);
        eachColumn(k, columns, (read, write) => write(o, f32x4.mul(f32x4.sub(read(r), mean), inverse)));
      });
    });
  },
};

/** dx = inverse · (g − mean(g) − x̂ · mean(g · x̂)), g = dOut · weight; RMSNorm has no mean(g). */
const normGradient: Kernel = {
  op: 'normGradient',
  dtypes: [],
  params: normParams,
  values,
  build(k) {
    const { f } = k;
    const out = k.out();
    const dOut = k.input(0, 'dOut');
    const x = k.input(1, 'x');
    const weight = k.input(2, 'weight');
    const columns = k.param('columns');
    const eps = k.paramF32('eps');
    byCentring(k, (centred) => {
      forEachRow(k, columns, [out, dOut, x], (rows) => {
        const [o, d, r] = rows as [Local<'ptr'>, Local<'ptr'>, Local<'ptr'>];
        const { mean, inverse } = statistics(k, columns, r, eps, centred);
        const n = f.let('n', f32.convert_i32_s(columns));
        const splatMean = (sum: Local<'f32'>): Expr<'v128'> => f32x4.splat(f32.div(sum, n));
        const hat = (read: Read): Expr<'v128'> => f32x4.mul(f32x4.sub(read(r), mean), inverse);
        const g = (read: Read): Expr<'v128'> => f32x4.mul(read(d), read(weight));
        const meanG = f.let('meanG', centred ? splatMean(sumRow(k, columns, g)) : v128.zero());
        const meanGHat = f.let('meanGHat', splatMean(sumRow(k, columns, (read) => f32x4.mul(g(read), hat(read)))));
        eachColumn(k, columns, (read, write) => {
          const rest = f32x4.sub(f32x4.sub(g(read), meanG), f32x4.mul(hat(read), meanGHat));
          write(o, f32x4.mul(rest, inverse));
        });
      });
    });
  },
};

export const NORM_KERNELS: readonly Kernel[] = [layerNorm, normalize, normGradient];
