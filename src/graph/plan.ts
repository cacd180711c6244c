// Planning: a lowered graph becomes a program, the list of instructions with every intermediate at a fixed offset of
// one arena. Liveness decides reuse, the table of write modes decides what is cleared, and hazards between memory
// ranges decide before which instructions all threads must meet.

import type { OpName, WriteMode } from './operations.ts';
import { OPERATIONS } from './operations.ts';
import type { Dim, Graph, Region, Tensor } from './tensor.ts';
import { rowsOf, sizeBytesMax } from './tensor.ts';

/** Buffers start at multiples of a cache line, so that threads never share one across buffers. */
const ALIGNMENT_BYTES = 64;

/** A tensor with its place. `offsetBytes` counts from the arena's start; leaves are placed by the executor. */
export interface Operand {
  readonly tensor: Tensor;
  readonly region: Region;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

export interface Instruction {
  readonly op: OpName;
  readonly out: Operand;
  readonly inputs: readonly Operand[];
  /** Rows to process: a number, or a count that is read from memory at each step. */
  readonly rows: Dim;
  /** All threads must have finished what came before. */
  readonly barrier: boolean;
}

/** A stretch of the arena during one lifetime; in-place operations share it. */
export interface ArenaBuffer {
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  /** The operation that writes it, counted without the clears that planning adds. */
  readonly first: number;
  /** The last operation that reads it; their number for outputs. */
  last: number;
  readonly tensors: Tensor[];
  readonly write: WriteMode;
}

/** The planned list of instructions, the same for every backend that executes plans. */
export class Program {
  readonly instructions: readonly Instruction[];
  readonly buffers: readonly ArenaBuffer[];
  readonly arenaBytes: number;
  readonly leaves: readonly Tensor[];
  readonly outputs: readonly Operand[];

  constructor(parts: Pick<Program, 'instructions' | 'buffers' | 'arenaBytes' | 'leaves' | 'outputs'>) {
    this.instructions = parts.instructions;
    this.buffers = parts.buffers;
    this.arenaBytes = parts.arenaBytes;
    this.leaves = parts.leaves;
    this.outputs = parts.outputs;
  }

  /** A table for people: each buffer's offset, size, lifetime, writer, and whether it is cleared and why. */
  explain(): string {
    const nBarriers = this.instructions.filter((i) => i.barrier).length;
    const rows = this.buffers.map((b) => [
      String(b.offsetBytes),
      String(b.sizeBytes),
      `${b.first}..${b.last}`,
      b.tensors[0]!.op,
      explainClear(b.write),
      b.tensors.map((t) => t.name).join(' = '),
    ]);
    const head = ['offset', 'bytes', 'lifetime', 'writer', 'cleared', 'tensors'];
    const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]!.length)));
    const line = (cells: string[]): string =>
      cells
        .map((c, i) => c.padEnd(widths[i]!))
        .join('  ')
        .trimEnd();
    const total = this.buffers.reduce((sum, b) => sum + b.sizeBytes, 0);
    return [
      `${this.instructions.length} instructions, ${nBarriers} barriers, ` +
        `arena ${this.arenaBytes} bytes for ${total} bytes of buffers`,
      line(head),
      ...rows.map(line),
    ].join('\n');
  }
}

function explainClear(write: WriteMode): string {
  switch (write) {
    case 'store':
      return 'no: every element is stored';
    case 'inPlace':
      return 'no: every element is stored (may take over operand 0)';
    case 'accumulateKeep':
      return 'no: accumulates over steps';
    default:
      return 'yes: the kernel adds into it';
  }
}

/** The write mode of an operation; what the table does not declare accumulates, the safe reading. */
const writeModeOf = (op: OpName): WriteMode => OPERATIONS[op]?.write ?? 'accumulate';

export function planProgram(graph: Graph): Program {
  const compute = graph.nodes.filter((n) => writeModeOf(n.op) !== 'leaf');
  const arena = new ArenaPlanner(lastUses(graph, compute));
  const hazards = new Hazards();
  const instructions: Instruction[] = [];
  const emit = (instruction: Omit<Instruction, 'barrier'>): void => {
    instructions.push({ ...instruction, barrier: hazards.step(instruction) });
  };

  compute.forEach((node, index) => {
    const write = writeModeOf(node.op);
    const inputs = node.inputs.map((t) => arena.operand(t));
    const out = write === 'stateful' ? arena.alias(node, inputs[0]!) : arena.place(node, index, write);
    if (write === 'accumulate') emit({ op: 'clear', out, inputs: [], rows: rowsOf(node) });
    // A state write handles the rows it is given, not those of the state.
    const rows = write === 'stateful' ? rowsOf(node.inputs[1]!) : rowsOf(node);
    emit({ op: node.op, out, inputs, rows });
    arena.releaseAfter(index);
  });

  return new Program({
    instructions,
    buffers: arena.buffers,
    arenaBytes: arena.sizeBytes,
    leaves: graph.nodes.filter((n) => writeModeOf(n.op) === 'leaf'),
    outputs: graph.outputs.map((t) => arena.operand(t)),
  });
}

