// What conformance tests are made of: small graphs with seeded contents, and a run of every kernel variant and thread
// count against the reference. A test builds its graph twice from the same seed: once for the kernels, once for the
// reference, which for 8-bit activations is given the quantised values, so that tolerances stay those of rounding.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Executor, WeightSource } from '../../src/backend/executor.ts';
import { ReferenceExecutor } from '../../src/backend/reference/executor.ts';
import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import { wasmFeatures } from '../../src/backend/wasm/emit/features.ts';
import type { KernelVariant } from '../../src/backend/wasm/kernels/kernel.ts';
import { chooseVariant, probeRelaxedDot } from '../../src/backend/wasm/probe.ts';
import type { DType } from '../../src/base/dtype.ts';
import { Random } from '../../src/base/random.ts';
import { writeModeOf } from '../../src/graph/operations.ts';
import { Graph, columnsOf, dimMax, rowsOf } from '../../src/graph/tensor.ts';
import type { Dim, RowCount, Tensor } from '../../src/graph/tensor.ts';
import { CODECS, quantize } from '../../src/quant/codecs.ts';
import { randomBlocks } from '../../src/convert/random-blocks.ts';

export type Activations = 'f32' | 'q8';

/**
 * All that differs in emitted code: the relaxed set in each way of dot products that is right here, simd, strict; wide
 * tiles in two of them.
 */
export const VARIANTS: readonly KernelVariant[] = [
  ...relaxedDots().map((dot) => ({ set: 'relaxed', dot, fma: true, wide: dot === 'i7p' }) as const),
  { ...chooseVariant('simd'), wide: true },
  chooseVariant('strict'),
];

function relaxedDots(): KernelVariant['dot'][] {
  const best = probeRelaxedDot();
  if (best === 'u8') return ['u8', 'i7', 'i7p', 'i16'];
  if (best !== 'i16') return ['i7', 'i7p', 'i16'];
  return wasmFeatures().relaxedSimd ? ['i16'] : [];
}

export const THREAD_COUNTS: readonly number[] = [1, 2, 3];

/** Bytes below what is computed with, so that addresses cross 2^31, and so that they have more than 32 bits. */
const GAPS: readonly number[] = [2 ** 31 - 2 ** 15, ...(wasmFeatures().memory64 ? [2 ** 32] : [])];

interface Check {
  readonly name: string;
  readonly tensor: Tensor;
  /** How far a result may be off, relative to the largest of its row and to `size`; 0: not at all, not even in sign. */
  readonly tolerance: number;
  /** The usual size of results, where a row may be small because its terms cancel out. */
  readonly size: number;
}

/** A graph under construction, with the contents of its leaves. */
export class Rig {
  readonly graph = new Graph();
  readonly checks: Check[] = [];
  readonly inputs = new Map<string, ArrayLike<number>>();
  readonly states = new Map<string, Float32Array>();
  readonly #bytes = new Map<string, Uint8Array>();
  readonly #random = new Random(20260);
  readonly #seesQuantized: boolean;
  #nLeaf = 0;

  /** @param seesQuantized  activations are replaced by what 8 bits leave of them */
  constructor(seesQuantized = false) {
    this.#seesQuantized = seesQuantized;
  }

  /** Normally distributed numbers. */
  numbers(n: number, deviation = 1): Float32Array {
    const values = new Float64Array(n);
    this.#random.fillNormal(values, 0, deviation);
    return Float32Array.from(values);
  }

  weight(dtype: DType, shape: readonly number[], values = this.numbers(shape.reduce((n, d) => n * d, 1))): Tensor {
    return this.rawWeight(dtype, shape, quantize(dtype, values));
  }

  /** Random values of about 1, as far as the type has them. */
  randomWeight(dtype: DType, shape: readonly number[]): Tensor {
    if (CODECS[dtype]!.encode) return this.weight(dtype, shape);
    return this.rawWeight(
      dtype,
      shape,
      randomBlocks(
        dtype,
        shape.reduce((n, d) => n * d, 1),
        this.#random,
      ),
    );
  }

  rawWeight(dtype: DType, shape: readonly number[], bytes: Uint8Array): Tensor {
    const name = `weight.${this.#nLeaf++}`;
    this.#bytes.set(name, bytes);
    return this.graph.leaf('weight', name, dtype, shape);
  }

