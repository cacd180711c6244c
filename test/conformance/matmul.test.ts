// Matmul and embed on all weight types: sizes that fill no group of eight, no tile and no vector, and row counts that
// vary. The reference multiplies exactly what the kernels are given, so the tolerances are those of float32 sums.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { BLOCK_FORMATS } from '../../src/base/dtype.ts';
import type { DType } from '../../src/base/dtype.ts';
import { CODECS } from '../../src/quant/codecs.ts';
import { ReferenceExecutor } from '../../src/backend/reference/executor.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { Rig, conform, holdThreads, rowCount, runStep } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const DTYPES = Object.keys(CODECS) as DType[];
const N_OUT = [1, 3, 7, 8, 9, 17, 40];
/** Once packed, these are read as others are: they have fewer shapes. */
const LEAN: readonly DType[] = ['Q8_1', 'TQ1_0', 'TQ2_0', 'IQ1_M', 'IQ2_XXS', 'IQ2_XS', 'IQ2_S', 'IQ3_XXS', 'IQ3_S'];
const ROWS = [1, 2, 3, 4, 5, 7, 8, 13];
const STEPS = [13, 1, 2, 0, 5, 8].map((rows) => ({ rows }));

/** Columns that a row of this type can have. */
const columnsFor = (dtype: DType): number[] =>
  ({ 32: [32, 64, 96, 160], 256: [256, 512, 768] })[BLOCK_FORMATS[dtype].blockElements] ?? [1, 2, 3, 4, 5, 32, 33, 67];

/** Sums of up to 160 float32 products, rounded at each step; relative to the standard deviation of the results. */
const TOLERANCE = 2e-6;
/** Of longer sums. */
const toleranceOf = (nIn: number): number => TOLERANCE * Math.max(1, Math.sqrt(nIn / 160));

const isInteger = (dtype: DType): boolean => BLOCK_FORMATS[dtype].blockElements > 1;
const waysOf = (dtype: DType) => (isInteger(dtype) ? (['f32', 'q8'] as const) : (['f32'] as const));

for (const dtype of DTYPES) {
  const matmul = (rig: Rig, rows: number, nIn: number, nOut: number): void => {
    const y = rig.graph.apply('matmul', [rig.activations(rows, nIn), rig.randomWeight(dtype, [nOut, nIn])]);
    rig.check(`[${rows}, ${nIn}] · [${nOut}, ${nIn}]ᵀ`, y, toleranceOf(nIn), Math.sqrt(nIn));
  };

  conform(
    `matmul with ${dtype} weights of every shape`,
    (rig) => {
      const nOuts = LEAN.includes(dtype) ? [3, 17] : N_OUT;
      for (const nIn of columnsFor(dtype)) for (const nOut of nOuts) matmul(rig, 5, nIn, nOut);
    },
    { activations: waysOf(dtype) },
  );

  conform(
    `matmul with ${dtype} weights and every number of rows`,
    (rig) => {
      for (const rows of LEAN.includes(dtype) ? [1, 13] : ROWS) matmul(rig, rows, columnsFor(dtype).at(-1)!, 17);
    },
    { activations: waysOf(dtype) },
  );

  conform(
    `matmul with ${dtype} weights touches no row beyond a row count that varies`,
    (rig) => {
      const nIn = columnsFor(dtype).at(-2)!;
      const x = rig.activations(rowCount(13), nIn);
      rig.check(
        'y',
        rig.graph.apply('matmul', [x, rig.randomWeight(dtype, [9, nIn])]),
        toleranceOf(nIn),
        Math.sqrt(nIn),
      );
    },
    { activations: waysOf(dtype), steps: STEPS },
  );

  conform(
    `embed takes rows of ${dtype} weights exactly`,
    (rig) => {
      for (const nColumns of columnsFor(dtype)) {
        const ids = rig.ids([3, 0, 16, 16, 7, 8, 1, 15, 9, 2, 4, 12, 6], rowCount(13));
        rig.check(`[17, ${nColumns}]`, rig.graph.apply('embed', [rig.randomWeight(dtype, [17, nColumns]), ids]), 0);
      }
    },
    { steps: STEPS },
  );
}

