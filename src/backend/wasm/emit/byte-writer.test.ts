// The number formats of the WebAssembly binary format, against bytes worked out by hand from the specification
// (section 5.2, values).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from './byte-writer.ts';

function written(write: (writer: ByteWriter) => void): number[] {
  const writer = new ByteWriter();
  write(writer);
  return writer.bytes;
}

test('unsigned LEB128 grows a byte at each power of 128 and holds any safe integer', () => {
  const cases: [value: number, bytes: number[]][] = [
    [0, [0]],
    [127, [0x7f]],
    [128, [0x80, 0x01]],
    [16383, [0xff, 0x7f]],
    [16384, [0x80, 0x80, 0x01]],
    [624485, [0xe5, 0x8e, 0x26]],
    [2 ** 32 - 1, [0xff, 0xff, 0xff, 0xff, 0x0f]],
    [2 ** 32, [0x80, 0x80, 0x80, 0x80, 0x10]],
    [Number.MAX_SAFE_INTEGER, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]],
  ];
  for (const [value, bytes] of cases)
    assert.deepEqual(
      written((w) => w.unsigned(value)),
      bytes,
      `${value}`,
    );
});

test('signed LEB128 keeps the sign bit of the last byte', () => {
  const cases: [value: bigint, bytes: number[]][] = [
    [0n, [0]],
    [63n, [0x3f]],
    [64n, [0xc0, 0x00]],
    [-1n, [0x7f]],
    [-64n, [0x40]],
    [-65n, [0xbf, 0x7f]],
    [-123456n, [0xc0, 0xbb, 0x78]],
    [2n ** 31n - 1n, [0xff, 0xff, 0xff, 0xff, 0x07]],
    [-(2n ** 31n), [0x80, 0x80, 0x80, 0x80, 0x78]],
    [2n ** 63n - 1n, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]],
    [-(2n ** 63n), [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]],
  ];
  for (const [value, bytes] of cases)
    assert.deepEqual(
      written((w) => w.signed(value)),
      bytes,
      `${value}`,
    );
});

test('refuses numbers that LEB128 of the wanted kind cannot hold', () => {
  for (const value of [-1, 0.5, NaN, 2 ** 53]) assert.throws(() => written((w) => w.unsigned(value)), /unsigned/);
  for (const value of [2n ** 63n, -(2n ** 63n) - 1n]) assert.throws(() => written((w) => w.signed(value)), /signed/);
});

test('writes floats in little-endian order', () => {
  assert.deepEqual(
    written((w) => w.f32(1)),
    [0, 0, 0x80, 0x3f],
  );
  assert.deepEqual(
    written((w) => w.f64(-2)),
    [0, 0, 0, 0, 0, 0, 0, 0xc0],
  );
});

test('puts the length in bytes before a section and before UTF-8 text', () => {
  assert.deepEqual(
    written((w) => w.string('é')),
    [2, 0xc3, 0xa9],
  );
  const bytes = written((w) => w.section(3, (inner) => inner.append(new Uint8Array(200))));
  assert.deepEqual(bytes.slice(0, 4), [3, 0xc8, 0x01, 0]);
  assert.equal(bytes.length, 203);
});
