// y = x · Wᵀ over packed weights, plus a bias or the residual stream. A thread takes a run of row groups (8 rows of W);
// for each it walks the rows of x in tiles, first wide ones, then single ones, so that decoding (one row) and prefill
// (many) are the same kernel and a group's weights are read from memory once. Every result is one accumulation over the
// columns in a fixed order, whatever the tile: the bits do not depend on batch, chunk or thread count.

import { BLOCK_FORMATS } from '../../../base/dtype.ts';
import { Q8A_BLOCK_BYTES, columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Tensor } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32x4, i16x8, i32, i32x4, i8x16, ptr, v128 } from '../emit/operations.ts';
import { HalfToFloat, multiplyAdd } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody, KernelVariant } from './kernel.ts';
import { WEIGHT_FORMATS, groupBlockBytes } from './weights.ts';
import type { IntegerFormat, WeightFormat } from './weights.ts';

/** Accumulators of a tile: [row of x][rows 0..3 and 4..7 of the group]. */
type Accumulators = readonly (readonly [Local<'v128'>, Local<'v128'>])[];

/**
 * Emits the accumulation of one tile.
 * @param w  address of the group's first block; may be moved
 * @param x  addresses of the tile's rows of x; may be moved
 */
type Tile = (w: Local<'ptr'>, x: readonly Local<'ptr'>[], accumulators: Accumulators, nBlocks: Local<'i32'>) => void;

interface MatmulSource {
  /** Rows of x in a tile, widest first; the last is 1, which finishes any number of rows. */
  readonly tileRows: readonly number[];
  /** Prepares constants in the function; the tile may then be emitted for any number of rows. */
  prepare(f: FunctionBuilder): Tile;
}

function buildMatmul(k: KernelBody, { tileRows, prepare }: MatmulSource): void {
  const { f } = k;
  const out = k.out();
  const x = k.input(0, 'x');
  const weights = k.input(1, 'weights');
  const rows = k.rows();
  const nOut = k.param('nOut');
  const nBlocks = k.param('nBlocks');
  const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
  const xRowBytes = f.let('xRowBytes', ptr.fromI32(k.param('xRowBytes')));
  const { from, to } = k.share(i32.shr_u(i32.add(nOut, 7), 3));
  const nAddends = k.param('nAddends');
  const addends = [0, 1].map((i) => {
    return {
      base: k.input(2 + i, 'addend'),
      rowBytes: f.let('addendRowBytes', ptr.fromI32(k.param(`addendBytes${i}`))),
    };
  });
  const tile = prepare(f);
  const group = f.local('i32', 'group');
  const row = f.local('i32', 'row');
  const w = f.local('ptr', 'w');
  const px = f.localArray('ptr', 'px', tileRows[0]!);
  const accumulators = Array.from({ length: tileRows[0]! }, (_, c) => {
    return [f.local('v128', `low${c}`), f.local('v128', `high${c}`)] as const;
  });

  const emitTile = (n: number): void => {
    w.set(addressAt(weights, group, groupBytes));
    px.slice(0, n).forEach((p, c) => p.set(addressAt(x, i32.add(row, c), xRowBytes)));
    for (const acc of accumulators.slice(0, n).flat()) acc.set(v128.zero());
    tile(w, px.slice(0, n), accumulators.slice(0, n), nBlocks);
    addends.forEach((addend, i) => {
      f.if(i32.gt_s(nAddends, i), () => {
        for (let c = 0; c < n; c++) addGroup(k, addend, nOut, group, i32.add(row, c), accumulators[c]!);
      });
    });
    for (let c = 0; c < n; c++) storeGroup(k, out, nOut, group, i32.add(row, c), accumulators[c]!);
    row.set(i32.add(row, n));
  };
  f.for(group, { from, to }, () => {
    row.set(0);
    for (const n of tileRows) f.while(i32.le_s(i32.add(row, n), rows), () => emitTile(n));
  });
}

/** Calls `whole` if all eight rows of the group exist, else `each` for those that do. */
function groupRows(
  { f }: KernelBody,
  nOut: Expr<'i32'>,
  first: Local<'i32'>,
  whole: () => void,
  each: (i: number) => void,
): void {
  f.if(i32.le_s(i32.add(first, 8), nOut), whole, () => {
    for (let i = 0; i < 7; i++) f.if(i32.lt_s(i32.add(first, i), nOut), () => each(i));
  });
}

/** A bias, of which every row is the same, or the residual stream. */
interface Addend {
  readonly base: Local<'ptr'>;
  readonly rowBytes: Local<'ptr'>;
}

