// Formats whose blocks hold indices of a grid: what to write out before the rest goes as with all formats. A tuple of
// the grid is four or eight magnitudes; signs choose the other half of the levels. Bits stand anywhere, across bytes
// too.
// An expanded block: binary16 d; from byte 16 on the scales, a byte each; from byte 32 on 256 quants, a byte each.

import type { Grid } from './tables.ts';

/** Some bits of integers of a block: of integer i at `bit` + `stride` · ⌊i / each⌋ + `innerStride` · (i mod each). */
export interface BitField {
  readonly bit: number;
  readonly width: 1 | 2 | 3 | 4 | 7 | 8 | 9 | 16;
  readonly stride: number;
  /** Default 1. */
  readonly each?: 1 | 4;
  readonly innerStride?: number;
  /** The bit of the integer that they begin at. Default 0. */
  readonly to?: number;
}

export interface Expansion {
  readonly grid: Grid;
  readonly d: readonly BitField[];
  /** s, where the scale is 2s + 1, with a sign where `signKind` says so. */
  readonly scales: readonly BitField[];
  readonly nScales: 8 | 16;
  /** Of tuples of the grid. */
  readonly indices: readonly BitField[];
  /**
   * For each eight quants: a bit each, `eight`; or seven of them, and in all an even number is set, `even`. Quants are
   * in the order of the values: integers with their highest bit, and where the sign is set, all their bits are
   * inverted. Or quants are the integers, and signs are those of the scales: one each, `scale`; or one for each half of
   * a scale's values, `halves`: the first is the scale's, and the scale is made even where the last is another.
   */
  readonly signs: readonly BitField[];
  readonly signKind: 'eight' | 'even' | 'scale' | 'halves';
}

type SignKind = Expansion['signKind'];

export const isOfScales = (kind: SignKind): kind is 'scale' | 'halves' => kind === 'scale' || kind === 'halves';

/** Signs that a scale has. */
export const nSignsOf = (kind: 'scale' | 'halves'): 1 | 2 => (kind === 'scale' ? 1 : 2);

export const EXPANDED_SCALES_AT = 16;
export const EXPANDED_QUANTS_AT = 32;
export const EXPANDED_BYTES = EXPANDED_QUANTS_AT + 256;

function integerAt(fields: readonly BitField[], bytes: Uint8Array, at: number, i: number): number {
  let integer = 0;
  for (const { bit, width, stride, each = 1, innerStride = 0, to = 0 } of fields) {
    const inner = i % each;
    const place = bit + (stride * (i - inner)) / each + innerStride * inner;
    const byte = at + (place >> 3);
    const word = bytes[byte]! | ((bytes[byte + 1] ?? 0) << 8);
    integer |= ((word >> (place & 7)) & ((1 << width) - 1)) << to;
  }
  return integer;
}

/** Writes a block out. The result is overwritten by the next. */
export function expanderOf(expansion: Expansion, bits: number): (bytes: Uint8Array, at: number) => Uint8Array {
  const { grid, d, scales, nScales, indices, signs, signKind } = expansion;
  const out = new Uint8Array(EXPANDED_BYTES);
  const highest = 1 << (bits - 1);
  const signOf = (bytes: Uint8Array, at: number, i: number): number => integerAt(signs, bytes, at, i);
  return (bytes, at) => {
    const dBits = integerAt(d, bytes, at, 0);
    out[0] = dBits;
    out[1] = dBits >> 8;
    for (let i = 0; i < nScales; i++) {
      const scale = 2 * integerAt(scales, bytes, at, i) + 1;
      const nSigns = isOfScales(signKind) ? nSignsOf(signKind) : 0;
      const [first, last] = nSigns === 0 ? [0, 0] : [0, nSigns - 1].map((n) => signOf(bytes, at, nSigns * i + n));
      out[EXPANDED_SCALES_AT + i] = (first ? -scale : scale) ^ (first! ^ last!);
    }
    for (let i = 0; i < 256 / grid.width; i++) {
      const from = grid.width * integerAt(indices, bytes, at, i);
      out.set(grid.integers.subarray(from, from + grid.width), EXPANDED_QUANTS_AT + grid.width * i);
    }
    if (isOfScales(signKind)) return out;
    for (let i = 0; i < 256; i++) {
      const mask = signMask(signOf(bytes, at, i >> 3), signKind);
      out[EXPANDED_QUANTS_AT + i]! ^= highest ^ ((mask >> (i & 7)) & 1 ? 2 * highest - 1 : 0);
    }
    return out;
  };
}

function signMask(integer: number, kind: SignKind): number {
  if (kind === 'eight') return integer;
  let parity = integer ^ (integer >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return integer | ((parity & 1) << 7);
}
