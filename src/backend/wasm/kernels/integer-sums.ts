// Integer dot products of 32 columns: eight rows of weights with the rows of x in a tile, as sums in registers. Which
// instructions do it best depends on the engine (KernelVariant.dot); the sums are the same.

import type { QuantizedFormat, Term } from '../../../quant/block.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { i16x8, i32x4, v128 } from '../emit/operations.ts';
import { splatI32 } from './floats.ts';
import type { KernelVariant } from './kernel.ts';
import { maxOf, termsOf } from './weights.ts';

/** Collects products with numbers of one term. The second of two parts has the later half of the turns. */
export interface Sums {
  /** Before the first turn of 32 columns. */
  begin(): void;
  add(c: number, turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void;
  /** i32x4, of part `i`, times the term's factor. */
  total(c: number, i: number, h: number): Expr<'v128'>;
}

/** Locals [row of x][part][half of the group][chain]. */
function sumLocals(f: FunctionBuilder, name: string, nRows: number, nParts: number, nChains: number) {
  return Array.from({ length: nRows }, (_, c) =>
    Array.from({ length: nParts }, (__, i) => [0, 1].map((h) => f.localArray('v128', `${name}${c}${i}${h}`, nChains))),
  );
}

/** The first products of a sum have none yet. */
type MultiplyAdd = (x: Expr<'v128'>, w: Expr<'v128'>, sum?: Expr<'v128'>) => Expr<'v128'>;

/** Sums of 32 bits. Two chains each for a single row of x, to hide the latency. */
class WideSums implements Sums {
  readonly #sums: readonly (readonly (readonly Local<'v128'>[])[])[][];
  readonly #turnsOfPart: number;
  readonly #factor: number;
  readonly #multiplyAdd: MultiplyAdd;

  /** @param nTurns  in which the 32 columns come */
  constructor(
    f: FunctionBuilder,
    nRows: number,
    nParts: number,
    nTurns: number,
    factor: number,
    multiplyAddOf: MultiplyAdd,
  ) {
    this.#factor = factor;
    this.#sums = sumLocals(f, 'dot', nRows, nParts, nRows === 1 ? 2 / nParts : 1);
    this.#turnsOfPart = nTurns / nParts;
    this.#multiplyAdd = multiplyAddOf;
  }

  begin(): void {}