/** Adds the eight values that belong to a group's results. */
function addGroup(
  k: KernelBody,
  { base, rowBytes }: Addend,
  nOut: Expr<'i32'>,
  group: Expr<'i32'>,
  row: Expr<'i32'>,
  halves: Accumulators[number],
): void {
  const { f } = k;
  const first = f.let('first', i32.shl(group, 3));
  const source = f.let('source', addressAt(addressAt(base, row, rowBytes), first, 4));
  const value = f.local('v128', 'addend');
  const whole = (): void => halves.forEach((acc, h) => acc.set(f32x4.add(acc, v128.load(source, 16 * h))));
  groupRows(k, nOut, first, whole, (i) => {
    const acc = halves[i >> 2]!;
    value.set(v128.load32_lane(source, v128.zero(), i % 4, 4 * i));
    acc.set(f32x4.add(acc, value));
  });
}

/** Stores the eight results of a group; of the last group only those that exist. */
function storeGroup(
  k: KernelBody,
  out: Expr<'ptr'>,
  nOut: Expr<'i32'>,
  group: Expr<'i32'>,
  row: Expr<'i32'>,
  halves: Accumulators[number],
): void {
  const { f } = k;
  const first = f.let('first', i32.shl(group, 3));
  const target = f.let('target', addressAt(out, i32.add(i32.mul(row, nOut), first), 4));
  const whole = (): void => halves.forEach((acc, h) => v128.store(target, acc, 16 * h));
  groupRows(k, nOut, first, whole, (i) => v128.store32_lane(target, halves[i >> 2]!, i % 4, 4 * i));
}

/** x in f32: weights are unpacked to exact f32 values. */
function floatSource(format: WeightFormat, variant: KernelVariant): MatmulSource {
  const { blockElements } = BLOCK_FORMATS[format.dtype];
  const blockBytes = groupBlockBytes(format.dtype);
  const prepare = (f: FunctionBuilder): Tile => {
    const unpack = format.unpack(f, variant);
    const low = f.local('v128', 'weightLow');
    const high = f.local('v128', 'weightHigh');
    const splat = f.local('v128', 'xSplat');
    const left = f.local('i32', 'left');
    return (w, x, accumulators, nBlocks) => {
      const block = (xOffset: number): void => {
        unpack(w, (k, lowValue, highValue) => {
          low.set(lowValue);
          high.set(highValue);
          x.forEach((p, c) => {
            const [accLow, accHigh] = accumulators[c]!;
            splat.set(v128.load32_splat(p, xOffset + 4 * k));
            accLow.set(multiplyAdd(variant, low, splat, accLow));
            accHigh.set(multiplyAdd(variant, high, splat, accHigh));
          });
        });
        w.set(ptr.add(w, blockBytes));
      };
      const advance = (nColumns: number): void => x.forEach((p) => p.set(ptr.add(p, 4 * nColumns)));
      left.set(nBlocks);
      if (blockElements === 1) {
        f.while(i32.ge_s(left, 4), () => {
          for (let k = 0; k < 4; k++) block(4 * k);
          advance(4);
          left.set(i32.sub(left, 4));
        });
      }
      f.while(i32.gt_s(left, 0), () => {
        block(0);
        advance(blockElements);
        left.set(i32.sub(left, 1));
      });
    };
  };
  // Six rows hide the latency of the multiply-add; what has to be unpacked needs the registers itself.
  return { tileRows: format.dtype === 'F32' ? [6, 4, 1] : [4, 1], prepare };
}

/** x in 8 bits: integer dot products of a block, then one multiply-add with the product of the scales. */
function integerSource(format: WeightFormat, integer: IntegerFormat, variant: KernelVariant): MatmulSource {
  const isRelaxed = variant.dot === 'u8' || (variant.dot === 'i7' && integer.offset(variant) > 0);
  const blockBytes = groupBlockBytes(format.dtype);
  const prepare = (f: FunctionBuilder): Tile => {
    const half = new HalfToFloat(f);
    const quants = integer.quants(f);
    const left = f.local('i32', 'left');
    const scale = f.local('v128', 'xScale');
    const scales = [f.local('v128', 'scaleLow'), f.local('v128', 'scaleHigh')] as const;
    const newDots = isRelaxed ? relaxedDots : wideDots;
    return (w, x, accumulators, nBlocks) => {
      const dots = newDots(f, x.length, integer.stepsPer16Bit);
      left.set(nBlocks);
      f.while(i32.gt_s(left, 0), () => {
        dots.begin();
        quants(w, (step, low, high) => dots.add(step, low, high, x));
        scales.forEach((s, h) => s.set(half.convert(v128.load16x4_s(w, 8 * h))));
        x.forEach((p, c) => {
          const sums = dots.end(c);
          scale.set(v128.load32_splat(p, 0));
          accumulators[c]!.forEach((acc, h) => {
            const corrected = correct(integer.offset(variant), sums[h]!, p);
            const value = f32x4.convert_i32x4_s(corrected);
            acc.set(multiplyAdd(variant, value, f32x4.mul(scales[h]!, scale), acc));
          });
        });
        w.set(ptr.add(w, blockBytes));
        x.forEach((p) => p.set(ptr.add(p, Q8A_BLOCK_BYTES)));
        left.set(i32.sub(left, 1));
      });
    };
  };
  return { tileRows: isRelaxed ? [4, 1] : [2, 1], prepare };
}

