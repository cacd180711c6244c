// Proves the block formats against vectors and files made with llama.cpp's own tools, and the reference rounding
// against small cases worked out by hand.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { memorySource } from '../base/byte-source.ts';
import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { ShapeError, SmallMindError, UnsupportedError } from '../base/errors.ts';
import { f16ToF32, f32ToF16 } from '../base/float16.ts';
import { getTensor, readGguf, readTensorBytes } from '../gguf/reader.ts';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { CODECS, QUANTIZED_FORMATS, dequantize, quantize } from './codecs.ts';

const shared = needsShared();
const dtypes = Object.keys(CODECS) as DType[];

/** Values of both signs and very different sizes, the same in every run. */
function someValues(n: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898) * 2 ** ((i * 7) % 9) * 0.01);
}

function withCode(errorClass: new (...args: never[]) => SmallMindError, code: string, pattern: RegExp) {
  return (error: unknown): boolean => {
    assert(error instanceof errorClass);
    assert.equal(error.code, code);
    assert.match(error.message, pattern);
    return true;
  };
}

for (const { dtype, bits, levels, terms, offset } of QUANTIZED_FORMATS) {
  if (!terms) continue;
  test(`the terms of ${dtype} come to its levels`, () => {
    const sums = Array.from({ length: 1 << bits }, (_, q) => {
      const numbers = terms.map(({ factor, mask, shift = 0, clamp: [min, max] = [0, 255] }) => {
        return factor * Math.min(max, Math.max(min, (q & mask) >> shift));
      });
      return numbers.reduce((a, b) => a + b) - offset;
    });
    // A level that no quant of the format names is 0.
    assert.ok(levels!.filter((level) => level !== 0).length > 2 ** (bits - 1));
    assert.deepEqual(
      sums.filter((_, q) => levels![q] !== 0),
      levels!.filter((level) => level !== 0),
    );
  });
}

describe('vectors of the gguf package', () => {
  /** Of these it has none: F32 is copied, llama.cpp decodes neither Q8_1 nor Q8_K, and MXFP4 is for the peer tests. */
  const without: readonly DType[] = ['F32', 'Q8_1', 'Q8_K', 'MXFP4'];
  for (const dtype of dtypes.filter((name) => !without.includes(name))) {
    test(`${dtype} decodes bit for bit`, shared, () => {
      const blocks = readFileSync(sharedPath('quant', `${dtype}.blocks.bin`));
      const expected = readFileSync(sharedPath('quant', `${dtype}.f32.bin`));
      const values = dequantize(dtype, blocks);
      assert.ok(values.length > 0);
      assert.deepEqual(Buffer.from(values.buffer), expected);
    });
  }

  test('Q8_0 encodes a real model to the bytes that the gguf package wrote', shared, async () => {
    const open = (name: string) => readGguf(memorySource(readFileSync(sharedPath('models', 'stories260K', name))));
    const [full, quantised] = await Promise.all([open('stories260K-f32.gguf'), open('stories260K-q8_0.gguf')]);
    const names = [...quantised.tensors.values()].filter((info) => info.dtype === 'Q8_0').map((info) => info.name);
    assert.ok(names.length > 20, `only ${names.length} tensors to compare`);
    for (const name of names) {
      const values = dequantize('F32', await readTensorBytes(full, getTensor(full, name)));
      const expected = await readTensorBytes(quantised, getTensor(quantised, name));
      assert.deepEqual(quantize('Q8_0', values), expected, name);
    }
  });

  test(
    'Q4_0 encodes a real model as the gguf package did, but for near-ties, which that rounds in float64',
    shared,
    async () => {
      const values = safetensor('lm_head.weight');
      const path = sharedPath('models', 'tinystories-656k', 'TinyStories-656K-q4_0.gguf');
      const file = await readGguf(memorySource(readFileSync(path)));
      const expected = await readTensorBytes(file, getTensor(file, 'token_embd.weight'));
      const [ours, theirs] = [dequantize('Q4_0', quantize('Q4_0', values)), dequantize('Q4_0', expected)];
      assert.equal(ours.length, theirs.length);
      let nDifferent = 0;
      for (const [i, value] of values.entries()) {
        if (ours[i] === theirs[i]) continue;
        nDifferent++;
        // A tie lies in the middle of the two levels that were chosen.
        const middle = (ours[i]! + theirs[i]!) / 2;
        assert.ok(Math.abs(value - middle) <= 1e-3 * Math.abs(value), `value ${i}: ${value}, ${ours[i]}, ${theirs[i]}`);
      }
      assert.ok(nDifferent < values.length / 10_000, `${nDifferent} of ${values.length} values differ`);
    },
  );
});

