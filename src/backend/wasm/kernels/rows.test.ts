// The clear kernel, which no graph can ask for: only planning emits it. Its instruction is written here by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planProgram } from '../../../graph/plan.ts';
import type { Instruction, Program } from '../../../graph/plan.ts';
import { Graph } from '../../../graph/tensor.ts';
import { encodeProgram } from '../encode.ts';
import { layOutMemory } from '../memory.ts';
import { PAGE_BYTES, buildModule } from '../module.ts';
import type { RunExports } from '../module.ts';
import { kernelsOf } from './table.ts';

/** A program of one instruction, which clears the buffer in the middle of three. */
function clearMiddle(nColumns: number): Program {
  const graph = new Graph();
  const x = graph.constant('x', [3, nColumns], () => new Float32Array(3 * nColumns));
  for (let i = 0; i < 3; i++) graph.output(graph.apply('silu', [x]));
  const program = planProgram(graph);
  const { out, rows } = program.instructions[1]!;
  const clear: Instruction = { op: 'clear', out, inputs: [], rows, barrier: false };
  return { ...program, instructions: [clear], explain: () => '' };
}

for (const nThreads of [1, 2, 3, 7]) {
  test(`clear zeroes its buffer, all of it and nothing else, on ${nThreads} threads`, () => {
    for (const nColumns of [1, 5, 16, 100]) {
      const program = clearMiddle(nColumns);
      const layout = layOutMemory(program, nThreads);
      const pages = Math.ceil(layout.sizeBytes / PAGE_BYTES) + 1;
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
      const kernels = kernelsOf(program);
      const start = layout.addressOf(program.outputs[0]!);
      const bytes = new Uint8Array(memory.buffer);
      bytes.fill(0xaa, start);
      encodeProgram(program, kernels, layout, memory.buffer);
      const module = buildModule({ kernels, variant: { set: 'strict', dot: 'i16', fma: false }, shared: false });
      const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()), { env: { memory } });
      // One after the other: without shared memory there is no barrier to wait at.
      for (let thread = 0; thread < nThreads; thread++) {
        (exports as unknown as RunExports).run(layout.programAddress, 1, thread, nThreads);
      }
      const [from, to] = program.outputs.slice(1).map((o) => layout.addressOf(o)) as [number, number];
      assert.ok(bytes.subarray(from, to).every((b) => b === 0));
      assert.ok(bytes.subarray(start, from).every((b) => b === 0xaa));
      assert.ok(bytes.subarray(to).every((b) => b === 0xaa));
    }
  });
}
