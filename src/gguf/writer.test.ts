// Proves what the writer refuses and the layout of what it writes. That the content survives is in reader.test.ts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { OptionError, ShapeError } from '../base/errors.ts';
import type { MetadataEntry } from './value-types.ts';
import { writeGguf } from './writer.ts';
import type { TensorData } from './writer.ts';

const pair: TensorData = { name: 'a', dtype: 'F32', shape: [2], bytes: new Uint8Array(8).fill(1) };

test('a file is the header, the entries, the descriptors and the data, padded to the alignment', () => {
  const bytes = writeGguf({
    metadata: [['k', { type: 'u8', value: 9 }]],
    tensors: [pair, { ...pair, name: 'b' }],
  });
  const expected = Buffer.concat([
    Buffer.from('GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0', 'latin1'),
    Buffer.from('\x01\0\0\0\0\0\0\0k\0\0\0\0\x09', 'latin1'),
    Buffer.from('\x01\0\0\0\0\0\0\0a\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0', 'latin1'),
    Buffer.from('\x01\0\0\0\0\0\0\0b\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0', 'latin1'),
    Buffer.alloc(128 - 104),
    Buffer.alloc(8, 1),
    Buffer.alloc(24),
    Buffer.alloc(8, 1),
    Buffer.alloc(24),
  ]);
  assert.deepEqual(Buffer.from(bytes), expected);
});

describe('the writer refuses', () => {
  test('a key that is given twice', () => {
    const entry: MetadataEntry = { type: 'u8', value: 1 };
    const metadata: [string, MetadataEntry][] = [
      ['k', entry],
      ['k', entry],
    ];
    assert.throws(() => writeGguf({ metadata, tensors: [] }), OptionError);
  });

  test('a tensor name that is given twice', () => {
    assert.throws(() => writeGguf({ metadata: [], tensors: [pair, pair] }), OptionError);
  });

  for (const [type, value] of [
    ['u8', 256],
    ['u8', -1],
    ['i16', 32_768],
    ['u32', 1.5],
    ['u64', -1],
    ['u64', 0.5],
    ['i64', 2n ** 63n],
    ['i32', NaN],
  ] as const) {
    test(`${value} as ${type}, alone and in an array`, () => {
      const single: MetadataEntry = { type, value };
      assert.throws(() => writeGguf({ metadata: [['k', single]], tensors: [] }), OptionError);
      const list: MetadataEntry = { type: 'array', elementType: type, value: [Number(value)] };
      assert.throws(() => writeGguf({ metadata: [['k', list]], tensors: [] }), OptionError);
    });
  }

  for (const [what, entry] of [
    ['a value without its type', 5],
    ['nothing', undefined],
    ['an unknown type', { type: 'u128', value: 1 }],
    ['an unknown type of elements', { type: 'array', elementType: 'u128', value: [] }],
    ['a number as a string', { type: 'string', value: 5 }],
    ['a string as a number', { type: 'f32', value: '5' }],
    ['a number as a boolean', { type: 'bool', value: 1 }],
    ['a string as an array', { type: 'array', elementType: 'string', value: 'ab' }],
    ['a number as an array', { type: 'array', elementType: 'u8', value: 5 }],
    ['a string among numbers', { type: 'array', elementType: 'f64', value: [1, '2'] }],
    ['a number among arrays', { type: 'array', elementType: 'array', value: [5] }],
  ] as const) {
    test(`${what}, which only a compiler would otherwise`, () => {
      const metadata = [['k', entry as unknown as MetadataEntry]] as const;
      assert.throws(() => writeGguf({ metadata, tensors: [] }), { code: 'INVALID_OPTION', message: /metadata "k"/ });
    });
  }

  test('a dtype that there is not', () => {
    const tensor = { ...pair, dtype: 'toString' as 'F32' };
    assert.throws(() => writeGguf({ metadata: [], tensors: [tensor] }), {
      code: 'INVALID_OPTION',
      message: /toString/,
    });
  });

  test('names that the reader would refuse for their length', () => {
    const entry: MetadataEntry = { type: 'u8', value: 1 };
    const write = (key: string, name: string) => () =>
      writeGguf({ metadata: [[key, entry]], tensors: [{ ...pair, name }] });
    write('k'.repeat(65_535), 'é'.repeat(64))();
    assert.throws(write('k'.repeat(65_536), 'a'), { code: 'INVALID_OPTION', message: /65535 bytes/ });
    assert.throws(write('k', `${'é'.repeat(64)}a`), { code: 'INVALID_OPTION', message: /128 bytes/ });
  });

  test('an alignment that is no power of two', () => {
    for (const alignment of [0, 24, -32, 2.5]) {
      assert.throws(() => writeGguf({ metadata: [], tensors: [], alignment }), OptionError);
    }
  });

  for (const [why, change] of [
    ['too few bytes', { bytes: new Uint8Array(7) }],
    ['too many bytes', { bytes: new Uint8Array(9) }],
    ['parts of a block', { dtype: 'Q8_0', shape: [2, 16], bytes: new Uint8Array(34) }],
    ['five dimensions', { shape: [1, 1, 1, 1, 2] }],
    ['no elements', { shape: [0], bytes: new Uint8Array(0) }],
    ['no shape', { shape: 2 as unknown as number[] }],
    ['half a row', { shape: [0.5, 4] }],
    ['dimensions below zero', { shape: [-1, -2] }],
    ['more elements than can be counted', { shape: [2 ** 30, 2 ** 30] }],
    ['no bytes', { bytes: undefined as unknown as Uint8Array }],
  ] as const) {
    test(`a tensor with ${why}`, () => {
      assert.throws(() => writeGguf({ metadata: [], tensors: [{ ...pair, ...change }] }), ShapeError);
    });
  }
});