/** An F32 tensor of the safetensors file of TinyStories-656K: u64 length, JSON header, data. */
function safetensor(name: string): Float32Array {
  const bytes = readFileSync(sharedPath('models', 'tinystories-656k', 'model.safetensors'));
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes));
  const [start, end] = header[name].data_offsets;
  return dequantize('F32', bytes.subarray(8 + headerBytes + start, 8 + headerBytes + end));
}

describe('16-bit floats', () => {
  test('every binary16 pattern survives decoding and encoding, NaN as NaN', () => {
    const patterns = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const values = dequantize('F16', new Uint8Array(patterns.buffer));
    const back = new Uint16Array(quantize('F16', values).buffer);
    for (let h = 0; h < 65_536; h++) {
      const isNan = (h & 0x7c00) === 0x7c00 && (h & 0x3ff) !== 0;
      assert.equal(Number.isNaN(values[h]), isNan, `pattern ${h}`);
      if (isNan) assert.equal(back[h]! & 0x7e00, 0x7e00, `pattern ${h}`);
      else assert.equal(back[h], h, `pattern ${h}`);
    }
  });

  test('every bfloat16 pattern survives decoding bit for bit, and encoding, NaN as NaN', () => {
    const patterns = Uint16Array.from({ length: 65_536 }, (_, i) => i);
    const values = dequantize('BF16', new Uint8Array(patterns.buffer));
    const words = new Uint32Array(values.buffer);
    const back = new Uint16Array(quantize('BF16', values).buffer);
    for (let h = 0; h < 65_536; h++) {
      assert.equal(words[h], h * 65_536, `pattern ${h}`);
      if (Number.isNaN(values[h])) assert.ok((back[h]! & 0x7fff) > 0x7f80, `pattern ${h}`);
      else assert.equal(back[h], h, `pattern ${h}`);
    }
  });

  test('binary16 rounds to the nearest, ties to even, up to infinity and down to zero', () => {
    const cases: [x: number, bits: number][] = [
      [1, 0x3c00],
      [-2, 0xc000],
      [-0, 0x8000],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [65519, 0x7bff],
      [65520, 0x7c00],
      [-Infinity, 0xfc00],
      [2 ** -24, 1],
      [2 ** -25, 0],
      [1.5 * 2 ** -25, 1],
      [3 * 2 ** -25, 2],
      [2 ** -14 - 2 ** -25, 0x400],
    ];
    for (const [x, bits] of cases) assert.equal(f32ToF16(x), bits, String(x));
  });

  test('bfloat16 rounds to the nearest, ties to even', () => {
    const encoded = new Uint16Array(quantize('BF16', Float32Array.of(1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 3e38)).buffer);
    assert.deepEqual([...encoded], [0x3f80, 0x3f80, 0x3f82, 0x7f62]);
  });

  test('F32 keeps every bit, also of NaN, and reads from an odd address', () => {
    const bits = Uint32Array.of(0x7fc12345, 0xff800001, 0x80000000, 1, 0x7f800000, 0x3f800000);
    const odd = new Uint8Array(25);
    odd.set(new Uint8Array(bits.buffer), 1);
    const values = dequantize('F32', odd.subarray(1));
    assert.deepEqual(new Uint32Array(values.buffer), bits);
    assert.deepEqual(quantize('F32', values), new Uint8Array(bits.buffer));
  });
});

