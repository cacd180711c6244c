// Packing: weights as the file stores them → groups of eight interleaved rows, as layout.ts tells. One kernel a type.
// Floats: for each column the eight rows' values. Quantised formats: the fields of each row's block are spread over the
// bytes of vectors, eight rows of them transposed, and the bits put together again as planes. Blocks that hold indices
// of a grid are written out in scratch first (expand.ts).

import { BLOCK_FORMATS } from '../../../../base/dtype.ts';
import type { DType } from '../../../../base/dtype.ts';
import { assert } from '../../../../base/errors.ts';
import { placeOf } from '../../../../quant/block.ts';
import type { Field, QuantizedFormat } from '../../../../quant/block.ts';
import { QUANTIZED_FORMATS } from '../../../../quant/codecs.ts';
import { EXPANDED_BYTES } from '../../../../quant/grids/expansion.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { i16x8, i32, i32x4, i8x16, ptr, v128 } from '../../emit/operations.ts';
import { expandBlocks } from './expand.ts';
import { splatI32, transpose } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { KernelBody, KernelVariant, Routine } from '../kernel.ts';
import { moveBits } from '../matmul/block-reader.ts';
import {
  FLOAT_DTYPES,
  SHORT_FLOAT_ROWS,
  SPLIT_COLUMNS,
  dBytes,
  groupBlockBytes,
  groupSizes,
  interleavingOf,
  isBiased,
  layoutOf32,
} from '../matmul/layout.ts';

type Vector = Expr<'v128'>;

const GROUP_ROWS = 8;

/** Bytes after the rows that a kernel may read, to no effect. */
export const PACKING_OVERREAD_BYTES = 16;

/**
 * A packing kernel. Operand 0 of its record is the rows, dense, whole groups of them, operand 1 the integers of the
 * grid where there is one; the result is the packed groups.
 * `nBlocks` is that of a row; of floats, its columns. A thread takes `grain` groups at once. `isNonFinite` is set to 1
 * when a NaN or an infinity is found, which in a quantised type only a scale can be.
 */
export interface PackKernel extends Routine {
  readonly params: Readonly<Record<'nGroups' | 'nBlocks' | 'grain' | 'isNonFinite', 'i32'>>;
}

const packKernel = (dtype: DType, packGroup: (group: Group) => void): PackKernel => ({
  op: 'pack',
  dtypes: [dtype],
  params: { nGroups: 'i32', nBlocks: 'i32', grain: 'i32', isNonFinite: 'i32' },
  build: (body) => buildPacking(body, dtype, packGroup),
});

const PACK_KERNELS = new Map<DType, PackKernel>([
  ...FLOAT_DTYPES.map((dtype) => [dtype, packKernel(dtype, (group) => packFloats(group, dtype))] as const),
  ...QUANTIZED_FORMATS.map((format) => {
    const kernel = packKernel(format.dtype, (group) => packBlocks(group, format));
    return [format.dtype, kernel] as const;
  }),
]);

export function packKernelOf(dtype: DType): PackKernel {
  const kernel = PACK_KERNELS.get(dtype);
  assert(kernel, `no kernel packs ${dtype}`);
  return kernel;
}

/** What packs the group at hand. `rows` and `to` move on as blocks are done. */
interface Group {
  readonly f: FunctionBuilder;
  readonly variant: KernelVariant;
  readonly rows: readonly Local<'ptr'>[];
  readonly to: Local<'ptr'>;
  readonly nBlocks: Local<'i32'>;
  /** Lanes that are not zero have met a NaN or an infinity. */
  readonly nonFinite: Local<'v128'>;
  readonly rowBytes: Local<'ptr'>;
  readonly grid: Local<'ptr'>;
  readonly scratch: Local<'ptr'>;
}

