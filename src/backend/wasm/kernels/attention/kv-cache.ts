// The key-value cache, in blocks of 32 positions: keys stand in columns and values in rows, head by head: keys
// f[head, headDim, 32], values f[head, 32, headDim]. Here is how they are written, and read as f32.

import { UnsupportedError } from '../../../../base/errors.ts';
import { columnsOf } from '../../../../graph/tensor.ts';
import type { Expr } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { i32, ptr, v128 } from '../../emit/operations.ts';
import { FloatToHalf, HalfToFloat, packHalves } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel } from '../kernel.ts';

export type CacheType = 'F16' | 'F32';
export const ELEMENT_BYTES = { F16: 2, F32: 4 } as const;

/** Positions of a cache block. */
export const BLOCK = 32;

/** Four elements of a block as f32. */
export type BlockLoader = (address: Expr<'ptr'>, offset: number) => Expr<'v128'>;

export function blockLoader(f: FunctionBuilder, type: CacheType): BlockLoader {
  if (type === 'F32') return (address, offset) => v128.load(address, offset);
  const half = new HalfToFloat(f);
  return (address, offset) => half.convert(v128.load16x4_s(address, offset));
}

/** Heads are read, and cache rows written, by whole vectors. */
export function requireWholeVectors(headDim: number): void {
  if (headDim % 4 === 0) return;
  const message = `heads of ${headDim} elements are not supported: use a multiple of 4, or the kernels "reference"`;
  throw new UnsupportedError('UNSUPPORTED_FEATURE', message, { headDim });
}

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
export const CACHE_KERNELS: readonly Kernel[] = [kvWrite('F16'), kvWrite('F32')];
