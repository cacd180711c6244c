// Reads packed blocks of quantised formats: scales, quants as bytes or 16-bit integers, and exact values. Emits.

import type { QuantizedFormat } from '../../../../quant/block.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32x4, i16x8, i32, i32x4, i8x16, ptr, v128 } from '../../emit/operations.ts';
import { HalfToFloat, splatF32, splatI32 } from '../floats.ts';
import type { KernelVariant } from '../kernel.ts';
import {
  HALF_ROWS_BYTES,
  SPLIT_COLUMNS,
  groupSizes,
  interleavingOf,
  isBiased,
  isSigned,
  layoutOf32,
  maxOf,
  offsetOf,
  planesOf,
  sharesBytes,
  shiftBits,
  termsOf,
} from './layout.ts';
import type { Plane } from './layout.ts';

type Vector = Expr<'v128'>;
/** Of rows 0..3 and of rows 4..7. */
export type Halves = readonly [Local<'v128'>, Local<'v128'>];

/** Receives column `k` of a block: the weights of rows 0..3 and of rows 4..7, as exact f32 values. */
export type UseColumn = (k: number, low: Vector, high: Vector) => void;

/** Scale and minimum of a part of 32 columns: of all of them, of 16, or, where scales of 16 have shifts, of eight. */
export interface Part {
  readonly scale: Halves;
  /** Negative; as large as it is added to each value. */
  readonly minimum: Halves | undefined;
}

/**
 * Scales of the first and of the last 16 columns as 16-bit integers, of a row side by side: what the dot product of
 * pairs multiplies with numbers of the two.
 */
export interface PairedScales {
  readonly scale: Halves;
  readonly minimum: Halves | undefined;
  /**
   * Of formats with a shift, the scales with their signs: `first` is by how much the first eight columns of each 16 are
   * shifted, `both` is the same where the last eight are shifted the same way, or 0. Of scales of 32 columns there is
   * only `first`, of 32 bits.
   */
  readonly shift: { readonly first: Halves; readonly both: Halves } | undefined;
}

/** What one turn of 32 columns multiplies: of each term, vectors of rows 0..3 and of rows 4..7. */
export interface Turn {
  readonly turn: number;
  readonly terms: readonly (readonly [Vector, Vector])[];
}

/** The largest sum of 16 activations. */
export const SUM_MAX = 16 * 127;

/** Whether scales of 16 bits multiply sums of 16 columns that fit in 16 bits. */
const pairsScales = (format: QuantizedFormat, variant: KernelVariant): boolean => {
  if (format.shift !== undefined) return true;
  if (format.scaleColumns !== 16) return false;
  if (interleavingOf(format, variant) === 'split') return true;
  const [first, ...others] = termsOf(format);
  return others.length === 0 && SUM_MAX * maxOf(first!) < 2 ** 15;
};

/** Reads a packed block of eight rows of a quantised format. Emits into the function that it was made in. */
export class BlockReader {
  readonly format: QuantizedFormat;
  /** One, or one for each 16 columns. `scales` sets them. */
  readonly parts: readonly Part[];
  /** In place of `parts`, where they are asked for and the format has such. */
  readonly pairs: PairedScales | undefined;
  readonly d: Halves;
  readonly dMin: Halves | undefined;
  readonly #f: FunctionBuilder;
  readonly #half: HalfToFloat;
  readonly #isPairs: boolean;
  /** Of the plane of low bits what is at hand, of that of high bits all. */
  readonly #low: readonly Local<'v128'>[];
  readonly #high: readonly Local<'v128'>[];
  readonly #ofTerms: readonly Halves[];
  readonly #lookUp: (quants: Vector) => Vector;

