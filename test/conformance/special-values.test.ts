// Values at the edges of their formats, where kernels take short cuts: every half and bfloat16, tiny and huge
// activations, what an F16 cache makes of numbers that are no halves, and the accuracy of the exponential.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bf16ToF32, f16ToF32, f32ToF16 } from '../../src/base/float16.ts';
import { KV_BLOCK_SIZE } from '../../src/graph/step.ts';
import type { KvDtype } from '../../src/graph/step.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { dequantize } from '../../src/quant/codecs.ts';
import { Rig, VARIANTS, assertSameBits, createExecutor, holdThreads, roundTiesToEven, runStep } from './rig.ts';
import type { Activations } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

/** Runs the graph that `build` makes on every variant, and hands its first output to `judge`. */
async function onEveryVariant(
  build: (rig: Rig) => void,
  judge: (actual: Float32Array, where: string) => void,
  activations: Activations = 'f32',
): Promise<void> {
  for (const variant of VARIANTS) {
    const rig = new Rig();
    build(rig);
    const executor = await createExecutor(rig, variant, 3, activations);
    try {
      judge(runStep(rig, executor, {})[0]!, executor.description);
    } finally {
      await executor.close();
    }
  }
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

for (const [dtype, decode, exponent, nColumns] of [
  ['F16', f16ToF32, 0x7c00, 62],
  ['BF16', bf16ToF32, 0x7f80, 85],
] as const) {
  test(`every finite ${dtype} weight is read exactly, zeros with their sign and subnormals included`, async () => {
    const patterns = Uint16Array.from(range(65536).filter((bits) => (bits & exponent) !== exponent));
    const expected = Float32Array.from(patterns, decode);
    const nRows = patterns.length / nColumns;
    assert.ok(Number.isInteger(nRows));
    await onEveryVariant(
      (rig) => {
        const weight = rig.rawWeight(dtype, [nRows, nColumns], new Uint8Array(patterns.buffer));
        rig.check('rows', rig.graph.apply('embed', [weight, rig.ids(range(nRows))]), 0);
      },
      (actual, where) => assertSameBits(actual, expected, where),
    );
  });
}

for (const dtype of ['Q8_0', 'Q4_0'] as const) {
  test(`${dtype} blocks with scales that are zero, subnormal, negative or the largest are read exactly`, async () => {
    const scales = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff];
    const quants = dtype === 'Q8_0' ? 32 : 16;
    const bytes = scales.flatMap((s, row) => [s & 255, s >> 8, ...range(quants).map((i) => (37 * i + 91 * row) & 255)]);
    const raw = Uint8Array.from(bytes);
    await onEveryVariant(
      (rig) => {
        const ids = rig.ids(range(scales.length));
        rig.check('rows', rig.graph.apply('embed', [rig.rawWeight(dtype, [scales.length, 32], raw), ids]), 0);
      },
      (actual, where) => assertSameBits(actual, dequantize(dtype, raw), where),
    );
  });
}

test('silu is within 2.5 ulp of the exact value from -87 to 100, and next to 0 below', async () => {
  const dense = range(40_000).map((i) => Math.fround(-100 + i / 200));
  const extremes = [0, -0, 1e30, -1e30, 3e38, -3e38, 1e-30, -1e-30, 1e-45, -1e-45, -87.5, -88, -89, -104];
  const values = Float32Array.from([...dense, ...extremes]);
  await onEveryVariant(
    (rig) => rig.check('y', rig.graph.apply('silu', [rig.constant([6, values.length / 6], values)]), 0),
    (actual, where) => {
      values.forEach((x, i) => {
        const exact = x / (1 + Math.exp(-x));
        const ulp = 2 ** (Math.floor(Math.log2(Math.abs(exact))) - 23);
        const allowed = 2.5 * ulp + 1e-35;
        const isNear = Math.abs(actual[i]! - exact) <= allowed;
        assert.ok(isNear, `silu(${x}) expected ${exact}, got ${actual[i]} (${where})`);
      });
      const ofMinusZero = actual[values.findIndex((x) => Object.is(x, -0))]!;
      assert.ok(Object.is(ofMinusZero, -0), `silu(-0) is ${ofMinusZero} (${where})`);
    },
  );
});

test('silu hands on NaN and +Infinity', async () => {
  const values = Float32Array.of(NaN, Infinity, 1, 2, NaN);
  await onEveryVariant(
    (rig) => rig.check('y', rig.graph.apply('silu', [rig.constant([1, 5], values)]), 0),
    (actual, where) => {
      assert.ok(Number.isNaN(actual[0]) && Number.isNaN(actual[4]), where);
      assert.equal(actual[1], Infinity, where);
    },
  );
});

test('quantised activations of zeros give zeros, tiny ones next to nothing, huge ones no overflow', async () => {
  const magnitudes = [0, 1e-45, 1e-38, 3e-37, 1e-30, 1e30, 1e36];
  for (const dtype of ['Q8_0', 'Q4_0'] as const) {
    await onEveryVariant(
      (rig) => {
        const signs = range(32).map((i) => (i % 3 === 0 ? -1 : i === 1 ? 0 : 1));
        const values = Float32Array.from(magnitudes.flatMap((m) => signs.map((s) => s * m)));
        const weight = rig.weight(dtype, [8, 32], new Float32Array(256).fill(-1));
        const x = rig.constant([magnitudes.length, 32], values);
        rig.check('y', rig.graph.apply('matmul', [x, weight]), 0);
      },
      (actual, where) => {
        magnitudes.forEach((m, row) => {
          // 20 ones, 11 minus ones, weights of -1: Q4_0 holds them exactly, Q8_0 to 1 part in 4000.
          const [expected, got] = [-9 * m, actual[row * 8]!];
          const allowed = 3e-4 * 32 * m + 1e-35;
          assert.ok(
            Math.abs(got - expected) <= allowed,
            `${dtype} of ${m}: expected ${expected}, got ${got} (${where})`,
          );
        });
        assert.ok(
          actual.subarray(0, 8).every((x) => x === 0),
          where,
        );
      },
      'q8',
    );
  }
});

