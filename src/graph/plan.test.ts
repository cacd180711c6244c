// The plan: memory that is reused but never while it is needed, clears where an operation adds, and a barrier before
// every instruction that could meet another thread's unfinished work. Random graphs are judged by brute force.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { lower } from './lower.ts';
import type { OpName } from './operations.ts';
import { OPERATIONS, writeModeOf } from './operations.ts';
import { planProgram } from './plan.ts';
import type { Instruction, Operand, Program } from './plan.ts';
import { Graph } from './tensor.ts';
import type { Shape, Tensor } from './tensor.ts';

const PROPERTY = { seed: 7, numRuns: 300 };

const constant = (graph: Graph, name: string, ...shape: number[]): Tensor =>
  graph.constant(name, shape, () => new Float32Array(shape.reduce((n, d) => n * d, 1)));

/** A node of an operation that the table does not know. */
function appendUnknown(graph: Graph, inputs: readonly Tensor[], shape: Shape, name: string): Tensor {
  return graph.append({ op: 'scatterAdd' as OpName, inputs, params: {}, shape, dtype: 'F32', name });
}

/** What to append next: an operation and which of the tensors so far are its operands. */
const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('add', 'mul', 'silu', 'rmsNorm', 'matmul', 'widen', 'quantized', 'gather', 'kv', 'unknown'),
    first: fc.nat(),
    second: fc.nat(),
    isOutput: fc.boolean(),
  }),
  { minLength: 1, maxLength: 25 },
);

type Steps = typeof steps extends fc.Arbitrary<infer T> ? T : never;

/** A random graph over matrices of 4 rows and of 32 or 64 columns, and a cache. */
function buildGraph(choices: Steps): Graph {
  const graph = new Graph();
  const byWidth = { 32: [constant(graph, 'x32', 4, 32)], 64: [constant(graph, 'x64', 4, 64)] };
  const ids = graph.leaf('input', 'ids', 'I32', [4]);
  let cache = graph.leaf('state', 'cache', 'F32', [64, 32]);
  const weight = (nOut: number, nIn: number, dtype: 'F32' | 'Q8_0' = 'F32'): Tensor =>
    graph.leaf('weight', `w${nOut}.${nIn}.${dtype}`, dtype, [nOut, nIn]);
  for (const { kind, first, second, isOutput } of choices) {
    const width = first % 2 === 0 ? 32 : 64;
    const pool = byWidth[width];
    const a = pool[first % pool.length]!;
    const b = pool[second % pool.length]!;
    let made: Tensor;
    if (kind === 'kv') {
      const row = byWidth[32][first % byWidth[32].length]!;
      cache = graph.apply('kvWrite', [cache, row, ids]);
      made = graph.apply('gatherRows', [cache, ids]);
      byWidth[32].push(made);
    } else if (kind === 'widen') {
      const other = width === 32 ? 64 : 32;
      made = graph.apply('matmul', [a, weight(other, width)]);
      byWidth[other].push(made);
    } else {
      if (kind === 'silu') made = graph.apply('silu', [a]);
      else if (kind === 'rmsNorm') made = graph.apply('rmsNorm', [a, constant(graph, `n${width}`, width)], { eps: 0 });
      else if (kind === 'matmul') made = graph.apply('matmul', [a, weight(width, width)]);
      else if (kind === 'quantized') made = graph.apply('matmul', [a, weight(width, width, 'Q8_0')]);
      else if (kind === 'gather') made = graph.apply('gatherRows', [a, ids]);
      else if (kind === 'unknown') made = appendUnknown(graph, [a, b], [4, width], `u${graph.nodes.length}`);
      else made = graph.apply(kind, [a, b]);
      pool.push(made);
    }
    if (isOutput) graph.output(made);
  }
  graph.output(graph.nodes.findLast((n) => n.inputs.length > 0 && n.op !== 'kvWrite')!);
  return graph;
}

interface Planned {
  readonly graph: Graph;
  readonly program: Program;
}

/** Random graphs, planned as they are and lowered. */
const planned: fc.Arbitrary<Planned> = fc.tuple(steps, fc.boolean()).map(([choices, isLowered]) => {
  const built = buildGraph(choices);
  const graph = isLowered
    ? lower(built, { siluMul: true, matmulAdd: true, activationType: (d) => (d === 'Q8_0' ? 'Q8A' : undefined) })
    : built;
  // A counterexample is told by its choices: printing graphs, whose nodes hold their operands, would never end.
  const toString = (): string => `${isLowered ? 'lowered' : 'as it is'}: ${JSON.stringify(choices)}`;
  return { graph, program: planProgram(graph), [fc.toStringMethod]: toString };
});

