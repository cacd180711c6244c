// Products of plain row-major matrices, for training and unfused attention: a·bᵀ, a·b, aᵀ·b, over any number of
// batches. The loops are those of Goto and van de Geijn (doi:10.1145/1356052.1356053): a thread copies its columns of b
// into its scratch, in panels of 8 columns and a block of k at a time, and walks the rows of a in tiles of 6, which are
// read by splats. Every result is one accumulation over k in order, from block to block through the result.

import type { Instruction } from '../../../graph/plan.ts';
import { columnsOf, dimMax, elementsMax } from '../../../graph/tensor.ts';
import type { Tensor } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import { i32, ptr, select, v128 } from '../emit/operations.ts';
import { multiplyAdd, transpose } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';

/** Columns of a panel, two vectors. */
const PANEL = 8;
/** Inner size of a block: a panel of it is 8 KiB, which stays in the first cache while the rows of a pass by. */
const BLOCK_K = 256;
/** Panels of a block at most, together 256 KiB of the second cache. */
const BLOCK_PANELS = 32;
/** Heights of the micro-kernel; the last one finishes any number of rows. */
const TILE_ROWS = [6, 4, 1];
/** Rows of a that meet all panels of a block before the next ones: 96 KiB, which stay in the second cache, too. */
const BLOCK_ROWS = 96;

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

/** Bytes of scratch that a thread needs for an instruction: its copies of a block of b and, if transposed, of a. */
function gemmScratchBytes(instruction: Instruction, { aContiguous }: GemmKind): number {
  const { m, n, k } = sizes(instruction);
  const columns = PANEL * Math.min(Math.ceil(n / PANEL), BLOCK_PANELS);
  const rows = aContiguous === 'm' ? Math.min(m, BLOCK_ROWS) : 0;
  return 4 * Math.min(k, BLOCK_K) * (columns + rows);
}

function gemmKernel(kind: GemmKind): Kernel {
  return {
    op: kind.op,
    dtypes: [],
    params: { m: 'i32', n: 'i32', k: 'i32', nBatch: 'i32', group: 'i32' },
    values: sizes,
    scratchBytes: (instruction) => gemmScratchBytes(instruction, kind),
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
  /** The present block of k: its first index and its length. */
  readonly firstK: Local<'i32'>;
  readonly nK: Local<'i32'>;
  /** The present panel: its first column, and its copy [nK][8]. */
  readonly column: Local<'i32'>;
  readonly panel: Local<'ptr'>;
  /** Rows of a from `firstRow` to `endRow`; where a is transposed, `rows` is their copy, tile by tile [nK][height]. */
  readonly firstRow: Local<'i32'>;
  readonly endRow: Local<'i32'>;
  readonly rows: Local<'ptr'>;
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
    firstK: f.local('i32', 'firstK'),
    nK: f.local('i32', 'nK'),
    column: f.local('i32', 'column'),
    panel: f.local('ptr', 'panel'),
    firstRow: f.local('i32', 'firstRow'),
    endRow: f.local('i32', 'endRow'),
    rows: f.local('ptr', 'rows'),
  };
  const panels = body.scratch();
  const { from, to } = body.share(i32.mul(nPanels, body.param('nBatch')));
  const item = f.let('item', from);
  const batch = f.local('i32', 'batch');
  const first = f.local('i32', 'firstPanel');
  const count = f.local('i32', 'panelCount');
  f.while(i32.lt_s(item, to), () => {
    batch.set(i32.div_u(item, nPanels));
    first.set(i32.rem_u(item, nPanels));
    count.set(minimum(body, minimum(body, i32.sub(nPanels, first), i32.sub(to, item)), i32.const(BLOCK_PANELS)));
    gemm.a.set(addressAt(a, batch, ptr.fromI32(i32.shl(i32.mul(m, k), 2))));
    gemm.b.set(addressAt(b, i32.div_u(batch, group), ptr.fromI32(i32.shl(i32.mul(n, k), 2))));
    gemm.c.set(addressAt(out, batch, ptr.fromI32(i32.shl(i32.mul(m, n), 2))));
    gemm.firstK.set(0);
    f.while(i32.lt_s(gemm.firstK, k), () => {
      gemm.nK.set(minimum(body, i32.sub(k, gemm.firstK), i32.const(BLOCK_K)));
      multiplyBlock(body, gemm, panels, first, count);
      gemm.firstK.set(i32.add(gemm.firstK, gemm.nK));
    });
    item.set(i32.add(item, count));
  });
}

