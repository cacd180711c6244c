// The door: every option of a wrong type or out of its range is refused before any work starts, by an OptionError that
// names the option, what was expected and what was given. Numbers at the ends of their ranges are taken.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { OptionError, loadModel } from '../../src/index.ts';
import type { GenerateOptions, LoadOptions, Model, ModelSource } from '../../src/index.ts';
import { resolveGenerateOptions, resolveLoadOptions } from '../../src/options.ts';
import { smallModel } from './small-model.ts';

/** [accepted values, refused values]; what is no number, no string … is refused in addition. */
type Cases = readonly [accepted: readonly unknown[], refused: readonly unknown[]];

const integers = (min: number, max: number): Cases => [
  [min, max, undefined],
  [min - 1, max + 1, min + 0.5, NaN, Infinity, -Infinity, String(min), BigInt(max), null, [], {}, true],
];
const numbers = (accepted: number[], refused: number[]): Cases => [
  [...accepted, undefined],
  [...refused, NaN, Infinity, -Infinity, String(accepted[0]), null, [], {}, false],
];
const choices = (...accepted: string[]): Cases => [
  [...accepted, undefined],
  ['', 'nonsense', 'toString', 1, null, [], {}],
];
const BOOLEANS: Cases = [
  [true, false, undefined],
  [0, 1, 'true', null, [], {}],
];
const SIGNALS: Cases = [
  [new AbortController().signal, undefined],
  [new AbortController(), { aborted: true }, true, null],
];

const LOAD_OPTIONS: Record<keyof LoadOptions, Cases> = {
  thread: choices('worker', 'inline'),
  threads: integers(1, 64),
  nCtx: integers(1, 2 ** 20),
  parallel: integers(1, 64),
  prefillChunk: integers(1, 4096),
  kernels: choices('auto', 'relaxed', 'simd', 'strict', 'reference'),
  activations: choices('q8', 'f32'),
  kvType: choices('F16', 'F32', 'Q8_0'),
  onProgress: [
    [() => {}, undefined],
    ['log', 1, {}, null],
  ],
  signal: SIGNALS,
};

const TOKENS: Cases = [
  [[], [1, 2], undefined],
  [1, '1', {}, null, [-1], [1.5], ['1'], [undefined], [NaN]],
];

const GENERATE_OPTIONS: Record<keyof GenerateOptions, Cases> = {
  temperature: numbers([0, -1, 0.8, 1e6], []),
  topK: integers(0, 2 ** 31 - 1),
  topP: numbers([0, 1], [-0.1, 1.1]),
  minP: numbers([0, 1], [-0.1, 1.1]),
  typicalP: numbers([0, 1], [-0.1, 1.1]),
  repeatPenalty: numbers([0.1, 100], [0, -1, 101]),
  repeatLastN: integers(0, 2 ** 20),
  frequencyPenalty: numbers([-100, 100], [-101, 101]),
  presencePenalty: numbers([-100, 100], [-101, 101]),
  seed: integers(0, Number.MAX_SAFE_INTEGER),
  maxTokens: integers(0, 2 ** 31 - 1),
  maxTimeMs: integers(1, 2 ** 31 - 1),
  stop: [
    ['x', [], ['x'], Array.from({ length: 16 }, String), '\u{1f600}', undefined],
    ['', [''], ['x', ''], Array.from({ length: 17 }, String), ['x', 5], 5, {}, true, ['\ud83d']],
  ],
  stopTokens: TOKENS,
  bannedTokens: TOKENS,
  contextFull: choices('stop', 'shift'),
  contextKeep: integers(0, 2 ** 20),
  logitBias: [
    [{}, { 5: 100, 6: -100, 7: -Infinity }, Object.create(null), undefined],
    [
      [],
      null,
      'x',
      5,
      new Map(),
      { 5: 101 },
      { 5: Infinity },
      { 5: NaN },
      { 5: '1' },
      { x: 1 },
      { '-1': 1 },
      { 1.5: 1 },
    ],
  ],
  logitsProcessors: [
    [[], [() => {}], undefined],
    [() => {}, [1], {}, 'x', null, [undefined]],
  ],
  logprobs: integers(0, 20),
  addSpecial: BOOLEANS,
  parseSpecial: BOOLEANS,
  signal: SIGNALS,
};

