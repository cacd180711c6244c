// The operation table: shapes that follow from operands, and errors that name operation, tensors and rule.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DType } from '../base/dtype.ts';
import type { OpParams } from './operation.ts';
import type { OpName } from './operations.ts';
import { OPERATIONS } from './operations.ts';
import { Graph } from './tensor.ts';
import type { Shape, Tensor } from './tensor.ts';

const ROWS = { name: 'nTokens', max: 8 };
const graph = new Graph();
let nLeaf = 0;

function leaf(dtype: DType, ...shape: Shape): Tensor {
  return graph.leaf('input', `leaf${nLeaf++}`, dtype, shape);
}

const f32 = (...shape: Shape): Tensor => leaf('F32', ...shape);
const i32 = (...shape: Shape): Tensor => leaf('I32', ...shape);
const state = (columns: number): Tensor => graph.leaf('state', `state${nLeaf++}`, 'F16', [64, columns]);

const HEADS = { nHead: 4, nHeadKv: 2, headDim: 8, blockSize: 32, scale: 1 };
const attentionOperands = (): Tensor[] => [f32(ROWS, 32), state(16), state(16), i32(ROWS), i32(ROWS), i32(2, 1)];

test('results have the shapes and types of the table', () => {
  const shapeOf = (op: OpName, inputs: Tensor[], params: OpParams = {}) => {
    const { shape, dtype } = graph.apply(op, inputs, params);
    return [dtype, ...shape];
  };
  assert.deepEqual(shapeOf('embed', [leaf('Q8_0', 100, 64), i32(ROWS)]), ['F32', ROWS, 64]);
  assert.deepEqual(shapeOf('embed', [leaf('Q8_0', 100, 64), i32(ROWS, 3)]), ['F32', ROWS, 192]);
  assert.deepEqual(shapeOf('gatherRows', [f32(ROWS, 64), i32(3)]), ['F32', 3, 64]);
  assert.deepEqual(shapeOf('matmul', [f32(ROWS, 64), leaf('Q4_0', 10, 64)]), ['F32', ROWS, 10]);
  assert.deepEqual(shapeOf('rmsNorm', [f32(ROWS, 64), f32(64)], { eps: 0 }), ['F32', ROWS, 64]);
  assert.deepEqual(shapeOf('add', [f32(ROWS, 5), f32(5)]), ['F32', ROWS, 5]);
  assert.deepEqual(shapeOf('mul', [f32(4, 5), f32(4, 5)]), ['F32', 4, 5]);
  assert.deepEqual(shapeOf('silu', [f32(4, 5)]), ['F32', 4, 5]);
  assert.deepEqual(shapeOf('siluMul', [f32(4, 5), f32(4, 5)]), ['F32', 4, 5]);
  assert.deepEqual(shapeOf('quantize', [f32(ROWS, 64)]), ['Q8A', ROWS, 64]);
  const rope = { headDim: 8, nRot: 6, neox: 0 };
  assert.deepEqual(shapeOf('rope', [f32(ROWS, 32), i32(ROWS), f32(99, 6)], rope), ['F32', ROWS, 32]);
  assert.deepEqual(shapeOf('kvWrite', [state(16), f32(ROWS, 16), i32(ROWS)]), ['F16', 64, 16]);
  assert.deepEqual(shapeOf('attention', attentionOperands(), HEADS), ['F32', ROWS, 32]);
  assert.deepEqual(shapeOf('view', [f32(99)], { offset: 16, rows: 3, columns: 5 }), ['F32', 3, 5]);
  assert.deepEqual(shapeOf('view', [f32(99)], { offset: 16, rows: 0, columns: 5 }), ['F32', 5]);
  const heads = { nSeq: 2, nHead: 3, headDim: 4, column: 1 };
  assert.deepEqual(shapeOf('splitHeads', [f32(10, 13)], heads), ['F32', 2, 3, 5, 4]);
  assert.deepEqual(shapeOf('mergeHeads', [f32(2, 3, 5, 4)], { nSeq: 2, columns: 13, column: 1 }), ['F32', 10, 13]);
  assert.deepEqual(shapeOf('matmulNT', [f32(2, 4, 5, 6), f32(2, 2, 7, 6)], { group: 2 }), ['F32', 2, 4, 5, 7]);
  assert.deepEqual(shapeOf('matmulNN', [f32(2, 4, 5, 6), f32(2, 2, 6, 7)], { group: 2 }), ['F32', 2, 4, 5, 7]);
  assert.deepEqual(shapeOf('matmulTN', [f32(2, 4, 5, 6), f32(2, 4, 5, 7)], { group: 2 }), ['F32', 2, 2, 6, 7]);
  assert.deepEqual(shapeOf('weightedSum', [f32(2, 4, 5, 6), f32(2, 2, 6, 7)], { group: 2 }), ['F32', 2, 4, 5, 7]);
  assert.deepEqual(shapeOf('crossEntropy', [f32(9, 5), i32(9)], { ignore: -1 }), ['F32', 9]);
  assert.deepEqual(shapeOf('meanLoss', [f32(9), i32(9)], { ignore: -1 }), ['F32', 1]);
  assert.deepEqual(shapeOf('embedGradient', [f32(9, 5), i32(9)], { nRows: 7 }), ['F32', 7, 5]);
  assert.deepEqual(shapeOf('sumRows', [f32(9, 5)]), ['F32', 5]);
  assert.deepEqual(shapeOf('sumSquares', [f32(9)]), ['F32', 64]);
});

