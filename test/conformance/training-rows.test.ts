// What training works out row by row: LayerNorm, derivatives of norms, softmax and activations. Every row length from 1
// to 33, each result both in memory of its own and in that of the first operand.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { planForWasm } from '../../src/backend/wasm/executor.ts';
import { chooseVariant } from '../../src/backend/wasm/probe.ts';
import type { OpName } from '../../src/graph/operations.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import { columnsOf } from '../../src/graph/tensor.ts';
import { Rig, conform, holdThreads } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const COLUMNS = Array.from({ length: 33 }, (_, i) => i + 1);
const ROWS = [1, 2, 3, 5, 13];
/** Large enough that rows of one or two numbers are not divided by next to nothing. */
const EPS = 0.1;

interface Case {
  readonly name: string;
  readonly op: OpName;
  /** Shapes of all operands, for a number of rows and of columns. */
  readonly shapes: (rows: number, columns: number) => readonly (readonly number[])[];
  readonly params?: Readonly<Record<string, number>>;
  readonly tolerance: number;
}

const matrix = (rows: number, columns: number): number[] => [rows, columns];
const one = (rows: number, columns: number): number[][] => [matrix(rows, columns)];
const two = (rows: number, columns: number): number[][] => [matrix(rows, columns), matrix(rows, columns)];
/** [sequences, heads, positions, positions], with 1 or 2 heads by turns. */
const scores = (rows: number, columns: number): number[] => [1 + (rows % 2), 1 + (columns % 2), columns, columns];

const CASES: readonly Case[] = [
  {
    name: 'layerNorm',
    op: 'layerNorm',
    shapes: (rows, columns) => [matrix(rows, columns), [columns], [columns]],
    params: { eps: EPS },
    tolerance: 1e-6,
  },
  {
    name: 'layerNorm of three runs a row',
    op: 'layerNorm',
    shapes: (rows, columns) => [matrix(rows, 3 * columns), [3 * columns], [3 * columns]],
    params: { eps: EPS, nRuns: 3 },
    tolerance: 1e-6,
  },
  ...[0, 1].flatMap((centred): Case[] => [
    {
      name: `normalize, ${centred ? 'centred' : 'as it is'}`,
      op: 'normalize',
      shapes: one,
      params: { eps: EPS, centred },
      tolerance: 1e-6,
    },
    {
      name: `normGradient, ${centred ? 'centred' : 'as it is'}`,
      op: 'normGradient',
      shapes: (rows, columns) => [...two(rows, columns), [columns]],
      params: { eps: EPS, centred },
      tolerance: 4e-6,
    },
  ]),
  { name: 'gelu', op: 'gelu', shapes: one, tolerance: 6e-7 },
  { name: 'geluGradient', op: 'geluGradient', shapes: two, tolerance: 1e-6 },
  { name: 'siluGradient', op: 'siluGradient', shapes: two, tolerance: 1e-6 },
  {
    name: 'causalSoftmax',
    op: 'causalSoftmax',
    shapes: (rows, columns) => [scores(rows, columns)],
    params: { scale: 0.7 },
    tolerance: 1e-6,
  },
  {
    name: 'softmaxGradient',
    op: 'softmaxGradient',
    shapes: (rows, columns) => [scores(rows, columns), scores(rows, columns)],
    params: { scale: 0.7 },
    tolerance: 4e-6,
  },
];

/** Results in memory of their own, and those called `in place` in that of the first operand. */
function bothWays(rig: Rig, { name, op, shapes, params, tolerance }: Case): void {
  for (const columns of COLUMNS) {
    // Scores are square: the number of rows follows.
    for (const rows of /softmax/i.test(op) ? [1, 2] : ROWS) {
      const [first, ...others] = shapes(rows, columns).map((shape) => rig.constant(shape)) as [Tensor, ...Tensor[]];
      const nColumns = first.shape.at(-1) as number;
      const zeros = rig.constant([nColumns], new Float32Array(nColumns));
      const fresh = (): Tensor => rig.graph.apply('add', [first, zeros]);
      const where = `${name} [${rows}, ${columns}]`;
      const kept = fresh();
      rig.keep(kept);
      rig.check(where, rig.graph.apply(op, [kept, ...others], params), tolerance, 1);
      rig.check(`${where} in place`, rig.graph.apply(op, [fresh(), ...others], params), tolerance, 1);
    }
  }
}

