// The WebAssembly executor: lowers and plans a graph, lays out one memory, packs the weights into it, and runs the
// program's records on the thread pool, one entry into WebAssembly a step.

import { platform } from '#platform';
import type { DType } from '../../base/dtype.ts';
import { SmallMindError, assert } from '../../base/errors.ts';
import { lower } from '../../graph/lower.ts';
import { planProgram } from '../../graph/plan.ts';
import type { Clearing, Program } from '../../graph/plan.ts';
import type { ActivationDType, Graph, Tensor } from '../../graph/tensor.ts';
import { elementsMax, sizeBytesMax } from '../../graph/tensor.ts';
import type { Executor, LoadProgress, WeightSource } from '../executor.ts';
import { encodeThreadMemory, encodePrograms } from './encode.ts';
import { CLEARING, LINE_BYTES, RECORD_BYTES, kernelKey } from './kernels/kernel.ts';
import type { KernelSet, KernelVariant } from './kernels/kernel.ts';
import { kernelsOf } from './kernels/table.ts';
import { packKernelOf } from './kernels/packing/pack.ts';
import { interleavingOf, quantizedFormatOf } from './kernels/matmul/layout.ts';
import { isPacked, loadWeights } from './load.ts';
import type { LoadTarget } from './load.ts';
import { distinctLeaves, layOutMemory } from './memory.ts';
import type { MemoryLayout } from './memory.ts';
import { PAGE_BYTES, buildModule } from './module.ts';
import type { ModuleKind } from './module.ts';
import { threadPool } from './pool.ts';
import type { PoolModel } from './pool.ts';
import { chooseVariant } from './probe.ts';

export interface WasmOptions {
  readonly kernels: KernelSet | 'auto';
  /** Threads, this one included. More than one needs shared memory; without it one is used. */
  readonly nThreads: number;
  /** `q8`: integer kernels for quantised weights, activations in 8 bits. `f32`: activations as they are. */
  readonly activations: 'q8' | 'f32';
  /** For benchmarks: `always` clears every buffer whenever it is handed out. Default `planned`. */
  readonly clearing?: Clearing;
  readonly onProgress?: LoadProgress;
  /** For tests: this variant in place of the one that the probe chooses for `kernels`. */
  readonly variant?: KernelVariant;
  /** For tests: memory left out before all but the records, so that addresses are high. */
  readonly gapBytes?: number;
}

export class WasmExecutor implements Executor {
  readonly description: string;
  readonly memoryBytes: number;
  readonly nThreads: number;
  readonly programs: readonly Program[];
  readonly #layout: MemoryLayout;
  #memory: WebAssembly.Memory | undefined;
  #model: PoolModel;

  private constructor(
    programs: readonly Program[],
    layout: MemoryLayout,
    memory: WebAssembly.Memory,
    model: PoolModel,
    variant: KernelVariant,
  ) {
    this.programs = programs;
    this.#layout = layout;
    this.#memory = memory;
    this.#model = model;
    this.memoryBytes = layout.sizeBytes;
    this.nThreads = model.nThreads;
    const threads = model.nThreads === 1 ? '1 thread' : `${model.nThreads} threads`;
    const vectors = variant.wide ? ', 256-bit vectors' : '';
    this.description = `wasm ${variant.set} (${variant.dot}${vectors}), ${threads}`;
  }