  constant(shape: readonly number[], values = this.numbers(shape.reduce((n, d) => n * d, 1))): Tensor {
    return this.graph.constant(`constant.${this.#nLeaf++}`, shape, () => values);
  }

  /** f32 values that operations may change; every step begins with these. */
  state(shape: readonly number[], values = this.numbers(shape.reduce((n, d) => n * d, 1))): Tensor {
    const name = `state.${this.#nLeaf++}`;
    this.states.set(name, values);
    return this.graph.leaf('state', name, 'F32', shape);
  }

  /** i32 values: a vector, or rows of `nColumns`. `rows` may vary by step; the values are those of the most rows. */
  ids(values: ArrayLike<number>, rows: Dim = values.length, nColumns?: number): Tensor {
    const name = `input.${this.#nLeaf++}`;
    this.inputs.set(name, values);
    return this.graph.leaf('input', name, 'I32', nColumns === undefined ? [rows] : [rows, nColumns]);
  }

  /** f32[rows, nColumns] as operand of a matmul; where the rows vary, taken from a constant by gatherRows. */
  activations(rows: Dim, nColumns: number, values = this.numbers(dimMax(rows) * nColumns)): Tensor {
    const seen = this.#seesQuantized && nColumns % 32 === 0 ? throughQ8(values) : values;
    const all = this.constant([dimMax(rows), nColumns], seen);
    if (typeof rows === 'number') return all;
    const ids = this.ids(
      Array.from({ length: rows.max }, (_, i) => i),
      rows,
    );
    const x = this.graph.apply('gatherRows', [all, ids]);
    this.keep(x);
    return x;
  }

  check(name: string, tensor: Tensor, tolerance: number, size = 0): void {
    this.checks.push({ name, tensor, tolerance, size });
    this.graph.output(tensor);
  }

  /** Makes an intermediate an output that is not compared, so that nothing works in its memory. */
  keep(tensor: Tensor): void {
    this.check(tensor.name, tensor, Infinity);
  }

  get source(): WeightSource {
    const bytes = this.#bytes;
    return {
      async read(name, offsetBytes, target) {
        target.set(bytes.get(name)!.subarray(offsetBytes, offsetBytes + target.length));
      },
    };
  }
}

/**
 * What the integer kernels see of activations: blocks of 32, scale = max|x| / 127, quants = x / scale to nearest, ties
 * to even; the arithmetic is float32.
 */
export function throughQ8(values: Float32Array): Float32Array {
  return values.map((x, i) => {
    const start = i - (i % 32);
    const max = values.subarray(start, start + 32).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    const scale = Math.fround(max / 127);
    return scale === 0 ? 0 : roundTiesToEven(Math.fround(x * Math.fround(1 / scale))) * scale;
  });
}

export function roundTiesToEven(x: number): number {
  const floor = Math.floor(x);
  const isUp = x - floor > 0.5 || (x - floor === 0.5 && floor % 2 !== 0);
  return isUp ? floor + 1 : floor;
}

/** Present values of the dimensions that vary. */
export type Counts = Readonly<Record<string, number>>;

const rowsAt = (dim: Dim, counts: Counts): number => (typeof dim === 'number' ? dim : counts[dim.name]!);

/** Rows that a step does not reach keep this. */
const STALE = -1234.5;

export async function createExecutor(
  rig: Rig,
  variant: KernelVariant,
  nThreads: number,
  activations: Activations = 'f32',
  gapBytes = 0,
): Promise<WasmExecutor> {
  const executor = await WasmExecutor.create(rig.graph, rig.source, {
    kernels: variant.set,
    variant,
    nThreads,
    activations,
    gapBytes,
  });
  fillInputs(rig, executor);
  return executor;
}

export function fillInputs(rig: Rig, executor: Executor): void {
  for (const [name, values] of rig.inputs) executor.input(name).set(values);
}

/** Whether the result is memory of its own, not that of a state. */
const isComputed = ({ op }: Tensor): boolean => ['store', 'inPlace', 'accumulate'].includes(writeModeOf(op));

/** Runs one step, in memory that is full of NaN, and returns all outputs, whole. */
export function runStep(rig: Rig, executor: Executor, counts: Counts): Float32Array[] {
  for (const [name, count] of Object.entries(counts)) executor.rowCount(name)[0] = count;
  if (executor instanceof WasmExecutor) executor.arena().fill(NaN);
  rig.checks.forEach(({ tensor }, i) => {
    if (isComputed(tensor)) executor.output(i).fill(STALE);
  });
  for (const [name, values] of rig.states) executor.state(name).set(values);
  executor.run();
  return rig.checks.map((_, i) => executor.output(i).slice());
}

