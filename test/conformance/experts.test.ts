// Mixture of experts: the choice, what the chosen count for, their matrices, the sum. Rows vary from step to step; some
// experts are chosen by many rows and some by none.

import { after, before } from 'node:test';
import { Random } from '../../src/base/random.ts';
import { conform, holdThreads, rowCount } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const STEPS = [13, 1, 0, 5].map((rows) => ({ rows }));

/** Sums of some 100 float32 products. */
const TOLERANCE = 2e-6;

/** For each of 13 rows k different experts, of which the last few are never chosen. */
function choose(k: number, nExpert: number): number[] {
  const random = new Random(7);
  return Array.from({ length: 13 }, () => {
    const all = Array.from({ length: nExpert }, (_, id) => ({ id, key: random.uniform() }));
    return all.sort((a, b) => a.key - b.key).slice(0, k);
  }).flatMap((row) => row.map(({ id }) => id));
}

conform(
  'topK takes the largest, and of equal ones the first',
  (rig) => {
    for (const [k, n] of [
      [1, 1],
      [2, 8],
      [5, 33],
      [7, 7],
    ] as const) {
      const rows = rowCount(13);
      // Few values, so that many are equal.
      const values = rig.numbers(13 * n).map((x) => Math.round(2 * x));
      const x = rig.activations(rows, n, values);
      const ids = rig.graph.apply('topK', [x], { k });
      // Other numbers, which tell which ones were taken.
      const told = rig.graph.apply('expertWeights', [rig.activations(rows, n), ids], { isNormalised: 0 });
      rig.check(`${k} of ${n}`, told, 1e-6);
    }
  },
  { steps: STEPS },
);

conform(
  'weights of experts are a softmax over all, or over the chosen',
  (rig) => {
    for (const isNormalised of [0, 1]) {
      for (const [k, n] of [
        [2, 2],
        [3, 9],
      ] as const) {
        const rows = rowCount(13);
        const logits = rig.activations(rows, n, rig.numbers(13 * n, 5));
        const ids = rig.ids(choose(k, n), rows, k);
        rig.check(`${k} of ${n}`, rig.graph.apply('expertWeights', [logits, ids], { isNormalised }), 1e-6);
      }
    }
  },
  { steps: STEPS },
);

for (const dtype of ['F16', 'Q8_0'] as const) {
  const nIn = 96;
  conform(
    `matmul with the chosen experts' ${dtype} weights`,
    (rig) => {
      for (const [k, nExpert, nOut] of [
        [2, 7, 24],
        [3, 4, 8],
        [1, 9, 296],
      ] as const) {
        const rows = rowCount(13);
        const ids = rig.ids(choose(k, nExpert), rows, k);
        for (const columns of k === 1 ? [nIn] : [nIn, k * nIn]) {
          const operands = [rig.activations(rows, columns), rig.randomWeight(dtype, [nExpert, nOut, nIn]), ids];
          const y = rig.graph.apply('expertMatmul', operands);
          rig.check(`[rows, ${columns}] by ${k} of ${nExpert}`, y, TOLERANCE, Math.sqrt(nIn));
        }
      }
    },
    { steps: STEPS, activations: dtype === 'F16' ? ['f32'] : ['f32', 'q8'] },
  );
}

conform(
  'rows of a table for each chosen expert, side by side',
  (rig) => {
    const rows = rowCount(13);
    const operands = [rig.weight('Q8_0', [7, 64]), rig.ids(choose(3, 7), rows, 3)];
    rig.check('y', rig.graph.apply('embed', operands), 0);
  },
  { steps: STEPS },
);

conform(
  'the sum over the experts of a row',
  (rig) => {
    for (const [k, n] of [
      [1, 5],
      [2, 64],
      [3, 39],
    ] as const) {
      const rows = rowCount(13);
      const operands = [rig.activations(rows, k * n), rig.activations(rows, k)];
      rig.check(`${k} times ${n}`, rig.graph.apply('expertSum', operands), TOLERANCE);
    }
  },
  { steps: STEPS },
);