test('a shape error names the operation, its operands and the rule', () => {
  const x = graph.leaf('input', 'x', 'F32', [ROWS, 64]);
  const w = graph.leaf('weight', 'w', 'Q4_0', [10, 32]);
  assert.throws(() => graph.apply('matmul', [x, w]), {
    name: 'ShapeError',
    code: 'SHAPE_MISMATCH',
    message: 'matmul("x" f32[nTokens, 64], "w" q4_0[10, 32]): inner sizes must be equal',
  });
});

const rope = { headDim: 8, nRot: 8, neox: 0 };
const MISTAKES: readonly [OpName, () => Tensor[], RegExp, OpParams?][] = [
  ['embed', () => [f32(9, 4), f32(3)], /ids must be i32/],
  ['gatherRows', () => [f32(9, 4), f32(3)], /rows must be i32/],
  ['matmul', () => [f32(9, 4), f32(4)], /inner sizes/],
  ['rmsNorm', () => [f32(9, 4), f32(5)], /weight is one row/, { eps: 0 }],
  ['rmsNorm', () => [f32(9, 4), f32(9, 4)], /weight is one row/, { eps: 0 }],
  ['rmsNorm', () => [f32(9, 4), f32(4)], /eps/, { eps: -1 }],
  ['rmsNorm', () => [f32(9, 4), f32(4)], /eps/],
  ['add', () => [f32(9, 4), f32(9, 5)], /columns must be equal/],
  ['add', () => [f32(9, 4), f32(8, 4)], /rows must be equal/],
  ['mul', () => [f32(ROWS, 4), f32(8, 4)], /rows must be equal/],
  ['siluMul', () => [f32(9, 4), f32(3)], /columns must be equal/],
  ['rope', () => [f32(9, 16), f32(9), f32(50, 8)], /positions/, rope],
  ['rope', () => [f32(9, 16), i32(9), f32(50, 6)], /table/, rope],
  ['rope', () => [f32(9, 16), i32(9), f32(50, 3)], /table/, { ...rope, nRot: 3 }],
  ['rope', () => [f32(9, 16), i32(9), f32(50, 16)], /table/, { ...rope, nRot: 16 }],
  ['rope', () => [f32(9, 12), i32(9), f32(50, 8)], /multiple of headDim/, rope],
  ['kvWrite', () => [state(16), f32(9, 8), i32(9)], /columns must be equal/],
  ['kvWrite', () => [state(16), f32(9, 16), f32(9)], /columns must be equal/],
  ['attention', () => [f32(ROWS, 24), ...attentionOperands().slice(1)], /q has nHead/, HEADS],
  ['attention', () => [f32(ROWS, 32), state(8), ...attentionOperands().slice(2)], /keys have nHeadKv/, HEADS],
  ['attention', attentionOperands, /heads must divide|keys have/, { ...HEADS, nHeadKv: 3 }],
  ['quantize', () => [f32(9, 48)], /multiple of 32/],
  ['layerNorm', () => [f32(9, 4), f32(4), f32(9, 4)], /weight and bias are one row/, { eps: 0 }],
  ['layerNorm', () => [f32(9, 4), f32(4), f32(4)], /eps/, { eps: -1 }],
  ['layerNorm', () => [f32(9, 4), f32(4), f32(4)], /divide into runs/, { eps: 0, nRuns: 3 }],
  ['splitHeads', () => [f32(9, 12)], /multiple of nSeq/, { nSeq: 2, nHead: 3, headDim: 4, column: 0 }],
  ['splitHeads', () => [f32(9, 12)], /within the columns/, { nSeq: 3, nHead: 3, headDim: 4, column: 1 }],
  ['mergeHeads', () => [f32(2, 3, 5, 4)], /must fit/, { nSeq: 2, columns: 12, column: 1 }],
  ['matmulNT', () => [f32(3, 4), f32(3, 5)], /inner sizes/],
  ['matmulNN', () => [f32(3, 4), f32(3, 4)], /inner sizes/],
  ['matmulTN', () => [f32(3, 4), f32(4, 4)], /inner sizes/],
  ['matmulNT', () => [f32(2, 4, 3, 5), f32(2, 2, 3, 5)], /batches must match/],
  ['weightedSum', () => [f32(2, 4, 3, 5), f32(2, 2, 5, 3)], /batches must match/, { group: 4 }],
  ['dropout', () => [f32(3, 4), i32(3)], /i32\[4\]/, { p: 0.5, stream: 0 }],
  ['dropout', () => [f32(3, 4), i32(4)], /above 0/, { p: 0, stream: 0 }],
  ['crossEntropy', () => [f32(3, 4), i32(4)], /targets/, { ignore: -1 }],
  ['crossEntropy', () => [f32(3, 4), f32(3)], /targets/, { ignore: -1 }],
  ['accumulateGradient', () => [f32(3, 4), f32(4)], /same number of elements/],
];

