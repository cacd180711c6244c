// The oracle itself, against numbers worked out by hand: nothing else would notice if it were wrong in the same way as
// a kernel.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Graph } from '../../graph/tensor.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { quantize } from '../../quant/codecs.ts';
import type { WeightSource } from '../executor.ts';
import { ReferenceExecutor } from './executor.ts';
import { evaluateOperation } from './operations.ts';

const nothing: WeightSource = { read: () => Promise.reject(new Error('there are no weights')) };

function near(actual: ArrayLike<number>, expected: readonly number[], tolerance = 1e-6): void {
  assert.equal(actual.length, expected.length);
  expected.forEach((x, i) => assert.ok(Math.abs(actual[i]! - x) <= tolerance, `[${i}] ${actual[i]} is not ${x}`));
}

function constant(graph: Graph, shape: number[], ...values: number[]): Tensor {
  return graph.constant(`c${graph.nodes.length}`, shape, () => Float32Array.from(values));
}

/** The result of one operation on constants. */
async function valueOf(build: (graph: Graph) => Tensor, inputs: Record<string, number[]> = {}): Promise<number[]> {
  const graph = new Graph();
  graph.output(build(graph));
  const executor = await ReferenceExecutor.create(graph, nothing);
  for (const [name, values] of Object.entries(inputs)) executor.input(name).set(values);
  executor.run();
  return [...executor.output(0)];
}

test('element by element, with a row for all rows', async () => {
  const of = (op: 'add' | 'mul' | 'siluMul', b: number[], shape: number[]) =>
    valueOf((g) => g.apply(op, [constant(g, [2, 2], 1, 2, 3, 4), constant(g, shape, ...b)]));
  near(await of('add', [10, 20], [2]), [11, 22, 13, 24]);
  near(await of('mul', [1, 2, 3, 4], [2, 2]), [1, 4, 9, 16]);
  // silu(x) = x / (1 + e^-x)
  near(await of('siluMul', [1, 10], [2]), [0.7310586, 17.615942, 2.8577224, 39.280552], 1e-5);
});

test('matmul multiplies by the transposed weight', async () => {
  near(
    await valueOf((g) =>
      g.apply('matmul', [constant(g, [2, 3], 1, 2, 3, 4, 5, 6), constant(g, [2, 3], 1, 0, 0, 1, 1, 1)]),
    ),
    [1, 6, 4, 15],
  );
});

test('rmsNorm divides each row by its root mean square', async () => {
  const y = await valueOf((g) =>
    g.apply('rmsNorm', [constant(g, [2, 2], 3, 4, 0, 0), constant(g, [2], 1, 2)], { eps: 0.5 }),
  );
  // mean(9, 16) + 0.5 = 13
  near(y, [3 / Math.sqrt(13), 8 / Math.sqrt(13), 0, 0]);
});

test('rope turns pairs of neighbours, or of halves, by the angle of the position', async () => {
  // Position 1 turns the first pair by 90°, the second by 180°.
  const turned = (neox: number, x: number[]) =>
    valueOf(
      (g) => {
        const angles = constant(g, [2, 4], 1, 0, 1, 0, 0, 1, -1, 0);
        const positions = g.leaf('input', 'positions', 'I32', [1]);
        return g.apply('rope', [constant(g, [1, 5], ...x), positions, angles], { headDim: 5, nRot: 4, neox });
      },
      { positions: [1] },
    );
  near(await turned(0, [1, 2, 3, 4, 9]), [-2, 1, -3, -4, 9]);
  near(await turned(1, [1, 2, 3, 4, 9]), [-3, -2, 1, -4, 9]);
});

test('attention weighs values by the softmax of scaled scores, over the positions up to its own', async () => {
  const attend = (position: number) =>
    valueOf(
      (g) => {
        const leaf = (name: string, ...shape: number[]) => g.leaf('input', name, 'I32', shape);
        const state = (name: string) => g.leaf('state', name, 'F32', [4, 2]);
        const slots = leaf('slots', 3);
        // Blocks of two rows; the table puts block 1 before block 0.
        const keys = constant(g, [3, 2], 0, 0, Math.log(3), 0, 50, 50);
        const values = constant(g, [3, 2], 4, 0, 8, 4, 1000, 1000);
        const q = constant(g, [1, 4], 1, 0, 0, 0);
        const operands = [
          q,
          g.apply('kvWrite', [state('keys'), keys, slots]),
          g.apply('kvWrite', [state('values'), values, slots]),
        ];
        const step = [leaf('positions', 1), leaf('sequences', 1), leaf('tables', 2, 2)];
        const params = { nHead: 2, nHeadKv: 1, headDim: 2, blockSize: 2, scale: 1 };
        return g.apply('attention', [...operands, ...step], params);
      },
      { slots: [2, 3, 0], positions: [position], sequences: [1], tables: [9, 9, 1, 0] },
    );
  // Weights 1/4 and 3/4 for the first head; equal ones for the second, whose q is zero.
  near(await attend(1), [7, 3, 6, 2]);
  near(await attend(0), [4, 0, 4, 0]);
});

test('rows that vary are as many as the counts say; those behind are stale', async () => {
  const graph = new Graph();
  const rows = { name: 'rows', max: 3 };
  const ids = graph.leaf('input', 'ids', 'I32', [rows]);
  graph.output(graph.apply('embed', [graph.leaf('weight', 'w', 'Q8_0', [2, 32]), ids], {}, 'rows of w'));
  const bytes = quantize(
    'Q8_0',
    Float32Array.from({ length: 64 }, (_, i) => (i < 32 ? 127 : -127)),
  );
  const read = async (name: string, offset: number, target: Uint8Array): Promise<void> => {
    assert.equal(name, 'w');
    target.set(bytes.subarray(offset, offset + target.length));
  };
  const progress: number[][] = [];
  const executor = await ReferenceExecutor.create(graph, { read }, (...p) => void progress.push(p));
  assert.deepEqual(progress, [[68, 68]]);
  executor.input('ids').set([1, 0, 1]);
  for (const count of [3, 1]) {
    executor.rowCount('rows')[0] = count;
    executor.output(0).fill(7);
    executor.run();
    const firsts = [0, 1, 2].map((row) => executor.output(0)[row * 32]);
    assert.deepEqual(firsts, count === 3 ? [-127, 127, -127] : [-127, 7, 7]);
    assert.equal(executor.value('rows of w').length, count * 32);
  }
  assert.throws(() => executor.value('nothing'), { code: 'INTERNAL', message: /"nothing"/ });
  assert.equal(executor.memoryBytes, 64 * 8);
});

test('state lasts from step to step', async () => {
  const graph = new Graph();
  const slots = graph.leaf('input', 'slots', 'I32', [1]);
  const row = constant(graph, [1, 2], 5, 6);
  const written = graph.apply('kvWrite', [graph.leaf('state', 's', 'F32', [3, 2]), row, slots]);
  graph.output(graph.apply('gatherRows', [written, graph.leaf('input', 'all', 'I32', [3])]));
  const executor = await ReferenceExecutor.create(graph, nothing);
  executor.input('all').set([0, 1, 2]);
  for (const slot of [2, 0]) {
    executor.input('slots')[0] = slot;
    executor.run();
  }
  assert.deepEqual([...executor.output(0)], [5, 6, 0, 0, 5, 6]);
  await executor.close();
});

test('what it does not know it says', () => {
  assert.throws(() => evaluateOperation('quantize', [], {}, []), { code: 'INTERNAL', message: /"quantize"/ });
});
