// Products of plain row-major matrices, for training and unfused attention: a·bᵀ, a·b, aᵀ·b, over any number of
// batches. One micro-kernel of 6 rows × 8 columns serves all: b's panel of 8 columns is copied into the thread's
// scratch as [k][8] first, and a is read by splats. Every result is one accumulation over k in order.

import type { Instruction } from '../../../graph/plan.ts';
import { columnsOf, dimMax, elementsMax } from '../../../graph/tensor.ts';
import type { Tensor } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import { f32x4, i32, ptr, v128 } from '../emit/operations.ts';
import { multiplyAdd } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

/** Columns of a panel, two vectors. */
const PANEL = 8;

type GemmOp = 'matmulNT' | 'matmulNN' | 'matmulTN' | 'weightedSum';

interface GemmKind {
  readonly op: GemmOp;
  /** Which index of a is contiguous in memory. */
  readonly aContiguous: 'k' | 'm';
  /** Which index of b is contiguous in memory. */
  readonly bContiguous: 'k' | 'n';
  readonly accumulates: boolean;
}

const KINDS: readonly GemmKind[] = [
  { op: 'matmulNT', aContiguous: 'k', bContiguous: 'k', accumulates: false },
  { op: 'matmulNN', aContiguous: 'k', bContiguous: 'n', accumulates: false },
  { op: 'matmulTN', aContiguous: 'm', bContiguous: 'n', accumulates: false },
  { op: 'weightedSum', aContiguous: 'k', bContiguous: 'n', accumulates: true },
];

const rowsIn = (t: Tensor): number => dimMax(t.shape.at(-2)!);

/** m, n, k of one product, the number of products, and how many of them share a matrix b. */
function sizes({ op, out, inputs, params }: Instruction): Record<'m' | 'n' | 'k' | 'nBatch' | 'group', number> {
  const group = params['group'] ?? 1;
  const [m, n] = [rowsIn(out.tensor), columnsOf(out.tensor)];
  const nBatch = elementsMax(out.tensor) / (m * n);
  // The heads that share a result lie one after the other: their rows are one long inner dimension.
  if (op === 'matmulTN') return { m, n, k: rowsIn(inputs[0]!.tensor) * group, nBatch, group: 1 };
  return { m, n, k: columnsOf(inputs[0]!.tensor), nBatch, group };
}

/** Bytes of scratch that a thread needs for an instruction: one panel of b. */
const gemmScratchBytes = (instruction: Instruction): number => sizes(instruction).k * PANEL * 4;

function gemmKernel(kind: GemmKind): Kernel {
  return {
    op: kind.op,
    dtypes: [],
    params: { m: 'i32', n: 'i32', k: 'i32', nBatch: 'i32', group: 'i32' },
    values: sizes,
    scratchBytes: gemmScratchBytes,
    build: (body) => buildGemm(body, kind),
  };
}

interface Gemm {
  readonly kind: GemmKind;
  readonly m: Local<'i32'>;
  readonly n: Local<'i32'>;
  readonly k: Local<'i32'>;
  /** The present product's matrices. */
  readonly a: Local<'ptr'>;
  readonly b: Local<'ptr'>;
  readonly c: Local<'ptr'>;
  /** First column of the present panel. */
  readonly column: Local<'i32'>;
  readonly panel: Local<'ptr'>;
}

function buildGemm(body: KernelBody, kind: GemmKind): void {
  const { f } = body;
  const out = body.out();
  const a = body.input(0, 'a');
  const b = body.input(1, 'b');
  const [m, n, k] = [body.param('m'), body.param('n'), body.param('k')];
  const group = body.param('group');
  const nPanels = f.let('nPanels', i32.shr_u(i32.add(n, PANEL - 1), 3));
  const gemm: Gemm = {
    kind,
    m,
    n,
    k,
    a: f.local('ptr', 'aBatch'),
    b: f.local('ptr', 'bBatch'),
    c: f.local('ptr', 'cBatch'),
    column: f.local('i32', 'column'),
    panel: body.scratch(),
  };
  const { from, to } = body.share(i32.mul(nPanels, body.param('nBatch')));
  const item = f.local('i32', 'item');
  const batch = f.local('i32', 'batch');
  f.for(item, { from, to }, () => {
    batch.set(i32.div_u(item, nPanels));
    gemm.column.set(i32.shl(i32.rem_u(item, nPanels), 3));
    gemm.a.set(addressAt(a, batch, ptr.fromI32(i32.shl(i32.mul(m, k), 2))));
    gemm.b.set(addressAt(b, i32.div_u(batch, group), ptr.fromI32(i32.shl(i32.mul(n, k), 2))));
    gemm.c.set(addressAt(out, batch, ptr.fromI32(i32.shl(i32.mul(m, n), 2))));
    copyPanel(body, gemm);
    multiplyPanel(body, gemm);
  });
}

/** Calls `whole` if the panel has all its columns, else `each` for those that exist. */
function panelColumns(body: KernelBody, { n, column }: Gemm, whole: () => void, each: (i: number) => void): void {
  const { f } = body;
  f.if(i32.le_s(i32.add(column, PANEL), n), whole, () => {
    for (let i = 0; i < PANEL - 1; i++) f.if(i32.lt_s(i32.add(column, i), n), () => each(i));
  });
}