test('NaN and infinite activations show in the results of integer kernels', async () => {
  const values = new Float32Array(32 * 32 * 2).fill(1);
  for (let i = 0; i < 32; i++) {
    values[32 * i + i] = NaN;
    values[32 * (32 + i) + i] = Infinity;
  }
  await onEveryVariant(
    (rig) => {
      const weight = rig.weight('Q8_0', [8, 32]);
      rig.check('y', rig.graph.apply('matmul', [rig.constant([64, 32], values), weight]), 0);
    },
    (actual, where) => {
      const clean = range(64).filter((row) => Number.isFinite(actual[row * 8]));
      assert.deepEqual(clean, [], where);
    },
    'q8',
  );
});

/** Runs a cache of one position a sequence: attention gives back each row of values as it was kept, times 1. */
function judgeCache(
  dtype: KvDtype,
  values: Float32Array,
  nColumns: number,
  judge: (actual: Float32Array, where: string) => void,
): Promise<void> {
  const nRows = values.length / nColumns;
  return onEveryVariant(
    (rig) => {
      const slots = rig.ids(range(nRows).map((row) => row * KV_BLOCK_SIZE));
      const write = (name: 'keys' | 'values', rows: Tensor): Tensor => {
        const cache = rig.graph.leaf('state', name, dtype, [nRows * KV_BLOCK_SIZE, nColumns]);
        return rig.graph.apply('kvWrite', [cache, rows, slots], { headDim: nColumns, isKeys: name === 'keys' ? 1 : 0 });
      };
      const written = write('values', rig.constant([nRows, nColumns], values));
      const zeros = rig.constant([nRows, nColumns], new Float32Array(nRows * nColumns));
      const ids = rig.ids(range(nRows));
      const tables = rig.ids(range(nRows), nRows, 1);
      const operands = [zeros, write('keys', zeros), written, rig.ids(new Int32Array(nRows)), ids, tables];
      const params = { nHead: 1, nHeadKv: 1, headDim: nColumns, blockSize: KV_BLOCK_SIZE, scale: 1 };
      rig.check('y', rig.graph.apply('attention', operands, params), 0);
    },
    // A sum that starts at 0 has no -0.
    (actual, where) =>
      judge(
        actual.map((x) => x + 0),
        where,
      ),
  );
}

test('an F16 cache rounds to nearest, ties to even, and saturates at ±65504', async () => {
  // All halves, what lies in the middle of two, and that one float up and down.
  const values: number[] = [65520, 65536, 1e6, 3e38, -65519, -65520, -1e30, -0, 2 ** -25, 2 ** -26, 1e-45];
  for (let bits = 0; bits < 0x7bff; bits += 3) {
    const sign = bits % 2 === 0 ? 1 : -1;
    const middle = (f16ToF32(bits) + f16ToF32(bits + 1)) / 2;
    const ulp = Math.max(middle * 2 ** -23, 2 ** -149);
    for (const x of [f16ToF32(bits), middle, middle + ulp, middle - ulp]) values.push(sign * x);
  }
  const nColumns = 128;
  const rows = new Float32Array(Math.ceil(values.length / nColumns) * nColumns);
  rows.set(values);
  const clamped = rows.map((x) => Math.min(65504, Math.max(-65504, x)));
  const expected = clamped.map((x) => f16ToF32(f32ToF16(x)) + 0);
  await judgeCache('F16', rows, nColumns, (actual, where) => assertSameBits(actual, expected, where));
});

test('a Q8_0 cache scales blocks by a half, rounds quants to nearest, ties to even, and saturates', async () => {
  // The last of a block sets its scale; ties stand beside a scale of 1, everything else beside everything.
  const magnitudes = [127, 1, 0.3, 1e-3, 1e-5, 1e-6, 1e-7, 1e-38, 1e-45, 0, 8e6, 1e9, 3e38, Infinity];
  const ties = range(31).map((i) => (i % 2 === 0 ? 1 : -1) * (4 * i + 0.5));
  const noise = Rig.prototype.numbers.bind(new Rig());
  const blocks = [
    [...ties, 127],
    ...magnitudes.flatMap((m) => [127 * m, -127 * m].map((last) => [...noise(31).map((x) => 40 * m * x), last])),
  ].map((block) => block.map((x) => (Number.isNaN(x) ? 0 : x)));
  const expected = blocks.flatMap((block) => {
    const most = block.reduce((max, x) => Math.max(max, Math.abs(Math.fround(x))), 0);
    const scale = Math.min(Math.fround(most / 127), 65504);
    const inverse = scale < 2 ** -126 ? 0 : Math.fround(1 / scale);
    return block.map((x) => {
      const quant = roundTiesToEven(Math.fround(Math.fround(x) * inverse));
      return Math.min(127, Math.max(-128, quant)) * f16ToF32(f32ToF16(scale)) + 0;
    });
  });
  const nColumns = 32;
  const values = Float32Array.from(blocks.flat());
  await judgeCache('Q8_0', values, nColumns, (actual, where) => {
    assertSameBits(actual, Float32Array.from(expected), where);
  });
});