function minimum({ f }: KernelBody, x: Expr<'i32'>, y: Expr<'i32'>): Expr<'i32'> {
  const [a, b] = [f.let('a', x), f.let('b', y)];
  return select(a, b, i32.lt_s(a, b));
}

/** Adds a block of k to the columns of `count` panels from `first` on. */
function multiplyBlock(
  body: KernelBody,
  gemm: Gemm,
  panels: Local<'ptr'>,
  first: Local<'i32'>,
  count: Local<'i32'>,
): void {
  const { f } = body;
  const { kind, m, nK, column, panel, firstRow, endRow, rows } = gemm;
  const panelBytes = f.let('panelBytes', ptr.fromI32(i32.mul(nK, PANEL * 4)));
  const end = f.let('panelsEnd', addressAt(panels, count, panelBytes));
  const eachPanel = (each: () => void): void => {
    column.set(i32.shl(first, 3));
    panel.set(panels);
    f.while(ptr.lt_u(panel, end), () => {
      each();
      column.set(i32.add(column, PANEL));
      panel.set(ptr.add(panel, panelBytes));
    });
  };
  eachPanel(() => copyPanel(body, gemm));
  rows.set(end);
  firstRow.set(0);
  f.while(i32.lt_s(firstRow, m), () => {
    endRow.set(minimum(body, m, i32.add(firstRow, BLOCK_ROWS)));
    if (kind.aContiguous === 'm') eachTile(body, gemm, (row, n) => copyTile(body, gemm, row, n));
    eachPanel(() => eachTile(body, gemm, (row, n) => multiplyTile(body, gemm, row, n)));
    firstRow.set(endRow);
  });
}

/** Calls `tile` with the first row and the height of each tile of the present rows. */
function eachTile({ f }: KernelBody, gemm: Gemm, tile: (row: Local<'i32'>, nRows: number) => void): void {
  const row = f.let('row', gemm.firstRow);
  for (const n of TILE_ROWS) {
    f.while(i32.le_s(i32.add(row, n), gemm.endRow), () => {
      tile(row, n);
      row.set(i32.add(row, n));
    });
  }
}