describe('Q8_0 encoding', () => {
  test('scales by the largest magnitude and rounds halves away from zero', () => {
    const values = new Float32Array(32);
    values.set([-127, 2.5, -2.5, 0.49, -0.5, 126.5]);
    const block = quantize('Q8_0', values);
    assert.equal(block[0]! | (block[1]! << 8), 0x3c00);
    assert.deepEqual([...new Int8Array(block.buffer, 2, 6)], [-127, 3, -3, 0, -1, 127]);
  });

  test('multiplies by the inverse of the float32 scale, not of the stored binary16 one', () => {
    const values = new Float32Array(32).fill(1);
    const block = quantize('Q8_0', values);
    assert.equal(block[0]! | (block[1]! << 8), f32ToF16(1 / 127));
    assert.equal(new Int8Array(block.buffer)[2], 127);
  });

  test('rounds scale, inverse and quotient to float32, as each of these near-ties shows', () => {
    for (const [amax, x, level] of [
      [0.171875, 0.000676673196721822, 0], // 1 if the scale were not rounded
      [0.015625, 0.0005536417011171579, 4], // 5 if the inverse were not rounded
      [0.015625, 0.00006151574780233204, 1], // 0 if the quotient were not rounded
    ] as const) {
      const values = new Float32Array(32);
      values.set([amax, x]);
      assert.equal(quantize('Q8_0', values)[3], level, `${x} beside ${amax}`);
    }
  });

  test('a block of zeros is all zero bytes', () => {
    assert.ok(quantize('Q8_0', new Float32Array(32)).every((byte) => byte === 0));
  });

  test('each value comes back within half a step and the rounding of the scale', () => {
    checkErrorBound('Q8_0', (amax) => amax / 127 / 2 + amax * 2 ** -11);
  });
});

describe('Q4_0 encoding', () => {
  test('maps the extreme value to -8, and keeps the two halves of the block in the two halves of the bytes', () => {
    const values = new Float32Array(32);
    values.set([8, -7, 1]);
    values.set([0, 7, 2.4], 16);
    const block = quantize('Q4_0', values);
    // d = 8 / -8 = -1, so that the level is 8 - x; 15 is the highest there is.
    assert.equal(block[0]! | (block[1]! << 8), 0xbc00);
    assert.deepEqual([...block.subarray(2, 6)], [0x80, 0x1f, 0x67, 0x88]);
  });

  test('clamps the opposite of the extreme value to the highest level', () => {
    const values = new Float32Array(32);
    values.set([-8, 8]);
    assert.deepEqual([...quantize('Q4_0', values).subarray(0, 4)], [0x00, 0x3c, 0x80, 0x8f]);
  });

  test('takes the first of several extreme values', () => {
    const values = new Float32Array(32);
    values.set([4, -4]);
    assert.equal(quantize('Q4_0', values)[1], 0xb8);
  });

  test('a block of zeros has the scale -0, as in ggml, and the middle level', () => {
    assert.deepEqual([...quantize('Q4_0', new Float32Array(32))], [0, 0x80, ...Array<number>(16).fill(0x88)]);
  });

  test('adds 8.5 in float32', () => {
    // 0.49999997 + 8.5 is 9 in float32, and less in float64, which would give level 8.
    const values = new Float32Array(32);
    values.set([-8, Math.fround(0.49999997)]);
    assert.equal(quantize('Q4_0', values)[3]! & 15, 9);
  });

  test('each value comes back within half a step, the clamped opposite within a whole one', () => {
    const step = 1 / 8;
    checkErrorBound('Q4_0', (amax, magnitude) => {
      const clamped = magnitude > 7.5 * step * amax;
      return amax * ((clamped ? step : step / 2) + 2 ** -11);
    });
  });
});