/** panel[k][i] = b's column `column + i`; columns beyond n are zero. */
function copyPanel(body: KernelBody, gemm: Gemm): void {
  const { f } = body;
  const { kind, n, k, b, column, panel } = gemm;
  const isKContiguous = kind.bContiguous === 'k';
  const source = f.local('ptr', 'source');
  const target = f.let('target', panel);
  const end = f.let('panelEnd', addressAt(panel, k, PANEL * 4));
  // Between columns of one k, and from one k to the next.
  const columnBytes = f.let('columnBytes', ptr.fromI32(isKContiguous ? i32.shl(k, 2) : i32.const(4)));
  const stepBytes = f.let('stepBytes', ptr.fromI32(isKContiguous ? i32.const(4) : i32.shl(n, 2)));
  source.set(addressAt(b, column, columnBytes));
  const low = f.local('v128', 'low');
  const high = f.local('v128', 'high');
  const p = f.local('ptr', 'p');
  f.while(ptr.lt_u(target, end), () => {
    low.set(v128.zero());
    high.set(v128.zero());
    const loadLane = (i: number): void => {
      const half = i < 4 ? low : high;
      p.set(ptr.add(source, ptr.mul(columnBytes, i)));
      half.set(v128.load32_lane(p, half, i % 4));
    };
    const whole = (): void => {
      if (isKContiguous) {
        for (let i = 0; i < PANEL; i++) loadLane(i);
      } else {
        low.set(v128.load(source));
        high.set(v128.load(source, 16));
      }
    };
    panelColumns(body, gemm, whole, loadLane);
    v128.store(target, low);
    v128.store(target, high, 16);
    target.set(ptr.add(target, PANEL * 4));
    source.set(ptr.add(source, stepBytes));
  });
}

/** Heights of the micro-kernel; the last one finishes any number of rows. */
const TILE_ROWS = [6, 4, 1];

function multiplyPanel(body: KernelBody, gemm: Gemm): void {
  const { f } = body;
  const row = f.let('row', i32.const(0));
  for (const n of TILE_ROWS) {
    f.while(i32.le_s(i32.add(row, n), gemm.m), () => {
      multiplyTile(body, gemm, row, n);
      row.set(i32.add(row, n));
    });
  }
}

/** c[row .. row + nRows, panel] = a[row .. row + nRows, :] · panel */
function multiplyTile(body: KernelBody, gemm: Gemm, row: Expr<'i32'>, nRows: number): void {
  const { f, variant } = body;
  const { kind, m, n, k, a, c, column, panel } = gemm;
  const acc = Array.from({ length: nRows }, (_, r) => f.localArray('v128', `acc${r}`, 2));
  for (const v of acc.flat()) v.set(v128.zero());
  const isKContiguous = kind.aContiguous === 'k';
  // One pointer a row where rows are far apart, one for all where they are neighbours.
  const pa = f.localArray('ptr', 'pa', isKContiguous ? nRows : 1);
  pa.forEach((p, r) => {
    const start = isKContiguous ? i32.mul(i32.add(row, r), k) : row;
    p.set(addressAt(a, start, 4));
  });
  const pb = f.let('pb', panel);
  const left = f.let('left', k);
  const b = f.localArray('v128', 'b', 2);
  const splat = f.local('v128', 'splat');
  const step = (offset: number): void => {
    b.forEach((v, half) => v.set(v128.load(pb, PANEL * 4 * offset + 16 * half)));
    acc.forEach((sums, r) => {
      splat.set(isKContiguous ? v128.load32_splat(pa[r]!, 4 * offset) : v128.load32_splat(pa[0]!, 4 * r));
      sums.forEach((s, half) => s.set(multiplyAdd(variant, splat, b[half]!, s)));
    });
  };
  if (isKContiguous) {
    f.while(i32.ge_s(left, 4), () => {
      for (let i = 0; i < 4; i++) step(i);
      for (const p of pa) p.set(ptr.add(p, 16));
      pb.set(ptr.add(pb, 4 * PANEL * 4));
      left.set(i32.sub(left, 4));
    });
  }
  const rowBytes = isKContiguous ? ptr.const(4) : ptr.fromI32(i32.shl(m, 2));
  f.while(i32.gt_s(left, 0), () => {
    step(0);
    for (const p of pa) p.set(ptr.add(p, rowBytes));
    pb.set(ptr.add(pb, PANEL * 4));
    left.set(i32.sub(left, 1));
  });

  const target = f.local('ptr', 'target');
  acc.forEach((sums, r) => {
    target.set(addressAt(c, i32.add(i32.mul(i32.add(row, r), n), column), 4));
    const whole = (): void => {
      sums.forEach((s, half) => {
        const value = kind.accumulates ? f32x4.add(v128.load(target, 16 * half), s) : s;
        v128.store(target, value, 16 * half);
      });
    };
    const each = (i: number): void => {
      const s = sums[i >> 2]!;
      if (kind.accumulates) {
        const old = f.let('old', v128.load32_splat(target, 4 * i));
        v128.store32_lane(target, f32x4.add(old, s), i % 4, 4 * i);
      } else {
        v128.store32_lane(target, s, i % 4, 4 * i);
      }
    };
    panelColumns(body, gemm, whole, each);
  });
}

export const GEMM_KERNELS: readonly Kernel[] = KINDS.map(gemmKernel);