/** Unsigned quants are too large by `offset`: the sum of the activations, times it, is too much. */
function correct(offset: number, sums: Expr<'v128'>, x: Expr<'ptr'>): Expr<'v128'> {
  if (offset === 0) return sums;
  return i32x4.sub(sums, i32x4.shl(v128.load32_splat(x, 4), 31 - Math.clz32(offset)));
}

/** The dot products of one block, for every row of x in a tile. */
interface Dots {
  begin(): void;
  /** Four columns: bytes of 4 rows × 4 columns each. */
  add(step: number, low: Expr<'v128'>, high: Expr<'v128'>, x: readonly Local<'ptr'>[]): void;
  /** i32 sums of rows 0..3 and 4..7 with row `c` of x. */
  end(c: number): readonly [Expr<'v128'>, Expr<'v128'>];
}

/** First four bytes of a step of x, in every lane. */
const splatStep = (x: Local<'ptr'>, step: number): Expr<'v128'> => v128.load32_splat(x, 8 + 4 * step);

/** One relaxed instruction a vector. A single row of x gets two chains, to hide the latency. */
function relaxedDots(f: FunctionBuilder, nRows: number): Dots {
  const nChains = nRows === 1 ? 2 : 1;
  const sums = Array.from({ length: nRows }, (_, c) => [0, 1].map((h) => f.localArray('v128', `dot${c}${h}`, nChains)));
  const splat = f.local('v128', 'xSplat');
  const weights = [f.local('v128', 'wLow'), f.local('v128', 'wHigh')] as const;
  return {
    begin: () => sums.flat(2).forEach((s) => s.set(v128.zero())),
    add(step, low, high, x) {
      weights[0].set(low);
      weights[1].set(high);
      x.forEach((p, c) => {
        splat.set(splatStep(p, step));
        weights.forEach((w, h) => {
          const sum = sums[c]![h]![step % nChains]!;
          sum.set(i32x4.relaxed_dot_i8x16_i7x16_add_s(splat, w, sum));
        });
      });
    },
    end: (c) =>
      [0, 1].map((h) =>
        sums[c]![h]!.reduce<Expr<'v128'>>((a, b) => (a === b ? a : i32x4.add(a, b)), sums[c]![h]![0]!),
      ) as unknown as [Expr<'v128'>, Expr<'v128'>],
  };
}

/** 16-bit products, added up in 16 bits as far as they fit, then in 32. Exact with standard instructions. */
function wideDots(f: FunctionBuilder, nRows: number, stepsPer16Bit: number): Dots {
  // [row of x][half of the group]: rows 0, 1 and rows 2, 3 of that half, two partial sums a row.
  const locals = (name: string) =>
    Array.from({ length: nRows }, (_, c) => [0, 1].map((h) => f.localArray('v128', `${name}${c}${h}`, 2)));
  const sums = locals('dot');
  const products = locals('product');
  const splat = f.local('v128', 'xSplat');
  const weights = [f.local('v128', 'wLow'), f.local('v128', 'wHigh')] as const;
  let nAdded = 0;
  const evenLanes = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
  const oddLanes = evenLanes.map((lane) => lane + 4);
  return {
    begin() {
      nAdded = 0;
      sums.flat(2).forEach((s) => s.set(v128.zero()));
    },
    add(step, low, high, x) {
      weights[0].set(low);
      weights[1].set(high);
      const isFirst = nAdded % stepsPer16Bit === 0;
      nAdded++;
      const isLast = nAdded % stepsPer16Bit === 0;
      x.forEach((p, c) => {
        splat.set(splatStep(p, step));
        weights.forEach((w, h) => {
          [i16x8.extmul_low_i8x16_s(splat, w), i16x8.extmul_high_i8x16_s(splat, w)].forEach((product, part) => {
            const partial = products[c]![h]![part]!;
            const sum = sums[c]![h]![part]!;
            partial.set(isFirst ? product : i16x8.add(partial, product));
            if (isLast) sum.set(i32x4.add(sum, i32x4.extadd_pairwise_i16x8_s(partial)));
          });
        });
      });
    },
    end: (c) =>
      [0, 1].map((h) => {
        const [a, b] = sums[c]![h]! as [Local<'v128'>, Local<'v128'>];
        return i32x4.add(i8x16.shuffle(a, b, evenLanes), i8x16.shuffle(a, b, oddLanes));
      }) as unknown as [Expr<'v128'>, Expr<'v128'>],
  };
}

