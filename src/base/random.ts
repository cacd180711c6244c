// Seeded random numbers that are the same on every machine: Philox4x32-10, a counter-based generator. Block number n of
// a (seed, stream) pair is a pure function of the three, so a position is a number, a checkpoint keeps it, and threads
// draw from blocks or streams of their own without talking to each other. Not for secrets.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

import { OptionError } from './errors.ts';
import { cos, log } from './math.ts';

const ROUNDS = 10;
const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
// Weyl increments of the key: the golden ratio and sqrt(3) - 1.
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;

/** High 32 bits of the 64-bit product of two uint32, as an int32. */
function multiplyHigh(a: number, b: number): number {
  const aLo = a & 0xffff;
  const aHi = a >>> 16;
  const bLo = b & 0xffff;
  const bHi = b >>> 16;
  const middle = aHi * bLo + (Math.imul(aLo, bLo) >>> 16);
  const middleLow = aLo * bHi + (middle & 0xffff);
  // `middle` and `middleLow` stay below 2^32, so they are exact as doubles and whole under >>>.
  return (Math.imul(aHi, bHi) + (middle >>> 16) + (middleLow >>> 16)) | 0;
}

/**
 * One Philox4x32-10 block: writes four uniform uint32 that depend on all of `counter` and `key`, and changes neither.
 * Arrays rather than numbers, because a uint32 argument above 2^31 would be boxed on the heap.
 * @param counter  u32[4]
 * @param key      u32[2]
 * @param out      u32[4], may be `counter`
 */
export function philox(counter: Uint32Array, key: Uint32Array, out: Uint32Array): void {
  let c0 = counter[0]! | 0;
  let c1 = counter[1]! | 0;
  let c2 = counter[2]! | 0;
  let c3 = counter[3]! | 0;
  let k0 = key[0]! | 0;
  let k1 = key[1]! | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** All of a generator, as plain data for a checkpoint; `seed` is decimal, because JSON has no 64-bit integers. */
export interface RandomState {
  readonly seed: string;
  readonly stream: number;
  readonly position: number;
}

const BLOCK_WORDS = 4;
// As literals: the operator ** is the engine's pow.
const TWO_POW_26 = 67108864;
const TWO_POW_32 = 4294967296;
const TWO_POW_MINUS_53 = 1.1102230246251565e-16;

const single = new Float64Array(1);

/** A sequence of random numbers, fixed by its seed and stream. Distinct streams of a seed are independent. */
export class Random {
  readonly seed: bigint;
  readonly stream: number;
  /** Words 0 and 1 count blocks, 2 and 3 are the stream. */
  readonly #counter = new Uint32Array(BLOCK_WORDS);
  readonly #key = new Uint32Array(2);
  readonly #block = new Uint32Array(BLOCK_WORDS);
  /** Words of the current block already drawn; all of them before the first block is made. */
  #used = BLOCK_WORDS;

  /**
   * @param seed    an integer, taken modulo 2^64; a number must be a safe integer
   * @param stream  0 .. 2^53 - 1
   * @throws {OptionError} for a seed or a stream that is not such an integer
   */
  constructor(seed: number | bigint, stream = 0) {
    if (typeof seed !== 'bigint') requireSafeInteger('seed', seed, Number.MIN_SAFE_INTEGER);
    requireSafeInteger('stream', stream, 0);
    this.seed = BigInt.asUintN(64, BigInt(seed));
    this.stream = stream;
    this.#key[0] = Number(this.seed & 0xffffffffn);
    this.#key[1] = Number(this.seed >> 32n);
    this.#counter[2] = stream % TWO_POW_32;
    this.#counter[3] = Math.floor(stream / TWO_POW_32);
  }

  /** The generator that a checkpoint saved. */
  static from(state: RandomState): Random {
    const random = new Random(BigInt(state.seed), state.stream);
    random.position = state.position;
    return random;
  }

  get state(): RandomState {
    return { seed: String(this.seed), stream: this.stream, position: this.position };
  }

  /** How many uint32 were drawn since the beginning; set it to go anywhere in the sequence, at no cost. */
  get position(): number {
    const blocks = this.#counter[0]! + this.#counter[1]! * TWO_POW_32;
    return blocks * BLOCK_WORDS + this.#used - BLOCK_WORDS;
  }

  set position(position: number) {
    requireSafeInteger('position', position, 0);
    const block = Math.floor(position / BLOCK_WORDS);
    this.#counter[0] = block % TWO_POW_32;
    this.#counter[1] = Math.floor(block / TWO_POW_32);
    this.#used = BLOCK_WORDS;
    const used = position % BLOCK_WORDS;
    if (used === 0) return;
    this.#nextBlock();
    this.#used = used;
  }

  /** The next 32 random bits, 0 .. 2^32 - 1. */
  uint32(): number {
    return this.#block[this.#advance()]!;
  }

  /** The next number of [0, 1), a multiple of 2^-53; draws two uint32. */
  uniform(): number {
    this.fillUniform(single);
    return single[0]!;
  }

  /** The next number of a standard normal distribution (Box–Muller, one of the pair); draws four uint32. */
  normal(): number {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    const radius = Math.sqrt(-2 * log(1 - this.uniform()));
    return radius * cos(2 * Math.PI * this.uniform());
  }

  /** Fills `out` with what `uniform()` would return. Allocates nothing, even where a returned double would be boxed. */
  fillUniform(out: Float64Array): void {
    for (let i = 0; i < out.length; i++) {
      const high = this.#block[this.#advance()]! >>> 5;
      const low = this.#block[this.#advance()]! >>> 6;
      out[i] = (high * TWO_POW_26 + low) * TWO_POW_MINUS_53;
    }
  }

  /** Fills `out` with what `normal()` would return, times `deviation`, plus `mean`. */
  fillNormal(out: Float32Array | Float64Array, mean = 0, deviation = 1): void {
    for (let i = 0; i < out.length; i++) out[i] = mean + deviation * this.normal();
  }

  /** Moves on by one word and returns its place in the block: an index, because a word may not fit a small integer. */
  #advance(): number {
    if (this.#used === BLOCK_WORDS) this.#nextBlock();
    return this.#used++;
  }

  #nextBlock(): void {
    philox(this.#counter, this.#key, this.#block);
    this.#used = 0;
    const low = (this.#counter[0]! + 1) >>> 0;
    this.#counter[0] = low;
    if (low === 0) this.#counter[1] = this.#counter[1]! + 1;
  }
}

function requireSafeInteger(name: string, value: number, min: number): void {
  if (Number.isSafeInteger(value) && value >= min) return;
  throw new OptionError(`"${name}" expected an integer from ${min} to ${Number.MAX_SAFE_INTEGER}, got ${value}`, {
    option: name,
  });
}