function buildPacking(body: KernelBody, dtype: DType, packGroup: (group: Group) => void): void {
  const { f, variant } = body;
  const allTargets = body.out();
  const allSources = body.input(0, 'sources');
  const nBlocks = body.param('nBlocks');
  const grid = body.input(1, 'grid');
  const scratch = body.scratch();
  const rowBytes = f.let('rowBytes', ptr.mul(ptr.fromI32(nBlocks), BLOCK_FORMATS[dtype].blockBytes));
  const sourceBytes = f.let('sourceBytes', ptr.mul(rowBytes, GROUP_ROWS));
  const groupBytes = f.let('groupBytes', ptr.mul(ptr.fromI32(nBlocks), groupBlockBytes(dtype)));
  const rows = f.localArray('ptr', 'row', GROUP_ROWS);
  const target = f.local('ptr', 'target');
  const groupIndex = f.local('i32', 'group');
  const source = f.local('ptr', 'source');
  const nonFinite = f.local('v128', 'nonFinite');
  body.eachRun(body.param('nGroups'), body.param('grain'), (from, to) => {
    source.set(addressAt(allSources, from, sourceBytes));
    f.for(groupIndex, { from, to }, () => {
      target.set(addressAt(allTargets, groupIndex, groupBytes));
      for (const row of rows) {
        row.set(source);
        source.set(ptr.add(source, rowBytes));
      }
      packGroup({ f, variant, rows, to: target, nBlocks, nonFinite, rowBytes, grid, scratch });
    });
  });
  f.if(v128.any_true(nonFinite), () => body.setParam('isNonFinite', i32.const(1)));
}

const moveRows = ({ rows }: Group, rowBytes: number): void => {
  for (const row of rows) row.set(ptr.add(row, rowBytes));
};

// Floats.

const EXPONENTS: Readonly<Record<(typeof FLOAT_DTYPES)[number], number>> = {
  F32: 0x7f800000,
  F16: 0x7c007c00,
  BF16: 0x7f807f80,
};

function packFloats(all: Group, dtype: (typeof FLOAT_DTYPES)[number]): void {
  const size = dtype === 'F32' ? 4 : 2;
  const group = size === 2 ? { ...all, rows: SHORT_FLOAT_ROWS.map((row) => all.rows[row]!) } : all;
  const { f, rows, to, nBlocks: nColumns } = group;
  const moveOn = (nAtOnce: number): void => {
    moveRows(group, size * nAtOnce);
    to.set(ptr.add(to, size * GROUP_ROWS * nAtOnce));
  };
  const nAtOnce = 16 / size;
  const vectors = f.localArray('v128', 'values', GROUP_ROWS);
  const left = f.let('left', nColumns);
  f.while(i32.ge_u(left, nAtOnce), () => {
    vectors.forEach((v, r) => v.set(v128.load(rows[r]!)));
    for (const v of vectors) checkFinite(group, v, dtype);
    interleave(f, vectors, size === 4).forEach((v, i) => v128.store(to, v, 16 * i));
    moveOn(nAtOnce);
    left.set(i32.sub(left, nAtOnce));
  });
  f.while(left, () => {
    columnOf(group, size, 0).forEach((v, i) => {
      checkFinite(group, v, dtype);
      v128.store(to, v, 16 * i);
    });
    moveOn(1);
    left.set(i32.sub(left, 1));
  });
}

function checkFinite({ nonFinite }: Group, values: Vector, dtype: (typeof FLOAT_DTYPES)[number]): void {
  const mask = splatI32(EXPONENTS[dtype]);
  const equal = dtype === 'F32' ? i32x4.eq : i16x8.eq;
  nonFinite.set(v128.or(nonFinite, equal(v128.and(values, mask), mask)));
}

/** The value of `size` bytes that each row has at `offset`. */
function columnOf({ f, rows }: Group, size: 1 | 2 | 4, offset: number): Local<'v128'>[] {
  const nLanes = 16 / size;
  const load = { 1: v128.load8_lane, 2: v128.load16_lane, 4: v128.load32_lane }[size];
  const vectors = f.localArray('v128', 'column', Math.ceil(GROUP_ROWS / nLanes));
  rows.forEach((row, r) => {
    const v = vectors[Math.floor(r / nLanes)]!;
    v.set(load(row, v, r % nLanes, offset));
  });
  return vectors;
}