  constructor(f: FunctionBuilder, format: QuantizedFormat, variant: KernelVariant, wantsPairs = false) {
    const halves = (name: string): Halves => f.localArray('v128', name, 2) as unknown as Halves;
    const { scaleColumns, hasMinima } = format;
    const [, highPlane] = planesOf(format);
    this.#f = f;
    this.format = format;
    this.#isPairs = interleavingOf(format, variant) === 'pairs';
    this.#half = new HalfToFloat(f, format.dFactor);
    this.d = halves('d');
    const hasMinimum = hasMinima || format.shift !== undefined;
    this.dMin = hasMinimum ? halves('dMin') : undefined;
    const minimum = (): Halves | undefined => (hasMinimum ? halves('minimum') : undefined);
    const nEach = scaleColumns === 16 && format.shift !== undefined ? 2 : 1;
    const own = (): Part[] => {
      const scale = halves('scale');
      return Array.from({ length: nEach }, () => ({ scale, minimum: minimum() }));
    };
    const whole: Part = { scale: this.d, minimum: this.dMin };
    this.parts = scaleColumns === 0 ? [whole] : Array.from({ length: 32 / scaleColumns }, own).flat();
    this.#low = f.localArray('v128', 'quants', 2);
    this.#high = f.localArray('v128', 'highBits', highPlane ? 2 * highPlane.nBits : 0);
    const words = (): Halves => halves('words');
    this.pairs =
      wantsPairs && pairsScales(format, variant)
        ? {
            scale: words(),
            minimum: hasMinima ? words() : undefined,
            shift: format.shift === undefined ? undefined : { first: words(), both: words() },
          }
        : undefined;
    this.#ofTerms = planesOf(format).map(() => halves('number'));
    this.#lookUp = levelTable(f, format, variant);
  }

