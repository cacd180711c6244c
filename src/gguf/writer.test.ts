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
  ] as const) {
    test(`a tensor with ${why}`, () => {
      assert.throws(() => writeGguf({ metadata: [], tensors: [{ ...pair, ...change }] }), ShapeError);
    });
  }
});