/** Sixteen bytes of each of eight rows, interleaved by four bytes (`quads`) or by two (`pairs`). */
function interleave(f: FunctionBuilder, rows: readonly Local<'v128'>[], isQuads: boolean): Local<'v128'>[] {
  if (!isQuads) {
    transpose(f, rows);
    return [...rows];
  }
  const halves = [rows.slice(0, 4), rows.slice(4)];
  for (const half of halves) transpose(f, half);
  return [0, 1, 2, 3].flatMap((s) => halves.map((half) => half[s]!));
}

// Quantised formats.

function packBlocks(file: Group, format: QuantizedFormat): void {
  const { f, nBlocks, scratch, to } = file;
  const { header, part: partBytes, nParts } = groupSizes(format.dtype);
  const { expansion } = format;
  const group = expansion
    ? { ...file, rows: file.rows.map((_, r) => f.let('expanded', ptr.add(scratch, r * EXPANDED_BYTES))) }
    : file;
  const left = f.let('left', nBlocks);
  f.while(left, () => {
    if (expansion) expandBlocks({ ...file, block: file.rows[0]! }, expansion, format.bits);
    packHeader(group, format);
    to.set(ptr.add(to, header));
    const scales = packedScales(group, format);
    for (let part = 0; part < nParts; part++) {
      if (scales) storeScales(group, format, scales[part]!);
      packPlanes(group, format, part);
      to.set(ptr.add(to, partBytes));
    }
    moveRows(file, BLOCK_FORMATS[format.dtype].blockBytes);
    left.set(i32.sub(left, 1));
  });
}

/** Powers of two beyond this make infinities of some levels. */
const EXPONENT_MAX = 252;

function packHeader(group: Group, format: QuantizedFormat): void {
  const { dAt, dMinAt, hasMinima, dType = 'F16' } = format;
  const { to, nonFinite } = group;
  const size = dBytes(format);
  columnOf(group, size, dAt).forEach((v, i) => {
    if (dType === 'E8M0') {
      nonFinite.set(v128.or(nonFinite, i8x16.gt_u(v, splatI32(EXPONENT_MAX * 0x01010101))));
      return v128.store64_lane(to, v, 0);
    }
    checkFinite(group, v, dType);
    v128.store(to, v, 16 * i);
  });
  if (!hasMinima) return;
  const [minima] = columnOf(group, 2, dMinAt!) as [Local<'v128'>];
  checkFinite(group, minima, 'F16');
  v128.store(to, minima, GROUP_ROWS * size);
}

/** For each 32 columns of the block, pairs of bytes of the eight rows: two scales, or scale and minimum. */
function packedScales({ f, rows }: Group, format: QuantizedFormat): Local<'v128'>[] | undefined {
  const { scaleColumns, scales = [], mins = [], scaleOffset = 0 } = format;
  if (scaleColumns === 0) return undefined;
  const vectors = f.localArray('v128', 'scales', GROUP_ROWS);
  const lanes = Array.from({ length: 16 }, (_, lane) => lane);
  const even = lanes.map((lane) => (lane % 2 === 0 ? lane / 2 : undefined));
  const odd = lanes.map((lane) => (lane % 2 === 1 ? (lane - 1) / 2 : undefined));
  const scaleLanes = scaleColumns === 32 ? even : lanes;
  const offset = i8x16.const(...scaleLanes.map((lane) => (lane === undefined ? 0 : scaleOffset)));
  vectors.forEach((v, r) => {
    gather(v, rows[r]!, scales, scaleLanes);
    if (scaleOffset) v.set(i8x16.sub(v, offset));
    if (scaleColumns === 32) gather(v, rows[r]!, mins, odd, v);
    // In the high half of the same byte.
    else
      gather(
        v,
        rows[r]!,
        mins.map((field) => ({ ...field, to: (field.to ?? 0) + 4 })),
        lanes,
        v,
      );
  });
  transpose(f, vectors);
  return vectors;
}

function storeScales({ to }: Group, format: QuantizedFormat, pairs: Local<'v128'>): void {
  if (format.scaleColumns === 16) return v128.store(to, pairs);
  const apart = i8x16.shuffle(pairs, pairs, [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15]);
  if (format.hasMinima) v128.store(to, apart);
  else v128.store64_lane(to, apart, 0);
}