  /** d and dmin, from the start of the block. */
  header(w: Expr<'ptr'>): void {
    const { dType = 'F16' } = this.format;
    if (dType === 'F16') this.d.forEach((d, h) => d.set(this.#half.convert(v128.load16x4_s(w, 8 * h))));
    if (dType === 'F32') this.d.forEach((d, h) => d.set(v128.load(w, 16 * h)));
    if (dType === 'E8M0') this.#powersOfTwo(w);
    const { shift } = this.format;
    this.dMin?.forEach((dMin, h) => {
      if (shift !== undefined) return dMin.set(f32x4.mul(this.d[h]!, splatF32(shift)));
      const value = this.#half.convert(v128.load16x4_s(w, HALF_ROWS_BYTES + 8 * h));
      // A minimum of its own is added, one that integers multiply is subtracted.
      dMin.set(this.format.scaleColumns === 0 ? value : f32x4.neg(value));
    });
  }

  /** Half of 2^(e - 127), of which e = 0 is one more subnormal. */
  #powersOfTwo(w: Expr<'ptr'>): void {
    const words = this.#f.let('exponents', v128.load8x8_u(w));
    const exponent = this.#f.local('v128', 'exponent');
    [i32x4.extend_low_i16x8_u(words), i32x4.extend_high_i16x8_u(words)].forEach((extended, h) => {
      exponent.set(extended);
      const subnormal = v128.and(i32x4.eq(exponent, v128.zero()), splatI32(0x00400000));
      this.d[h]!.set(f32x4.mul(v128.or(i32x4.shl(exponent, 23), subnormal), splatF32(0.5)));
    });
  }

  /** Sets `parts` for the 32 columns at `w`. */
  scales(w: Expr<'ptr'>): void {
    const { scaleColumns } = this.format;
    if (scaleColumns === 32) this.#scalesOf32(w);
    if (scaleColumns === 16) this.#scalesOf16(w);
  }

  #scalesOf32(w: Expr<'ptr'>): void {
    const { scale, minimum } = this.parts[0]!;
    const scales = this.#f.let('scales', v128.load8x8_s(w));
    if (this.pairs) {
      const { first } = this.pairs.shift!;
      const words = [i32x4.extend_low_i16x8_s(scales), i32x4.extend_high_i16x8_s(scales)];
      first.forEach((signed, h) => {
        signed.set(words[h]!);
        const magnitude = i32x4.abs(signed);
        this.pairs!.scale[h]!.set(i32x4.mul(splatI32(0x00010001), magnitude));
      });
      return;
    }
    if (minimum && this.format.shift !== undefined) {
      setProducts(minimum, scales, this.dMin!);
      return setProducts(scale, this.#f.let('scales', i16x8.abs(scales)), this.d);
    }
    setProducts(scale, scales, this.d);
    if (!minimum) return;
    const mins = v128.load8x8_s(w, layoutOf32(this.format).mins);
    setProducts(minimum, this.#f.let('mins', mins), this.dMin!);
  }

  /** Bytes are pairs: of row 0 those of the first and of the last 16 columns, and so on. */
  #scalesOf16(w: Expr<'ptr'>): void {
    const f = this.#f;
    const bytes = f.let('scalePairs', v128.load(w));
    const nibble = splatI32(0x0f0f0f0f);
    if (this.pairs) return this.#pairedScales(this.pairs, bytes, nibble);
    const words = f.local('v128', 'words');
    const split = (source: Vector, use: (value: Vector, i: number, h: number) => void): void => {
      const all = f.let('all', source);
      [i16x8.extend_low_i8x16_s(all), i16x8.extend_high_i8x16_s(all)].forEach((extended, h) => {
        words.set(extended);
        [i32x4.shr_s(i32x4.shl(words, 16), 16), i32x4.shr_s(words, 16)].forEach((value, i) => use(value, i, h));
      });
    };
    const product = (value: Vector, factor: Vector): Vector => f32x4.mul(f32x4.convert_i32x4_s(value), factor);
    if (this.format.shift !== undefined) {
      const signed = f.local('v128', 'signed');
      return split(bytes, (value, i, h) => {
        const [first, last] = [this.parts[2 * i]!, this.parts[2 * i + 1]!];
        signed.set(value);
        const way = i32x4.sub(i32x4.shl(v128.and(signed, splatI32(1)), 1), splatI32(1));
        first.minimum![h]!.set(product(v128.or(signed, splatI32(1)), this.dMin![h]!));
        last.minimum![h]!.set(f32x4.mul(first.minimum![h]!, f32x4.convert_i32x4_s(way)));
        first.scale[h]!.set(product(i32x4.abs(v128.or(signed, splatI32(1))), this.d[h]!));
      });
    }
    const isShared = sharesBytes(this.format);
    split(isShared ? v128.and(bytes, nibble) : bytes, (value, i, h) => {
      this.parts[i]!.scale[h]!.set(product(value, this.d[h]!));
    });
    if (!isShared) return;
    split(v128.and(i16x8.shr_u(bytes, 4), nibble), (value, i, h) => {
      this.parts[i]!.minimum![h]!.set(product(value, this.dMin![h]!));
    });
  }

  #pairedScales({ scale, minimum, shift }: PairedScales, bytes: Local<'v128'>, nibble: Vector): void {
    const extend = (target: Halves, source: Vector): void => {
      const all = this.#f.let('all', source);
      target[0].set(i16x8.extend_low_i8x16_s(all));
      target[1].set(i16x8.extend_high_i8x16_s(all));
    };
    if (!shift) {
      extend(scale, sharesBytes(this.format) ? v128.and(bytes, nibble) : bytes);
      if (minimum) extend(minimum, v128.and(i16x8.shr_u(bytes, 4), nibble));
      return;
    }
    const ones = splatI32(0x00010001);
    extend(shift.both, bytes);
    shift.both.forEach((both, h) => {
      const first = shift.first[h]!;
      first.set(v128.or(both, ones));
      scale[h]!.set(i16x8.abs(first));
      both.set(i16x8.mul(first, v128.and(both, ones)));
    });
  }

  /**
   * The quants of the 32 columns at `w` as bytes, four columns a step: the vectors 2·step and 2·step + 1. Steps come in
   * an order of their own. What a step needs is emitted when it is asked for.
   */
  *steps(w: Expr<'ptr'>): Generator<Turn> {
    const planes = planesOf(this.format);
    for (const [turn, bitsOf] of this.#eachStep(w)) {
      const [low, high] = [0, 1].map((h) => {
        const bits = planes.map((_, p) => bitsOf(p, h, 0));
        return this.#lookUp(bits.reduce((a, b) => v128.or(a, b)));
      });
      yield { turn, terms: [[low!, high!]] };
    }
  }