for (const each of CASES) conform(each.name, (rig) => bothWays(rig, each));

test('the results called "in place" are, and the others are not', () => {
  for (const each of CASES) {
    const rig = new Rig();
    bothWays(rig, each);
    const { instructions, outputs } = planForWasm(rig.graph, { activations: 'f32' }, chooseVariant('auto'));
    rig.checks.forEach(({ name, tolerance }, i) => {
      if (tolerance === Infinity) return;
      const { out, inputs } = instructions.find((instruction) => instruction.out.tensor === outputs[i]!.tensor)!;
      assert.equal(out.offsetBytes === inputs[0]!.offsetBytes, name.endsWith('in place'), name);
    });
  }
});

conform('layerNorm of rows far from 0', (rig) => {
  for (const columns of [4, 33, 100]) {
    const values = rig.numbers(5 * columns).map((x, i) => 1000 * Math.floor(i / columns) + x);
    const operands = [rig.constant([5, columns], values), rig.constant([columns]), rig.constant([columns])];
    rig.check(`[5, ${columns}]`, rig.graph.apply('layerNorm', operands, { eps: 1e-5 }), 4e-4, 1);
  }
});

conform('causalSoftmax of scores from -1e4 to 1e4 gives 0 and 1', (rig) => {
  for (const columns of [1, 4, 7, 9]) {
    const values = rig.numbers(columns * columns, 1e4);
    const probs = rig.graph.apply('causalSoftmax', [rig.constant([1, 1, columns, columns], values)], { scale: 1 });
    rig.check(`T ${columns}`, probs, 1e-6, 1);
  }
});

for (const pairing of ['neighbours', 'halves']) {
  conform(`rope turned back, pairs of ${pairing}, also in place`, (rig) => {
    const angles = Float32Array.from({ length: 10 * 6 }, (_, i) => {
      const angle = 0.1 + 0.37 * Math.floor(i / 2);
      return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
    });
    const table = rig.constant([10, 6], angles);
    const positions = rig.ids([9, 0, 4, 4, 1]);
    const params = { headDim: 9, nRot: 6, neox: pairing === 'halves' ? 1 : 0 };
    const x = rig.constant([5, 3 * 9]);
    rig.check('back', rig.graph.apply('rope', [x, positions, table], { ...params, inverse: 1 }), 1e-6, 1);
    const turned = rig.graph.apply('rope', [x, positions, table], params);
    rig.check(
      'there and back',
      rig.graph.apply('rope', [turned, positions, table], { ...params, inverse: 1 }),
      1e-6,
      1,
    );
  });
}

conform('heads out of rows and back', (rig) => {
  for (const [nSeq, nHead, nPositions, headDim, column, more] of [
    [1, 1, 1, 1, 0, 0],
    [2, 3, 5, 4, 0, 0],
    [3, 2, 7, 5, 3, 2],
    [1, 4, 13, 8, 32, 64],
    [2, 1, 4, 33, 1, 0],
  ] as const) {
    const columns = column + nHead * headDim + more;
    const rows = rig.constant([nSeq * nPositions, columns]);
    const split = rig.graph.apply('splitHeads', [rows], { nSeq, nHead, headDim, column });
    rig.check(`split [${split.shape}]`, split, 0);
    const heads = rig.constant(split.shape as number[]);
    rig.check(`merged [${split.shape}]`, rig.graph.apply('mergeHeads', [heads], { nSeq, columns, column }), 0);
    assert.equal(columnsOf(split), headDim);
  }
});
