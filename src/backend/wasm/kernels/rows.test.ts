// The clear kernel, which no graph can ask for: only planning emits it. Its instruction is written here by hand, and
// what counts as handed out is set in the memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planProgram } from '../../../graph/plan.ts';
import type { Instruction, Operand, Program } from '../../../graph/plan.ts';
import { Graph } from '../../../graph/tensor.ts';
import { encodePrograms } from '../encode.ts';
import { layOutMemory } from '../memory.ts';
import { PAGE_BYTES, buildModule } from '../module.ts';
import type { RunExports } from '../module.ts';
import { CLEARING } from './kernel.ts';
import { kernelsOf } from './table.ts';

/** A program of one instruction, which clears the buffer in the middle of three as if `usedBytes` had been used. */
function clearMiddle(nColumns: number, usedBytes: (out: Operand) => number): Program {
  const graph = new Graph();
  const x = graph.constant('x', [3, nColumns], () => new Float32Array(3 * nColumns));
  for (let i = 0; i < 3; i++) graph.output(graph.apply('silu', [x]));
  const program = planProgram(graph);
  const { out, rows } = program.instructions[1]!;
  const clear: Instruction = {
    op: 'clear',
    params: { usedBytes: usedBytes(out) },
    out,
    inputs: [],
    rows,
    barrier: false,
  };
  return { ...program, instructions: [clear], explain: () => '' };
}

/** Executes the program in a memory where `nUsedLines` of the arena have been handed out. @returns bytes, and counts */
function execute(program: Program, nThreads: number, nUsedLines: number) {
  const layout = layOutMemory([program], nThreads);
  const pages = Math.ceil(layout.sizeBytes / PAGE_BYTES) + 1;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const kernels = kernelsOf([program]);
  const bytes = new Uint8Array(memory.buffer);
  bytes.fill(0xaa, layout.arenaAddress);
  encodePrograms([program], kernels, layout, memory.buffer);
  new Int32Array(memory.buffer)[CLEARING.usedLines / 4] = nUsedLines;
  const module = buildModule({
    kernels,
    variant: { set: 'strict', dot: 'i16', fma: false, wide: false },
    shared: false,
  });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()), { env: { memory } });
  // One after the other: without shared memory there is no barrier to wait at.
  for (let thread = 0; thread < nThreads; thread++) {
    (exports as unknown as RunExports).run(layout.programAddresses[0]!, 1, thread, nThreads);
  }
  const [nCleared, nSkipped] = new Float64Array(memory.buffer, CLEARING.clearedLines, 2);
  return { arena: bytes.subarray(layout.arenaAddress), counts: [nCleared, nSkipped] };
}

for (const nThreads of [1, 2, 3, 7]) {
  test(`clear zeroes its buffer, all of it and nothing else, on ${nThreads} threads`, () => {
    for (const nColumns of [1, 5, 16, 100]) {
      const program = clearMiddle(nColumns, (out) => out.offsetBytes + out.sizeBytes);
      const { arena } = execute(program, nThreads, 0);
      const { offsetBytes: from, sizeBytes } = program.instructions[0]!.out;
      assert.ok(arena.subarray(from, from + sizeBytes).every((b) => b === 0));
      assert.ok(arena.subarray(0, from).every((b) => b === 0xaa));
      assert.ok(arena.subarray(from + sizeBytes).every((b) => b === 0xaa));
    }
  });

  test(`clear leaves alone, and counts, what was never handed out, on ${nThreads} threads`, () => {
    // The buffer is 19 lines from line 19 on; whoever used more, this program or what was before it, decides.
    for (const [usedByProgram, usedBefore, nCleared] of [
      [0, 0, 0],
      [19, 0, 0],
      [0, 19, 0],
      [22, 0, 3],
      [0, 22, 3],
      [30, 22, 11],
      [22, 30, 11],
      [38, 0, 19],
      [0, 38, 19],
      [500, 1000, 19],
    ] as const) {
      const program = clearMiddle(100, () => 64 * usedByProgram);
      const { offsetBytes: from, sizeBytes } = program.instructions[0]!.out;
      assert.deepEqual([from, sizeBytes], [19 * 64, 19 * 64]);
      const { arena, counts } = execute(program, nThreads, usedBefore);
      assert.deepEqual(counts, [nCleared, 19 - nCleared]);
      const end = from + 64 * nCleared;
      assert.ok(arena.subarray(from, end).every((b) => b === 0));
      assert.ok(arena.subarray(0, from).every((b) => b === 0xaa) && arena.subarray(end).every((b) => b === 0xaa));
    }
  });
}
