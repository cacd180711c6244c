// Planning: a lowered graph becomes a program, the list of instructions with every intermediate at a fixed offset of
// one arena. Liveness decides reuse, the table of write modes decides what is cleared, and hazards between memory
// ranges decide before which instructions all threads must meet.

import type { OpParams, WriteMode } from './operation.ts';
import type { OpName } from './operations.ts';
import { OPERATIONS, writeModeOf } from './operations.ts';
import type { Dim, Graph, Region, Tensor } from './tensor.ts';
import { rowsOf, sizeBytesMax } from './tensor.ts';

/** Buffers start at multiples of a cache line, so that threads never share one across buffers. */
const ALIGNMENT_BYTES = 64;

/**
 * What is cleared when a buffer is handed out:
 * - `planned`: what the operation adds into, except for bytes that are new, since new memory is zero.
 * - `always`: everything, new or not: what a benchmark compares with.
 */
export type Clearing = 'planned' | 'always';

/** A tensor with its place: `offsetBytes` into the arena, or into the leaf `base`, which the executor places. */
export interface Operand {
  readonly tensor: Tensor;
  readonly region: Region;
  /** The leaf whose memory it is; the tensor itself in the arena. */
  readonly base: Tensor;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

export interface Instruction {
  readonly op: OpName;
  readonly params: OpParams;
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
  readonly clearing: Clearing;

  constructor(parts: Omit<Program, 'explain'>) {
    this.instructions = parts.instructions;
    this.buffers = parts.buffers;
    this.arenaBytes = parts.arenaBytes;
    this.leaves = parts.leaves;
    this.outputs = parts.outputs;
    this.clearing = parts.clearing;
  }

  /** A table for people: each buffer's offset, size, lifetime, writer, and whether it is cleared and why. */
  explain(): string {
    const nBarriers = this.instructions.filter((i) => i.barrier).length;
    const rows = this.buffers.map((b) => [
      String(b.offsetBytes),
      String(b.sizeBytes),
      `${b.first}..${b.last}`,
      b.tensors[0]!.op,
      explainClear(b.write, this.clearing),
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

function explainClear(write: WriteMode, clearing: Clearing): string {
  if (clearing === 'always') return 'yes: as everything is';
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

export function planProgram(graph: Graph, clearing: Clearing = 'planned'): Program {
  const compute = graph.nodes.filter((n) => !HAS_NO_INSTRUCTION.has(writeModeOf(n.op)));
  const arena = new ArenaPlanner(lastUses(graph, compute));
  const hazards = new Hazards();
  const instructions: Instruction[] = [];
  const emit = (instruction: Omit<Instruction, 'barrier'>): void => {
    instructions.push({ ...instruction, barrier: hazards.step(instruction) });
  };

  compute.forEach((node, index) => {
    const write = writeModeOf(node.op);
    const lasts = write === 'stateful' || write === 'accumulateKeep';
    const inputs = node.inputs.map((t) => arena.operand(t));
    const { sizeBytes: usedBytes, nBuffers } = arena;
    const out = lasts ? arena.alias(node, inputs[0]!) : arena.place(node, index, write);
    const isAlways = clearing === 'always' && arena.nBuffers > nBuffers;
    if (write === 'accumulate' || isAlways) {
      // Beyond `usedBytes` the buffer is new as far as this program goes; the executor knows about the others.
      const params = { usedBytes: isAlways ? out.offsetBytes + out.sizeBytes : usedBytes };
      emit({ op: 'clear', params, out, inputs: [], rows: rowsOf(node) });
    }
    // What changes a state handles the rows it is given, not those of the state.
    emit({ op: node.op, params: node.params, out, inputs, rows: rowsOf(lasts ? node.inputs[1]! : node) });
    arena.releaseAfter(index);
  });

  return new Program({
    instructions,
    buffers: arena.buffers,
    arenaBytes: arena.sizeBytes,
    leaves: graph.nodes.filter((n) => writeModeOf(n.op) === 'leaf'),
    outputs: graph.outputs.map((t) => arena.operand(t)),
    clearing,
  });
}

const HAS_NO_INSTRUCTION: ReadonlySet<WriteMode> = new Set(['leaf', 'view']);

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
  /** End of the highest buffer so far. */
  sizeBytes = 0;
  #live: ArenaBuffer[] = [];
  readonly #lastUse: ReadonlyMap<Tensor, number>;
  readonly #operands = new Map<Tensor, Operand>();
  readonly #bufferOf = new Map<Tensor, ArenaBuffer>();

  constructor(lastUse: ReadonlyMap<Tensor, number>) {
    this.#lastUse = lastUse;
  }

  get nBuffers(): number {
    return this.buffers.length;
  }

  operand(tensor: Tensor): Operand {
    const known = this.#operands.get(tensor);
    if (known) return known;
    const sizeBytes = sizeBytesMax(tensor);
    if (tensor.op === 'view') {
      const { region, base, offsetBytes: startBytes } = this.operand(tensor.inputs[0]!);
      const offsetBytes = startBytes + 4 * tensor.params['offset']!;
      return this.#remember(tensor, { tensor, region, base, offsetBytes, sizeBytes });
    }
    const region = REGION_OF_LEAF[tensor.op as keyof typeof REGION_OF_LEAF];
    return this.#remember(tensor, { tensor, region, base: tensor, offsetBytes: 0, sizeBytes });
  }

  /** The result of an operation that changes its operand is that operand's memory. */
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
    return this.#remember(node, {
      tensor: node,
      region: 'arena',
      base: node,
      offsetBytes: buffer.offsetBytes,
      sizeBytes,
    });
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
  #isScratchShared = false;

  /** Whether the instruction must wait for what came before; then counts it in. */
  step({ op, out, inputs }: Pick<Instruction, 'op' | 'out' | 'inputs'>): boolean {
    // What changes a state may change all that it is given: the optimiser's moments and gradients.
    const changed = writeModeOf(op) === 'stateful' ? [out, ...inputs.filter((i) => i.region === 'state')] : [out];
    const readsWritten = inputs.some((i) => this.#writes.some((w) => overlap(i, w)));
    const overwrites = [...this.#reads, ...this.#writes].some((o) => changed.some((c) => overlap(c, o)));
    const sharesScratch = OPERATIONS[op]?.sharesScratch ?? false;
    const barrier = readsWritten || overwrites || (sharesScratch && this.#isScratchShared);
    if (barrier) {
      this.#reads = [];
      this.#writes = [];
      this.#isScratchShared = false;
    }
    this.#isScratchShared ||= sharesScratch;
    this.#reads.push(...inputs.filter((i) => i.region === 'arena' || i.region === 'state'));
    this.#writes.push(...changed);
    return barrier;
  }
}

function overlap(a: Operand, b: Operand): boolean {
  if (a.region !== b.region || (a.region !== 'arena' && a.base !== b.base)) return false;
  return a.offsetBytes < b.offsetBytes + b.sizeBytes && b.offsetBytes < a.offsetBytes + a.sizeBytes;
}
