// The operations without weights of their own types: element by element, row by row, rotation. Sizes are odd on
// purpose, and every result is also computed in place, in the middle of a chain.

import { after, before } from 'node:test';
import type { OpName } from '../../src/graph/operations.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import type { Rig } from './rig.ts';
import { conform, holdThreads, rowCount } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const COLUMNS = [1, 3, 4, 5, 15, 16, 17, 33, 64, 67];
const STEPS = [13, 1, 0, 2, 7].map((rows) => ({ rows }));

/** A few roundings of float32. */
const TOLERANCE = 3e-7;
/** The exponential of the kernels is good for 2 ulp. */
const EXP_TOLERANCE = 6e-7;

const RMS_NORM = { eps: 1e-5 };

conform('add and mul of two matrices', (rig) => {
  for (const op of ['add', 'mul'] as const) {
    for (const columns of COLUMNS) {
      const [a, b] = [rig.constant([5, columns]), rig.constant([5, columns])];
      rig.check(`${op} [5, ${columns}]`, rig.graph.apply(op, [a, b]), TOLERANCE);
    }
  }
});

conform('add and mul of a matrix and one row', (rig) => {
  for (const op of ['add', 'mul'] as const) {
    for (const columns of COLUMNS) {
      const [a, row] = [rig.constant([4, columns]), rig.constant([columns])];
      rig.check(`${op} [4, ${columns}]`, rig.graph.apply(op, [a, row]), TOLERANCE);
    }
  }
});

conform('add of a bias stored as F16', (rig) => {
  rig.check('y', rig.graph.apply('add', [rig.constant([3, 7]), rig.weight('F16', [7])]), TOLERANCE);
});

conform('silu, alone and multiplied', (rig) => {
  for (const columns of COLUMNS) {
    const a = rig.constant([3, columns], rig.numbers(3 * columns, 4));
    rig.check(`silu [3, ${columns}]`, rig.graph.apply('silu', [a]), EXP_TOLERANCE);
    const b = rig.constant([3, columns]);
    rig.check(`siluMul [3, ${columns}]`, rig.graph.apply('mul', [rig.graph.apply('silu', [a]), b]), EXP_TOLERANCE);
    const row = rig.constant([columns]);
    rig.check(`siluMul by a row`, rig.graph.apply('mul', [rig.graph.apply('silu', [a]), row]), EXP_TOLERANCE);
  }
});

conform('sigmoid, and the clamped gate of gpt-oss', (rig) => {
  for (const columns of COLUMNS) {
    const [a, b] = [0, 1].map(() => rig.constant([3, columns], rig.numbers(3 * columns, 6))) as [Tensor, Tensor];
    rig.check(`sigmoid [3, ${columns}]`, rig.graph.apply('sigmoid', [a]), EXP_TOLERANCE);
    rig.check(`swigluOai [3, ${columns}]`, rig.graph.apply('swigluOai', [a, b]), EXP_TOLERANCE);
  }
});

conform('scale, and softcap of what is far below, near and beyond the cap', (rig) => {
  for (const columns of COLUMNS) {
    const a = rig.constant([3, columns], rig.numbers(3 * columns, 4));
    rig.check(`scale [3, ${columns}]`, rig.graph.apply('scale', [a], { factor: -0.3 }), TOLERANCE);
    for (const cap of [0.5, 3, 1000]) {
      rig.check(`softcap ${cap} [3, ${columns}]`, rig.graph.apply('softcap', [a], { cap }), EXP_TOLERANCE);
    }
  }
  const values = Float32Array.from({ length: 400 }, (_, i) => (i - 200) / 100);
  // One to a row, so that each is as exact for itself as the row's largest has to be.
  rig.check('around 0', rig.graph.apply('softcap', [rig.constant([400, 1], values)], { cap: 1 }), EXP_TOLERANCE);
});

conform('rmsNorm of the heads of a row', (rig) => {
  for (const columns of COLUMNS) {
    const operands = [rig.constant([5, 3 * columns]), rig.constant([columns])];
    rig.check(`[5, 3 · ${columns}]`, rig.graph.apply('rmsNorm', operands, RMS_NORM), TOLERANCE * 2);
  }
});

conform('rmsNorm', (rig) => {
  for (const columns of COLUMNS) {
    const y = rig.graph.apply('rmsNorm', [rig.constant([5, columns]), rig.constant([columns])], RMS_NORM);
    rig.check(`[5, ${columns}]`, y, TOLERANCE * 2);
  }
  const weight = rig.weight('BF16', [64]);
  rig.check('one row', rig.graph.apply('rmsNorm', [rig.constant([64]), weight], RMS_NORM), TOLERANCE * 2);
});