  /**
   * @throws {UnsupportedError} for weights without kernels or a machine without SIMD, {SmallMindError} OUT_OF_MEMORY,
   *   {GgufError} for damaged weights
   */
  static async create(
    graphs: Graph | readonly Graph[],
    source: WeightSource,
    options: WasmOptions,
  ): Promise<WasmExecutor> {
    const variant = options.variant ?? chooseVariant(options.kernels);
    const nThreads = platform.canShareMemory() && platform.canBlock() ? options.nThreads : 1;
    const shared = nThreads > 1;
    const all = [graphs].flat();
    const programs = all.map((graph) => planForWasm(graph, options, variant));
    const layout = layOutMemory(programs, nThreads, options.gapBytes);
    const leaves = distinctLeaves(programs);
    const weights = leaves.filter((leaf) => leaf.op === 'weight');
    const packed = new Set(weights.filter(isPacked).map((leaf) => leaf.dtype as DType));
    const kernels = [...kernelsOf(programs), ...[...packed].map(packKernelOf)];
    const memory = allocate(layout, shared);
    encodePrograms(programs, kernels, layout, memory.buffer);
    encodeThreadMemory(layout, 0, new DataView(memory.buffer), layout.packingAddress);
    fillConstants(all, leaves, layout, memory);
    const place = threadPool.reserve(nThreads);
    try {
      const module = await compile({ kernels, variant, pointer: layout.pointer, shared });
      // This thread begins; the others join it when they have started.
      let model = await threadPool.instantiate(place, module, memory);
      const attaching = threadPool.attach(place, model, module, memory);
      attaching.then(
        (attached) => (model = attached),
        () => {},
      );
      const target: LoadTarget = {
        buffer: memory.buffer,
        scratchAddress: layout.arenaAddress,
        recordAddress: layout.packingAddress,
        kernels,
        addressOf: (leaf) => layout.leafAddress(leaf),
        run: () => threadPool.run(model, layout.packingAddress, 1),
      };
      await loadWeights(weights, source, target, options.onProgress);
      model = await attaching;
      return new WasmExecutor(programs, layout, memory, model, variant);
    } catch (error) {
      await threadPool.release(place);
      throw error;
    }
  }

