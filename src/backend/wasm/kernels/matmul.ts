// y = x · Wᵀ over packed weights, plus a bias or the residual stream. A thread takes a run of row groups (8 rows of W);
// for each it walks the rows of x in tiles, first wide ones, then single ones, so that decoding (one row) and prefill
// (many) are the same kernel and a group's weights are read from memory once. Every result is one accumulation over the
// columns in a fixed order, whatever the tile: the bits do not depend on batch, chunk or thread count.

import { BLOCK_FORMATS } from '../../../base/dtype.ts';
import type { DType } from '../../../base/dtype.ts';
import { ACTIVATION_BLOCK_BYTES, columnsOf } from '../../../graph/tensor.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { Tensor, TensorDType } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32x4, i16x8, i32, i32x4, i8x16, ptr, v128 } from '../emit/operations.ts';
import type { QuantizedFormat } from '../../../quant/block.ts';
import { QUANTIZED_FORMATS } from '../../../quant/codecs.ts';
import { multiplyAdd } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody, KernelVariant } from './kernel.ts';
import {
  BlockReader,
  FLOAT_DTYPES,
  dequantizedColumns,
  floatColumn,
  groupBlockBytes,
  headerBytes,
  interleavingOf,
  layoutOf32,
  offsetOf,
  quantizedFormatOf,
} from './weights.ts';

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