function matmulValues({ out, inputs }: Instruction, format: WeightFormat): Record<string, number> {
  const nIn = columnsOf(inputs[1]!.tensor);
  const nBlocks = nIn / BLOCK_FORMATS[format.dtype].blockElements;
  const isQuantized = inputs[0]!.tensor.dtype === 'Q8A';
  const addends = inputs.slice(2).map(({ tensor }) => tensor);
  // A bias is the same row for all.
  const addendBytes = (t: Tensor | undefined): number =>
    t === undefined || t.shape.length === 1 ? 0 : 4 * columnsOf(t);
  return {
    nAddends: addends.length,
    addendBytes0: addendBytes(addends[0]),
    addendBytes1: addendBytes(addends[1]),
    nOut: columnsOf(out.tensor),
    nBlocks,
    groupBytes: nBlocks * groupBlockBytes(format.dtype),
    xRowBytes: isQuantized ? (nIn / 32) * Q8A_BLOCK_BYTES : nIn * 4,
  };
}

function matmulKernels(format: WeightFormat): Kernel[] {
  const common = {
    op: 'matmul',
    params: {
      nOut: 'i32',
      nBlocks: 'i32',
      groupBytes: 'i32',
      xRowBytes: 'i32',
      nAddends: 'i32',
      addendBytes0: 'i32',
      addendBytes1: 'i32',
    },
    values: (instruction: Instruction) => matmulValues(instruction, format),
  } as const;
  const { integer } = format;
  const kernels: Kernel[] = [
    { ...common, dtypes: ['F32', format.dtype], build: (k) => buildMatmul(k, floatSource(format, k.variant)) },
  ];
  if (integer) {
    const build = (k: KernelBody): void => buildMatmul(k, integerSource(format, integer, k.variant));
    kernels.push({ ...common, dtypes: ['Q8A', format.dtype], build });
  }
  return kernels;
}

/** Rows of a packed table by id: all eight rows of a group are unpacked, the wanted lane is stored. */
function embedKernel(format: WeightFormat): Kernel {
  const { blockElements } = BLOCK_FORMATS[format.dtype];
  return {
    op: 'embed',
    dtypes: [format.dtype],
    params: { nBlocks: 'i32', groupBytes: 'i32' },
    values({ inputs }) {
      const nBlocks = columnsOf(inputs[0]!.tensor) / blockElements;
      return { nBlocks, groupBytes: nBlocks * groupBlockBytes(format.dtype) };
    },
    build(k) {
      const { f } = k;
      const out = k.out();
      const weights = k.input(0, 'weights');
      const ids = k.input(1, 'ids');
      const nBlocks = k.param('nBlocks');
      const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
      const { from, to } = k.share(i32.mul(k.rows(), nBlocks));
      const unpack = format.unpack(f, k.variant);
      const item = f.local('i32', 'item');
      const id = f.local('i32', 'id');
      const w = f.local('ptr', 'w');
      const target = f.local('ptr', 'target');
      const lane = f.local('v128', 'lane');
      const value = f.local('v128', 'value');
      f.for(item, { from, to }, () => {
        id.set(i32.load(addressAt(ids, i32.div_u(item, nBlocks), 4)));
        const groupStart = addressAt(weights, i32.shr_u(id, 3), groupBytes);
        w.set(addressAt(groupStart, i32.rem_u(item, nBlocks), groupBlockBytes(format.dtype)));
        target.set(addressAt(out, item, 4 * blockElements));
        // Swizzle indices that bring row (id mod 4) of a vector to lane 0.
        const firstByte = i32.mul(i32.and(id, 3), 0x04040404);
        lane.set(i32x4.splat(i32.add(firstByte, 0x03020100)));
        unpack(w, (column, low, high) => {
          value.set(low);
          f.if(i32.and(id, 4), () => value.set(high));
          v128.store32_lane(target, i8x16.swizzle(value, lane), 0, 4 * column);
        });
      });
    },
  };
}

export const MATMUL_KERNELS: readonly Kernel[] = [
  ...WEIGHT_FORMATS.flatMap(matmulKernels),
  ...WEIGHT_FORMATS.map(embedKernel),
];