const roundUp = (bytes: number): number => Math.ceil(bytes / 64) * 64;

const overlaps = (a: Operand, b: Operand): boolean =>
  a.region === b.region &&
  (a.region === 'arena'
    ? a.offsetBytes < b.offsetBytes + b.sizeBytes && b.offsetBytes < a.offsetBytes + a.sizeBytes
    : a.tensor === b.tensor);

test('no instruction overwrites a value that is still to be read', () => {
  const property = fc.property(planned, ({ program }) => {
    const { instructions, outputs } = program;
    // Who wrote the bytes that an operand reads must be the operand's own producer: follow every byte.
    const writers = new Int32Array(program.arenaBytes).fill(-1);
    const producer = new Map<Tensor, number>();
    const expectIntact = (operand: Operand, reader: string): void => {
      if (operand.region !== 'arena') return;
      const bytes = writers.subarray(operand.offsetBytes, operand.offsetBytes + operand.sizeBytes);
      const by = producer.get(operand.tensor);
      assert.ok(
        bytes.every((w) => w === by),
        `${reader} reads "${operand.tensor.name}" after it was overwritten`,
      );
    };
    instructions.forEach(({ op, out, inputs }, index) => {
      for (const input of inputs) expectIntact(input, `instruction ${index} (${op})`);
      if (out.region !== 'arena') return;
      writers.fill(index, out.offsetBytes, out.offsetBytes + out.sizeBytes);
      producer.set(out.tensor, index);
    });
    for (const output of outputs) expectIntact(output, 'the caller');
  });
  fc.assert(property, PROPERTY);
});

test('only an operation that may works in the memory of its first operand, and never in that of another', () => {
  const property = fc.property(planned, ({ program }) => {
    for (const { op, out, inputs } of program.instructions) {
      if (out.region !== 'arena') continue;
      inputs.forEach((input, i) => {
        if (!overlaps(input, out)) return;
        const isSame = input.offsetBytes === out.offsetBytes && input.sizeBytes === out.sizeBytes;
        const mayShare = OPERATIONS[op]?.write === 'inPlace' && isSame;
        // mul(x, x) reads its first operand twice.
        assert.ok(mayShare && (i === 0 || input.tensor === inputs[0]!.tensor), `${op} overlaps operand ${i}`);
      });
    }
  });
  fc.assert(property, PROPERTY);
});

test('without a barrier in between, no two instructions touch the same memory unless both only read it', () => {
  const property = fc.property(planned, ({ program }) => {
    let phase: Instruction[] = [];
    for (const instruction of program.instructions) {
      if (instruction.barrier) phase = [];
      for (const earlier of phase) {
        const conflict =
          overlaps(earlier.out, instruction.out) ||
          instruction.inputs.some((i) => overlaps(i, earlier.out)) ||
          earlier.inputs.some((i) => overlaps(i, instruction.out));
        assert.ok(!conflict, `${earlier.op} and ${instruction.op} meet without a barrier`);
      }
      phase.push(instruction);
    }
  });
  fc.assert(property, PROPERTY);
});

test('a barrier stands only where an instruction conflicts with one since the last barrier', () => {
  const property = fc.property(planned, ({ program }) => {
    let phase: Instruction[] = [];
    for (const instruction of program.instructions) {
      if (instruction.barrier) {
        const isNeeded = phase.some(
          (earlier) =>
            overlaps(earlier.out, instruction.out) ||
            instruction.inputs.some((i) => overlaps(i, earlier.out)) ||
            earlier.inputs.some((i) => overlaps(i, instruction.out)),
        );
        assert.ok(isNeeded, `${instruction.op} waits for nothing`);
        phase = [];
      }
      phase.push(instruction);
    }
  });
  fc.assert(property, PROPERTY);
});

test('every buffer lies inside the arena, on a cache line of its own', () => {
  const property = fc.property(planned, ({ program }) => {
    for (const { offsetBytes, sizeBytes } of program.buffers) {
      assert.ok(offsetBytes % 64 === 0 && sizeBytes % 64 === 0 && offsetBytes + sizeBytes <= program.arenaBytes);
    }
  });
  fc.assert(property, PROPERTY);
});

