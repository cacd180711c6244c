// Says what this machine and its JavaScript engine offer to SmallMind, and proves by running them that the kernels
// emitted here compute what the reference computes. What is missing is named together with what to do about it.

import { platform } from '#platform';
import type { WeightSource } from './backend/executor.ts';
import { ReferenceExecutor } from './backend/reference/executor.ts';
import { wasmFeatures } from './backend/wasm/emit/features.ts';
import { WasmExecutor } from './backend/wasm/executor.ts';
import type { WasmOptions } from './backend/wasm/executor.ts';
import { threadPool } from './backend/wasm/pool.ts';
import { chooseVariant, probeRelaxedDot } from './backend/wasm/probe.ts';
import { elementsMax, Graph } from './graph/tensor.ts';
import { Random } from './base/random.ts';
import { quantize } from './quant/codecs.ts';
import { chooseThreads } from './threads.ts';

/** One small product of matrices, on the kernels and on the reference. */
export interface SelfTest {
  readonly kernels: 'relaxed' | 'simd' | 'strict';
  readonly weights: 'F32' | 'Q8_0';
  readonly threads: number;
  readonly passed: boolean;
  /** Largest difference, as a fraction of the largest result; 0 where `error` says why there is none. */
  readonly difference: number;
  readonly error?: string;
}

/** Something that is missing or wrong, and what to do about it. */
export interface Finding {
  /** `slow`: everything works, but not as fast as it could. */
  readonly severity: 'broken' | 'slow';
  readonly what: string;
  readonly remedy: string;
}

/** What this machine offers, and whether the kernels compute rightly on it. */
export interface Diagnosis {
  /** The JavaScript engine in words. */
  readonly engine: string;
  readonly features: {
    readonly simd: boolean;
    readonly relaxedSimd: boolean;
    /** WebAssembly atomics. */
    readonly threads: boolean;
    /** Memory can be shared with workers; a page needs cross-origin isolation for it. */
    readonly sharedMemory: boolean;
    readonly memory64: boolean;
    /** V8 was asked for 256-bit vectors: see `enableWideVectors`. */
    readonly wideVectors: boolean;
  };
  /** What the relaxed dot product was found to compute: exact with 8-bit or 7-bit operands, or unfit (`i16`). */
  readonly dot: 'u8' | 'i7' | 'i7p' | 'i16';
  readonly nFastCore: number;
  readonly nPhysicalCore: number;
  readonly nLogicalCore: number;
  /** Of the machine; absent where that is not told. */
  readonly memoryBytes?: number;
  /** What `loadModel` uses by default; `none` where nothing can run. */
  readonly kernels: 'relaxed' | 'simd' | 'none';
  readonly threads: number;
  /** Why so many, in words. */
  readonly threadsReason: string;
  readonly selfTests: readonly SelfTest[];
  /** Empty when all is well. */
  readonly findings: readonly Finding[];
  readonly verdict: 'ready' | 'slow' | 'broken';
}

/**
 * Looks at the machine and its JavaScript engine, and runs each kernel set against the reference. It never throws for
 * what is wrong with the machine: that is what it reports.
 * @example
 * import { diagnose } from 'smallmind';
 *
 * const { verdict, threads, findings } = await diagnose();
 * console.log(`this machine is ${verdict}: ${threads} threads`);
 * for (const { what, remedy } of findings) console.log(`${what}: ${remedy}`);
 */
export async function diagnose(): Promise<Diagnosis> {
  const wasm = wasmFeatures();
  const canShare = wasm.threads && platform.canShareMemory();
  const canThread = canShare && platform.canBlock();
  const { threads, reason } = canThread ? chooseThreads() : { threads: 1, reason: 'memory cannot be shared' };
  const { nFast, nPhysical, nLogical } = platform.cores();
  const selfTests = await runSelfTests(threads);
  const facts = {
    engine: platform.engine(),
    features: { ...wasm, sharedMemory: canShare, wideVectors: platform.hasWideVectors() },
    dot: probeRelaxedDot(),
    nFastCore: nFast,
    nPhysicalCore: nPhysical,
    nLogicalCore: nLogical,
    memoryBytes: platform.memoryBytes(),
    kernels: wasm.simd ? (chooseVariant('auto').set as 'relaxed' | 'simd') : 'none',
    threads,
    threadsReason: reason,
    selfTests,
  } as const;
  const findings = findProblems(facts);
  const verdict = findings.some((f) => f.severity === 'broken') ? 'broken' : findings.length > 0 ? 'slow' : 'ready';
  return { ...facts, findings, verdict };
}

