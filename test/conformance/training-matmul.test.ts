// Products of plain matrices: a·bᵀ, a·b, aᵀ·b and the sum that adds into its result, at sizes around those of the
// kernel's tiles and panels, in batches, and with heads that share a matrix.

import { after, before } from 'node:test';
import type { Tensor } from '../../src/graph/tensor.ts';
import type { Rig } from './rig.ts';
import { conform, holdThreads } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const SIZES = [1, 3, 5, 7, 8, 9, 17, 33];
/** Of sums of up to 264 products, each of size 1; longer ones are allowed as much more. */
const TOLERANCE = 1e-6;

type Op = 'matmulNT' | 'matmulNN' | 'matmulTN' | 'weightedSum';

/** Shapes of a and b for a result of m rows and n columns, and inner size k. */
const OPERANDS: Readonly<Record<Op, (m: number, n: number, k: number) => [number[], number[]]>> = {
  matmulNT: (m, n, k) => [
    [m, k],
    [n, k],
  ],
  matmulNN: (m, n, k) => [
    [m, k],
    [k, n],
  ],
  matmulTN: (m, n, k) => [
    [k, m],
    [k, n],
  ],
  weightedSum: (m, n, k) => [
    [m, k],
    [k, n],
  ],
};

const OPS = Object.keys(OPERANDS) as Op[];

/** Constants by shape: few numbers for many products. */
function matrices(rig: Rig): (shape: readonly number[]) => Tensor {
  const known = new Map<string, Tensor>();
  return (shape) => {
    const key = shape.join();
    const matrix = known.get(key) ?? rig.constant(shape);
    known.set(key, matrix);
    return matrix;
  };
}

for (const op of OPS) {
  conform(`${op} of all sizes`, (rig) => {
    const matrix = matrices(rig);
    for (const m of SIZES) {
      for (const n of SIZES) {
        for (const k of SIZES) {
          const y = rig.graph.apply(op, OPERANDS[op](m, n, k).map(matrix));
          rig.check(`${op} m ${m}, n ${n}, k ${k}`, y, TOLERANCE, Math.sqrt(k));
        }
      }
    }
  });

  conform(`${op} of many panels`, (rig) => {
    for (const [m, n, k] of [
      [13, 100, 64],
      [1, 77, 131],
      [64, 32, 5],
      [6, 8, 264],
      // More than one block of k, of panels and of rows.
      [53, 270, 515],
    ] as const) {
      const [a, b] = OPERANDS[op](m, n, k);
      const y = rig.graph.apply(op, [rig.constant(a), rig.constant(b)]);
      rig.check(`${op} m ${m}, n ${n}, k ${k}`, y, TOLERANCE * Math.max(1, k / 264), Math.sqrt(k));
    }
  });

  conform(`${op} in batches, with heads that share a matrix`, (rig) => {
    for (const [nSeq, nHead, group] of [
      [1, 1, 1],
      [3, 2, 1],
      [2, 4, 2],
      [1, 6, 3],
      [2, 5, 5],
    ] as const) {
      for (const [m, n, k] of [
        [1, 1, 1],
        [5, 7, 3],
        [4, 8, 16],
        [9, 17, 8],
      ] as const) {
        const [a, b] = OPERANDS[op](m, n, k);
        // matmulTN sums over the heads that share; the others read the one matrix that they share.
        const nShared = op === 'matmulTN' ? nHead : nHead / group;
        const operands = [rig.constant([nSeq, nHead, ...a]), rig.constant([nSeq, nShared, ...b])];
        const name = `${op} [${nSeq}, ${nHead}], group ${group}, m ${m}, n ${n}, k ${k}`;
        rig.check(name, rig.graph.apply(op, operands, { group }), TOLERANCE, Math.sqrt(k * group));
      }
    }
  });
}

conform('matmul and embed with a matrix that is a part of a state', (rig) => {
  const state = rig.state([1000]);
  const view = (offset: number, rows: number, columns: number): Tensor =>
    rig.graph.apply('view', [state], { offset, rows, columns });
  const table = view(112, 9, 7);
  const x = rig.graph.apply('embed', [table, rig.ids([8, 0, 3, 3, 8])]);
  rig.check('rows', x, 0);
  rig.check('matmul', rig.graph.apply('matmul', [x, view(16, 13, 7)]), TOLERANCE, 3);
  rig.check('matmul by the table', rig.graph.apply('matmul', [x, table]), TOLERANCE, 3);
  rig.check('add', rig.graph.apply('add', [x, view(993, 0, 7)]), TOLERANCE);
});

conform('a sum that is made twice in the same memory is cleared both times', (rig) => {
  const p = rig.constant([5, 6]);
  const values = rig.constant([6, 5]);
  let y = rig.graph.apply('weightedSum', [p, values]);
  for (let i = 0; i < 4; i++) y = rig.graph.apply('weightedSum', [rig.graph.apply('weightedSum', [y, p]), values]);
  rig.check('y', y, 1e-5);
});