conform(
  'a bias and a residual stream are added to the product, each alone and one after the other',
  (rig) => {
    const rows = rowCount(13);
    for (const nOut of N_OUT) {
      const x = rig.activations(rows, 64);
      const [bias, stream] = [rig.constant([nOut]), rig.constant([13, nOut])];
      const product = (): Tensor => rig.graph.apply('matmul', [x, rig.weight('Q8_0', [nOut, 64])]);
      const ids = rig.ids([...Array(13).keys()], rows);
      const rowsOf = (t: Tensor): Tensor => rig.graph.apply('gatherRows', [t, ids]);
      const add = (a: Tensor, b: Tensor): Tensor => rig.graph.apply('add', [a, b]);
      for (const y of [
        add(product(), bias),
        add(product(), rowsOf(stream)),
        add(add(product(), bias), rowsOf(stream)),
      ]) {
        rig.check(`${nOut} rows`, y, TOLERANCE, 8);
      }
    }
  },
  { activations: ['f32', 'q8'], steps: STEPS },
);

conform(
  'several matmuls share one quantised operand, beside one that takes it as it is',
  (rig) => {
    const x = rig.activations(6, 64);
    rig.check('q8', rig.graph.apply('matmul', [x, rig.weight('Q8_0', [9, 64])]), TOLERANCE, 8);
    rig.check('q4', rig.graph.apply('matmul', [x, rig.weight('Q4_0', [24, 64])]), TOLERANCE, 8);
  },
  { activations: ['q8'] },
);

conform(
  'every power of two that scales MXFP4 is exact, subnormal ones too',
  (rig) => {
    const rows = [...Array(253).keys()].flatMap((e) => [
      e,
      ...Array.from({ length: 16 }, (_, i) => (i << 4) | (15 - i)),
    ]);
    const ids = rig.ids([...Array(253).keys()], rowCount(253));
    const weight = rig.rawWeight('MXFP4', [253, 32], Uint8Array.from(rows));
    rig.check('rows', rig.graph.apply('embed', [weight, ids]), 0);
  },
  { steps: [{ rows: 253 }] },
);

conform(
  'the largest quants overflow nothing',
  (rig) => {
    // Scale 1 in front of each block; activations of ±1 become ±127.
    const rowsOf = (bytes: readonly number[], nByte: number): Uint8Array =>
      Uint8Array.from(bytes.flatMap((byte) => [0, 0x3c, ...Array.from({ length: nByte }, () => byte)]));
    const q8 = rig.rawWeight('Q8_0', [4, 32], rowsOf([0x80, 0x81, 0x7f, 0], 32));
    const q4 = rig.rawWeight('Q4_0', [4, 32], rowsOf([0x00, 0xff, 0x88, 0xf0], 16));
    const mxfp4 = rig.rawWeight(
      'MXFP4',
      [2, 32],
      Uint8Array.from([0x77, 0xff].flatMap((b) => [128, ...Array(16).fill(b)])),
    );
    for (const sign of [1, -1]) {
      const x = rig.activations(3, 32, new Float32Array(96).fill(sign));
      rig.check(`MXFP4 times ${sign}`, rig.graph.apply('matmul', [x, mxfp4]), TOLERANCE);
      rig.check(`Q8_0 times ${sign}`, rig.graph.apply('matmul', [x, q8]), TOLERANCE);
      rig.check(`Q4_0 times ${sign}`, rig.graph.apply('matmul', [x, q4]), TOLERANCE);
    }
  },
  { activations: ['f32', 'q8'] },
);

test('the oracle of 8-bit activations is no idle one: it differs from the exact product by more than the tolerance', async () => {
  const results: Float32Array[] = [];
  for (const seesQuantized of [false, true]) {
    const rig = new Rig(seesQuantized);
    rig.check('y', rig.graph.apply('matmul', [rig.activations(4, 64), rig.weight('Q8_0', [8, 64])]), 0);
    results.push(runStep(rig, await ReferenceExecutor.create(rig.graph, rig.source), {})[0]!);
  }
  const largest = results[0]!.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const apart = results[0]!.reduce((m, x, i) => Math.max(m, Math.abs(x - results[1]![i]!)), 0);
  assert.ok(apart > 100 * TOLERANCE * largest);
});