conform('rmsNorm of rows from 1e-15 to 1e15', (rig) => {
  const values = rig.numbers(3 * 36).map((x, i) => x * [1e-15, 1, 1e15][Math.floor(i / 36)]!);
  const y = rig.graph.apply('rmsNorm', [rig.constant([3, 36], values), rig.constant([36])], { eps: 0 });
  rig.check('y', y, TOLERANCE * 2);
});

conform(
  'operations on a number of rows that varies touch no row beyond it',
  (rig) => {
    const x = rig.activations(rowCount(13), 20);
    rig.check('add', rig.graph.apply('add', [x, x]), TOLERANCE);
    rig.check('mul', rig.graph.apply('mul', [x, rig.constant([20])]), TOLERANCE);
    rig.check('silu', rig.graph.apply('silu', [x]), EXP_TOLERANCE);
    rig.check('rmsNorm', rig.graph.apply('rmsNorm', [x, rig.constant([20])], RMS_NORM), TOLERANCE * 2);
    rig.check('rmsNorm of heads', rig.graph.apply('rmsNorm', [x, rig.constant([5])], RMS_NORM), TOLERANCE * 2);
    rig.check('scale', rig.graph.apply('scale', [x], { factor: 3 }), TOLERANCE);
    rig.check('softcap', rig.graph.apply('softcap', [x], { cap: 2 }), EXP_TOLERANCE);
    const [positions, angles] = rotation(rig, 6, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5, 0, 0, 9]);
    const rotated = rig.graph.apply('rope', [x, positions, angles], { headDim: 10, nRot: 6, neox: 0 });
    rig.check('rope', rotated, TOLERANCE);
  },
  { steps: STEPS },
);

conform('a chain of operations in one buffer', (rig) => {
  const x = rig.constant([7, 48]);
  const apply = (op: OpName, ...more: Parameters<typeof rig.graph.apply>[1]) => rig.graph.apply(op, more);
  const product = apply('mul', rig.graph.apply('add', [x, rig.constant([7, 48])]), rig.constant([48]));
  const normed = rig.graph.apply('rmsNorm', [apply('silu', product), rig.constant([48])], RMS_NORM);
  const [positions, angles] = rotation(rig, 12, [3, 1, 4, 1, 5, 9, 2]);
  rig.check('y', rig.graph.apply('rope', [normed, positions, angles], { headDim: 16, nRot: 12, neox: 1 }), 2e-6);
});

conform(
  'gatherRows',
  (rig) => {
    for (const columns of COLUMNS) {
      const x = rig.constant([6, columns]);
      rig.check(`[6, ${columns}]`, rig.graph.apply('gatherRows', [x, rig.ids([5, 0, 0, 3, 5], rowCount(5))]), 0);
    }
  },
  { steps: [5, 1, 0, 4].map((rows) => ({ rows })) },
);

/** Positions as input, and a table of the angles of ten positions. */
function rotation(rig: Rig, nRot: number, positions: readonly number[]) {
  const values = Float32Array.from({ length: 10 * nRot }, (_, i) => {
    const angle = 0.1 + 0.37 * Math.floor(i / 2);
    return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });
  const ids = rig.ids(positions, positions.length === 13 ? rowCount(13) : positions.length);
  return [ids, rig.constant([10, nRot], values)] as const;
}

for (const pairing of ['interleaved', 'halves']) {
  conform(`rope of whole heads and of parts, pairs ${pairing}`, (rig) => {
    const neox = pairing === 'halves' ? 1 : 0;
    for (const [nHead, headDim, nRot] of [
      [1, 2, 2],
      [3, 4, 4],
      [2, 8, 6],
      [5, 12, 2],
      [1, 64, 64],
      [2, 80, 32],
      [3, 6, 0],
    ] as const) {
      const x = rig.constant([5, nHead * headDim]);
      const [positions, angles] = rotation(rig, Math.max(nRot, 2), [9, 0, 4, 4, 1]);
      const table = nRot === 0 ? rig.constant([10, 0], new Float32Array()) : angles;
      const y = rig.graph.apply('rope', [x, positions, table], { headDim, nRot, neox });
      rig.check(`${nHead} heads of ${headDim}, ${nRot} rotated`, y, TOLERANCE, 1);
    }
  });
}