for (const [op, operands, rule, params] of MISTAKES) {
  const inputs = operands();
  const shapes = inputs.map((t) => `${t.dtype}[${t.shape.map((d) => (typeof d === 'number' ? d : d.name))}]`);
  test(`${op}(${shapes.join(', ')}) is refused: ${rule.source}`, () => {
    const judge = (error: Error): boolean => {
      assert.equal(error.name, 'ShapeError');
      assert.match(error.message, rule);
      assert.ok(error.message.startsWith(`${op}(`));
      for (const { name } of inputs) assert.ok(error.message.includes(`"${name}"`), error.message);
      return true;
    };
    assert.throws(() => graph.apply(op, inputs, params), judge);
  });
}

test('a wrong number of operands is our own mistake', () => {
  assert.throws(() => graph.apply('add', [f32(2, 2)]), { code: 'INTERNAL', message: /add takes 2 operands, got 1/ });
  assert.throws(() => graph.apply('attention', [f32(2, 2)], HEADS), { code: 'INTERNAL' });
});

test('every operation declares how it writes, and leaves infer nothing', () => {
  for (const [op, { write }] of Object.entries(OPERATIONS)) assert.ok(write !== undefined, op);
  assert.throws(() => OPERATIONS.weight.infer([], {}));
});

test('a leaf of the same name is the same tensor, and constants are computed once, when they are wanted', () => {
  const fresh = new Graph();
  const weight = fresh.leaf('weight', 'w', 'F32', [2, 2]);
  assert.equal(fresh.leaf('weight', 'w', 'F32', [2, 2]), weight);
  assert.notEqual(fresh.leaf('state', 'w', 'F32', [2, 2]), weight);
  let nCalls = 0;
  const values = () => {
    nCalls++;
    return new Float32Array(2);
  };
  assert.equal(fresh.constant('c', [2], values), fresh.constant('c', [2], values));
  assert.equal(nCalls, 0);
  const read = fresh.constants.get('c')!;
  assert.equal(read(), read());
  assert.equal(nCalls, 1);
});
