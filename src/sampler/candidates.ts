// The tokens that may still be chosen, and what a step of the sampler chain is: a function over them. One workspace is
// allocated for the vocabulary and refilled for every token; steps reorder it and cut `size`, and never allocate.
// Doubles stay in the arrays, because a double returned from a function that is not inlined is boxed on the heap.

import { SmallMindError } from '../base/errors.ts';
import { expInPlace } from '../base/math.ts';

/** One step of the chain. `apply` must leave at least one candidate and allocate nothing. */
export interface SamplerStep {
  readonly name: string;
  apply(candidates: Candidates): void;
  /** Told of every token of the sequence, prompt included, by steps that keep a history. */
  accept?(token: number): void;
  /** Forgets the history. */
  reset?(): void;
}

/** Parallel arrays of length nVocab, of which the first `size` entries count, in any order. */
export class Candidates {
  readonly ids: Int32Array;
  readonly logits: Float64Array;
  /** Written by `computeProbs`; stale as soon as a step changes logits or size. */
  readonly probs: Float64Array;
  /** Scratch of the step that runs: what it orders by, greatest first. */
  readonly keys: Float64Array;
  size = 0;
  readonly #allIds: Int32Array;

  constructor(nVocab: number) {
    this.#allIds = Int32Array.from({ length: nVocab }, (_, id) => id);
    this.ids = new Int32Array(nVocab);
    this.logits = new Float64Array(nVocab);
    this.probs = new Float64Array(nVocab);
    this.keys = new Float64Array(nVocab);
  }

  /**
   * Makes every token a candidate, in the order of ids.
   * @param logits  f32[nVocab], read only; may view shared memory
   * @throws {SmallMindError} NUMERIC for NaN and +Infinity; -Infinity is a token that cannot be chosen
   */
  load(logits: Float32Array): void {
    const own = this.logits;
    own.set(logits);
    for (let i = 0; i < own.length; i++) {
      if (!(own[i]! < Infinity)) throw brokenLogitError(i, own[i]!);
    }
    this.ids.set(this.#allIds);
    this.size = own.length;
  }

  /**
   * Position of the greatest logit; of equal ones, that of the lowest token id.
   * @throws {SmallMindError} NUMERIC when every candidate's logit is -Infinity
   */
  indexOfBest(): number {
    const { ids, logits, size } = this;
    let best = 0;
    let max = logits[0]!;
    for (let i = 1; i < size; i++) {
      const logit = logits[i]!;
      if (logit > max || (logit === max && ids[i]! < ids[best]!)) {
        best = i;
        max = logit;
      }
    }
    if (!(max > -Infinity)) throw noChoiceError(this);
    return best;
  }

  /**
   * Softmax of the logits into `probs`.
   * @throws {SmallMindError} NUMERIC when every logit is -Infinity, or a step made one NaN or +Infinity
   */
  computeProbs(): void {
    const { logits, probs, size } = this;
    const max = logits[this.indexOfBest()]!;
    for (let i = 0; i < size; i++) probs[i] = logits[i]! - max;
    expInPlace(probs, size);
    let sum = 0;
    for (let i = 0; i < size; i++) sum += probs[i]!;
    if (!(sum > 0)) throw noChoiceError(this);
    const scale = 1 / sum;
    for (let i = 0; i < size; i++) probs[i] = probs[i]! * scale;
  }

  /** Overwrites candidate `to` by `from`, probability included. */
  move(from: number, to: number): void {
    this.ids[to] = this.ids[from]!;
    this.logits[to] = this.logits[from]!;
    this.probs[to] = this.probs[from]!;
  }

  /** Exchanges two candidates, probability and key included. */
  swap(a: number, b: number): void {
    const id = this.ids[a]!;
    const logit = this.logits[a]!;
    const prob = this.probs[a]!;
    const key = this.keys[a]!;
    this.move(b, a);
    this.keys[a] = this.keys[b]!;
    this.ids[b] = id;
    this.logits[b] = logit;
    this.probs[b] = prob;
    this.keys[b] = key;
  }
}

function brokenLogitError(token: number, logit: number): SmallMindError {
  return new SmallMindError(
    'NUMERIC',
    `the logit of token ${token} is ${logit}, no token can be chosen; the file's weights are broken (get it again) ` +
      "or too large for this arithmetic (load with activations: 'f32' and kvType: 'F32')",
    { token, logit: String(logit) },
  );
}

/** Why a softmax has no sum: every logit -Infinity, or one that is not a number below +Infinity. */
function noChoiceError(candidates: Candidates): SmallMindError {
  for (let i = 0; i < candidates.size; i++) {
    const logit = candidates.logits[i]!;
    if (!(logit < Infinity)) return brokenLogitError(candidates.ids[i]!, logit);
  }
  const { size } = candidates;
  return new SmallMindError(
    'NUMERIC',
    `every logit left is -Infinity (candidates: ${size}), no token can be chosen; ` +
      "a mask or a logit bias forbids too much, or the file's weights are too large for this arithmetic",
    { candidates: size },
  );
}