/** Every value of some blocks must survive encoding and decoding within `bound` of its block's largest magnitude. */
function checkErrorBound(dtype: DType, bound: (amax: number, magnitude: number) => number): void {
  const values = someValues(32 * 64);
  const back = dequantize(dtype, quantize(dtype, values));
  for (let block = 0; block < values.length; block += 32) {
    const amax = Math.max(...values.subarray(block, block + 32).map(Math.abs));
    for (let i = block; i < block + 32; i++) {
      const error = Math.abs(values[i]! - back[i]!);
      assert.ok(error <= bound(amax, Math.abs(values[i]!)), `value ${i}: ${values[i]} came back as ${back[i]}`);
    }
  }
}

/** Where a block's binary16 scale stands, if not at its start. */
const SCALE_OFFSETS: Readonly<Partial<Record<DType, number>>> = {
  Q2_K: 80,
  Q3_K: 108,
  Q6_K: 208,
  TQ1_0: 52,
  TQ2_0: 64,
};

/** Sets the scale to what the binary16 with this high byte is: infinity, NaN or 1. */
function setScale(dtype: DType, block: Uint8Array, highByte: number): void {
  // Four bits at the end of each word of 16.
  if (dtype === 'IQ1_M') [0, 0, highByte & 15, highByte >> 4].forEach((bits, i) => (block[49 + 2 * i] = bits << 4));
  else if (dtype === 'Q8_K') block.set([0, 0, highByte === 0x7c ? 0x80 : 0xc0, 0x7f]);
  else block.set([0, highByte], SCALE_OFFSETS[dtype]);
}
const isEncoded = (dtype: DType): boolean => CODECS[dtype]?.encode !== undefined;

describe('block formats with a scale', () => {
  for (const dtype of dtypes.filter((name) => BLOCK_FORMATS[name].blockElements > 1 && name !== 'MXFP4')) {
    test(`${dtype} decodes an infinite or NaN scale as infinities and NaN`, () => {
      const block = new Uint8Array(BLOCK_FORMATS[dtype].blockBytes).fill(0x11);
      setScale(dtype, block, 0x7c);
      // Infinity times a quant of 0 is NaN.
      assert.ok(dequantize(dtype, block).every((value) => !Number.isFinite(value)));
      setScale(dtype, block, 0x7e);
      assert.ok(dequantize(dtype, block).every(Number.isNaN));
    });
  }

  test('MXFP4 decodes every power of two, subnormal ones too, times every four-bit float', () => {
    for (let exponent = 0; exponent < 256; exponent++) {
      const block = Uint8Array.from({ length: 17 }, (_, i) => (i === 0 ? exponent : ((i - 1) << 4) | (i - 1)));
      const values = dequantize('MXFP4', block);
      for (let q = 0; q < 16; q++) {
        // Sign, two bits of exponent, one of fraction.
        const [e, fraction] = [(q >> 1) & 3, q & 1];
        const magnitude = e === 0 ? fraction / 2 : 2 ** (e - 1) * (1 + fraction / 2);
        const expected = Math.fround((q < 8 ? 1 : -1) * magnitude * 2 ** (exponent - 127));
        // ggml has no negative zero here.
        assert.ok(Object.is(values[q], expected === 0 ? 0 : expected), `2^${exponent - 127}, ${q}: ${values[q]}`);
      }
    }
  });

  test('Q8_1 and Q8_K are their quants times the scale, whatever their sums say', () => {
    for (const [dtype, scale, n] of [
      ['Q8_1', [0x00, 0x3e], 32],
      ['Q8_K', [0, 0, 0xc0, 0x3f], 256],
    ] as const) {
      const block = new Uint8Array(BLOCK_FORMATS[dtype].blockBytes).fill(0x77);
      block.set(scale);
      for (let i = 0; i < n; i++) block[4 + i] = i;
      assert.deepEqual(
        [...dequantize(dtype, block)],
        [...Array(n).keys()].map((i) => 1.5 * ((i << 24) >> 24)),
      );
    }
  });

  test('whatever the bits of a block are, its indices name tuples of the grid', () => {
    for (const dtype of dtypes.filter((name) => /^IQ[123]/.test(name))) {
      const { blockBytes } = BLOCK_FORMATS[dtype];
      for (const fill of [0x00, 0xff, 0x55, 0xaa]) {
        const block = new Uint8Array(2 * blockBytes).fill(fill);
        for (let at = 0; at < block.length; at += blockBytes) setScale(dtype, block.subarray(at), 0x3c);
        const values = dequantize(dtype, block);
        assert.ok(
          values.every((value) => value !== 0 && Number.isFinite(value)),
          `${dtype}, ${fill}`,
        );
      }
    }
  });

  for (const dtype of dtypes.filter((name) => BLOCK_FORMATS[name].blockElements > 1 && isEncoded(name))) {
    test(`${dtype} refuses to encode NaN, infinities and scales that overflow binary16`, () => {
      for (const [bad, pattern] of [
        [NaN, /NaN at index 33/],
        [-Infinity, /-Infinity at index 33/],
        [1e30, /needs the scale/],
      ] as const) {
        const values = new Float32Array(64);
        values[33] = bad;
        assert.throws(() => quantize(dtype, values), withCode(SmallMindError, 'NUMERIC', pattern), String(bad));
      }
    });

    test(`${dtype} encodes values too small for any scale as zeros`, () => {
      const back = dequantize(dtype, quantize(dtype, new Float32Array(32).fill(1e-42)));
      assert.ok(back.every((value) => value === 0));
    });
  }
});

