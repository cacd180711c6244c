// The WebAssembly executor: lowers and plans a graph, lays out one memory, packs the weights into it, and runs the
// program's records on the thread pool, one entry into WebAssembly a step.

import { platform } from '#platform';
import { BLOCK_FORMATS } from '../../base/dtype.ts';
import type { DType } from '../../base/dtype.ts';
import { SmallMindError, assert } from '../../base/errors.ts';
import { lower } from '../../graph/lower.ts';
import { planProgram } from '../../graph/plan.ts';
import type { Program } from '../../graph/plan.ts';
import type { Graph, Tensor } from '../../graph/tensor.ts';
import { columnsOf, elementsMax, rowsOf, sizeBytesMax } from '../../graph/tensor.ts';
import { dequantize } from '../../quant/codecs.ts';
import { requireFinite } from '../executor.ts';
import type { Executor, LoadProgress, WeightSource } from '../executor.ts';
import { encodeProgram } from './encode.ts';
import { kernelKey } from './kernels/kernel.ts';
import type { KernelSet, KernelVariant } from './kernels/kernel.ts';
import { kernelsOf } from './kernels/table.ts';
import { isBiased } from './kernels/weights.ts';
import { isPacked, layOutMemory, leafBytes } from './memory.ts';
import type { MemoryLayout } from './memory.ts';
import { PAGE_BYTES, buildModule } from './module.ts';
import type { ModuleKind } from './module.ts';
import { packRows } from './pack.ts';
import { threadPool } from './pool.ts';
import type { PoolModel } from './pool.ts';
import { chooseVariant } from './probe.ts';

export interface WasmOptions {
  readonly kernels: KernelSet | 'auto';
  /** Threads, this one included. More than one needs shared memory; without it one is used. */
  readonly nThreads: number;
  /** `q8`: integer kernels for quantised weights, activations in 8 bits. `f32`: activations as they are. */
  readonly activations: 'q8' | 'f32';
  readonly onProgress?: LoadProgress;
  /** For tests: this variant in place of the one that the probe chooses for `kernels`. */
  readonly variant?: KernelVariant;
}

/** Bytes of the file that are held at once while packing. */
const STAGING_BYTES = 4 << 20;

export class WasmExecutor implements Executor {
  readonly description: string;
  readonly memoryBytes: number;
  readonly nThreads: number;
  readonly program: Program;
  readonly #layout: MemoryLayout;
  #memory: WebAssembly.Memory | undefined;
  #model: PoolModel;

  private constructor(
    program: Program,
    layout: MemoryLayout,
    memory: WebAssembly.Memory,
    model: PoolModel,
    variant: KernelVariant,
  ) {
    this.program = program;
    this.#layout = layout;
    this.#memory = memory;
    this.#model = model;
    this.memoryBytes = layout.sizeBytes;
    this.nThreads = model.nThreads;
    const threads = model.nThreads === 1 ? '1 thread' : `${model.nThreads} threads`;
    this.description = `wasm ${variant.set} (${variant.dot}), ${threads}`;
  }

  /**
   * @throws {UnsupportedError} for weights without kernels or a machine without SIMD, {SmallMindError} OUT_OF_MEMORY,
   *   {GgufError} for damaged weights
   */
  static async create(graph: Graph, source: WeightSource, options: WasmOptions): Promise<WasmExecutor> {
    const variant = options.variant ?? chooseVariant(options.kernels);
    const nThreads = platform.canShareMemory() && platform.canBlock() ? options.nThreads : 1;
    const shared = nThreads > 1;
    const program = planForWasm(graph, options.activations);
    const layout = layOutMemory(program, nThreads);
    const kernels = kernelsOf(program);
    const memory = allocate(layout.sizeBytes, shared);
    encodeProgram(program, kernels, layout, memory.buffer);
    const place = threadPool.reserve(nThreads);
    try {
      await loadLeaves(graph, program, layout, memory, source, { ...options, biased: isBiased(variant) });
      const model = await threadPool.attach(place, await compile({ kernels, variant, shared }), memory);
      return new WasmExecutor(program, layout, memory, model, variant);
    } catch (error) {
      await threadPool.release(place);
      throw error;
    }
  }