/** Index of the last node that reads each tensor; outputs last to the end. */
function lastUses(graph: Graph, compute: readonly Tensor[]): Map<Tensor, number> {
  const last = new Map<Tensor, number>();
  compute.forEach((node, index) => {
    last.set(node, index);
    for (const input of node.inputs) last.set(input, index);
  });
  for (const output of graph.outputs) last.set(output, compute.length);
  return last;
}

/** First-fit placement of buffers with known lifetimes. */
class ArenaPlanner {
  readonly buffers: ArenaBuffer[] = [];
  sizeBytes = 0;
  #live: ArenaBuffer[] = [];
  readonly #lastUse: ReadonlyMap<Tensor, number>;
  readonly #operands = new Map<Tensor, Operand>();
  readonly #bufferOf = new Map<Tensor, ArenaBuffer>();

  constructor(lastUse: ReadonlyMap<Tensor, number>) {
    this.#lastUse = lastUse;
  }

  operand(tensor: Tensor): Operand {
    const known = this.#operands.get(tensor);
    if (known) return known;
    const region = REGION_OF_LEAF[tensor.op as keyof typeof REGION_OF_LEAF];
    return this.#remember(tensor, { tensor, region, offsetBytes: 0, sizeBytes: sizeBytesMax(tensor) });
  }

  /** The result of a stateful operation is its operand's memory. */
  alias(node: Tensor, target: Operand): Operand {
    return this.#remember(node, target);
  }

  place(node: Tensor, index: number, write: WriteMode): Operand {
    const sizeBytes = Math.ceil(sizeBytesMax(node) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    const last = this.#lastUse.get(node)!;
    let buffer = write === 'inPlace' ? this.#takeOver(node.inputs[0]!, index, sizeBytes) : undefined;
    if (buffer) {
      buffer.last = last;
      buffer.tensors.push(node);
    } else {
      buffer = { offsetBytes: this.#firstFit(sizeBytes), sizeBytes, first: index, last, tensors: [node], write };
      this.buffers.push(buffer);
      this.#live.push(buffer);
      this.sizeBytes = Math.max(this.sizeBytes, buffer.offsetBytes + sizeBytes);
    }
    this.#bufferOf.set(node, buffer);
    return this.#remember(node, { tensor: node, region: 'arena', offsetBytes: buffer.offsetBytes, sizeBytes });
  }

  releaseAfter(index: number): void {
    this.#live = this.#live.filter((b) => b.last > index);
  }

  /** The buffer of `input` when `input` dies at this instruction and the sizes agree. */
  #takeOver(input: Tensor, index: number, sizeBytes: number): ArenaBuffer | undefined {
    const buffer = this.#bufferOf.get(input);
    const dies = this.#lastUse.get(input) === index;
    return buffer && dies && buffer.sizeBytes === sizeBytes ? buffer : undefined;
  }

  #firstFit(sizeBytes: number): number {
    const byOffset = [...this.#live].sort((a, b) => a.offsetBytes - b.offsetBytes);
    let offset = 0;
    for (const b of byOffset) {
      if (b.offsetBytes - offset >= sizeBytes) break;
      offset = Math.max(offset, b.offsetBytes + b.sizeBytes);
    }
    return offset;
  }

  #remember(tensor: Tensor, operand: Operand): Operand {
    this.#operands.set(tensor, operand);
    return operand;
  }
}

const REGION_OF_LEAF = { weight: 'weights', constant: 'constants', input: 'inputs', state: 'state' } as const;

/** Tracks what has been read and written since the threads last met. */
class Hazards {
  #reads: Operand[] = [];
  #writes: Operand[] = [];

  /** Whether the instruction must wait for what came before; then counts it in. */
  step({ out, inputs }: Pick<Instruction, 'out' | 'inputs'>): boolean {
    const readsWritten = inputs.some((i) => this.#writes.some((w) => overlap(i, w)));
    const overwrites = [...this.#reads, ...this.#writes].some((o) => overlap(out, o));
    const barrier = readsWritten || overwrites;
    if (barrier) {
      this.#reads = [];
      this.#writes = [];
    }
    this.#reads.push(...inputs.filter((i) => i.region === 'arena' || i.region === 'state'));
    this.#writes.push(out);
    return barrier;
  }
}

function overlap(a: Operand, b: Operand): boolean {
  if (a.region !== b.region) return false;
  if (a.region !== 'arena') return a.tensor === b.tensor;
  return a.offsetBytes < b.offsetBytes + b.sizeBytes && b.offsetBytes < a.offsetBytes + a.sizeBytes;
}