export interface ConformOptions {
  readonly activations?: readonly Activations[];
  /** Row counts of each step; one step without by default. */
  readonly steps?: readonly Counts[];
  /** Whether rows beyond the count must be untouched: not where other buffers had the memory before. */
  readonly keepsStaleRows?: boolean;
}

/** Defines a test for each way of activations: the graph that `build` makes, on every variant and thread count. */
export function conform(name: string, build: (rig: Rig) => void, options: ConformOptions = {}): void {
  const { activations = ['f32'], steps = [{}], keepsStaleRows = true } = options;
  for (const mode of activations) {
    test(activations.length > 1 ? `${name}, ${mode} activations` : name, async () => {
      const oracle = new Rig(mode === 'q8');
      build(oracle);
      const reference = await ReferenceExecutor.create(oracle.graph, oracle.source);
      fillInputs(oracle, reference);
      const expected = steps.map((counts) => runStep(oracle, reference, counts));
      const places = VARIANTS.flatMap((variant) =>
        THREAD_COUNTS.map((nThreads) => ({ variant, nThreads, gapBytes: 0 })),
      );
      for (const gapBytes of GAPS) places.push({ variant: VARIANTS[0]!, nThreads: 2, gapBytes });
      for (const { variant, nThreads, gapBytes } of places) {
        const rig = new Rig();
        build(rig);
        const executor = await createExecutor(rig, variant, nThreads, mode, gapBytes);
        try {
          steps.forEach((counts, step) => {
            const where = `${executor.description}, ${JSON.stringify(counts)}, above a gap of ${gapBytes} bytes`;
            const actual = runStep(rig, executor, counts);
            rig.checks.forEach((check, i) => {
              const atStep = { expected: expected[step]![i]!, counts, where };
              compare(check, actual[i]!, atStep, keepsStaleRows && mode === 'f32');
            });
          });
        } finally {
          await executor.close();
        }
      }
    });
  }
}

function compare(
  { name, tensor, tolerance, size }: Check,
  actual: Float32Array,
  { expected, counts, where }: { expected: Float32Array; counts: Counts; where: string },
  keepsStaleRows: boolean,
): void {
  const nColumns = columnsOf(tensor);
  const nRows = rowsAt(rowsOf(tensor), counts);
  const nCompared = tolerance < Infinity ? nRows : 0;
  for (let row = 0; row < nCompared; row++) {
    const target = expected.subarray(row * nColumns, (row + 1) * nColumns);
    const allowed = tolerance * target.reduce((m, x) => Math.max(m, Math.abs(x)), size);
    target.forEach((value, column) => {
      const got = actual[row * nColumns + column]!;
      if (tolerance === 0 ? Object.is(got, value) : Math.abs(got - value) <= allowed) return;
      assert.fail(`${name} [${row}, ${column}] expected ${value} ± ${allowed}, got ${got} (${where})`);
    });
  }
  if (!keepsStaleRows) return;
  const stale = actual.subarray(nRows * nColumns).findIndex((x) => x !== STALE);
  assert.equal(stale, -1, `${name} wrote element ${stale} behind its ${nRows} rows (${where})`);
}

/** Fails at the first value whose bits are others. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, where: string): void {
  assert.equal(actual.length, expected.length);
  const [got, wanted] = [actual, expected].map((v) => new Uint32Array(v.buffer, v.byteOffset, v.length));
  const at = got!.findIndex((bits, i) => bits !== wanted![i]);
  if (at !== -1) assert.fail(`[${at}] expected the bits of ${expected[at]}, got those of ${actual[at]} (${where})`);
}

/** Keeps the pool's threads alive between the executors of a suite. @returns what lets them go */
export async function holdThreads(nThreads: number): Promise<() => Promise<void>> {
  const rig = new Rig();
  rig.check('x', rig.graph.apply('silu', [rig.constant([1, 4])]), 1);
  const executor = await createExecutor(rig, chooseVariant('simd'), nThreads);
  return () => executor.close();
}

export const rowCount = (max: number, name = 'rows'): RowCount => ({ name, max });