describe('the doors', () => {
  test('name what works for a dtype that has no codec', () => {
    const expected = withCode(UnsupportedError, 'UNSUPPORTED_DTYPE', /I16.*use one of F32, F16, BF16, Q8_0, Q4_0\b/);
    assert.throws(() => dequantize('I16', new Uint8Array(74)), expected);
    assert.throws(() => quantize('I16', new Float32Array(256)), expected);
  });

  for (const dtype of dtypes) {
    const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];

    test(`${dtype} refuses parts of a block`, () => {
      const expected = withCode(ShapeError, 'SHAPE_MISMATCH', new RegExp(`${dtype} expected whole blocks`));
      assert.throws(() => dequantize(dtype, new Uint8Array(2 * blockBytes - 1)), expected);
      if (blockElements > 1 && isEncoded(dtype))
        assert.throws(() => quantize(dtype, new Float32Array(2 * blockElements - 1)), expected);
    });

    if (!isEncoded(dtype)) {
      test(`${dtype} decodes views into larger memory, and nothing at all, and is not encoded yet`, () => {
        const bytes = Uint8Array.from({ length: 3 * blockBytes }, (_, i) => (i * 37) & 0x3b);
        const all = dequantize(dtype, bytes);
        assert.deepEqual(dequantize(dtype, bytes.subarray(blockBytes)), all.slice(blockElements));
        assert.equal(dequantize(dtype, bytes.subarray(0, 0)).length, 0);
        const expected = withCode(UnsupportedError, 'UNSUPPORTED_DTYPE', /cannot be encoded yet/);
        assert.throws(() => quantize(dtype, new Float32Array(blockElements)), expected);
      });
      continue;
    }

    test(`${dtype} takes views into larger memory, and nothing at all`, () => {
      const values = someValues(3 * 32);
      const encoded = quantize(dtype, values);
      const middle = quantize(dtype, values.subarray(32, 64));
      assert.deepEqual(middle, encoded.slice(encoded.length / 3, (2 * encoded.length) / 3));
      const bytes = encoded.subarray(encoded.length / 3);
      assert.deepEqual(dequantize(dtype, bytes), dequantize(dtype, encoded).slice(32));
      assert.equal(dequantize(dtype, quantize(dtype, new Float32Array(0))).length, 0);
    });
  }
});

test('a binary16 decodes to exactly the value of its bits', () => {
  assert.equal(f16ToF32(0x3555), 0.333251953125);
  assert.equal(f16ToF32(0x0001), 2 ** -24);
  assert.equal(f16ToF32(0x7bff), 65504);
  assert.ok(Object.is(f16ToF32(0x8000), -0));
});
