// The door of the sampler: defaults, and that everything outside its range or type is refused with an error that says
// which option, which value and which range.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveSamplerOptions, SAMPLER_DEFAULTS } from './options.ts';
import type { SamplerOptions } from './options.ts';

test('the defaults are those of llama.cpp', () => {
  const { seed, ...rest } = resolveSamplerOptions();
  assert.ok(Number.isInteger(seed));
  assert.deepEqual(rest, {
    temperature: 0.8,
    topK: 40,
    topP: 0.95,
    minP: 0.05,
    typicalP: 1,
    repeatPenalty: 1,
    repeatLastN: 64,
    frequencyPenalty: 0,
    presencePenalty: 0,
  });
});

test('what is given replaces its default, undefined does not', () => {
  const options = resolveSamplerOptions({ temperature: 0, topK: undefined, seed: 5 });
  assert.deepEqual(options, { ...SAMPLER_DEFAULTS, temperature: 0, seed: 5 });
});

test('a seed that is not given is drawn at random', () => {
  const seeds = new Set(Array.from({ length: 8 }, () => resolveSamplerOptions().seed));
  assert.ok(seeds.size > 1);
});

test('accepts both ends of every range', () => {
  const ends: Record<keyof SamplerOptions, [number, number]> = {
    temperature: [-1, 1e9],
    topK: [0, 2 ** 31 - 1],
    topP: [0, 1],
    minP: [0, 1],
    typicalP: [0, 1],
    repeatPenalty: [1e-9, 100],
    repeatLastN: [0, 2 ** 20],
    frequencyPenalty: [-100, 100],
    presencePenalty: [-100, 100],
    seed: [0, Number.MAX_SAFE_INTEGER],
  };
  for (const [name, values] of Object.entries(ends)) {
    for (const value of values) {
      assert.equal(resolveSamplerOptions({ [name]: value })[name as keyof SamplerOptions], value);
    }
  }
});

test('refuses values out of range and names option, value and range', () => {
  const cases: [keyof SamplerOptions, number, RegExp][] = [
    ['temperature', NaN, /"temperature" expected a finite number, got NaN/],
    ['temperature', Infinity, /"temperature" expected a finite number, got Infinity/],
    ['topK', -1, /"topK" expected an integer from 0 to 2147483647, got -1/],
    ['topK', 1.5, /"topK" expected an integer .* got 1.5/],
    ['topP', 1.01, /"topP" expected a number from 0 to 1, got 1.01/],
    ['minP', -0.1, /"minP" expected a number from 0 to 1, got -0.1/],
    ['typicalP', 2, /"typicalP"/],
    ['repeatPenalty', 0, /"repeatPenalty" expected a number above 0 to 100, got 0/],
    ['repeatLastN', -1, /"repeatLastN"/],
    ['frequencyPenalty', 101, /"frequencyPenalty" expected a number from -100 to 100, got 101/],
    ['presencePenalty', -101, /"presencePenalty"/],
    ['seed', 2 ** 53, /"seed"/],
  ];
  for (const [name, value, message] of cases) {
    assert.throws(() => resolveSamplerOptions({ [name]: value }), {
      name: 'OptionError',
      code: 'INVALID_OPTION',
      message,
    });
  }
});

test('refuses wrong types and shows what it got', () => {
  const cases: [unknown, RegExp][] = [
    ['0.7', /"topP" expected a number from 0 to 1, got "0\.7"/],
    [null, /got null/],
    [true, /got true/],
    [[1], /got an array/],
    [1n, /got 1n/],
    [() => 1, /got a function/],
  ];
  for (const [value, message] of cases) {
    assert.throws(() => resolveSamplerOptions({ topP: value as number }), { code: 'INVALID_OPTION', message });
  }
});
