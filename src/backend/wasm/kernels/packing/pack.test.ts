// Packing: the bytes of a group of eight rows, written out here once more, independently, and what is found out about
// them. That all types come out as the numbers they are is for the conformance suites.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_FORMATS, rowBytes } from '../../../../base/dtype.ts';
import type { DType } from '../../../../base/dtype.ts';
import { PAGE_BYTES, buildModule } from '../../module.ts';
import type { RunExports } from '../../module.ts';
import { INPUT_SLOT, OUT_SLOT, PARAM_SLOT, SLOT_BYTES } from '../kernel.ts';
import type { KernelVariant } from '../kernel.ts';
import { packKernelOf } from './pack.ts';
import { SHORT_FLOAT_ROWS, groupBlockBytes } from '../matmul/layout.ts';

/** Bytes that tell where they come from. */
const numbered = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 7 + (i >> 8)) & 0x3f);

const RECORD_ADDRESS = 1024;
const ROWS_ADDRESS = 4096;

function run(
  dtype: DType,
  nColumns: number,
  bytes: Uint8Array,
  dot: KernelVariant['dot'] = 'i7',
): { packed: Uint8Array; isNonFinite: boolean } {
  const kernel = packKernelOf(dtype);
  const nBlocks = nColumns / BLOCK_FORMATS[dtype].blockElements;
  const nGroups = Math.ceil(bytes.length / rowBytes(dtype, nColumns) / 8);
  const targetAddress = ROWS_ADDRESS + nGroups * 8 * rowBytes(dtype, nColumns) + 17;
  const packedBytes = nGroups * nBlocks * groupBlockBytes(dtype);
  const nPages = Math.ceil((targetAddress + packedBytes + 100) / PAGE_BYTES);
  const memory = new WebAssembly.Memory({ initial: nPages, maximum: nPages });
  const record = new DataView(memory.buffer, RECORD_ADDRESS);
  record.setUint32(SLOT_BYTES * OUT_SLOT, targetAddress, true);
  record.setUint32(SLOT_BYTES * INPUT_SLOT, ROWS_ADDRESS, true);
  record.setInt32(SLOT_BYTES * PARAM_SLOT, nGroups, true);
  record.setInt32(SLOT_BYTES * (PARAM_SLOT + 1), nBlocks, true);
  new Uint8Array(memory.buffer).set(bytes, ROWS_ADDRESS);
  // What was there before must not shine through, and what is beyond must stay.
  new Uint8Array(memory.buffer, targetAddress, packedBytes + 64).fill(0xee);
  const variant: KernelVariant = { set: 'relaxed', dot, fma: true, wide: dot === 'i7p' };
  const module = buildModule({ kernels: [kernel], variant, shared: false }).toBytes();
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module as BufferSource), { env: { memory } });
  const { run: runProgram } = instance.exports as unknown as RunExports;
  runProgram(RECORD_ADDRESS, 1, 0, 1);
  const beyond = new Uint8Array(memory.buffer, targetAddress + packedBytes, 64);
  assert.ok(beyond.every((byte) => byte === 0xee));
  return {
    packed: new Uint8Array(memory.buffer, targetAddress, packedBytes),
    isNonFinite: record.getInt32(SLOT_BYTES * (PARAM_SLOT + 3), true) !== 0,
  };
}