/** Into so many runs, at most, a thread's share of the groups is divided. */
const RUNS_OF_SHARE = 16;

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
  const nGroups = f.let('nGroups', i32.shr_u(i32.add(nOut, 7), 3));
  const grain = i32.add(i32.div_u(nGroups, i32.mul(k.nThreads, RUNS_OF_SHARE)), 1);
  k.eachRun(nGroups, grain, (from, to) => {
    f.for(group, { from, to }, () => {
      row.set(0);
      for (const n of tileRows) f.while(i32.le_s(i32.add(row, n), rows), () => emitTile(n));
    });
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

/** x in f32, weights that are floats: a column at a time. */
function floatSource(dtype: FloatDType, variant: KernelVariant): MatmulSource {
  const columnBytes = groupBlockBytes(dtype);
  const prepare = (f: FunctionBuilder): Tile => {
    const load = floatColumn(f, dtype);
    const add = columnProducts(f, variant);
    const left = f.local('i32', 'left');
    return (w, x, accumulators, nColumns) => {
      left.set(nColumns);
      for (const n of [4, 1]) {
        f.while(i32.ge_s(left, n), () => {
          for (let k = 0; k < n; k++) {
            const [low, high] = load(w);
            add(x, 4 * k, low, high, accumulators);
            w.set(ptr.add(w, columnBytes));
          }
          for (const p of x) p.set(ptr.add(p, 4 * n));
          left.set(i32.sub(left, n));
        });
      }
    };
  };
  // Six rows hide the latency of the multiply-add; what has to be unpacked needs the registers itself.
  return { tileRows: dtype === 'F32' ? [6, 4, 1] : [4, 1], prepare };
}

/** Emits accumulator += column · x for every row of a tile. */
function columnProducts(f: FunctionBuilder, variant: KernelVariant) {
  const [low, high] = [f.local('v128', 'weightLow'), f.local('v128', 'weightHigh')];
  const splat = f.local('v128', 'xSplat');
  return (
    x: readonly Local<'ptr'>[],
    offset: number,
    lowValue: Expr<'v128'>,
    highValue: Expr<'v128'>,
    accumulators: Accumulators,
  ): void => {
    low.set(lowValue);
    high.set(highValue);
    x.forEach((p, c) => {
      const [accLow, accHigh] = accumulators[c]!;
      splat.set(v128.load32_splat(p, offset));
      accLow.set(multiplyAdd(variant, low, splat, accLow));
      accHigh.set(multiplyAdd(variant, high, splat, accHigh));
    });
  };
}

/** Runs `body` for each 32 columns of `nBlocks` blocks, with the scales read; moves `w` along. */
function each32(
  f: FunctionBuilder,
  reader: BlockReader,
  w: Local<'ptr'>,
  nBlocks: Expr<'i32'>,
  body: () => void,
): void {
  const { sizeBytes } = layoutOf32(reader.format);
  const left = f.let('left', nBlocks);
  const one = (): void => {
    reader.scales(w);
    body();
    w.set(ptr.add(w, sizeBytes));
  };
  f.while(i32.gt_s(left, 0), () => {
    reader.header(w);
    w.set(ptr.add(w, headerBytes(reader.format)));
    if (reader.nParts32 === 1) one();
    else f.for(f.local('i32', 'part'), { from: 0, to: reader.nParts32 }, one);
    left.set(i32.sub(left, 1));
  });
}

/** x in f32, quantised weights: exact values, a column at a time. */
function dequantizingSource(format: QuantizedFormat, variant: KernelVariant): MatmulSource {
  const prepare = (f: FunctionBuilder): Tile => {
    const reader = new BlockReader(f, format, variant);
    const add = columnProducts(f, variant);
    return (w, x, accumulators, nBlocks) => {
      each32(f, reader, w, nBlocks, () => {
        dequantizedColumns(f, reader, variant, w, (k, low, high) => add(x, 4 * k, low, high, accumulators));
        for (const p of x) p.set(ptr.add(p, 128));
      });
    };
  };
  return { tileRows: [4, 1], prepare };
}

/** x in 8 bits: integer dot products of a part, then one multiply-add with the product of the scales. */
function integerSource(format: QuantizedFormat, variant: KernelVariant): MatmulSource {
  const isQuads = interleavingOf(format, variant) === 'quads';
  const xBlockBytes = ACTIVATION_BLOCK_BYTES[isQuads ? 'Q8A' : 'Q8W'];
  const offset = offsetOf(format, variant);
  const prepare = (f: FunctionBuilder): Tile => {
    const reader = new BlockReader(f, format, variant);
    const dotsOf = isQuads ? quadDots : pairDots;
    const [scale, sum, scaledSum] = ['xScale', 'xSum', 'xScaledSum'].map((name) => f.local('v128', name)) as [
      Local<'v128'>,
      Local<'v128'>,
      Local<'v128'>,
    ];
    return (w, x, accumulators, nBlocks) => {
      const nParts = reader.parts.length;
      const dots = dotsOf(f, x.length, nParts);
      each32(f, reader, w, nBlocks, () => {
        dots.begin();
        const add: Parameters<BlockReader['steps']>[1] = (turn, low, high) => dots.add(turn, low, high, x);
        if (isQuads) reader.steps(w, add);
        else reader.words(w, add);
        x.forEach((p, c) => {
          scale.set(v128.load32_splat(p, 0));
          reader.parts.forEach((part, i) => {
            if (offset !== 0 || part.minimum) sum.set(activationSum(p, nParts, i));
            if (part.minimum) scaledSum.set(f32x4.mul(f32x4.convert_i32x4_s(sum), scale));
            accumulators[c]!.forEach((acc, h) => {
              const dot = dots.end(c, i, h);
              const centred = offset === 0 ? dot : i32x4.sub(dot, i32x4.shl(sum, 31 - Math.clz32(offset)));
              const value = f32x4.convert_i32x4_s(centred);
              acc.set(multiplyAdd(variant, value, f32x4.mul(part.scale[h]!, scale), acc));
              if (part.minimum) acc.set(multiplyAdd(variant, part.minimum[h]!, scaledSum, acc));
            });
          });
        });
        for (const p of x) p.set(ptr.add(p, xBlockBytes));
      });
    };
  };
  return { tileRows: [4, 1], prepare };
}

/** Sum of the activations that part `i` of a block meets, in every lane. The block keeps those of its two halves. */
function activationSum(x: Expr<'ptr'>, nParts: number, i: number): Expr<'v128'> {
  const sums = v128.load32_splat(x, 4);
  if (nParts === 1) return i32x4.dot_i16x8_s(sums, i16x8.const(1, 1, 1, 1, 1, 1, 1, 1));
  return i === 0 ? i32x4.shr_s(i32x4.shl(sums, 16), 16) : i32x4.shr_s(sums, 16);
}

/** The dot products of 32 columns in one or two parts, for every row of x in a tile. */
interface Dots {
  begin(): void;
  /** What BlockReader.steps, or .words, gives. */
  add(turn: number, low: Expr<'v128'>, high: Expr<'v128'>, x: readonly Local<'ptr'>[]): void;
  /** i32 sums of part `i` and half `h` of the rows with row `c` of x. */
  end(c: number, i: number, h: number): Expr<'v128'>;
}

/** Two chains a sum for a single row of x, to hide the latency. The second of two parts has the later half of turns. */
class Sums {
  readonly #sums: readonly (readonly (readonly Local<'v128'>[])[])[][];
  readonly #nParts: number;
  readonly #nTurns: number;

  /** @param nTurns  in which the 32 columns come */
  constructor(f: FunctionBuilder, nRows: number, nParts: number, nTurns: number) {
    const nChains = nRows === 1 ? 2 / nParts : 1;
    this.#nParts = nParts;
    this.#nTurns = nTurns;
    this.#sums = Array.from({ length: nRows }, (_, c) =>
      Array.from({ length: nParts }, (__, i) => [0, 1].map((h) => f.localArray('v128', `dot${c}${i}${h}`, nChains))),
    );
  }

  clear(): void {
    for (const sum of this.#sums.flat(3)) sum.set(v128.zero());
  }

  /** The chain that a turn goes to. */
  at(c: number, turn: number, h: number): Local<'v128'> {
    const part = Math.floor((turn * this.#nParts) / this.#nTurns);
    const chains = this.#sums[c]![part]![h]!;
    return chains[turn % chains.length]!;
  }

  total(c: number, i: number, h: number): Expr<'v128'> {
    const [first, ...others] = this.#sums[c]![i]![h]! as [Local<'v128'>, ...Local<'v128'>[]];
    return others.reduce<Expr<'v128'>>((a, b) => i32x4.add(a, b), first);
  }
}

/** One relaxed instruction a vector, of four columns. */
function quadDots(f: FunctionBuilder, nRows: number, nParts: number): Dots {
  return newDots(f, new Sums(f, nRows, nParts, 8), (x, w, sum) => {
    return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, sum);
  });
}

/** Products of 16-bit integers, of two columns, added in pairs: exact with standard instructions. */
function pairDots(f: FunctionBuilder, nRows: number, nParts: number): Dots {
  return newDots(f, new Sums(f, nRows, nParts, 16), (x, w, sum) => i32x4.add(sum, i32x4.dot_i16x8_s(x, w)));
}

/** Four bytes of x are one turn, as four columns of 8 bits or two of 16. */
function newDots(
  f: FunctionBuilder,
  sums: Sums,
  multiply: (x: Expr<'v128'>, w: Expr<'v128'>, sum: Expr<'v128'>) => Expr<'v128'>,
): Dots {
  const splat = f.local('v128', 'xSplat');
  const weights = [f.local('v128', 'wLow'), f.local('v128', 'wHigh')] as const;
  return {
    begin: () => sums.clear(),
    add(turn, low, high, x) {
      weights[0].set(low);
      weights[1].set(high);
      x.forEach((p, c) => {
        splat.set(v128.load32_splat(p, 8 + 4 * turn));
        weights.forEach((w, h) => {
          const sum = sums.at(c, turn, h);
          sum.set(multiply(splat, w, sum));
        });
      });
    },
    end: (c, i, h) => sums.total(c, i, h),
  };
}

function matmulValues({ out, inputs }: Instruction, dtype: DType): Record<string, number> {
  const [x, weights, ...addends] = inputs.map(({ tensor }) => tensor) as [Tensor, Tensor, ...Tensor[]];
  const nIn = columnsOf(weights);
  const nBlocks = nIn / BLOCK_FORMATS[dtype].blockElements;
  const xBlockBytes = x.dtype === 'Q8A' || x.dtype === 'Q8W' ? ACTIVATION_BLOCK_BYTES[x.dtype] : 128;
  // A bias is the same row for all.
  const addendBytes = (t: Tensor | undefined): number =>
    t === undefined || t.shape.length === 1 ? 0 : 4 * columnsOf(t);
  return {
    nAddends: addends.length,
    addendBytes0: addendBytes(addends[0]),
    addendBytes1: addendBytes(addends[1]),
    nOut: columnsOf(out.tensor),
    nBlocks,
    groupBytes: nBlocks * groupBlockBytes(dtype),
    xRowBytes: (nIn / 32) * xBlockBytes,
  };
}

const matmulKernel = (x: TensorDType, dtype: DType, source: (variant: KernelVariant) => MatmulSource): Kernel => ({
  op: 'matmul',
  dtypes: [x, dtype],
  params: {
    nOut: 'i32',
    nBlocks: 'i32',
    groupBytes: 'i32',
    xRowBytes: 'i32',
    nAddends: 'i32',
    addendBytes0: 'i32',
    addendBytes1: 'i32',
  },
  values: (instruction) => matmulValues(instruction, dtype),
  build: (k) => buildMatmul(k, source(k.variant)),
});

/** Rows of a packed table by id: all eight rows of a group are unpacked, the wanted lane is stored. */
const embedKernel = (dtype: DType): Kernel => ({
  op: 'embed',
  dtypes: [dtype],
  params: { nBlocks: 'i32', groupBytes: 'i32' },
  values({ inputs }) {
    const nBlocks = columnsOf(inputs[0]!.tensor) / BLOCK_FORMATS[dtype].blockElements;
    return { nBlocks, groupBytes: nBlocks * groupBlockBytes(dtype) };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const weights = k.input(0, 'weights');
    const ids = k.input(1, 'ids');
    const nBlocks = k.param('nBlocks');
    const groupBytes = f.let('groupBytes', ptr.fromI32(k.param('groupBytes')));
    const { from, to } = k.share(i32.mul(k.rows(), nBlocks));
    const item = f.local('i32', 'item');
    const id = f.local('i32', 'id');
    const w = f.local('ptr', 'w');
    const target = f.local('ptr', 'target');
    const lane = f.local('v128', 'lane');
    const value = f.local('v128', 'value');
    const format = quantizedFormatOf(dtype);
    const store = (column: number, low: Expr<'v128'>, high: Expr<'v128'>): void => {
      value.set(low);
      f.if(i32.and(id, 4), () => value.set(high));
      v128.store32_lane(target, i8x16.swizzle(value, lane), 0, 4 * column);
    };
    const unpack = format ? unpackBlock(f, format, k.variant) : unpackColumn(f, dtype as FloatDType);
    f.for(item, { from, to }, () => {
      id.set(i32.load(addressAt(ids, i32.div_u(item, nBlocks), 4)));
      const groupStart = addressAt(weights, i32.shr_u(id, 3), groupBytes);
      w.set(addressAt(groupStart, i32.rem_u(item, nBlocks), groupBlockBytes(dtype)));
      target.set(addressAt(out, item, 4 * BLOCK_FORMATS[dtype].blockElements));
      // Swizzle indices that bring row (id mod 4) of a vector to lane 0.
      const firstByte = i32.mul(i32.and(id, 3), 0x04040404);
      lane.set(i32x4.splat(i32.add(firstByte, 0x03020100)));
      unpack(w, target, store);
    });
  },
});

type StoreColumn = (column: number, low: Expr<'v128'>, high: Expr<'v128'>) => void;
/** Emits the columns of the block at `w`; `target` moves along, so that columns are counted from it. */
type UnpackBlock = (w: Local<'ptr'>, target: Local<'ptr'>, store: StoreColumn) => void;

function unpackColumn(f: FunctionBuilder, dtype: FloatDType): UnpackBlock {
  const load = floatColumn(f, dtype);
  return (w, _, store) => store(0, ...load(w));
}

function unpackBlock(f: FunctionBuilder, format: QuantizedFormat, variant: KernelVariant): UnpackBlock {
  const reader = new BlockReader(f, format, variant);
  return (w, target, store) => {
    each32(f, reader, w, i32.const(1), () => {
      dequantizedColumns(f, reader, variant, w, store);
      target.set(ptr.add(target, 128));
    });
  };
}

type FloatDType = (typeof FLOAT_DTYPES)[number];

/** Types of weights that the kernels run. */
const PACKED_DTYPES: readonly DType[] = [...FLOAT_DTYPES, ...QUANTIZED_FORMATS.map(({ dtype }) => dtype)];

export const MATMUL_KERNELS: readonly Kernel[] = [
  ...FLOAT_DTYPES.map((dtype) => matmulKernel('F32', dtype, (variant) => floatSource(dtype, variant))),
  ...QUANTIZED_FORMATS.flatMap((format) => [
    matmulKernel('F32', format.dtype, (variant) => dequantizingSource(format, variant)),
    matmulKernel('Q8A', format.dtype, (variant) => integerSource(format, variant)),
  ]),
  ...PACKED_DTYPES.map(embedKernel),
];