  add(c: number, turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void {
    const chains = this.#sums[c]![Math.floor(turn / this.#turnsOfPart)]![h]!;
    const sum = chains[turn % chains.length]!;
    const isFirst = turn % this.#turnsOfPart < chains.length;
    sum.set(this.#multiplyAdd(x, w, isFirst ? undefined : sum));
  }

  total(c: number, i: number, h: number): Expr<'v128'> {
    const [first, ...others] = this.#sums[c]![i]![h]! as [Local<'v128'>, ...Local<'v128'>[]];
    const sum = others.reduce<Expr<'v128'>>((a, b) => i32x4.add(a, b), first);
    return this.#factor === 1 ? sum : i32x4.mul(sum, splatI32(this.#factor));
  }
}

/** Sums of products of pairs in 16 bits, which hold `nTerms` of them and are then added up in 32. */
class NarrowSums implements Sums {
  readonly #narrow: readonly (readonly (readonly Local<'v128'>[])[])[][];
  /** Where sums are added up that have more terms. */
  readonly #wide = new Map<Local<'v128'>, Local<'v128'>>();
  readonly #turnsOfPart: number;
  readonly #nTerms: number;
  readonly #factors: Expr<'v128'>;
  /** Products that each has so far, counted as code is emitted. */
  readonly #counts = new Map<Local<'v128'>, number>();

  constructor(f: FunctionBuilder, nRows: number, nParts: number, nTerms: number, factor: number) {
    this.#turnsOfPart = 8 / nParts;
    this.#nTerms = nTerms;
    this.#factors = splatI32((factor << 16) | (factor & 0xffff));
    this.#narrow = sumLocals(f, 'pairs', nRows, nParts, 1);
    if (nTerms >= this.#turnsOfPart) return;
    for (const narrow of this.#narrow.flat(3)) this.#wide.set(narrow, f.local('v128', 'dot'));
  }

  begin(): void {
    this.#counts.clear();
  }

  add(c: number, turn: number, h: number, x: Expr<'v128'>, w: Expr<'v128'>): void {
    const narrow = this.#narrow[c]![Math.floor(turn / this.#turnsOfPart)]![h]![0]!;
    const count = this.#counts.get(narrow) ?? 0;
    const product = i16x8.relaxed_dot_i8x16_i7x16_s(x, w);
    if (count > 0 && count % this.#nTerms === 0) this.#wide.get(narrow)!.set(this.#sumOf(narrow));
    narrow.set(count % this.#nTerms === 0 ? product : i16x8.add(narrow, product));
    this.#counts.set(narrow, count + 1);
  }

  total(c: number, i: number, h: number): Expr<'v128'> {
    return this.#sumOf(this.#narrow[c]![i]![h]![0]!);
  }

  #sumOf(narrow: Local<'v128'>): Expr<'v128'> {
    const sum = i32x4.dot_i16x8_s(narrow, this.#factors);
    return this.#counts.get(narrow)! <= this.#nTerms ? sum : i32x4.add(this.#wide.get(narrow)!, sum);
  }
}

/**
 * How many products of pairs may be added in 16 bits, where that is the fastest; 0: none are. A pair comes to 2 · 127 ·
 * the largest number at most.
 */
const termsIn16Bits = (term: Term, { dot }: KernelVariant): number =>
  dot === 'i7p' ? Math.floor(32767 / (2 * 127 * maxOf(term))) : 0;

/** Four columns a turn, of each term: the relaxed instruction, or that for pairs and an addition in 16 bits. */
export function quadSums(
  f: FunctionBuilder,
  nRows: number,
  nParts: number,
  format: QuantizedFormat,
  variant: KernelVariant,
): readonly Sums[] {
  return termsOf(format).map((term) => {
    const nTerms = termsIn16Bits(term, variant);
    if (nTerms > 1) return new NarrowSums(f, nRows, nParts, nTerms, term.factor);
    return new WideSums(f, nRows, nParts, 8, term.factor, (x, w, sum) =>
      i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, sum ?? v128.zero()),
    );
  });
}

/** Two columns a turn: products of 16-bit integers, added in pairs: exact with standard instructions. */
export function pairSums(f: FunctionBuilder, nRows: number, nParts: number): readonly Sums[] {
  const sums = new WideSums(f, nRows, nParts, 16, 1, (x, w, sum) => {
    const product = i32x4.dot_i16x8_s(x, w);
    return sum ? i32x4.add(sum, product) : product;
  });
  return [sums];
}

/** Sums of all terms: i32x4, of part `i`. */
export const totalOf = (sums: readonly Sums[], c: number, i: number, h: number): Expr<'v128'> =>
  sums.map((each) => each.total(c, i, h)).reduce((a, b) => i32x4.add(a, b));

/**
 * Emits the products of one turn: four bytes of each row of x with those of each term, four columns of 8 bits or two of
 * 16.
 */
export function turnProducts(f: FunctionBuilder, sums: readonly Sums[], x: readonly Local<'ptr'>[]) {
  const splat = f.local('v128', 'xSplat');
  const weights = sums.map(() => f.localArray('v128', 'weights', 2));
  return (turn: number, terms: readonly (readonly [Expr<'v128'>, Expr<'v128'>])[]): void => {
    terms.forEach((both, t) => both.forEach((w, h) => weights[t]![h]!.set(w)));
    x.forEach((p, c) => {
      splat.set(v128.load32_splat(p, 8 + 4 * turn));
      sums.forEach((each, t) => weights[t]!.forEach((w, h) => each.add(c, turn, h, splat, w)));
    });
  };
}