test('exactly the results that are added into are cleared, right before and on all their bytes', () => {
  const property = fc.property(planned, ({ program }) => {
    program.instructions.forEach(({ op, out }, index) => {
      if (op === 'clear') return;
      const before = program.instructions[index - 1];
      const isCleared = before?.op === 'clear' && before.out === out;
      assert.equal(isCleared, writeModeOf(op) === 'accumulate', op);
    });
  });
  fc.assert(property, PROPERTY);
});

test('an operation that the table does not declare is cleared, and explain says so', () => {
  const graph = new Graph();
  const x = constant(graph, 'x', 4, 32);
  graph.output(appendUnknown(graph, [graph.apply('silu', [x], {}, 'once')], [4, 32], 'sum'));
  const program = planProgram(graph);
  assert.deepEqual(
    program.instructions.map((i) => [i.op, i.barrier]),
    [
      ['silu', false],
      ['clear', false],
      ['scatterAdd', true],
    ],
  );
  const line = (name: string): string =>
    program
      .explain()
      .split('\n')
      .find((l) => l.endsWith(name))!;
  assert.match(line('sum'), /yes: the kernel adds into it/);
  assert.match(line('once'), /no: every element is stored/);
});

test('a clear says how much of the arena was in use before: what lies above has never been written', () => {
  const property = fc.property(planned, ({ program }) => {
    let usedBytes = 0;
    for (const { op, out, params } of program.instructions) {
      if (op === 'clear') assert.equal(params['usedBytes'], usedBytes);
      else if (out.region === 'arena') usedBytes = Math.max(usedBytes, out.offsetBytes + roundUp(out.sizeBytes));
    }
  });
  fc.assert(property, PROPERTY);
});

test('with clearing "always" every buffer is cleared before its first use, as if all of it were in use', () => {
  const property = fc.property(planned, ({ graph }) => {
    const program = planProgram(graph, 'always');
    const plain = planProgram(graph);
    const withoutClears = (p: Program) => p.instructions.filter((i) => i.op !== 'clear').map((i) => [i.op, i.out]);
    assert.deepEqual(withoutClears(program), withoutClears(plain));
    assert.deepEqual([program.arenaBytes, program.buffers], [plain.arenaBytes, plain.buffers]);
    const clears = program.instructions.filter((i) => i.op === 'clear');
    assert.deepEqual(
      clears.map(({ out }) => [out.offsetBytes, out.tensor]),
      program.buffers.map((b) => [b.offsetBytes, b.tensors[0]]),
    );
    for (const { params, out } of clears) assert.equal(params['usedBytes'], out.offsetBytes + out.sizeBytes);
    program.instructions.forEach(({ op, out }, i) => {
      if (op === 'clear') assert.equal(program.instructions[i + 1]!.out, out);
    });
  });
  fc.assert(property, PROPERTY);
  const graph = new Graph();
  graph.output(graph.apply('silu', [constant(graph, 'x', 4, 32)], {}, 'y'));
  assert.match(planProgram(graph, 'always').explain(), /yes: as everything is +y$/);
});

test('a chain of element-wise operations stays in one buffer, and an operand that lives on is spared', () => {
  const graph = new Graph();
  const x = constant(graph, 'x', 4, 32);
  const a = graph.apply('silu', [x], {}, 'a');
  const b = graph.apply('mul', [a, x], {}, 'b');
  const c = graph.apply('add', [b, x], {}, 'c');
  graph.output(graph.apply('add', [graph.apply('silu', [c], {}, 'd'), c], {}, 'e'));
  const names = planProgram(graph).buffers.map((buffer) => buffer.tensors.map((t) => t.name).join(' '));
  assert.deepEqual(names, ['a b c', 'd e']);
});

test('memory of the dead is used again', () => {
  const graph = new Graph();
  const weight = graph.leaf('weight', 'w', 'F32', [32, 32]);
  let x = constant(graph, 'x', 4, 32);
  for (let i = 0; i < 10; i++) x = graph.apply('matmul', [x, weight]);
  graph.output(x);
  assert.equal(planProgram(graph).arenaBytes, 2 * 4 * 32 * 4);
});