  /** What is multiplied of the 32 columns at `w`: of each of `termsOf` two vectors a turn. */
  turns(w: Expr<'ptr'>): Generator<Turn> {
    return this.#isPairs ? this.#words(w) : this.#numbers(w);
  }

  /** As `steps`, but of terms. */
  *#numbers(w: Expr<'ptr'>): Generator<Turn> {
    const { terms } = this.format;
    if (!terms) return yield* this.steps(w);
    const planes = planesOf(this.format);
    for (const [turn, bitsOf] of this.#eachStep(w)) {
      planes.forEach(({ mask }, p) => {
        const { shift = 0 } = terms.find((term) => term.mask === mask)!;
        this.#ofTerms[p]!.forEach((number, h) => number.set(bitsOf(p, h, shift)));
      });
      const vectors = terms.map(({ mask, clamp }) => {
        const [low, high] = this.#ofTerms[planes.findIndex((plane) => plane.mask === mask)]!.map((number) =>
          clamp ? i8x16.min_u(i8x16.max_u(number, splatBytes(clamp[0])), splatBytes(clamp[1])) : number,
        );
        return [low!, high!] as const;
      });
      yield { turn, terms: vectors };
    }
  }

  /** Steps, and what gives the bits of plane `p` in a step's vector `h`, moved down by `shift` from their place. */
  *#eachStep(
    w: Expr<'ptr'>,
  ): Generator<readonly [step: number, bitsOf: (p: number, h: number, shift: number) => Vector]> {
    const [low, high] = layoutOf32(this.format).planes;
    const nLow = 2 * low!.nBits;
    const nHigh = this.#high.length;
    this.#high.forEach((v, i) => v.set(v128.load(w, high!.at + 16 * i)));
    for (let s = 0; s < nLow; s += 2) {
      this.#low.forEach((v, h) => v.set(v128.load(w, low!.at + 16 * (s + h))));
      for (const field of low!.shifts.keys()) {
        const first = s + nLow * field;
        yield [
          first / 2,
          (p, h, shift) =>
            p === 0
              ? unpackBits(this.#low[h]!, low!, field, shift)
              : unpackBits(this.#high[(first + h) % nHigh]!, high!, Math.floor((first + h) / nHigh), shift),
        ];
      }
    }
  }

  /**
   * The quants of the 32 columns at `w`, which must be in pairs, as 16-bit integers: two columns a turn, of rows 0..3
   * and of rows 4..7. Turns come in the order of `steps`.
   */
  *#words(w: Expr<'ptr'>): Generator<Turn> {
    if (this.format.bits === 8) {
      // Bytes are extended as they are loaded.
      const low = layoutOf32(this.format).planes[0]!.at;
      for (let turn = 0; turn < 16; turn++) {
        const at = low + 16 * turn;
        yield { turn, terms: [[v128.load8x8_s(w, at), v128.load8x8_s(w, at + 8)]] };
      }
      return;
    }
    const bytes = this.#f.local('v128', 'pairBytes');
    for (const { turn, terms } of this.steps(w)) {
      for (const [i, vector] of terms[0]!.entries()) {
        bytes.set(vector);
        yield { turn: 2 * turn + i, terms: [[i16x8.extend_low_i8x16_s(bytes), i16x8.extend_high_i8x16_s(bytes)]] };
      }
    }
  }
}

const splatBytes = (byte: number): Vector => splatI32((byte * 0x01010101) | 0);

/** The bits of `mask` of every byte, moved up by `shift`, or down. Shifts go over 16 bits, the mask mends that. */
export function moveBits(v: Vector, mask: number, shift: number): Vector {
  if (mask === 255) return v;
  const moved = shift < 0 ? i16x8.shr_u(v, -shift) : shift > 0 ? i16x8.shl(v, shift) : v;
  return v128.and(moved, splatBytes(shiftBits(mask, shift)));
}

/** What a plane holds in field `field` of its bytes, moved down by `shift` from where it belongs. */
function unpackBits(v: Vector, { mask, shifts }: Plane, field: number, shift: number): Vector {
  return moveBits(v, shiftBits(mask, shifts[field]!), -shifts[field]! - shift);
}

