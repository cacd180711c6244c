// The whole sampler: its chain, reproducible draws and their frequencies, broken logits, custom steps,
// log-probabilities. The single steps are judged in steps.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../base/random.ts';
import type { SamplerStep } from './candidates.ts';
import { resolveSamplerOptions } from './options.ts';
import type { SamplerOptions } from './options.ts';
import { buildChain, Sampler } from './sampler.ts';

const N_VOCAB = 500;
const random = new Random(77);
const LOGITS = Float32Array.from({ length: N_VOCAB }, () => 3 * random.normal());
const ARG_MAX = LOGITS.indexOf(Math.max(...LOGITS));

/** No truncation, no penalty, temperature 1: the model's own distribution. */
const PLAIN = { temperature: 1, topK: 0, topP: 1, minP: 0 };

function makeSampler(options: Partial<SamplerOptions>, nVocab = N_VOCAB): Sampler {
  return new Sampler(resolveSamplerOptions({ seed: 1, ...options }), nVocab);
}

function sampleText(sampler: Sampler, length: number, logits: Float32Array = LOGITS): number[] {
  return Array.from({ length }, () => {
    const token = sampler.sample(logits);
    sampler.accept(token);
    return token;
  });
}

const names = (options: Partial<SamplerOptions>): string[] =>
  buildChain(resolveSamplerOptions(options), N_VOCAB).map((step) => step.name);

test('the chain has the steps that are on, in the order of llama.cpp', () => {
  assert.deepEqual(names({}), ['top-k', 'top-p', 'min-p', 'temperature']);
  const all = { repeatPenalty: 1.1, typicalP: 0.9 };
  assert.deepEqual(names(all), ['penalties', 'top-k', 'typical-p', 'top-p', 'min-p', 'temperature']);
  assert.deepEqual(names(PLAIN), []);
  assert.deepEqual(names({ topK: N_VOCAB, presencePenalty: 1, repeatLastN: 0 }), ['top-p', 'min-p', 'temperature']);
});

test('a greedy chain skips truncations that cannot drop the best token, but not typical-p', () => {
  assert.deepEqual(names({ temperature: 0, frequencyPenalty: 1 }), ['penalties', 'greedy']);
  assert.deepEqual(names({ temperature: 0, typicalP: 0.5, topP: 1 }), ['top-k', 'typical-p', 'min-p', 'greedy']);
});

test('the same seed gives the same tokens, another seed others', () => {
  const text = (seed: number): string => sampleText(makeSampler({ seed }), 50).join(' ');
  assert.equal(text(42), text(42));
  assert.equal(new Set([1, 2, 3, 4, 5, 6, 7, 8].map(text)).size, 8);
});

test('the tokens of a seed never change', () => {
  const expected = '118 47 268 118 165 433 390 193 310 118 134 193';
  const sampler = makeSampler({ seed: 2024, temperature: 1.5, typicalP: 0.98, repeatPenalty: 1.2 });
  assert.equal(sampleText(sampler, 12).join(' '), expected);
});

test('reset restarts the same tokens and forgets the history, or takes another seed', () => {
  const sampler = makeSampler({ seed: 3, repeatPenalty: 1.5, presencePenalty: 1 });
  const first = sampleText(sampler, 30);
  sampler.reset();
  assert.deepEqual(sampleText(sampler, 30), first);
  sampler.reset(4);
  assert.equal(sampler.seed, 4);
  assert.deepEqual(
    sampleText(sampler, 30),
    sampleText(makeSampler({ seed: 4, repeatPenalty: 1.5, presencePenalty: 1 }), 30),
  );
});

test('every option value draws only from the tokens it keeps', () => {
  const ranked = [...LOGITS.keys()].sort((a, b) => LOGITS[b]! - LOGITS[a]!);
  const drawn = new Set(sampleText(makeSampler({ ...PLAIN, topK: 5, temperature: 3 }), 300));
  assert.deepEqual(
    [...drawn].sort((a, b) => a - b),
    ranked.slice(0, 5).sort((a, b) => a - b),
  );
});

test('draws as often as the probabilities say', () => {
  const probs = [0.4, 0, 0.3, 0.2, 0.1];
  const logits = Float32Array.from(probs, (p) => Math.log(p));
  const draws = 20_000;
  const counts = [0, 0, 0, 0, 0];
  for (const token of sampleText(makeSampler(PLAIN, 5), draws, logits)) counts[token]!++;
  assert.equal(counts[1], 0);
  const chiSquare = probs.reduce((sum, p, i) => (p ? sum + (counts[i]! - p * draws) ** 2 / (p * draws) : sum), 0);
  // Three degrees of freedom: the 99.9 % quantile.
  assert.ok(chiSquare < 16.3, `chi-square ${chiSquare}, counts ${counts.join(' ')}`);
});

test('temperature 0 takes the best token, and the lowest id of equal ones', () => {
  assert.deepEqual(sampleText(makeSampler({ temperature: 0 }), 3), [ARG_MAX, ARG_MAX, ARG_MAX]);
  const tied = Float32Array.of(1, 5, 5, 2, 5);
  assert.equal(makeSampler({ temperature: 0 }, 5).sample(tied), 1);
});