/** That the error is an OptionError that names the option. */
function isAbout(name: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof OptionError, `${String(error)} is no OptionError`);
    assert.equal(error.code, 'INVALID_OPTION');
    assert.ok(error.message.startsWith(`"${name}`), error.message);
    assert.match(error.message, / expected .+, got /);
    return true;
  };
}

const show = (value: unknown): string =>
  typeof value === 'bigint' ? `${value}n` : (JSON.stringify(value) ?? String(value));

for (const [name, [accepted, refused]] of Object.entries(LOAD_OPTIONS)) {
  test(`loadModel takes "${name}" within its range and refuses it outside`, async () => {
    for (const value of accepted) resolveLoadOptions({ [name]: value });
    for (const value of refused) {
      const load = loadModel(smallModel(), { [name]: value } as LoadOptions);
      await assert.rejects(load, isAbout(name), `${name}: ${show(value)}`);
    }
  });
}

describe('a model', () => {
  let model: Model;
  before(async () => {
    model = await loadModel(smallModel(), { thread: 'inline', threads: 1 });
  });
  after(() => model.close());

  for (const [name, [accepted, refused]] of Object.entries(GENERATE_OPTIONS)) {
    test(`takes "${name}" within its range and refuses it outside, at the call`, () => {
      for (const value of accepted) resolveGenerateOptions({ [name]: value });
      for (const value of refused) {
        const generate = (): unknown => model.generate('1', { [name]: value } as GenerateOptions);
        assert.throws(generate, isAbout(name), `${name}: ${show(value)}`);
      }
    });
  }

  test('refuses options that are no object', async () => {
    const bad = 'fast' as unknown as object;
    assert.throws(() => model.generate('1', bad), isAbout('options'));
    assert.throws(() => model.generate('1', null as unknown as object), isAbout('options'));
    await assert.rejects(model.tokenize('1', bad), isAbout('options'));
    await assert.rejects(model.logits([1], bad), isAbout('options'));
    await assert.rejects(loadModel(smallModel(), bad), isAbout('options'));
    await assert.rejects(loadModel(smallModel(), null as unknown as object), isAbout('options'));
  });

  test('refuses a prompt, text or tokens of another type', async () => {
    for (const bad of [undefined, null, 5, {}, new Int32Array(2), Symbol('x')] as unknown[]) {
      assert.throws(() => model.generate(bad as string), isAbout('prompt'));
      await assert.rejects(model.tokenize(bad as string), isAbout('text'));
      await assert.rejects(model.detokenize(bad as number[]), isAbout('tokens'));
      await assert.rejects(model.logits(bad as number[]), isAbout('tokens'));
    }
    for (const bad of [-1, 1.5, NaN, '1', null, undefined] as number[]) {
      assert.throws(() => model.generate([1, bad]), isAbout('prompt[1]'));
      await assert.rejects(model.detokenize([bad]), isAbout('tokens[0]'));
      await assert.rejects(model.logits([1, 2, bad]), isAbout('tokens[2]'));
    }
    await assert.rejects(model.logits([1], { all: 1 as unknown as boolean }), isAbout('all'));
    await assert.rejects(model.tokenize('1', { addSpecial: 1 as unknown as boolean }), isAbout('addSpecial'));
  });
});

test('loadModel refuses a source that is none', async () => {
  for (const bad of [undefined, null, 5, {}, [], true, { read: 5, sizeBytes: 5 }] as unknown[]) {
    await assert.rejects(loadModel(bad as ModelSource), isAbout('source'));
  }
});

test('whatever the options, they are taken or refused by an OptionError', () => {
  const anything = fc.anything({ withBigInt: true, withNullPrototype: true, withDate: true, withTypedArray: true });
  const optionsOf = (names: string[]) => fc.dictionary(fc.constantFrom(...names), anything, { maxKeys: 4 });
  const survives = (resolve: (options: object) => unknown) => (options: object) => {
    try {
      resolve(options);
    } catch (error) {
      assert.ok(error instanceof OptionError, String(error));
    }
  };
  fc.assert(fc.property(optionsOf(Object.keys(LOAD_OPTIONS)), survives(resolveLoadOptions)), { seed: 1, numRuns: 500 });
  fc.assert(fc.property(optionsOf(Object.keys(GENERATE_OPTIONS)), survives(resolveGenerateOptions)), {
    seed: 2,
    numRuns: 500,
  });
});
