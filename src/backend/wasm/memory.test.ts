// The layout: everything has memory of its own, aligned, and what no memory holds is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DType } from '../../base/dtype.ts';
import { planProgram } from '../../graph/plan.ts';
import { Graph, sizeBytesMax } from '../../graph/tensor.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { CLEARING, RECORD_BYTES } from './kernels/kernel.ts';
import { layOutMemory, leafBytes, pointerFor } from './memory.ts';

/** A program with a leaf in every region. */
function sample(nKvRow = 64, nVocab = 9) {
  const graph = new Graph();
  const tokens = { name: 'nTokens', max: 5 };
  const outputs = { name: 'nOutputs', max: 2 };
  const ids = graph.leaf('input', 'ids', 'I32', [tokens]);
  const rows = graph.leaf('input', 'rows', 'I32', [outputs]);
  const table = graph.leaf('weight', 'table', 'Q8_0', [nVocab, 64]);
  const x = graph.apply('embed', [table, ids]);
  const normed = graph.apply('rmsNorm', [x, graph.leaf('weight', 'norm', 'F16', [64])], { eps: 0 });
  const biased = graph.apply('add', [normed, graph.constant('bias', [64], () => new Float32Array(64))]);
  const cache = graph.leaf('state', 'cache', 'F16', [nKvRow, 64]);
  const written = graph.apply('kvWrite', [cache, biased, ids]);
  graph.output(graph.apply('matmul', [graph.apply('gatherRows', [biased, rows]), table]));
  graph.output(written);
  return planProgram(graph);
}

test('control words, counts, records, scratch, leaves and arena lie apart, on cache lines', () => {
  const program = sample();
  const nThreads = 3;
  const layout = layOutMemory([program], nThreads);
  const ranges: [start: number, bytes: number, what: string][] = [
    [0, CLEARING.skippedLines + 8, 'control words'],
    [layout.programAddresses[0]!, program.instructions.length * RECORD_BYTES, 'records'],
    [layout.scratchAddress, nThreads * layout.scratchBytes, 'scratch'],
  ];
  for (const leaf of program.leaves) ranges.push([layout.leafAddress(leaf), leafBytes(leaf), leaf.name]);
  const arena = program.instructions.map((i) => i.out).filter((o) => o.region === 'arena');
  const arenaStart = layout.addressOf(arena[0]!) - arena[0]!.offsetBytes;
  ranges.push([arenaStart, program.arenaBytes, 'arena']);
  for (const name of ['nTokens', 'nOutputs']) ranges.push([layout.rowCountAddress(name), 4, name]);

  ranges.sort(([a], [b]) => a - b);
  ranges.forEach(([start, bytes, what], i) => {
    const end = ranges[i + 1]?.[0] ?? layout.sizeBytes;
    assert.ok(start + bytes <= end, `${what} runs into ${ranges[i + 1]?.[2] ?? 'the end'}`);
    if (!what.startsWith('n')) assert.equal(start % 64, 0, `${what} at ${start}`);
  });
  for (const operand of arena) assert.equal(layout.addressOf(operand), arenaStart + operand.offsetBytes);
});

test('the result of a write into state is the state', () => {
  const program = sample();
  const layout = layOutMemory([program], 1);
  const cache = program.leaves.find((l) => l.name === 'cache')!;
  assert.equal(layout.addressOf(program.outputs[1]!), layout.leafAddress(cache));
});

test('matrices take whole groups of eight rows, vectors are kept as f32', () => {
  const graph = new Graph();
  const bytesOf = (dtype: DType, ...shape: number[]): number =>
    leafBytes(graph.leaf('weight', `${dtype}${shape}`, dtype, shape));
  assert.equal(bytesOf('Q8_0', 9, 64), 16 * 2 * 34);
  assert.equal(bytesOf('Q4_0', 8, 32), 8 * 18);
  assert.equal(bytesOf('F16', 1, 3), 8 * 3 * 2);
  assert.equal(bytesOf('F16', 5), 20);
  const state = graph.leaf('state', 's', 'F16', [5, 3]);
  assert.equal(leafBytes(state), sizeBytesMax(state));
});

test('addresses have 64 bits only above 4 GiB; what is more than there is, is refused, with what helps', () => {
  const nRow = 2 ** 25;
  assert.equal(layOutMemory([sample(nRow - 1024)], 1).pointer, 'i32');
  assert.equal(layOutMemory([sample(nRow)], 1).pointer, 'i64');
  const refusal = (message: RegExp) => ({ name: 'UnsupportedError', code: 'UNSUPPORTED_FEATURE', message });
  assert.throws(() => layOutMemory([sample(4 * nRow)], 1), refusal(/needs 16\.0 GiB.* has 16 GiB here; use a smaller/));
  assert.equal(pointerFor(2 ** 32, false), 'i32');
  const without = refusal(/needs 5 GiB.* has 4 GiB here; use Node 24, .*a smaller context, .*smaller model/);
  assert.throws(() => pointerFor(5 * 2 ** 30, false), without);
});

test('names that are not in the program are our own mistake', () => {
  const layout = layOutMemory([sample()], 1);
  assert.throws(() => layout.rowCountAddress('nothing'), { code: 'INTERNAL' });
  assert.throws(() => layout.leafAddress(new Graph().leaf('weight', 'other', 'F32', [2])), { code: 'INTERNAL' });
});

test('programs share leaves of the same name; of inputs the longest has the room', () => {
  const program = (nRow: number, nState = 16) => {
    const graph = new Graph();
    const ids = graph.leaf('input', 'ids', 'I32', [nRow]);
    graph.output(graph.apply('gatherRows', [graph.leaf('state', 's', 'F32', [2, nState / 2]), ids]));
    return planProgram(graph);
  };
  const layout = layOutMemory([program(3), program(100), program(5)], 1);
  const [ids, state] = program(3).leaves as [Tensor, Tensor];
  assert.ok(layout.arenaAddress - layout.leafAddress(ids) >= 400);
  assert.ok(layout.leafAddress(state) >= layout.arenaAddress + 100 * 8 * 4);
  assert.throws(() => layOutMemory([program(3), program(3, 32)], 1), {
    code: 'INTERNAL',
    message: /"s" has another size/,
  });
});