  input(name: string): Int32Array {
    const leaf = this.#leaf('input', name);
    return new Int32Array(this.#buffer(), this.#layout.leafAddress(leaf), elementsMax(leaf));
  }

  state(name: string): Float32Array {
    const leaf = this.#leaf('state', name);
    assert(leaf.dtype === 'F32', `state "${name}" is ${leaf.dtype}`);
    return new Float32Array(this.#buffer(), this.#layout.leafAddress(leaf), elementsMax(leaf));
  }

  rowCount(name: string): Int32Array {
    return new Int32Array(this.#buffer(), this.#layout.rowCountAddress(name), 1);
  }

  output(index: number, program = 0): Float32Array {
    const operand = this.programs[program]!.outputs[index]!;
    if (operand.region === 'arena') this.#handOut(operand.offsetBytes + operand.sizeBytes);
    return new Float32Array(this.#buffer(), this.#layout.addressOf(operand), elementsMax(operand.tensor));
  }

  run(program = 0): void {
    const { instructions, arenaBytes } = this.programs[program]!;
    threadPool.run(this.#model, this.#layout.programAddresses[program]!, instructions.length);
    this.#handOut(arenaBytes);
  }

  /**
   * Runs the program once, an instruction at a time, and adds the milliseconds of each to `totals`: what `run` takes is
   * less by the call of each, about a microsecond.
   * @param totals  f64[instructions of the program]
   */
  profile(totals: Float64Array, program = 0): void {
    const { instructions, arenaBytes } = this.programs[program]!;
    const address = this.#layout.programAddresses[program]!;
    for (let i = 0; i < instructions.length; i++) {
      const startMs = performance.now();
      threadPool.run(this.#model, address + i * RECORD_BYTES, 1);
      totals[i]! += performance.now() - startMs;
    }
    this.#handOut(arenaBytes);
  }

  /** Bytes of the arena that were zeroed so far, and those that did not need it because they were new. */
  clearing(): { bytesCleared: number; bytesSkipped: number } {
    const lines = new Float64Array(this.#buffer(), CLEARING.clearedLines, 2);
    return { bytesCleared: LINE_BYTES * lines[0]!, bytesSkipped: LINE_BYTES * lines[1]! };
  }

  /** For benchmarks: writes `pattern` over all states, again and again. */
  fillStates(pattern: Uint16Array): void {
    for (const leaf of distinctLeaves(this.programs).filter(({ op }) => op === 'state')) {
      const words = new Uint16Array(this.#buffer(), this.#layout.leafAddress(leaf), sizeBytesMax(leaf) / 2);
      for (let i = 0; i < words.length; i += pattern.length) words.set(pattern.subarray(0, words.length - i), i);
    }
  }

  /** For tests: the memory of all intermediates, to be looked at or spoilt between runs. */
  arena(): Float32Array {
    const arenaBytes = Math.max(...this.programs.map((p) => p.arenaBytes));
    this.#handOut(arenaBytes);
    return new Float32Array(this.#buffer(), this.#layout.arenaAddress, arenaBytes / 4);
  }

  async close(): Promise<void> {
    if (!this.#memory) return;
    this.#memory = undefined;
    await threadPool.release(this.#model);
    // The pool keeps nothing; without these the memory would live as long as this object.
    this.#model = { ...this.#model, exports: { run: refuseClosed }, words: new Int32Array(0) };
  }

  /** From now on the first `endBytes` of the arena do not count as new: whoever has had them may have written. */
  #handOut(endBytes: number): void {
    const { words } = this.#model;
    const nLines = endBytes / LINE_BYTES;
    if (words[CLEARING.usedLines / 4]! < nLines) words[CLEARING.usedLines / 4] = nLines;
  }

  #leaf(op: 'input' | 'state', name: string): Tensor {
    const leaf = distinctLeaves(this.programs).find((l) => l.op === op && l.name === name);
    if (!leaf) throw new SmallMindError('INTERNAL', `the program has no ${op} "${name}"`);
    return leaf;
  }

  #buffer(): ArrayBuffer {
    assert(this.#memory, 'the executor is closed');
    return this.#memory.buffer;
  }
}

/** The program that the executor makes of a graph. */
export function planForWasm(
  graph: Graph,
  { activations, clearing }: Pick<WasmOptions, 'activations' | 'clearing'>,
  variant: KernelVariant,
): Program {
  const activationType = (dtype: DType): ActivationDType | undefined => {
    const format = activations === 'q8' ? quantizedFormatOf(dtype) : undefined;
    return format && (interleavingOf(format, variant) === 'pairs' ? 'Q8W' : 'Q8A');
  };
  return planProgram(lower(graph, { siluMul: true, matmulAdd: true, activationType }), clearing);
}

function refuseClosed(): never {
  throw new Error('closed');
}

function allocate({ sizeBytes, pointer }: MemoryLayout, shared: boolean): WebAssembly.Memory {
  const machineBytes = platform.memoryBytes() ?? Infinity;
  if (sizeBytes > machineBytes) {
    throw new SmallMindError(
      'OUT_OF_MEMORY',
      `the model needs ${inMiB(sizeBytes)} MiB for weights, cache and work areas, this machine has ` +
        `${inMiB(machineBytes)} MiB; use a smaller context or a smaller quantisation`,
      { neededBytes: sizeBytes, limitBytes: machineBytes },
    );
  }
  const pages = Math.ceil(sizeBytes / PAGE_BYTES);
  const wide = { initial: BigInt(pages), maximum: BigInt(pages), address: pointer, shared };
  try {
    // The compiler's library does not know 64-bit memories yet.
    const descriptor = pointer === 'i64' ? (wide as unknown as WebAssembly.MemoryDescriptor) : undefined;
    return new WebAssembly.Memory(descriptor ?? { initial: pages, maximum: pages, shared });
  } catch (error) {
    throw new SmallMindError(
      'OUT_OF_MEMORY',
      `could not reserve ${inMiB(sizeBytes)} MiB for weights, cache and work areas; ` +
        'use a smaller context, a smaller quantisation or close other models',
      { neededBytes: sizeBytes },
      { cause: error },
    );
  }
}

const inMiB = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** The module of a kind, compiled once in this thread. */
function compile(kind: ModuleKind): Promise<WebAssembly.Module> {
  const { kernels, variant, pointer, shared } = kind;
  const names = kernels.map((k) => kernelKey(k.op, k.dtypes));
  const key = [variant.set, variant.dot, pointer, shared, ...names].join(' ');
  let module = compiled.get(key);
  if (!module) {
    module = WebAssembly.compile(buildModule(kind).toBytes() as BufferSource);
    compiled.set(key, module);
  }
  return module;
}

function fillConstants(
  graphs: readonly Graph[],
  leaves: readonly Tensor[],
  layout: MemoryLayout,
  memory: WebAssembly.Memory,
): void {
  for (const leaf of leaves) {
    if (leaf.op !== 'constant') continue;
    const values = graphs.map((g) => g.constants.get(leaf.name)).find((v) => v !== undefined);
    assert(values, `constant "${leaf.name}" has no values`);
    new Float32Array(memory.buffer, layout.leafAddress(leaf)).set(values());
  }
}
