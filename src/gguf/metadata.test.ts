// Proves the getters: right type, fallback, missing, wrong type.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GgufError } from '../base/errors.ts';
import { Metadata } from './metadata.ts';

const metadata = new Metadata(
  [
    ['number', { type: 'u32', value: 7 }],
    ['huge', { type: 'u64', value: 2n ** 60n }],
    ['zero', { type: 'u8', value: 0 }],
    ['boolean', { type: 'bool', value: false }],
    ['string', { type: 'string', value: '' }],
    ['strings', { type: 'array', elementType: 'string', value: ['a'] }],
    ['numbers', { type: 'array', elementType: 'f32', value: Float32Array.of(1.5) }],
    ['huge numbers', { type: 'array', elementType: 'u64', value: BigUint64Array.of(2n ** 60n) }],
    ['no numbers', { type: 'array', elementType: 'u64', value: [] }],
    ['booleans', { type: 'array', elementType: 'bool', value: [true] }],
    ['long', { type: 'string', value: `\x1b[31m${'x'.repeat(10_000)}` }],
  ],
  'tiny.gguf',
);

function failsWith(code: string, pattern: RegExp) {
  return (error: unknown): boolean => {
    assert(error instanceof GgufError);
    assert.equal(error.code, code);
    assert.match(error.message, pattern);
    assert.equal(error.details['source'], 'tiny.gguf');
    return true;
  };
}

describe('getters', () => {
  test('return the value of their type, also when it is 0, false or empty and there is a fallback', () => {
    assert.equal(metadata.getNumber('number'), 7);
    assert.equal(metadata.getNumber('zero', 5), 0);
    assert.equal(metadata.getBoolean('boolean', true), false);
    assert.equal(metadata.getString('string', 'x'), '');
    assert.deepEqual(metadata.getStrings('strings', []), ['a']);
    assert.deepEqual(metadata.getNumbers('numbers', []), Float32Array.of(1.5));
    assert.deepEqual(metadata.getNumbers('no numbers'), []);
  });

  test('return the fallback when the key is missing, also when it is 0, false or empty', () => {
    assert.equal(metadata.getNumber('none', 0), 0);
    assert.equal(metadata.getBoolean('none', false), false);
    assert.equal(metadata.getString('none', ''), '');
    assert.deepEqual(metadata.getStrings('none', []), []);
    assert.deepEqual(metadata.getNumbers('none', [1]), [1]);
  });

  const getters = ['getString', 'getNumber', 'getBoolean', 'getStrings', 'getNumbers'] as const;
  for (const getter of getters) {
    test(`${getter} names a missing key`, () => {
      assert.throws(() => metadata[getter]('llama.none'), failsWith('GGUF_MISSING', /tiny\.gguf.*"llama\.none"/));
    });
  }

  for (const [getter, keys, expected] of [
    ['getString', ['number', 'boolean', 'strings'], /expected a string/],
    ['getNumber', ['string', 'boolean', 'numbers', 'huge'], /expected a number/],
    ['getBoolean', ['number', 'zero', 'string', 'booleans'], /expected a boolean/],
    ['getStrings', ['string', 'numbers', 'booleans'], /expected an array of strings/],
    ['getNumbers', ['number', 'strings', 'booleans', 'huge numbers'], /expected an array of numbers/],
  ] as const) {
    for (const key of keys) {
      test(`${getter} refuses "${key}", fallback or not`, () => {
        const fallback = { getString: '', getNumber: 0, getBoolean: true, getStrings: [], getNumbers: [] }[getter];
        assert.throws(() => metadata[getter](key), failsWith('GGUF_INVALID', expected));
        assert.throws(() => metadata[getter](key, fallback as never), failsWith('GGUF_INVALID', expected));
      });
    }
  }

  test('say what they got, cut short and without control characters', () => {
    assert.throws(() => metadata.getString('huge'), failsWith('GGUF_INVALID', /got u64 1152921504606846976/));
    assert.throws(() => metadata.getNumber('numbers'), failsWith('GGUF_INVALID', /got an array of 1 f32/));
    assert.throws(
      () => metadata.getNumber('long'),
      (error) => error instanceof GgufError && error.message.length < 300 && !error.message.includes('\x1b'),
    );
  });
});

test('entries are there with their types, big numbers as bigint', () => {
  assert.equal(metadata.has('number'), true);
  assert.equal(metadata.has('none'), false);
  assert.deepEqual(metadata.get('huge'), { type: 'u64', value: 2n ** 60n });
  assert.equal(metadata.get('none'), undefined);
  assert.equal([...metadata.entries()].length, metadata.size);
});