for (const [dtype, size] of [
  ['F32', 4],
  ['F16', 2],
  ['BF16', 2],
] as const) {
  test(`${dtype}: each column's eight rows lie together, missing rows are zero`, () => {
    const order = size === 2 ? SHORT_FLOAT_ROWS : [0, 1, 2, 3, 4, 5, 6, 7];
    const [nRows, nColumns] = [11, 19];
    const bytes = numbered(nRows * nColumns * size);
    const { packed } = run(dtype, nColumns, bytes);
    assert.equal(packed.length, 2 * 8 * nColumns * size);
    for (let row = 0; row < 16; row++) {
      for (let column = 0; column < nColumns; column++) {
        for (let byte = 0; byte < size; byte++) {
          const at = ((Math.floor(row / 8) * nColumns + column) * 8 + order.indexOf(row % 8)) * size + byte;
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
    const { packed } = run(dtype, nBlocks * 32, bytes, dot);
    for (let row = 0; row < 16; row++) {
      for (let block = 0; block < nBlocks; block++) {
        const group = (Math.floor(row / 8) * nBlocks + block) * 8 * blockBytes;
        const from = (row * nBlocks + block) * blockBytes;
        for (let byte = 0; byte < blockBytes; byte++) {
          const quant = byte - 2;
          const offset = byte < 2 ? 2 * (row % 8) + byte : 16 + 32 * (quant >> 2) + 4 * (row % 8) + (quant & 3);
          const stored = (row < nRows ? bytes[from + byte]! : 0) ^ (byte < 2 ? 0 : flip);
          assert.equal(packed[group + offset], stored, `row ${row}, block ${block}, byte ${byte}`);
        }
      }
    }
  });
}

test('Q4_0 for products of pairs: eight scales, then the quants, whose halves stand apart', () => {
  const [nRows, nBlocks] = [19, 2];
  const bytes = Uint8Array.from({ length: nRows * nBlocks * 18 }, (_, i) => (i * 7 + (i >> 8)) & 0x3f);
  const { packed } = run('Q4_0', nBlocks * 32, bytes, 'i7p');
  const nibbleAt = (row: number, block: number, column: number): number => {
    const byte = bytes[(row * nBlocks + block) * 18 + 2 + (column % 16)] ?? 0;
    return row < nRows ? (byte >> (column < 16 ? 0 : 4)) & 15 : 0;
  };
  for (let row = 0; row < 24; row++) {
    for (let block = 0; block < nBlocks; block++) {
      const start = (Math.floor(row / 8) * nBlocks + block) * 8 * 18;
      for (let byte = 0; byte < 2; byte++) {
        const stored = packed[start + 2 * (row % 8) + byte];
        const expected = row < nRows ? bytes[(row * nBlocks + block) * 18 + byte] : 0;
        assert.equal(stored, expected, `row ${row}, block ${block}, byte ${byte} of the scale`);
      }
      for (let column = 0; column < 32; column++) {
        // Four bytes of each row: two columns of the first half, two of the last.
        const [step, j] = [(column % 16) >> 1, 2 * (column >> 4) + (column & 1)];
        const vector = 2 * step + (row % 8 < 4 ? 0 : 1);
        const byte = packed[start + 16 + 16 * (vector % 8) + 4 * (row % 4) + j]!;
        const stored = (byte >> (vector < 8 ? 0 : 4)) & 15;
        assert.equal(stored, nibbleAt(row, block, column), `row ${row}, block ${block}, column ${column}`);
      }
    }
  }
});

test('Q8_0 for products of 16 bits: eight scales, then two bytes of each row in turn', () => {
  const [nRows, nBlocks] = [10, 2];
  const bytes = numbered(nRows * nBlocks * 34);
  for (const dot of ['i7', 'i16'] as const) {
    const { packed } = run('Q8_0', nBlocks * 32, bytes, dot);
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

const NON_FINITE: Readonly<Record<string, [DType, number, Uint8Array, number]>> = {
  'an F32 NaN': ['F32', 4, Uint8Array.of(0, 0, 0xc0, 0x7f), 12],
  'an F32 -Infinity': ['F32', 4, Uint8Array.of(0, 0, 0x80, 0xff), 12],
  'an F16 Infinity': ['F16', 4, Uint8Array.of(0, 0x7c), 6],
  'an F16 NaN': ['F16', 4, Uint8Array.of(1, 0xfc), 6],
  'a BF16 NaN': ['BF16', 4, Uint8Array.of(0xc0, 0x7f), 6],
  'a Q8_0 scale of Infinity': ['Q8_0', 32, Uint8Array.of(0, 0x7c), 34],
  'a Q4_0 scale of NaN': ['Q4_0', 32, Uint8Array.of(0, 0xfe), 18],
  'a Q8_K scale of NaN': ['Q8_K', 256, Uint8Array.of(0, 0, 0xc0, 0x7f), 292],
  'a TQ1_0 scale of Infinity': ['TQ1_0', 256, Uint8Array.of(0, 0x7c), 106],
  'an MXFP4 scale beyond f32': ['MXFP4', 32, Uint8Array.of(0xfd), 17],
  'a Q4_K scale of minima of Infinity': ['Q4_K', 256, Uint8Array.of(0, 0x7c), 146],
};

for (const [what, [dtype, nColumns, bytes, at]] of Object.entries(NON_FINITE)) {
  test(`finds ${what}, and nothing in the largest finite numbers`, () => {
    const rows = new Uint8Array(9 * rowBytes(dtype, nColumns));
    rows.set(bytes, at);
    assert.ok(run(dtype, nColumns, rows).isNonFinite);
    rows.fill(0);
    rows.set(
      bytes.map((b) => ((b & 0x7c) === 0x7c && dtype !== 'F32' && dtype !== 'BF16' ? b & ~4 : b & 0x7e)),
      at,
    );
    assert.ok(!run(dtype, nColumns, rows).isNonFinite);
  });
}