test('penalties see the prompt, and greedy text stops repeating itself', () => {
  const sampler = makeSampler({ temperature: 0, presencePenalty: 100 });
  sampler.accept(ARG_MAX);
  const text = sampleText(sampler, 20);
  assert.ok(!text.includes(ARG_MAX));
  assert.equal(new Set(text).size, 20);
});

test('reads logits in shared memory and never writes to them', () => {
  const shared = new Float32Array(new SharedArrayBuffer(4 * (N_VOCAB + 2)), 4, N_VOCAB);
  shared.set(LOGITS);
  const options = { repeatPenalty: 1.3, typicalP: 0.9, topK: 0 };
  assert.deepEqual(sampleText(makeSampler(options), 20, shared), sampleText(makeSampler(options), 20));
  assert.deepEqual([...shared], [...LOGITS]);
});

test('a token whose logit is -Infinity is never drawn', () => {
  const logits = new Float32Array(8).fill(-Infinity);
  logits[5] = -3;
  for (const options of [{}, PLAIN, { temperature: 0 }, { typicalP: 0.5 }]) {
    assert.deepEqual(sampleText(makeSampler(options, 8), 5, logits), [5, 5, 5, 5, 5]);
  }
});

test('refuses NaN and +Infinity and names the token', () => {
  for (const bad of [NaN, Infinity]) {
    const logits = LOGITS.slice();
    logits[123] = bad;
    for (const options of [{}, PLAIN, { temperature: 0 }]) {
      const error = { code: 'NUMERIC', message: new RegExp(`token 123 is ${bad}`) };
      assert.throws(() => makeSampler(options).sample(logits), error);
    }
  }
});

test('refuses logits that are all -Infinity', () => {
  const logits = new Float32Array(N_VOCAB).fill(-Infinity);
  for (const options of [{}, PLAIN, { temperature: 0 }, { typicalP: 0.5 }]) {
    assert.throws(() => makeSampler(options).sample(logits), { code: 'NUMERIC', message: /-Infinity/ });
  }
});

test('names the token that a custom step made NaN', () => {
  const broken: SamplerStep = { name: 'broken', apply: ({ logits }) => void (logits[7] = NaN) };
  const sampler = new Sampler(resolveSamplerOptions(), N_VOCAB, [broken]);
  assert.throws(() => sampler.sample(LOGITS), { code: 'NUMERIC', message: /token 7 is NaN/ });
});

test('a custom step can be put anywhere in the chain', () => {
  const options = resolveSamplerOptions({ seed: 1 });
  const ban: SamplerStep = {
    name: 'ban',
    apply({ ids, logits, size }) {
      for (let i = 0; i < size; i++) if (ids[i] !== 3) logits[i] = -Infinity;
    },
  };
  const sampler = new Sampler(options, N_VOCAB, [ban, ...buildChain(options, N_VOCAB)]);
  assert.deepEqual(sampleText(sampler, 3), [3, 3, 3]);
});

test('refuses logits of another length and tokens outside the vocabulary', () => {
  const sampler = makeSampler({ repeatPenalty: 2 });
  assert.throws(() => sampler.sample(LOGITS.subarray(1)), { code: 'SHAPE_MISMATCH', message: /500 values.*got 499/ });
  for (const token of [-1, N_VOCAB, 0.5, NaN]) {
    assert.throws(() => sampler.accept(token), { code: 'INVALID_OPTION', message: /"token"/ });
  }
});

test('log-probabilities are those of the raw logits, whatever the options', () => {
  const sampler = makeSampler({ presencePenalty: 5, topK: 10, temperature: 2 });
  for (let id = 0; id < 40; id++) sampler.accept(id);
  const token = sampler.sample(LOGITS);
  const { chosen, top } = sampler.logprobs(LOGITS, 6);

  const logSum = Math.log(LOGITS.reduce((sum, logit) => sum + Math.exp(logit), 0));
  const ranked = [...LOGITS.keys()].sort((a, b) => LOGITS[b]! - LOGITS[a]!);
  assert.equal(chosen.token, token);
  assert.ok(Math.abs(chosen.logprob - (LOGITS[token]! - logSum)) < 1e-12);
  assert.deepEqual(
    top.map((t) => t.token),
    ranked.slice(0, 6),
  );
  for (const t of top) assert.ok(Math.abs(t.logprob - (LOGITS[t.token]! - logSum)) < 1e-12);
});

test('log-probabilities of all tokens sum to 1, do not disturb the draws, and need a sampled token', () => {
  const sampler = makeSampler({ seed: 8 });
  assert.throws(() => sampler.logprobs(LOGITS, 1), { code: 'INTERNAL' });
  const text = Array.from({ length: 10 }, () => {
    const token = sampler.sample(LOGITS);
    const { top } = sampler.logprobs(LOGITS, N_VOCAB + 5);
    assert.equal(top.length, N_VOCAB);
    assert.ok(Math.abs(top.reduce((sum, t) => sum + Math.exp(t.logprob), 0) - 1) < 1e-12);
    assert.deepEqual(sampler.logprobs(LOGITS, 0).top, []);
    return token;
  });
  assert.deepEqual(text, sampleText(makeSampler({ seed: 8 }), 10));
});