type Facts = Omit<Diagnosis, 'findings' | 'verdict'>;

const NEWER_ENGINE = 'use a newer engine: Node 22.18 or later, or a current browser';

function findProblems({ features, dot, selfTests }: Facts): Finding[] {
  const findings: Finding[] = [];
  const add = (severity: Finding['severity'], what: string, remedy: string): void => {
    findings.push({ severity, what, remedy });
  };
  if (!features.simd) add('broken', 'WebAssembly SIMD is missing', NEWER_ENGINE);
  for (const { kernels, weights, passed, difference, error } of selfTests) {
    if (passed) continue;
    const got = error ?? `off by ${(100 * difference).toFixed(1)} %`;
    const remedy = kernels === 'strict' ? 'please report it with this output' : 'load with the kernels "strict"';
    add('broken', `the ${kernels} kernels compute ${weights} wrongly: ${got}`, remedy);
  }
  if (features.simd && !features.relaxedSimd) add('slow', 'relaxed SIMD is missing', NEWER_ENGINE);
  if (features.relaxedSimd && dot === 'i16') {
    add('slow', 'the relaxed dot product is not exact here, so it is not used', 'nothing: results are right');
  }
  if (!features.sharedMemory) {
    add(
      'slow',
      'memory cannot be shared, so one thread computes',
      platform.name === 'browser'
        ? 'serve the page with the headers COOP: same-origin, COEP: require-corp'
        : NEWER_ENGINE,
    );
  }
  return findings;
}

async function runSelfTests(nThreads: number): Promise<SelfTest[]> {
  const { simd, relaxedSimd } = wasmFeatures();
  const sets = simd ? (['relaxed', 'simd', 'strict'] as const).filter((s) => s !== 'relaxed' || relaxedSimd) : [];
  const results: SelfTest[] = [];
  // Without it the pool's threads would end and start again with each test.
  const place = threadPool.reserve(nThreads);
  for (const kernels of sets) {
    for (const weights of ['F32', 'Q8_0'] as const) {
      results.push(await runSelfTest(weights, { kernels, nThreads, activations: 'q8' }));
    }
  }
  await threadPool.release(place);
  return results;
}

/** Of the largest result: float32 sums, and for quantised weights activations in 8 bits. */
const DIFFERENCE_MAX = { F32: 1e-5, Q8_0: 2e-2 } as const;

async function runSelfTest(
  weights: SelfTest['weights'],
  options: WasmOptions & { readonly kernels: SelfTest['kernels'] },
): Promise<SelfTest> {
  const { kernels, nThreads: threads } = options;
  try {
    const { graph, source } = smallMatmul(weights);
    const expected = await resultOf(await ReferenceExecutor.create(graph, source), graph);
    const actual = await resultOf(await WasmExecutor.create(graph, source, options), graph);
    const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    const error = actual.reduce((max, value, i) => Math.max(max, Math.abs(value - expected[i]!)), 0);
    const difference = error / largest;
    // Written so that NaN fails.
    return { kernels, weights, threads, passed: difference <= DIFFERENCE_MAX[weights], difference };
  } catch (error) {
    return { kernels, weights, threads, passed: false, difference: 0, error: String(error) };
  }
}

async function resultOf(executor: WasmExecutor | ReferenceExecutor, graph: Graph): Promise<Float32Array> {
  try {
    executor.run();
    return executor.output(0).slice(0, elementsMax(graph.outputs[0]!));
  } finally {
    await executor.close();
  }
}

/** Sizes that fill no tile, and more than one block of 32. */
const N_ROW = 5;
const N_IN = 96;
const N_OUT = 21;

function smallMatmul(dtype: SelfTest['weights']): { graph: Graph; source: WeightSource } {
  const random = new Random(1);
  const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, () => 2 * random.uniform() - 1);
  const bytes = quantize(dtype, numbers(N_OUT * N_IN));
  const graph = new Graph();
  const x = graph.constant('x', [N_ROW, N_IN], () => numbers(N_ROW * N_IN));
  graph.output(graph.apply('matmul', [x, graph.leaf('weight', 'w', dtype, [N_OUT, N_IN])]));
  const source: WeightSource = {
    async read(_, offsetBytes, target) {
      target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
    },
  };
  return { graph, source };
}
