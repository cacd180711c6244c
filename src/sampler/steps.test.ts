// Every step of the chain against the obvious implementation: sort all, add up, cut. Cases are small and full of ties;
// the expectations of the tiny examples are those of llama.cpp's test-sampling.cpp.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Random } from '../base/random.ts';
import { Candidates } from './candidates.ts';
import type { SamplerStep } from './candidates.ts';
import { minP } from './min-p.ts';
import { penalties } from './penalties.ts';
import { temperature } from './temperature.ts';
import { topK } from './top-k.ts';
import { topP } from './top-p.ts';
import { typicalP } from './typical-p.ts';

interface Entry {
  readonly id: number;
  readonly logit: number;
}

function load(logits: readonly number[]): Candidates {
  const candidates = new Candidates(logits.length);
  candidates.load(Float32Array.from(logits));
  return candidates;
}

const entries = (candidates: Candidates): Entry[] =>
  Array.from({ length: candidates.size }, (_, i) => ({ id: candidates.ids[i]!, logit: candidates.logits[i]! }));

const byLogit = (a: Entry, b: Entry): number => b.logit - a.logit || a.id - b.id;
const byId = (a: Entry, b: Entry): number => a.id - b.id;

function softmax(list: readonly Entry[]): number[] {
  const max = Math.max(...list.map((e) => e.logit));
  const weights = list.map((e) => Math.exp(e.logit - max));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** Probabilities by descending value that `step` leaves of a distribution. */
function survivors(probs: readonly number[], step: SamplerStep): number[] {
  const candidates = load(probs.map((p) => Math.log(p)));
  step.apply(candidates);
  return softmax(entries(candidates)).sort((a, b) => b - a);
}

function assertNear(actual: readonly number[], expected: readonly number[]): void {
  const isNear = actual.length === expected.length && actual.every((p, i) => Math.abs(p - expected[i]!) < 1e-5);
  assert.ok(isNear, `expected ${expected.join(' ')}, got ${actual.join(' ')}`);
}

// Few distinct values, so that ties are common; some impossible tokens, but never only those.
const tiedLogit = fc.oneof({ weight: 9, arbitrary: fc.integer({ min: -8, max: 8 }) }, fc.constant(-Infinity));
const smoothLogit = fc.float({ min: -20, max: 20, noNaN: true });
const logitLists = fc
  .oneof(
    fc.array(tiedLogit, { minLength: 1, maxLength: 70 }),
    fc.array(smoothLogit, { minLength: 1, maxLength: 300, size: 'max' }),
  )
  .filter((list) => list.some((logit) => logit > -Infinity));
const fraction = fc.double({ min: 0, max: 1, noNaN: true });

const TENTHS = [0.1, 0.2, 0.3, 0.4];

test('top-k keeps the tiny examples of llama.cpp', () => {
  assertNear(survivors(TENTHS, topK(1)), [1]);
  assertNear(survivors(TENTHS, topK(3)), [0.44444, 0.33333, 0.22222]);
  assertNear(survivors(TENTHS, topK(4)), [0.4, 0.3, 0.2, 0.1]);
});

test('top-k keeps the first k of a full sort, in its order', () => {
  const property = fc.property(logitLists, fc.integer({ min: 1, max: 80 }), (logits, k) => {
    const candidates = load(logits);
    const all = entries(candidates);
    topK(k).apply(candidates);
    if (k >= all.length) assert.deepEqual(entries(candidates), all);
    else assert.deepEqual(entries(candidates), all.sort(byLogit).slice(0, k));
  });
  fc.assert(property, { seed: 1, numRuns: 500 });
});

test('top-k after a step that changed the order still breaks ties by token id', () => {
  const candidates = load([1, 1, 1, 1, 1, 1]);
  candidates.swap(0, 5);
  candidates.swap(1, 4);
  topK(2).apply(candidates);
  assert.deepEqual(
    entries(candidates).map((e) => e.id),
    [0, 1],
  );
});

test('top-p keeps the tiny examples of llama.cpp', () => {
  assertNear(survivors(TENTHS, topP(0)), [1]);
  // llama.cpp's 0.7 is the exact sum of two, which is a matter of rounding; 0.69 is not.
  assertNear(survivors(TENTHS, topP(0.69)), [0.571429, 0.428571]);
  assertNear(survivors(TENTHS, topP(0.8)), [0.44444, 0.33333, 0.22222]);
  assertNear(survivors(TENTHS, topP(1)), [0.4, 0.3, 0.2, 0.1]);
});

/** The shortest prefix of `sorted` whose probabilities reach `mass`, or undefined where rounding may decide. */
function prefixLength(probs: readonly number[], mass: number, isStrict: boolean): number | undefined {
  let sum = 0;
  for (let i = 0; i < probs.length; i++) {
    sum += probs[i]!;
    if (Math.abs(sum - mass) < 1e-12) return undefined;
    if (isStrict ? sum > mass : sum >= mass) return i + 1;
  }
  return probs.length;
}

test('top-p keeps the shortest run of a full sort that reaches p', () => {
  let compared = 0;
  const property = fc.property(logitLists, fraction, (logits, p) => {
    const candidates = load(logits);
    const sorted = entries(candidates).sort(byLogit);
    topP(p).apply(candidates);
    const length = prefixLength(softmax(sorted), p, false);
    if (length === undefined) return;
    compared++;
    assert.deepEqual(entries(candidates).sort(byId), sorted.slice(0, length).sort(byId));
  });
  fc.assert(property, { seed: 2, numRuns: 500 });
  assert.ok(compared > 400, `only ${compared} cases away from a rounding boundary`);
});

test('top-p leaves a sorted list sorted', () => {
  const property = fc.property(logitLists, fraction, (logits, p) => {
    const candidates = load([...logits, -30]);
    topK(logits.length).apply(candidates);
    const before = entries(candidates);
    topP(p).apply(candidates);
    assert.deepEqual(entries(candidates), before.slice(0, candidates.size));
  });
  fc.assert(property, { seed: 3, numRuns: 300 });
});

test('typical-p keeps the tiny examples of llama.cpp', () => {
  assertNear(survivors([0.97, 0.01, 0.01, 0.01], typicalP(0.5)), [1]);
  assertNear(survivors([0.4, 0.2, 0.2, 0.2], typicalP(0.5)), [1 / 3, 1 / 3, 1 / 3]);
});

test('typical-p keeps the shortest run by distance from the entropy that exceeds p', () => {
  let compared = 0;
  const property = fc.property(logitLists, fraction, (logits, p) => {
    const candidates = load(logits);
    const all = entries(candidates);
    const probs = softmax(all);
    const entropy = probs.reduce((sum, q) => (q > 0 ? sum - q * Math.log(q) : sum), 0);
    const distances = probs.map((q) => Math.abs(-Math.log(q) - entropy));
    const order = all.map((e) => e.id).sort((a, b) => distances[a]! - distances[b]! || a - b);
    typicalP(p).apply(candidates);
    const length = prefixLength(
      order.map((id) => probs[id]!),
      p,
      true,
    );
    // Equal and nearly equal distances at the cut are decided by rounding, too.
    if (length === undefined) return;
    const cut = order[length];
    if (cut !== undefined && distances[cut]! - distances[order[length - 1]!]! < 1e-9) return;
    compared++;
    assert.deepEqual(
      entries(candidates)
        .map((e) => e.id)
        .sort((a, b) => a - b),
      order.slice(0, length).sort((a, b) => a - b),
    );
  });
  fc.assert(property, { seed: 4, numRuns: 500 });
  assert.ok(compared > 250, `only ${compared} cases away from a rounding boundary`);
});

test('typical-p prefers the lower token id among equally typical ones', () => {
  const candidates = load([0, 0, 0, 0]);
  typicalP(0.4).apply(candidates);
  assert.deepEqual(
    entries(candidates).map((e) => e.id),
    [0, 1],
  );
});

test('top-p stops where its sum is reached, typical-p where it is exceeded', () => {
  // Four probabilities of exactly a quarter.
  const kept = (step: SamplerStep): number => {
    const candidates = load([0, 0, 0, 0]);
    step.apply(candidates);
    return candidates.size;
  };
  assert.equal(kept(topP(0.5)), 2);
  assert.equal(kept(typicalP(0.5)), 3);
});

test('min-p keeps the tiny examples of llama.cpp', () => {
  assertNear(survivors(TENTHS, minP(0.24)), [0.4, 0.3, 0.2, 0.1]);
  assertNear(survivors(TENTHS, minP(0.26)), [0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9]);
  assertNear(survivors(TENTHS, minP(0.49)), [0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9]);
  assertNear(survivors(TENTHS, minP(0.51)), [0.4 / 0.7, 0.3 / 0.7]);
  assertNear(survivors(TENTHS, minP(0.74)), [0.4 / 0.7, 0.3 / 0.7]);
  assertNear(survivors(TENTHS, minP(0.76)), [1]);
  assertNear(survivors(TENTHS, minP(1)), [1]);
});

test('min-p keeps what is at least p times as likely as the best, in the order it came', () => {
  const property = fc.property(logitLists, fc.double({ min: 1e-6, max: 1, noNaN: true }), (logits, p) => {
    const candidates = load(logits);
    const all = entries(candidates);
    const threshold = Math.max(...all.map((e) => e.logit)) + Math.log(p);
    if (all.some((e) => Math.abs(e.logit - threshold) < 1e-12 && e.logit !== threshold)) return;
    minP(p).apply(candidates);
    assert.deepEqual(
      entries(candidates),
      all.filter((e) => e.logit >= threshold),
    );
  });
  fc.assert(property, { seed: 5, numRuns: 500 });
});

test('temperature divides the distances between logits', () => {
  assertNear(survivors(TENTHS, temperature(1)), [0.4, 0.3, 0.2, 0.1]);
  assertNear(survivors(TENTHS, temperature(0.5)), [0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3]);
  // So small that dividing the logits themselves would give infinities.
  assertNear(survivors(TENTHS, temperature(1e-308)), [1, 0, 0, 0]);
});

test('temperature 0 and below keeps the most likely token, of equal ones the lowest id', () => {
  for (const value of [0, -1]) {
    assertNear(survivors(TENTHS, temperature(value)), [1]);
    const candidates = load([1, 3, 2, 3, 3]);
    candidates.swap(1, 4);
    temperature(value).apply(candidates);
    assert.deepEqual(entries(candidates), [{ id: 1, logit: 3 }]);
  }
});

/** Probabilities by token id after `accepted`, from five equally likely tokens. */
function penalised(accepted: readonly number[], repeat: number, frequency: number, presence: number): number[] {
  const candidates = load(Array(5).fill(Math.log(0.2)));
  const step = penalties(
    { repeatPenalty: repeat, repeatLastN: accepted.length, frequencyPenalty: frequency, presencePenalty: presence },
    5,
  );
  for (const token of accepted) step.accept!(token);
  step.apply(candidates);
  return softmax(entries(candidates));
}

test('penalties give the tiny examples of llama.cpp', () => {
  assertNear(penalised([0], 50, 0, 0), [0, 0.25, 0.25, 0.25, 0.25]);
  assertNear(penalised([0, 1, 2], 50, 0, 0), [0, 0, 0, 0.5, 0.5]);
  assertNear(penalised([0, 1, 2, 0, 0], 50, 0, 0), [0, 0, 0, 0.5, 0.5]);
  assertNear(penalised([0], 1, 5, 5), [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]);
  assertNear(penalised([0, 1, 2], 1, 5, 5), [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]);
  assertNear(penalised([0, 1, 2, 0, 0], 1, 5, 5), [0, 0.000023, 0.000023, 0.499977, 0.499977]);
});

test('penalties look at the last tokens only, and forget them on reset', () => {
  const nVocab = 6;
  const token = fc.nat(nVocab - 1);
  const property = fc.property(fc.array(token, { maxLength: 30 }), fc.integer({ min: 1, max: 9 }), (history, lastN) => {
    const step = penalties(
      { repeatPenalty: 2, repeatLastN: lastN, frequencyPenalty: 0.5, presencePenalty: 0.25 },
      nVocab,
    );
    for (const id of history) step.accept!(id);
    const logits = [2, -2, 0, 4, -4, 1];
    const candidates = load(logits);
    step.apply(candidates);
    const expected = logits.map((logit, id) => {
      const count = history.slice(-lastN).filter((t) => t === id).length;
      if (count === 0) return logit;
      return (logit > 0 ? logit / 2 : logit * 2) - 0.5 * count - 0.25;
    });
    assert.deepEqual([...candidates.logits], expected);

    step.reset!();
    candidates.load(Float32Array.from(logits));
    step.apply(candidates);
    assert.deepEqual([...candidates.logits], logits);
  });
  fc.assert(property, { seed: 6, numRuns: 300 });
});

test('a chain of truncations gives on a large vocabulary what sorting it gives', () => {
  const nVocab = 20_000;
  const random = new Random(9);
  for (const scale of [0.1, 1, 4]) {
    const logits = Array.from({ length: nVocab }, () => Math.fround(scale * random.normal()));
    const candidates = load(logits);
    const sorted = entries(candidates).sort(byLogit);
    topP(0.9).apply(candidates);
    const nucleus = sorted.slice(0, prefixLength(softmax(sorted), 0.9, false));
    minP(0.02).apply(candidates);
    const expected = nucleus.filter((e) => e.logit >= nucleus[0]!.logit + Math.log(0.02));
    assert.deepEqual(entries(candidates).sort(byId), expected.sort(byId));
  }
});
