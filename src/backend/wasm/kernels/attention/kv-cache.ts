// The key-value cache, in blocks of 32 positions, head by head. Of F16 and F32, keys stand in columns, f[headDim, 32],
// and values in rows, f[32, headDim]. In Q8_0, 32 columns of a head are a panel: f16[32], the scales of the positions,
// then their quants, keys in columns and values in rows, i8[32, 32]. Here is how blocks are written, and read as f32.

import { BLOCK_FORMATS } from '../../../../base/dtype.ts';
import { UnsupportedError, assert } from '../../../../base/errors.ts';
import { KV_DTYPES } from '../../../../graph/step.ts';
import type { KvDtype } from '../../../../graph/step.ts';
import { columnsOf } from '../../../../graph/tensor.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32, f32x4, i32, i32x4, ptr, v128 } from '../../emit/operations.ts';
import { FloatToHalf, HalfToFloat, blockScale, packHalves, quantBytes, quantizeBlock } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel } from '../kernel.ts';

/** Types of which any element can be read by itself. */
export type FloatType = 'F16' | 'F32';
export const ELEMENT_BYTES = { F16: 2, F32: 4 } as const;

/** Positions of a cache block, and columns of a panel. */
export const BLOCK = 32;

/** Bytes of a block for each of its columns. */
export function columnBytes(type: KvDtype): number {
  const { blockElements, blockBytes } = BLOCK_FORMATS[type];
  return (BLOCK / blockElements) * blockBytes;
}

/** Where the quants of a panel begin. */
const QUANTS_AT = 2 * BLOCK;

/** Four elements of a block as f32. */
export type BlockLoader = (address: Expr<'ptr'>, offset: number) => Expr<'v128'>;

export function blockLoader(f: FunctionBuilder, type: FloatType): BlockLoader {
  if (type === 'F32') return (address, offset) => v128.load(address, offset);
  const half = new HalfToFloat(f);
  return (address, offset) => half.convert(v128.load16x4_s(address, offset));
}

/** A block of one head, and how much of it is wanted. */
export interface Block {
  readonly keys: Local<'ptr'>;
  readonly values: Local<'ptr'>;
  readonly headDim: Local<'i32'>;
  /** Positions from the first on. */
  readonly nKeys: Local<'i32'>;
}

/** Emits a copy of a block as F32 has it: all of its keys, and `nKeys` rows of values. */
export function copyBlock(f: FunctionBuilder, type: KvDtype, block: Block, to: Pick<Block, 'keys' | 'values'>): void {
  const { headDim, nKeys } = block;
  if (type === 'Q8_0') return copyPanels(f, block, to);
  const load = blockLoader(f, type);
  const copy = (from: Local<'ptr'>, target: Local<'ptr'>, nVector: Expr<'i32'>): void => {
    const source = f.let('source', from);
    const p = f.let('target', target);
    const end = f.let('copyEnd', addressAt(p, nVector, 16));
    f.while(ptr.lt_u(p, end), () => {
      v128.store(p, load(source, 0));
      source.set(ptr.add(source, 4 * ELEMENT_BYTES[type]));
      p.set(ptr.add(p, 16));
    });
  };
  copy(block.keys, to.keys, i32.mul(headDim, BLOCK / 4));
  copy(block.values, to.values, i32.mul(i32.shr_u(headDim, 2), nKeys));
}