/** Where the copy of the tile that begins at `row` lies. */
function tileCopy({ rows, firstRow, nK }: Gemm, row: Expr<'i32'>): Expr<'ptr'> {
  return addressAt(rows, i32.mul(i32.sub(row, firstRow), nK), 4);
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
  const { kind, n, k, b, firstK, nK, column, panel } = gemm;
  const isKContiguous = kind.bContiguous === 'k';
  const start = isKContiguous ? i32.add(i32.mul(column, k), firstK) : i32.add(i32.mul(firstK, n), column);
  const source = f.let('source', addressAt(b, start, 4));
  const target = f.let('target', panel);
  const end = f.let('panelEnd', addressAt(panel, nK, PANEL * 4));
  // Between columns of one k, and from one k to the next.
  const columnBytes = f.let('columnBytes', ptr.fromI32(isKContiguous ? i32.shl(k, 2) : i32.const(4)));
  const stepBytes = f.let('stepBytes', ptr.fromI32(isKContiguous ? i32.const(4) : i32.shl(n, 2)));
  const low = f.local('v128', 'low');
  const high = f.local('v128', 'high');
  if (isKContiguous) {
    f.if(i32.le_s(i32.add(column, PANEL), n), () => transposeColumns(body, source, target, columnBytes, end));
  }
  f.while(ptr.lt_u(target, end), () => {
    low.set(v128.zero());
    high.set(v128.zero());
    const loadLane = (i: number): void => {
      const half = i < 4 ? low : high;
      half.set(v128.load32_lane(f.let('p', ptr.add(source, ptr.mul(columnBytes, i))), half, i % 4));
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

/** Eight columns, four k at a time, as long as there are four. Moves `source` and `target`. */
function transposeColumns(
  { f }: KernelBody,
  source: Local<'ptr'>,
  target: Local<'ptr'>,
  columnBytes: Local<'ptr'>,
  end: Local<'ptr'>,
): void {
  const v = f.localArray('v128', 'column', 4);
  const p = f.local('ptr', 'p');
  f.while(ptr.le_u(ptr.add(target, 4 * PANEL * 4), end), () => {
    p.set(source);
    for (const half of [0, 16]) {
      for (const vector of v) {
        vector.set(v128.load(p));
        p.set(ptr.add(p, columnBytes));
      }
      transpose(f, v);
      v.forEach((vector, i) => v128.store(target, vector, PANEL * 4 * i + half));
    }
    target.set(ptr.add(target, 4 * PANEL * 4));
    source.set(ptr.add(source, 16));
  });
}

/** Copies `nRows` columns of the transposed a, from `row` on, as [nK][nRows]. */
function copyTile({ f }: KernelBody, gemm: Gemm, row: Expr<'i32'>, nRows: number): void {
  const { m, a, firstK, nK } = gemm;
  const source = f.let('tileSource', addressAt(a, i32.add(i32.mul(firstK, m), row), 4));
  const target = f.let('tileTarget', tileCopy(gemm, row));
  const stepBytes = f.let('tileStep', ptr.fromI32(i32.shl(m, 2)));
  const end = f.let('tileEnd', addressAt(target, nK, 4 * nRows));
  f.while(ptr.lt_u(target, end), () => {
    if (nRows >= 4) v128.store(target, v128.load(source));
    if (nRows === 6) v128.store64_lane(target, v128.load64_zero(source, 16), 0, 16);
    if (nRows === 1) v128.store32_lane(target, v128.load32_zero(source), 0);
    target.set(ptr.add(target, 4 * nRows));
    source.set(ptr.add(source, stepBytes));
  });
}

/** c[row .. row + nRows, panel] += a[row .. row + nRows, block of k] · panel; the first block stores. */
function multiplyTile(body: KernelBody, gemm: Gemm, row: Expr<'i32'>, nRows: number): void {
  const { f, variant } = body;
  const { kind, n, k, a, c, firstK, nK, column, panel } = gemm;
  const acc = Array.from({ length: nRows }, (_, r) => f.localArray('v128', `acc${r}`, 2));
  const target = f.let('target', addressAt(c, i32.add(i32.mul(row, n), column), 4));
  const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(n, 2)));
  const eachRow = (each: (sums: readonly Local<'v128'>[], at: Local<'ptr'>) => void): void => {
    const at = f.let('at', target);
    for (const sums of acc) {
      each(sums, at);
      at.set(ptr.add(at, rowBytes));
    }
  };
  for (const v of acc.flat()) v.set(v128.zero());
  f.if(kind.accumulates ? i32.const(1) : firstK, () => {
    eachRow((sums, at) => {
      const whole = (): void => sums.forEach((s, half) => s.set(v128.load(at, 16 * half)));
      panelColumns(body, gemm, whole, (i) => sums[i >> 2]!.set(v128.load32_lane(at, sums[i >> 2]!, i % 4, 4 * i)));
    });
  });

  const isCopied = kind.aContiguous === 'm';
  // One pointer a row where rows are far apart, one for all in a copied tile.
  const pa = f.localArray('ptr', 'pa', isCopied ? 1 : nRows);
  pa.forEach((p, r) => {
    p.set(isCopied ? tileCopy(gemm, row) : addressAt(a, i32.add(i32.mul(i32.add(row, r), k), firstK), 4));
  });
  const stepBytes = isCopied ? 4 * nRows : 4;
  const pb = f.let('pb', panel);
  const left = f.let('left', nK);
  const b = f.localArray('v128', 'b', 2);
  const splat = f.local('v128', 'splat');
  const step = (offset: number): void => {
    b.forEach((v, half) => v.set(v128.load(pb, PANEL * 4 * offset + 16 * half)));
    acc.forEach((sums, r) => {
      const at = isCopied
        ? v128.load32_splat(pa[0]!, stepBytes * offset + 4 * r)
        : v128.load32_splat(pa[r]!, 4 * offset);
      splat.set(at);
      sums.forEach((s, half) => s.set(multiplyAdd(variant, splat, b[half]!, s)));
    });
  };
  for (const nSteps of [4, 1]) {
    f.while(i32.ge_s(left, nSteps), () => {
      for (let i = 0; i < nSteps; i++) step(i);
      for (const p of pa) p.set(ptr.add(p, nSteps * stepBytes));
      pb.set(ptr.add(pb, nSteps * PANEL * 4));
      left.set(i32.sub(left, nSteps));
    });
  }

  eachRow((sums, at) => {
    const whole = (): void => sums.forEach((s, half) => v128.store(at, s, 16 * half));
    panelColumns(body, gemm, whole, (i) => v128.store32_lane(at, sums[i >> 2]!, i % 4, 4 * i));
  });
}

export const GEMM_KERNELS: readonly Kernel[] = KINDS.map(gemmKernel);