/** Prepares to look levels up, in a format that does. */
function levelTable(f: FunctionBuilder, format: QuantizedFormat, variant: KernelVariant): (quants: Vector) => Vector {
  const { levels } = format;
  if (!levels) return (quants) => quants;
  const offset = offsetOf(format, variant);
  const table = f.let('levels', i8x16.const(...Array.from({ length: 16 }, (_, i) => offset + (levels[i] ?? 0))));
  const lookUp = variant.set === 'relaxed' ? i8x16.relaxed_swizzle : i8x16.swizzle;
  return (quants) => lookUp(table, quants);
}

/** Eight 16-bit integers times eight factors. */
function setProducts(target: Halves, integers: Local<'v128'>, factor: Halves): void {
  const extended = [i32x4.extend_low_i16x8_s(integers), i32x4.extend_high_i16x8_s(integers)];
  target.forEach((t, h) => t.set(f32x4.mul(f32x4.convert_i32x4_s(extended[h]!), factor[h]!)));
}

/** The columns of 32 as exact f32 values, as ggml's dequantisation computes them. `reader.scales` goes before. */
export function dequantizedColumns(
  f: FunctionBuilder,
  reader: BlockReader,
  variant: KernelVariant,
  w: Expr<'ptr'>,
  use: UseColumn,
): void {
  const offset = offsetOf(reader.format, variant);
  const isUnsigned = !isSigned(reader.format) || isBiased(variant);
  const bytes = f.localArray('v128', 'bytes', 2);
  const { parts } = reader;
  const value = (q: Vector, column: number, h: number): Vector => {
    const { scale, minimum } = parts[Math.floor((column * parts.length) / 32)]!;
    const centred = offset === 0 ? q : i32x4.sub(q, splatI32(offset));
    const scaled = f32x4.mul(f32x4.convert_i32x4_s(centred), scale[h]!);
    return minimum ? f32x4.add(scaled, minimum[h]!) : scaled;
  };
  const interleaving = interleavingOf(reader.format, variant);
  for (const { turn: step, terms } of reader.steps(w)) {
    terms[0]!.forEach((vector, h) => bytes[h]!.set(vector));
    for (let j = 0; j < 4; j++) {
      const column = interleaving === 'split' ? SPLIT_COLUMNS[4 * step + j]! : 4 * step + j;
      const both = [0, 1].map((h) => {
        if (interleaving === 'pairs') return value(ofPair(bytes[j >> 1]!, h, j & 1), column, h);
        const shifted = isUnsigned
          ? v128.and(i32x4.shr_u(bytes[h]!, 8 * j), splatI32(255))
          : i32x4.shr_s(i32x4.shl(bytes[h]!, 24 - 8 * j), 24);
        return value(shifted, column, h);
      });
      use(column, both[0]!, both[1]!);
    }
  }
}

/** Column `j` of two of a vector in pairs, of rows 4h .. 4h + 3, as i32. */
function ofPair(bytes: Local<'v128'>, h: number, j: number): Vector {
  const words = h === 0 ? i16x8.extend_low_i8x16_s(bytes) : i16x8.extend_high_i8x16_s(bytes);
  return j === 0 ? i32x4.shr_s(i32x4.shl(words, 16), 16) : i32x4.shr_s(words, 16);
}

/** Runs `body` for each 32 columns of `nBlocks` blocks of the group at `w`, with the scales read; moves `w` along. */
export function each32(
  f: FunctionBuilder,
  reader: BlockReader,
  w: Local<'ptr'>,
  nBlocks: Expr<'i32'>,
  body: () => void,
): void {
  const { header, part, nParts } = groupSizes(reader.format.dtype);
  const left = f.let('left', nBlocks);
  const one = (): void => {
    reader.scales(w);
    body();
    w.set(ptr.add(w, part));
  };
  f.while(i32.gt_s(left, 0), () => {
    reader.header(w);
    w.set(ptr.add(w, header));
    if (nParts === 1) one();
    else f.for(f.local('i32', 'part'), { from: 0, to: nParts }, one);
    left.set(i32.sub(left, 1));
  });
}