/** A quant of 8 bits times a scale of 11 is exact in f32. */
function copyPanels(
  f: FunctionBuilder,
  { keys, values, headDim, nKeys }: Block,
  to: Pick<Block, 'keys' | 'values'>,
): void {
  const half = new HalfToFloat(f);
  const source = f.local('ptr', 'source');
  const target = f.local('ptr', 'target');
  const eight = f.local('v128', 'eight');
  /** The next 32 quants. `scaleOf` gives those of each four. */
  const copyRun = (scaleOf: (n: number) => Expr<'v128'>, targetBytes: Expr<'ptr'> | number): void => {
    for (let n = 0; n < BLOCK / 4; n += 2) {
      eight.set(v128.load8x8_s(source, 4 * n));
      [i32x4.extend_low_i16x8_s(eight), i32x4.extend_high_i16x8_s(eight)].forEach((quants, i) => {
        v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(quants), scaleOf(n + i)), 16 * (n + i));
      });
    }
    source.set(ptr.add(source, BLOCK));
    target.set(ptr.add(target, targetBytes));
  };
  const panel = f.let('panel', keys);
  const endOf = (start: Expr<'ptr'>): Expr<'ptr'> => addressAt(start, headDim, columnBytes('Q8_0'));
  const end = f.let('panelsEnd', endOf(keys));
  const scales = f.localArray('v128', 'scale', BLOCK / 4);
  target.set(to.keys);
  f.while(ptr.lt_u(panel, end), () => {
    scales.forEach((scale, n) => scale.set(half.convert(v128.load16x4_s(panel, 8 * n))));
    source.set(ptr.add(panel, QUANTS_AT));
    panel.set(ptr.add(panel, BLOCK * columnBytes('Q8_0')));
    f.while(ptr.lt_u(source, panel), () => copyRun((n) => scales[n]!, 4 * BLOCK));
  });

  const rowBytes = f.let('rowBytes', ptr.fromI32(i32.shl(headDim, 2)));
  const columns = f.let('columns', to.values);
  const scale = f.local('v128', 'rowScale');
  const pScale = f.local('ptr', 'pScale');
  const scalesEnd = f.local('ptr', 'scalesEnd');
  panel.set(values);
  end.set(endOf(values));
  f.while(ptr.lt_u(panel, end), () => {
    target.set(columns);
    source.set(ptr.add(panel, QUANTS_AT));
    pScale.set(panel);
    scalesEnd.set(addressAt(panel, nKeys, 2));
    f.while(ptr.lt_u(pScale, scalesEnd), () => {
      scale.set(half.convert(i32x4.extend_low_i16x8_s(v128.load16_splat(pScale))));
      copyRun(() => scale, rowBytes);
      pScale.set(ptr.add(pScale, 2));
    });
    panel.set(ptr.add(panel, BLOCK * columnBytes('Q8_0')));
    columns.set(ptr.add(columns, 4 * BLOCK));
  });
}

/** Heads are read, and cache rows written, by whole vectors and blocks of the type. */
export function requireHeadDim(type: KvDtype, headDim: number): void {
  assert(headDim % BLOCK_FORMATS[type].blockElements === 0, `heads of ${headDim} elements are no blocks of ${type}`);
  if (headDim % 4 === 0) return;
  const message = `heads of ${headDim} elements are not supported: use a multiple of 4, or the kernels "reference"`;
  throw new UnsupportedError('UNSUPPORTED_FEATURE', message, { headDim });
}

/** Some columns of a row that is written, and where they go. */
interface Piece {
  readonly x: Local<'ptr'>;
  readonly block: Local<'ptr'>;
  readonly position: Local<'i32'>;
  /** First of the piece, in the row. */
  readonly column: Local<'i32'>;
  readonly headDim: Local<'i32'>;
  readonly isKeys: Local<'i32'>;
}

/** Emits code that writes so many columns. */
interface PieceWriter {
  readonly nColumns: number;
  write(piece: Piece): void;
}

function floatWriter(f: FunctionBuilder, type: FloatType): PieceWriter {
  const elementBytes = ELEMENT_BYTES[type];
  const toHalf = new FloatToHalf(f);
  const value = f.local('v128', 'value');
  const po = f.local('ptr', 'po');
  const write = ({ x, block, position, column, headDim, isKeys }: Piece): void => {
    if (type === 'F16') {
      toHalf.convertInto(value, v128.load(x));
      value.set(packHalves(value, value));
    } else {
      value.set(v128.load(x));
    }
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
  };
  return { nColumns: 4, write };
}