test('rows that vary are planned by their upper bound, and read from memory', () => {
  const graph = new Graph();
  const rows = { name: 'nTokens', max: 16 };
  const ids = graph.leaf('input', 'ids', 'I32', [rows]);
  graph.output(graph.apply('embed', [graph.leaf('weight', 'w', 'F32', [9, 8]), ids]));
  const { instructions, arenaBytes } = planProgram(graph);
  assert.equal(instructions[0]!.rows, rows);
  assert.equal(arenaBytes, 16 * 8 * 4);
});

test('a write into state handles the rows it is given, and readers of the state wait for it', () => {
  const graph = new Graph();
  const ids = graph.leaf('input', 'ids', 'I32', [3]);
  const cache = graph.leaf('state', 'cache', 'F32', [64, 8]);
  const written = graph.apply('kvWrite', [cache, constant(graph, 'rows', 3, 8), ids]);
  graph.output(graph.apply('gatherRows', [written, ids]));
  const [write, read] = planProgram(graph).instructions;
  assert.deepEqual([write!.rows, write!.barrier, write!.out.region], [3, false, 'state']);
  assert.equal(write!.out.tensor, cache);
  assert.equal(read!.barrier, true);
});

test('of two attentions the second waits, though they have no numbers in common', () => {
  const graph = new Graph();
  const ids = (name: string): Tensor => graph.leaf('input', name, 'I32', [1]);
  const tables = graph.leaf('input', 'tables', 'I32', [1, 2]);
  for (const n of [1, 2]) {
    const [keys, values] = ['keys', 'values'].map((name) => graph.leaf('state', `${name}${n}`, 'F32', [64, 8]));
    const operands = [constant(graph, `q${n}`, 1, 8), keys!, values!, ids('positions'), ids('sequences'), tables];
    const params = { nHead: 1, nHeadKv: 1, headDim: 8, blockSize: 32, scale: 1 };
    graph.output(graph.apply('attention', operands, params));
  }
  assert.deepEqual(
    planProgram(graph).instructions.map((i) => i.barrier),
    [false, true],
  );
});

test('readers of all that the optimiser changes wait for it, and it for them', () => {
  const graph = new Graph();
  const state = (name: string): Tensor => graph.leaf('state', name, 'F32', [64]);
  const names = ['parameters', 'moment1', 'moment2', 'gradients'];
  const read = (): void => names.forEach((name) => graph.output(graph.apply('sumSquares', [state(name)])));
  const squares = graph.apply('sumSquares', [state('other')]);
  graph.output(squares);
  read();
  const hyper = graph.leaf('input', 'hyper', 'F32', [8]);
  graph.apply('adamW', [...names.map(state), squares, hyper], { nDecayed: 0 });
  for (const name of names) {
    graph.output(graph.apply('sumSquares', [state(name)]));
    graph.apply('adamW', [...names.map(state), squares, hyper], { nDecayed: 0 });
  }
  const barriers = planProgram(graph).instructions.map((i) => [i.op, i.barrier]);
  assert.deepEqual(
    barriers.slice(0, 5),
    Array.from({ length: 5 }, () => ['sumSquares', false]),
  );
  assert.deepEqual(
    barriers.slice(5).map(([, barrier]) => barrier),
    Array.from({ length: 9 }, () => true),
  );
});

test('explain shows every buffer with its place, lifetime, writer and why it is cleared or not', () => {
  const graph = new Graph();
  const ids = graph.leaf('input', 'ids', 'I32', [2]);
  const x = graph.apply('embed', [graph.leaf('weight', 'table', 'F32', [9, 32]), ids], {}, 'x');
  const normed = graph.apply('rmsNorm', [x, graph.leaf('weight', 'norm', 'F32', [32])], { eps: 0 }, 'normed');
  const y = graph.apply('matmul', [normed, graph.leaf('weight', 'w', 'F32', [20, 32])], {}, 'y');
  const sum = appendUnknown(graph, [y], [2, 32], 'sum');
  graph.output(graph.apply('add', [sum, x], {}, 'out'));
  assert.deepEqual(planProgram(graph).explain().split('\n'), [
    '6 instructions, 5 barriers, arena 704 bytes for 960 bytes of buffers',
    'offset  bytes  lifetime  writer      cleared                                                tensors',
    '0       256    0..4      embed       no: every element is stored                            x',
    '256     256    1..2      rmsNorm     no: every element is stored (may take over operand 0)  normed',
    '512     192    2..3      matmul      no: every element is stored                            y',
    '256     256    3..5      scatterAdd  yes: the kernel adds into it                           sum = out',
  ]);
});