/** The quants of 32 columns. */
function packPlanes({ f, variant, rows, to }: Group, format: QuantizedFormat, part: number): void {
  const interleaving = interleavingOf(format, variant);
  // Turns signed bytes into unsigned ones, 128 added.
  const flip = format.bits === 8 && isBiased(variant) ? splatI32(0x80808080 | 0) : undefined;
  const quants = [0, 16].map((first) => {
    const lanes = Array.from({ length: 16 }, (_, lane) => 32 * part + first + lane);
    return rows.map((row) => {
      const v = f.local('v128', 'rowQuants');
      gather(v, row, format.quants, lanes);
      if (flip) v.set(v128.xor(v, flip));
      return v;
    });
  }) as [Local<'v128'>[], Local<'v128'>[]];
  if (interleaving === 'split') {
    const before = f.local('v128', 'before');
    quants[0].forEach((first, r) => {
      const last = quants[1][r]!;
      before.set(first);
      first.set(i8x16.shuffle(before, last, SPLIT_COLUMNS.slice(0, 16)));
      last.set(i8x16.shuffle(before, last, SPLIT_COLUMNS.slice(16)));
    });
  }
  const vectors = quants.flatMap((each) => interleave(f, each, interleaving !== 'pairs'));
  for (const plane of layoutOf32(format).planes) {
    const nStored = 2 * plane.nBits;
    for (let s = 0; s < nStored; s++) {
      const sharing = vectors.filter((_, i) => i % nStored === s);
      const bytes = sharing.map((v, field) => moveBits(v, plane.mask, plane.shifts[field]!));
      v128.store(
        to,
        bytes.reduce((a, b) => v128.or(a, b)),
        plane.at + 16 * s,
      );
    }
  }
}

/**
 * Sets each byte of `result` to the integer of the block at `block` that `indices` names for it, or to 0.
 * @param others  a vector whose bytes are 0 where integers come; it keeps the rest
 */
function gather(
  result: Local<'v128'>,
  block: Local<'ptr'>,
  fields: readonly Field[],
  indices: readonly (number | undefined)[],
  others?: Vector,
): void {
  const parts = fields.flatMap((field) => {
    const places = indices.map((index) => (index === undefined ? undefined : placeOf(field, index)));
    const bits = new Set(places.flatMap((place) => (place ? [place.bit] : [])));
    return [...bits].map((bit) => {
      const bytes = bytesAt(
        block,
        places.map((place) => (place?.bit === bit ? place.byte : undefined)),
      );
      if (field.width === 'trit') return extractTrits(bytes, bit);
      return moveBits(bytes, ((1 << field.width) - 1) << bit, (field.to ?? 0) - bit);
    });
  });
  const all = others ? [others, ...parts] : parts;
  result.set(all.reduce((a, b) => v128.or(a, b)));
}

/** Ternary digit `digit` of every byte. The digit begins the low byte of the product as a fraction of 256. */
function extractTrits(bytes: Vector, digit: number): Vector {
  const splat = (x: number): Vector => splatI32(x * 0x00010001);
  const halves = [i16x8.extend_low_i8x16_u(bytes), i16x8.extend_high_i8x16_u(bytes)].map((words) => {
    const fraction = v128.and(i16x8.mul(words, splat(3 ** digit)), splat(255));
    return i16x8.shr_u(i16x8.mul(fraction, splat(3)), 8);
  });
  return i8x16.narrow_i16x8_u(halves[0]!, halves[1]!);
}

/** Sixteen bytes of a block, each from a place of its own, not more than sixteen apart. */
function bytesAt(block: Local<'ptr'>, places: readonly (number | undefined)[]): Vector {
  const start = Math.min(...places.map((place) => place ?? Infinity));
  const loaded = v128.load(block, start);
  if (places.every((place, lane) => place === start + lane)) return loaded;
  // An index beyond 15 gives 0.
  const lanes = places.map((place) => (place === undefined ? 0xff : place - start));
  return i8x16.swizzle(loaded, i8x16.const(...lanes));
}