/** As Q8_0: scale = max|x| / 127, stored as a half; quants = x / scale, with the scale before it is a half. */
function quantWriter(f: FunctionBuilder): PieceWriter {
  const toHalf = new FloatToHalf(f);
  const values = f.localArray('v128', 'value', BLOCK / 4);
  const half = f.local('v128', 'half');
  const panel = f.local('ptr', 'panel');
  const write = ({ x, block, position, column, isKeys }: Piece): void => {
    values.forEach((value, n) => value.set(v128.load(x, 16 * n)));
    const scale = blockScale(f, values);
    // What is larger than the largest half allows saturates.
    scale.set(f32.min(scale, f32.const(65504)));
    quantizeBlock(f, values, scale);
    const quants = quantBytes(values).map((bytes) => f.let('quants', bytes));
    panel.set(addressAt(block, column, columnBytes('Q8_0')));
    toHalf.convertInto(half, f32x4.splat(scale));
    v128.store16_lane(addressAt(panel, position, 2), half, 0);
    f.if(
      isKeys,
      () => {
        const po = f.let('po', ptr.add(panel, ptr.fromI32(position)));
        for (let i = 0; i < BLOCK; i++) v128.store8_lane(po, quants[i >> 4]!, i & 15, QUANTS_AT + BLOCK * i);
      },
      () => {
        const po = f.let('po', addressAt(panel, position, BLOCK));
        quants.forEach((bytes, i) => v128.store(po, bytes, QUANTS_AT + 16 * i));
      },
    );
  };
  return { nColumns: BLOCK, write };
}

/** Rows of keys or values into the cache. Threads share the columns. */
const kvWrite = (type: KvDtype): Kernel => ({
  op: 'kvWrite',
  dtypes: [type],
  params: { columns: 'i32', headDim: 'i32', isKeys: 'i32' },
  values({ out, params }) {
    const columns = columnsOf(out.tensor);
    const { headDim, isKeys } = params as Record<string, number>;
    requireHeadDim(type, headDim!);
    return { columns, headDim: headDim!, isKeys: isKeys! };
  },
  build(k) {
    const { f } = k;
    const state = k.input(0, 'state');
    const x = k.input(1, 'x');
    const slots = k.input(2, 'slots');
    const rows = k.rows();
    const columns = k.param('columns');
    const { nColumns, write } = type === 'Q8_0' ? quantWriter(f) : floatWriter(f, type);
    const { from, to } = k.share(i32.div_u(columns, i32.const(nColumns)));
    const row = f.local('i32', 'row');
    const i = f.local('i32', 'i');
    const piece: Piece = {
      x: f.local('ptr', 'px'),
      block: f.local('ptr', 'block'),
      position: f.local('i32', 'position'),
      column: f.local('i32', 'column'),
      headDim: k.param('headDim'),
      isKeys: k.param('isKeys'),
    };
    f.for(row, { from: 0, to: rows }, () => {
      const slot = f.let('slot', i32.load(addressAt(slots, row, 4)));
      piece.x.set(addressAt(x, i32.add(i32.mul(row, columns), i32.mul(from, nColumns)), 4));
      // The block's start may lie beyond 2 GB of a large cache: the product is taken at pointer width.
      const blockBytes = ptr.mul(ptr.fromI32(columns), columnBytes(type));
      piece.block.set(addressAt(state, i32.div_u(slot, i32.const(BLOCK)), blockBytes));
      piece.position.set(i32.rem_u(slot, i32.const(BLOCK)));
      f.for(i, { from, to }, () => {
        piece.column.set(i32.mul(i, nColumns));
        write(piece);
        piece.x.set(ptr.add(piece.x, 4 * nColumns));
      });
    });
  },
});

export const CACHE_KERNELS: readonly Kernel[] = KV_DTYPES.map(kvWrite);
