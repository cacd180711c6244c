// From texts to batches: token streams of one or several texts, the part kept for validation, and the windows that a
// training or evaluation step takes. Knows no files and no models. What is drawn depends on the seed and on how many
// windows were drawn before, so a checkpoint keeps one number.

import { OptionError, ShapeError } from '../base/errors.ts';
import { Random } from '../base/random.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Token ids, one after the other. */
export type TokenArray = Int32Array | Uint16Array;

/** A text to train on; `name` is for messages. */
export interface NamedText {
  readonly name: string;
  readonly text: string;
}

export interface EncodeTextsOptions {
  /** Put behind each text, so that the model learns where texts end. Default nothing. */
  readonly separatorId?: number;
  /** Whether special tokens spelled out in the texts become tokens. Default true: data files separate with them. */
  readonly parseSpecial?: boolean;
}

/**
 * The tokens of all texts in order, without BOS and EOS.
 * @throws {OptionError} for a text without tokens (an empty file), no texts at all, a separator outside the vocabulary
 */
export function encodeTexts(
  tokenizer: Tokenizer,
  texts: Iterable<NamedText>,
  options: EncodeTextsOptions = {},
): Int32Array {
  const { separatorId, parseSpecial = true } = options;
  const parts: number[][] = [];
  let n = 0;
  for (const { name, text } of texts) {
    const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial });
    if (ids.length === 0) throw new OptionError(`${name} is empty; give it text to train on`, { source: name });
    if (separatorId !== undefined) ids.push(separatorId);
    parts.push(ids);
    n += ids.length;
  }
  if (n === 0) throw new OptionError('there is no text to train on; name at least one file');
  const tokens = new Int32Array(n);
  let at = 0;
  for (const ids of parts) {
    tokens.set(ids, at);
    at += ids.length;
  }
  if (separatorId !== undefined) checkTokenIds(tokens, tokenizer.nVocab);
  return tokens;
}

/** @throws {OptionError} for the first id that is not from 0 to `nVocab` - 1 */
export function checkTokenIds(tokens: TokenArray, nVocab: number): void {
  const at = tokens.findIndex((id) => id < 0 || id >= nVocab);
  if (at < 0) return;
  throw new OptionError(
    `token ${at} of the data has the id ${tokens[at]}, expected 0 to ${nVocab - 1}; ` +
      'the data was encoded with another vocabulary than the model has',
    { index: at, id: tokens[at]!, nVocab },
  );
}

/**
 * Cuts off the last `fraction` of the tokens for validation. Both parts are views of `tokens`.
 * @throws {OptionError} for a fraction that is not from 0 to below 1
 */
export function splitTokens<T extends TokenArray>(tokens: T, fraction: number): { train: T; validation: T } {
  if (!(fraction >= 0 && fraction < 1)) {
    throw new OptionError(`the fraction for validation expected a number from 0 to below 1, got ${fraction}`);
  }
  const nTrain = Math.floor(tokens.length * (1 - fraction));
  return { train: tokens.subarray(0, nTrain) as T, validation: tokens.subarray(nTrain) as T };
}

/** What one step reads: row s, column t of `targets` is the token behind that of `inputs`. */
export interface Batch {
  /** i32[nSeq, nCtx] */
  readonly inputs: Int32Array;
  /** i32[nSeq, nCtx] */
  readonly targets: Int32Array;
}

export interface BatchShape {
  /** Windows a batch. */
  readonly nSeq: number;
  /** Tokens a window. */
  readonly nCtx: number;
}

/**
 * Which windows: `random` draws independently where each begins, so that windows overlap (as nanoGPT does);
 * `shuffled` cuts the tokens into windows side by side and goes through all of them in a new order each epoch.
 */
export type WindowOrder = 'random' | 'shuffled';

export interface DataLoaderOptions extends BatchShape {
  readonly seed: number | bigint;
  /** Default `random`. */
  readonly order?: WindowOrder;
}

/** All of a loader, as plain data for a checkpoint. Everything but the last is there to tell other data apart. */
export interface DataLoaderState {
  readonly seed: string;
  readonly order: WindowOrder;
  readonly nCtx: number;
  readonly nTokens: number;
  readonly nWindowsDrawn: number;
}

/** Fills batches with windows of a token stream, without end. */
export class DataLoader {
  readonly #tokens: TokenArray;
  readonly #shape: BatchShape;
  readonly #seed: bigint;
  readonly #order: WindowOrder;
  #nDrawn = 0;
  /** Draws the begins of random windows, two uint32 each. */
  readonly #begins: Random;
  /** Windows that fit side by side. */
  readonly #nWindows: number;
  /** The order of the windows in epoch `#epoch`; empty until it is asked for. */
  #permutation = new Uint32Array(0);
  #epoch = -1;

  /** @throws {OptionError} for fewer tokens than one window and its last target, or options out of range */
  constructor(tokens: TokenArray, options: DataLoaderOptions) {
    const { seed, order = 'random' } = options;
    checkShape(options);
    checkEnough(tokens, options.nCtx);
    if (order !== 'random' && order !== 'shuffled') {
      throw new OptionError(`"order" expected random or shuffled, got ${String(order)}`, { option: 'order' });
    }
    this.#tokens = tokens;
    this.#shape = options;
    this.#order = order;
    this.#begins = new Random(seed);
    this.#seed = this.#begins.seed;
    this.#nWindows = Math.floor((tokens.length - 1) / options.nCtx);
  }

