// Records: what a kernel finds where it looks for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planProgram } from '../../graph/plan.ts';
import { Graph } from '../../graph/tensor.ts';
import { encodePrograms } from './encode.ts';
import { BARRIER_OFFSET, INPUT_SLOT, OUT_SLOT, PARAM_SLOT, RECORD_BYTES, SLOT_BYTES } from './kernels/kernel.ts';
import { ROWS_SLOT, SCRATCH_SLOT } from './kernels/kernel.ts';
import { KERNELS, kernelsOf } from './kernels/table.ts';
import { layOutMemory } from './memory.ts';

function encode() {
  const graph = new Graph();
  const rows = { name: 'nTokens', max: 5 };
  const ids = graph.leaf('input', 'ids', 'I32', [rows]);
  const table = graph.leaf('weight', 'table', 'F16', [9, 12]);
  const x = graph.apply('embed', [table, ids]);
  const normed = graph.apply('rmsNorm', [x, graph.leaf('weight', 'norm', 'F32', [12])], { eps: 0.25 });
  const constant = graph.constant('c', [3, 12], () => new Float32Array(36));
  graph.output(graph.apply('matmul', [normed, table]));
  graph.output(graph.apply('silu', [constant]));
  const program = planProgram(graph);
  const layout = layOutMemory([program], 2);
  const kernels = kernelsOf([program]);
  const view = new DataView(new ArrayBuffer(layout.sizeBytes));
  encodePrograms([program], kernels, layout, view.buffer);
  const start = layout.programAddresses[0]!;
  const word = (index: number, slot: number, offset = 0): number =>
    view.getUint32(start + index * RECORD_BYTES + slot * SLOT_BYTES + offset, true);
  return { program, start, layout, kernels, view, word };
}

test('a record names its kernel and whether to wait', () => {
  const { program, kernels, word } = encode();
  program.instructions.forEach(({ op, barrier }, i) => {
    assert.equal(kernels[word(i, 0)]!.op, op);
    assert.equal(word(i, 0, BARRIER_OFFSET), barrier ? 1 : 0);
  });
  assert.deepEqual(
    program.instructions.map((i) => i.barrier),
    [false, true, true, true],
  );
});

test('a record holds the addresses of result, operands and scratch', () => {
  const { program, layout, word } = encode();
  program.instructions.forEach(({ out, inputs }, i) => {
    assert.equal(word(i, OUT_SLOT), layout.addressOf(out));
    inputs.forEach((input, n) => assert.equal(word(i, INPUT_SLOT + n), layout.addressOf(input)));
    assert.equal(word(i, SCRATCH_SLOT), layout.scratchAddress);
  });
});

test('rows are read through an address: of the count that varies, or of the number in the record itself', () => {
  const { start, layout, view, word } = encode();
  assert.equal(word(0, ROWS_SLOT), layout.rowCountAddress('nTokens'));
  const fixed = word(3, ROWS_SLOT);
  assert.ok(fixed >= start + 3 * RECORD_BYTES && fixed < start + 4 * RECORD_BYTES);
  assert.equal(view.getInt32(fixed, true), 3);
});

test('parameters stand in the order in which the kernel declares them, as i32 or f32', () => {
  const { program, start, view, word } = encode();
  // rmsNorm: columns, runs of a row, epsilon.
  assert.deepEqual([word(1, PARAM_SLOT), word(1, PARAM_SLOT + 1)], [12, 1]);
  assert.equal(view.getFloat32(start + RECORD_BYTES + (PARAM_SLOT + 2) * SLOT_BYTES, true), 0.25);
  // matmul: nOut, nIn, blocks a row, bytes a group, bytes of a row of x.
  assert.equal(program.instructions[2]!.op, 'matmul');
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((n) => word(2, PARAM_SLOT + n)),
    [9, 12, 12, 12 * 16, 48],
  );
});

test('no kernel has more operands or parameters than a record has room for', () => {
  for (const { op, params } of KERNELS) {
    assert.ok(PARAM_SLOT + Object.keys(params).length < RECORD_BYTES / SLOT_BYTES - 1, op);
  }
  assert.ok(INPUT_SLOT + 7 <= SCRATCH_SLOT);
});

test('types without a kernel are refused by name', () => {
  const graph = new Graph();
  const x = graph.constant('x', [1, 256], () => new Float32Array(256));
  graph.output(graph.apply('matmul', [x, graph.leaf('weight', 'w', 'I16', [8, 256])]));
  assert.throws(() => kernelsOf([planProgram(graph)]), {
    code: 'UNSUPPORTED_DTYPE',
    message: /matmul\("x" F32, "w" I16\)/,
  });
});