  input(name: string): Int32Array {
    const leaf = this.program.leaves.find((l) => l.op === 'input' && l.name === name);
    assert(leaf, `the program has no input "${name}"`);
    return new Int32Array(this.#buffer(), this.#layout.leafAddress(leaf), elementsMax(leaf));
  }

  rowCount(name: string): Int32Array {
    return new Int32Array(this.#buffer(), this.#layout.rowCountAddress(name), 1);
  }

  output(index: number): Float32Array {
    const operand = this.program.outputs[index]!;
    return new Float32Array(this.#buffer(), this.#layout.addressOf(operand), elementsMax(operand.tensor));
  }

  run(): void {
    threadPool.run(this.#model, this.#layout.programAddress, this.program.instructions.length);
  }

  async close(): Promise<void> {
    if (!this.#memory) return;
    this.#memory = undefined;
    await threadPool.release(this.#model);
    // The pool keeps nothing; without these the memory would live as long as this object.
    this.#model = { ...this.#model, exports: { run: refuseClosed }, words: new Int32Array(0) };
  }

  #buffer(): ArrayBuffer {
    assert(this.#memory, 'the executor is closed');
    return this.#memory.buffer;
  }
}

const INTEGER_DTYPES: ReadonlySet<DType> = new Set(['Q8_0', 'Q4_0']);

/** The program that the executor makes of a graph. */
export function planForWasm(graph: Graph, activations: WasmOptions['activations']): Program {
  const quantizesActivations = (dtype: DType): boolean => activations === 'q8' && INTEGER_DTYPES.has(dtype);
  return planProgram(lower(graph, { siluMul: true, quantizesActivations }));
}

function refuseClosed(): never {
  throw new Error('closed');
}

function allocate(sizeBytes: number, shared: boolean): WebAssembly.Memory {
  const pages = Math.ceil(sizeBytes / PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
  } catch (error) {
    throw new SmallMindError(
      'OUT_OF_MEMORY',
      `could not reserve ${(sizeBytes / 2 ** 20).toFixed(0)} MiB for weights, cache and work areas; ` +
        'use a smaller context, a smaller quantisation or close other models',
      { neededBytes: sizeBytes },
      { cause: error },
    );
  }
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** The module of a kind, compiled once in this thread. */
function compile(kind: ModuleKind): Promise<WebAssembly.Module> {
  const { kernels, variant, shared } = kind;
  const names = kernels.map((k) => kernelKey(k.op, k.dtypes));
  const key = [variant.set, variant.dot, shared, ...names].join(' ');
  let module = compiled.get(key);
  if (!module) {
    module = WebAssembly.compile(buildModule(kind).toBytes() as BufferSource);
    compiled.set(key, module);
  }
  return module;
}

interface LeafOptions {
  readonly biased: boolean;
  readonly onProgress?: LoadProgress;
}

/** Fills constants and weights. State and inputs are zero, as new memory is. */
async function loadLeaves(
  graph: Graph,
  program: Program,
  layout: MemoryLayout,
  memory: WebAssembly.Memory,
  source: WeightSource,
  options: LeafOptions,
): Promise<void> {
  const weights = program.leaves.filter((l) => l.op === 'weight');
  const totalBytes = weights.reduce((sum, l) => sum + sizeBytesMax(l), 0);
  let doneBytes = 0;
  options.onProgress?.(0, totalBytes);
  // A matrix of fewer than eight rows still needs room for a whole group.
  const staging = new Uint8Array(Math.max(Math.min(totalBytes, STAGING_BYTES), ...weights.map(groupBytes)));
  for (const leaf of program.leaves) {
    const address = layout.leafAddress(leaf);
    if (leaf.op === 'constant') new Float32Array(memory.buffer, address).set(graph.constants.get(leaf.name)!);
    if (leaf.op !== 'weight') continue;
    const target = new Uint8Array(memory.buffer, address, leafBytes(leaf));
    await loadWeight(leaf, target, source, staging, options.biased, (bytes) => {
      doneBytes += bytes;
      options.onProgress?.(doneBytes, totalBytes);
    });
  }
}

/** Bytes of eight rows of a matrix as the file stores them; of a whole vector. */
function groupBytes(leaf: Tensor): number {
  if (!isPacked(leaf)) return sizeBytesMax(leaf);
  const { blockElements, blockBytes } = BLOCK_FORMATS[leaf.dtype as DType];
  return 8 * (columnsOf(leaf) / blockElements) * blockBytes;
}

async function loadWeight(
  leaf: Tensor,
  target: Uint8Array,
  source: WeightSource,
  staging: Uint8Array,
  biased: boolean,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const dtype = leaf.dtype as DType;
  const totalBytes = sizeBytesMax(leaf);
  if (!isPacked(leaf)) {
    const bytes = staging.subarray(0, totalBytes);
    await source.read(leaf.name, 0, bytes);
    const values = dequantize(dtype, bytes);
    requireFinite(leaf.name, values);
    new Float32Array(target.buffer as ArrayBuffer, target.byteOffset, elementsMax(leaf)).set(values);
    onBytes(totalBytes);
    return;
  }
  assert(typeof rowsOf(leaf) === 'number', `weight "${leaf.name}" has rows that vary`);
  const nColumns = columnsOf(leaf);
  const chunkBytes = Math.floor(staging.length / groupBytes(leaf)) * groupBytes(leaf);
  for (let offset = 0; offset < totalBytes; offset += chunkBytes) {
    const rows = staging.subarray(0, Math.min(chunkBytes, totalBytes - offset));
    await source.read(leaf.name, offset, rows);
    packRows({ name: leaf.name, dtype, nColumns }, rows, target.subarray(offset), biased);
    onBytes(rows.length);
  }
}