  /** Steps in which as many tokens are seen as there are; need not be whole. */
  get stepsAnEpoch(): number {
    return this.#nWindows / this.#shape.nSeq;
  }

  /**
   * Writes the next batch into `into`, row after row. Allocates nothing but at the beginning of a shuffled epoch.
   * @throws {ShapeError} unless both arrays hold nSeq · nCtx tokens
   */
  next(into: Batch): void {
    const { nSeq, nCtx } = this.#shape;
    checkBatch(into, this.#shape);
    for (let s = 0; s < nSeq; s++) {
      copyWindow(this.#tokens, this.#nextBegin(), into, s, nCtx);
      this.#nDrawn++;
    }
  }

  get state(): DataLoaderState {
    return {
      seed: String(this.#seed),
      order: this.#order,
      nCtx: this.#shape.nCtx,
      nTokens: this.#tokens.length,
      nWindowsDrawn: this.#nDrawn,
    };
  }

  /**
   * Goes on where the loader was that gave this state; the batch size may be another.
   * @throws {OptionError} when seed, order, window or data are others, so that other windows would follow
   */
  set state(state: DataLoaderState) {
    const own = this.state;
    for (const key of ['seed', 'order', 'nCtx', 'nTokens'] as const) {
      if (state[key] === own[key]) continue;
      throw new OptionError(
        `the saved data position is for "${key}" ${state[key]}, this run has ${own[key]}; ` +
          'resume with the same data and options',
        { option: key },
      );
    }
    const { nWindowsDrawn } = state;
    if (!Number.isSafeInteger(nWindowsDrawn) || nWindowsDrawn < 0) {
      throw new OptionError(`"nWindowsDrawn" of the saved data position expected a count, got ${nWindowsDrawn}`);
    }
    this.#nDrawn = nWindowsDrawn;
    this.#begins.position = 2 * nWindowsDrawn;
  }

  #nextBegin(): number {
    const { nCtx } = this.#shape;
    if (this.#order === 'random') return Math.floor(this.#begins.uniform() * (this.#tokens.length - nCtx));
    const epoch = Math.floor(this.#nDrawn / this.#nWindows);
    if (epoch !== this.#epoch) this.#shuffle(epoch);
    return this.#permutation[this.#nDrawn % this.#nWindows]! * nCtx;
  }

  /** Fisher and Yates, with a stream of random numbers for each epoch. */
  #shuffle(epoch: number): void {
    const random = new Random(this.#seed, epoch);
    const permutation = new Uint32Array(this.#nWindows).map((_, i) => i);
    for (let i = permutation.length - 1; i > 0; i--) {
      const j = Math.floor(random.uniform() * (i + 1));
      const window = permutation[i]!;
      permutation[i] = permutation[j]!;
      permutation[j] = window;
    }
    this.#permutation = permutation;
    this.#epoch = epoch;
  }
}

/** Marks targets that do not count; give it to the loss as its `ignore`. */
export const IGNORED_TARGET = -1;

/**
 * Goes once through `tokens`, in windows side by side, and predicts every token but the first exactly once. Each turn
 * fills `into` and yields how many of its targets count; the rest of the last batch has IGNORED_TARGET as targets.
 * @param into     a batch of the given shape, written anew each turn
 * @param nTokens  how many tokens to predict at most: by default all
 * @throws {OptionError} for fewer than two tokens, at the first turn
 * @throws {ShapeError} for a batch of another size, at the first turn
 */
export function* evaluationBatches(
  tokens: TokenArray,
  shape: BatchShape,
  into: Batch,
  nTokens = Infinity,
): Generator<number, void> {
  checkShape(shape);
  checkEnough(tokens, 1);
  checkBatch(into, shape);
  const { nSeq, nCtx } = shape;
  const nTargets = Math.min(tokens.length - 1, nTokens);
  for (let begin = 0; begin < nTargets; begin += nSeq * nCtx) {
    const n = Math.min(nTargets - begin, nSeq * nCtx);
    into.inputs.fill(0, n);
    into.targets.fill(IGNORED_TARGET, n);
    into.inputs.set(tokens.subarray(begin, begin + n));
    into.targets.set(tokens.subarray(begin + 1, begin + 1 + n));
    yield n;
  }
}

function copyWindow(tokens: TokenArray, begin: number, { inputs, targets }: Batch, s: number, nCtx: number): void {
  for (let t = 0; t < nCtx; t++) {
    inputs[s * nCtx + t] = tokens[begin + t]!;
    targets[s * nCtx + t] = tokens[begin + t + 1]!;
  }
}

function checkShape(shape: BatchShape): void {
  for (const option of ['nSeq', 'nCtx'] as const) {
    const value = shape[option];
    if (Number.isSafeInteger(value) && value >= 1) continue;
    throw new OptionError(`"${option}" expected an integer of at least 1, got ${value}`, { option });
  }
}

function checkEnough(tokens: TokenArray, nCtx: number): void {
  if (tokens.length > nCtx) return;
  throw new OptionError(
    `the data has ${tokens.length} tokens, a window needs ${nCtx + 1}; give it more text or a shorter context`,
    { nTokens: tokens.length, nCtx },
  );
}

function checkBatch({ inputs, targets }: Batch, { nSeq, nCtx }: BatchShape): void {
  if (inputs.length === nSeq * nCtx && targets.length === nSeq * nCtx) return;
  throw new ShapeError(
    `a batch expected i32[${nSeq}, ${nCtx}] twice, got ${inputs.length} inputs and ${targets.length} targets`,
  );
}
