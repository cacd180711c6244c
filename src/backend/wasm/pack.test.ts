// Packing: the bytes of a group of eight rows, written out here once more, independently, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rowBytes } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import type { KernelVariant } from './kernels/kernel.ts';
import { packRows } from './pack.ts';

/** Bytes that tell where they come from. */
const numbered = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 7 + (i >> 8)) & 0x3f);

function pack(
  dtype: DType,
  nColumns: number,
  nRows: number,
  bytes: Uint8Array,
  dot: KernelVariant['dot'] = 'i7',
): Uint8Array {
  const nGroups = Math.ceil(nRows / 8);
  // What was there before must not shine through.
  const target = new Uint8Array(nGroups * 8 * rowBytes(dtype, nColumns)).fill(0xee);
  packRows({ name: 'w', dtype, nColumns }, bytes, target, { set: 'relaxed', dot, fma: true });
  return target;
}

for (const [dtype, size] of [
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
] as const) {
  test(`${dtype}: each column's eight rows lie together, missing rows are zero`, () => {
    const [nRows, nColumns] = [11, 3];
    const bytes = numbered(nRows * nColumns * size);
    const packed = pack(dtype, nColumns, nRows, bytes);
    assert.equal(packed.length, 2 * 8 * nColumns * size);
    for (let row = 0; row < 16; row++) {
      for (let column = 0; column < nColumns; column++) {
        for (let byte = 0; byte < size; byte++) {
          const at = ((Math.floor(row / 8) * nColumns + column) * 8 + (row % 8)) * size + byte;
          const expected = row < nRows ? bytes[(row * nColumns + column) * size + byte] : 0;
          assert.equal(packed[at], expected, `row ${row}, column ${column}, byte ${byte}`);
        }
      }
    }
  });
}

for (const [dtype, nQuantBytes, dot, flip] of [
  ['Q8_0', 32, 'u8', 0x80],
  ['Q4_0', 16, 'u8', 0],
  ['Q4_0', 16, 'i7', 0],
] as const) {
  test(`${dtype} for ${dot}: eight scales, then four bytes of each row in turn`, () => {
    const [nRows, nBlocks] = [10, 2];
    const blockBytes = 2 + nQuantBytes;
    const bytes = numbered(nRows * nBlocks * blockBytes);
    const packed = pack(dtype, nBlocks * 32, nRows, bytes, dot);
    for (let row = 0; row < 16; row++) {
      for (let block = 0; block < nBlocks; block++) {
        const group = (Math.floor(row / 8) * nBlocks + block) * 8 * blockBytes;
        const from = (row * nBlocks + block) * blockBytes;
        for (let byte = 0; byte < blockBytes; byte++) {
          const quant = byte - 2;
          const offset = byte < 2 ? 2 * (row % 8) + byte : 16 + 32 * (quant >> 2) + 4 * (row % 8) + (quant & 3);
          const stored = bytes[from + byte]! ^ (byte < 2 ? 0 : flip);
          assert.equal(packed[group + offset], row < nRows ? stored : 0, `row ${row}, block ${block}, byte ${byte}`);
        }
      }
    }
  });
}

test('Q8_0 for products of 16 bits: eight scales, then two bytes of each row in turn', () => {
  const [nRows, nBlocks] = [10, 2];
  const bytes = numbered(nRows * nBlocks * 34);
  for (const dot of ['i7', 'i16'] as const) {
    const packed = pack('Q8_0', nBlocks * 32, nRows, bytes, dot);
    for (let row = 0; row < 16; row++) {
      for (let block = 0; block < nBlocks; block++) {
        const group = (Math.floor(row / 8) * nBlocks + block) * 8 * 34;
        for (let i = 0; i < 32; i++) {
          const offset = 16 + 16 * (i >> 1) + 2 * (row % 8) + (i & 1);
          const expected = row < nRows ? bytes[(row * nBlocks + block) * 34 + 2 + i] : 0;
          assert.equal(packed[group + offset], expected, `row ${row}, block ${block}, quant ${i}`);
        }
      }
    }
  }
});

test('rows may be given in parts, at any place in memory that is aligned to four bytes', () => {
  const bytes = numbered(24 * 4 * 6);
  const whole = pack('F32', 6, 24, bytes);
  const memory = new Uint8Array(new SharedArrayBuffer(100 + whole.length));
  for (const [from, to] of [
    [0, 8],
    [8, 24],
  ] as const) {
    const rows = new Uint8Array(12 + (to - from) * 24);
    rows.set(bytes.subarray(from * 24, to * 24), 12);
    packRows({ name: 'w', dtype: 'F32', nColumns: 6 }, rows.subarray(12), memory.subarray(100 + from * 24), {
      set: 'relaxed',
      dot: 'i7',
      fma: true,
    });
  }
  assert.deepEqual(Uint8Array.from(memory.subarray(100)), whole);
});

const NON_FINITE: Readonly<Record<string, [DType, number, Uint8Array, number]>> = {
  'an F32 NaN': ['F32', 4, Uint8Array.of(0, 0, 0xc0, 0x7f), 12],
  'an F32 -Infinity': ['F32', 4, Uint8Array.of(0, 0, 0x80, 0xff), 12],
  'an F16 Infinity': ['F16', 4, Uint8Array.of(0, 0x7c), 6],
  'an F16 NaN': ['F16', 4, Uint8Array.of(1, 0xfc), 6],
  'a BF16 NaN': ['BF16', 4, Uint8Array.of(0xc0, 0x7f), 6],
  'a Q8_0 scale of Infinity': ['Q8_0', 32, Uint8Array.of(0, 0x7c), 34],
  'a Q4_0 scale of NaN': ['Q4_0', 32, Uint8Array.of(0, 0xfe), 18],
  'a Q4_K scale of minima of Infinity': ['Q4_K', 256, Uint8Array.of(0, 0x7c), 146],
};

for (const [what, [dtype, nColumns, bytes, at]] of Object.entries(NON_FINITE)) {
  test(`refuses ${what}, and names the tensor`, () => {
    const rows = new Uint8Array(9 * rowBytes(dtype, nColumns));
    rows.set(bytes, at);
    assert.throws(() => pack(dtype, nColumns, 9, rows), {
      code: 'GGUF_INVALID',
      message: /tensor "w" has a NaN or an infinity/,
      details: { tensor: 'w' },
    });
    // The largest finite exponent is fine.
    rows.fill(0);
    rows.set(
      bytes.map((b) => ((b & 0x7c) === 0x7c && dtype !== 'F32' && dtype !== 'BF16' ? b & ~4 : b & 0x7e)),
      at,
    );
    pack(dtype, nColumns, 9, rows);
  });
}

test('refuses a type without kernels', () => {
  assert.throws(() => pack('IQ2_XS', 256, 1, new Uint8Array(74)), {
    code: 'UNSUPPORTED_DTYPE',
    message: /IQ2_XS.*requantise/,
  });
});
