// Writes out the blocks of eight rows that hold indices of a grid, as quant/grids/expansion.ts describes it, so that
// they can be packed as all others are. Emits into the packing kernel.

import {
  EXPANDED_BYTES,
  EXPANDED_QUANTS_AT,
  EXPANDED_SCALES_AT,
  isOfScales,
  nSignsOf,
} from '../../../../quant/grids/expansion.ts';
import type { BitField, Expansion } from '../../../../quant/grids/expansion.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { i32, i8x16, ptr, v128 } from '../../emit/operations.ts';
import { splatI32 } from '../floats.ts';
import { addressAt } from '../kernel.ts';

interface Rows {
  readonly f: FunctionBuilder;
  /** Address of the first row's block; the others' are `rowBytes` apart. */
  readonly block: Local<'ptr'>;
  readonly rowBytes: Local<'ptr'>;
  readonly grid: Local<'ptr'>;
  /** Address of eight times `EXPANDED_BYTES`. */
  readonly scratch: Local<'ptr'>;
}

const GROUP_ROWS = 8;

export function expandBlocks({ f, block, rowBytes, grid, scratch }: Rows, expansion: Expansion, bits: number): void {
  const { d, scales, nScales, indices, signs, signKind } = expansion;
  const { width } = expansion.grid;
  const source = f.let('source', block);
  const target = f.let('expandedRow', scratch);
  const out = f.local('ptr', 'tuple');
  const [i, integer, sign] = ['i', 'integer', 'sign'].map((name) => f.local('i32', name)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  const [tuple, mask] = [f.local('v128', 'tuple'), f.local('v128', 'signMask')];
  const eachBit = i8x16.const(...Array.from({ length: 16 }, (_, lane) => (lane < 8 ? 1 << lane : 0)));
  const highest = 1 << (bits - 1);
  const [always, signed] = [highest, 2 * highest - 1].map((byte) => splatI32(byte * 0x01010101)) as [
    Expr<'v128'>,
    Expr<'v128'>,
  ];
  f.for(f.local('i32', 'row'), { from: 0, to: GROUP_ROWS }, () => {
    i.set(0);
    readInteger(f, integer, d, source, i);
    i32.store16(target, integer);
    f.for(i, { from: 0, to: nScales }, () => {
      readInteger(f, integer, scales, source, i);
      integer.set(i32.add(i32.shl(integer, 1), 1));
      if (isOfScales(signKind)) {
        const [first, last] = [0, nSignsOf(signKind) - 1].map((n) => {
          const which = f.let('which', i32.add(i32.mul(i, nSignsOf(signKind)), n));
          readInteger(f, sign, signs, source, which);
          return f.let('sign', sign);
        }) as [Local<'i32'>, Local<'i32'>];
        integer.set(i32.mul(integer, i32.sub(1, i32.shl(first, 1))));
        integer.set(i32.xor(integer, i32.xor(first, last)));
      }
      i32.store8(addressAt(target, i, 1), integer, EXPANDED_SCALES_AT);
    });
    f.for(i, { from: 0, to: 256 / width }, () => {
      readInteger(f, integer, indices, source, i);
      out.set(addressAt(target, i, width));
      tuple.set((width === 8 ? v128.load64_zero : v128.load32_zero)(addressAt(grid, integer, width)));
      (width === 8 ? v128.store64_lane : v128.store32_lane)(out, tuple, 0, EXPANDED_QUANTS_AT);
    });
    if (!isOfScales(signKind)) {
      f.for(i, { from: 0, to: 256 / 8 }, () => {
        readInteger(f, sign, signs, source, i);
        if (signKind === 'even') sign.set(i32.or(sign, i32.shl(i32.and(i32.popcnt(sign), 1), 7)));
        mask.set(v128.and(i8x16.splat(sign), eachBit));
        out.set(addressAt(target, i, 8));
        tuple.set(v128.load64_zero(out, EXPANDED_QUANTS_AT));
        const inverted = v128.and(i8x16.eq(mask, eachBit), signed);
        v128.store64_lane(out, v128.xor(v128.xor(tuple, always), inverted), 0, EXPANDED_QUANTS_AT);
      });
    }
    source.set(ptr.add(source, rowBytes));
    target.set(ptr.add(target, EXPANDED_BYTES));
  });
}

/** Sets `result` to integer `i` of the block at `source`. Two bytes are read for each of its fields. */
function readInteger(
  f: FunctionBuilder,
  result: Local<'i32'>,
  fields: readonly BitField[],
  source: Local<'ptr'>,
  i: Local<'i32'>,
): void {
  const parts = fields.map(({ bit, width, stride, each = 1, innerStride = 0, to = 0 }): Expr<'i32'> => {
    const outer = each === 1 ? i : i32.div_u(i, each);
    const inner = i32.mul(i32.and(i, each - 1), innerStride);
    const place = f.let('bit', i32.add(i32.add(i32.mul(outer, stride), inner), bit));
    const word = i32.load16_u(addressAt(source, i32.shr_u(place, 3), 1));
    return i32.shl(i32.and(i32.shr_u(word, i32.and(place, 7)), (1 << width) - 1), to);
  });
  result.set(parts.reduce((a, b) => i32.or(a, b)));
}
