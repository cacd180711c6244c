// How fast a model runs here: prefill and decoding, in tokens a second and as shares of what the machine's memory and
// arithmetic give, and where the time goes, operation by operation. What is printed, and what is compared with, is the
// caller's.

import { platform } from '#platform';
import { measureComputeLimit } from './backend/wasm/compute-limit.ts';
import { WasmExecutor } from './backend/wasm/executor.ts';
import type { Executor } from './backend/executor.ts';
import type { DType } from './base/dtype.ts';
import { assert } from './base/errors.ts';
import { Random } from './base/random.ts';
import { bytesReadAToken } from './convert/synthetic-model.ts';
import { Graph } from './graph/tensor.ts';
import type { TensorDescriptor } from './gguf/writer.ts';
import { LocalModel } from './local-model.ts';
import { requireOutput } from './models/model.ts';
import { resolveGenerateOptions, resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelInfo, ModelSource, ResolvedLoadOptions } from './options.ts';
import { openHere } from './source.ts';

export { syntheticModel } from './convert/synthetic-model.ts';

/** Whether the engine was asked for 256-bit vectors. */
export const hasWideVectors = (): boolean => platform.hasWideVectors();

/** What a run does: evaluates a prompt for each sequence, all at once, then so many tokens of each, one by one. */
export interface Workload {
  readonly prompts: readonly (readonly number[])[];
  readonly nGenerate: number;
}

/** Tokens a second, of all sequences together. */
export interface Speed {
  readonly prefill: number;
  readonly decode: number;
}

/** What this machine gives to as many threads as the model has. */
export interface Limits {
  /** Gigabytes a second, read from memory. */
  readonly readGBs: number;
  /** 10⁹ operations a second, by the instructions that multiply most of the model's weights. */
  readonly computeGops: number;
}

/** Milliseconds of the instructions of one operation, or of one layer, over the steps that were profiled. */
export interface ProfileRow {
  readonly name: string;
  readonly ms: number;
  readonly count: number;
}

export interface Profile {
  readonly nSteps: number;
  readonly byOperation: readonly ProfileRow[];
  readonly byLayer: readonly ProfileRow[];
}

/** A model that is loaded to be measured, on the calling thread. */
export class BenchmarkModel implements AsyncDisposable {
  readonly info: ModelInfo;
  /** Of weights, that a step of one token reads. */
  readonly weightBytesAToken: number;
  /** Multiplications and additions for a token of a prompt, those of attention not counted. */
  readonly prefillOperationsAToken: number;
  readonly #model: LocalModel;
  readonly #recorder: Recorder;
  readonly #weightDtype: DType;
  readonly #kernels: ResolvedLoadOptions['kernels'];
  #limits: Limits = { readGBs: 0, computeGops: 0 };
  /** Tokens that every sequence begins with. */
  #past: readonly number[] = [];

  private constructor(
    model: LocalModel,
    recorder: Recorder,
    tensors: readonly TensorDescriptor[],
    kernels: ResolvedLoadOptions['kernels'],
  ) {
    this.#model = model;
    this.#recorder = recorder;
    this.#kernels = kernels;
    this.info = model.info;
    this.weightBytesAToken = bytesReadAToken(tensors);
    const weights = layerWeights(tensors);
    this.prefillOperationsAToken = 2 * weights.reduce((sum, [, n]) => sum + n, 0);
    this.#weightDtype = weights[0]![0];
  }

  /** @throws what `loadModel` throws, {UnsupportedError} UNSUPPORTED_FEATURE for a model that generates no text */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<BenchmarkModel> {
    const resolved = resolveLoadOptions(options);
    const { signal, onProgress } = options;
    const recorder = new Recorder();
    let tensors: readonly TensorDescriptor[] = [];
    const model = await LocalModel.load(await openHere(source, signal), resolved, {
      onProgress,
      isAborted: () => signal?.aborted ?? false,
      onDefinition({ gguf, hyperParameters }) {
        requireOutput('logits', hyperParameters);
        tensors = [...gguf.tensors.values()];
      },
      wrapExecutor: recorder.wrap.bind(recorder),
    });
    return new BenchmarkModel(model, recorder, tensors, resolved.kernels);
  }

  /** Random tokens for `nSeq` sequences. Every seed has other prompts, so that nothing is found in the cache. */
  workload(nPrompt: number, nGenerate: number, seed: number, nSeq = 1): Workload {
    const random = new Random(seed);
    const prompts = Array.from({ length: nSeq }, () => randomTokens(random, nPrompt, this.#model.tokenizer.nVocab));
    return { prompts, nGenerate };
  }

  /**
   * Makes every sequence from now on begin behind `depth` tokens that the cache holds already: keys and values are
   * random, because evaluating them takes minutes and their values cost no time.
   * @param depth  a multiple of the cache's block size
   */
  fillContext(depth: number): void {
    const { cache } = this.#model.engine;
    assert(depth % cache.blockSize === 0, `a depth of ${depth} tokens ends within a block`);
    const random = new Random(depth);
    // In any type of the cache these are values, or scales, of ordinary size.
    this.#recorder.executor.fillStates(
      Uint16Array.from({ length: 1 << 16 }, () => 0x3400 | (Math.floor(random.uniform() * 65536) & 0x83ff)),
    );
    this.#past = randomTokens(random, depth, this.#model.tokenizer.nVocab);
    const blocks = Int32Array.from({ length: depth / cache.blockSize }, () => cache.allocate());
    cache.release(this.#past, depth, blocks, blocks.length);
  }

  async run(workload: Workload): Promise<Speed> {
    const results = await this.#generate(workload);
    const timings = results.map((result) => result.timings);
    const nPrompt = workload.prompts.reduce((sum, prompt) => sum + prompt.length, 0);
    // Prompts share steps: all are evaluated when the last one is.
    const prefill = (1000 * nPrompt) / Math.max(...timings.map(({ promptMs }) => promptMs));
    return { prefill, decode: timings.reduce((sum, { decodeTokensPerSecond }) => sum + decodeTokensPerSecond, 0) };
  }

  /** Measures again what the machine gives. @returns the best of this call and those before */
  async measureLimits(): Promise<Limits> {
    const { threads } = this.info;
    const kernels = this.#kernels === 'reference' ? 'auto' : this.#kernels;
    const readGBs = await measureReadLimit(threads);
    const computeGops = await measureComputeLimit(this.#weightDtype, threads, kernels);
    this.#limits = {
      readGBs: Math.max(this.#limits.readGBs, readGBs),
      computeGops: Math.max(this.#limits.computeGops, computeGops),
    };
    return this.#limits;
  }

  /** One run, instruction by instruction. Each costs a call more than in `run`, about a microsecond. */
  async profile(workload: Workload): Promise<Profile> {
    this.#recorder.start();
    await this.#generate(workload);
    return this.#recorder.stop();
  }

  async #generate({ prompts, nGenerate }: Workload) {
    // Of what follows, the first token comes out of the prompt; a text must not end before it is measured.
    const options = { ...resolveGenerateOptions({ temperature: 0, maxTokens: nGenerate + 1 }), ignoresEnd: true };
    const past = this.#past;
    const results = await Promise.all(
      prompts.map((prompt) => this.#model.generate([...past, ...prompt], options, () => {}).result),
    );
    assert(
      results.every(({ cachedTokens }) => cachedTokens === past.length),
      `the cache does not hold the ${past.length} tokens before the prompt, and no others`,
    );
    return results;
  }

  close(): Promise<void> {
    return this.#model.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function randomTokens(random: Random, n: number, nVocab: number): number[] {
  return Array.from({ length: n }, () => Math.floor(random.uniform() * nVocab));
}

/**
 * How many weights of each type every token of a prompt is multiplied by, most first: those of the layers. The output
 * matrix waits for the last token.
 */
function layerWeights(tensors: readonly TensorDescriptor[]): (readonly [DType, number])[] {
  const counts = new Map<DType, number>();
  for (const { name, dtype, shape } of tensors) {
    if (shape.length !== 2 || !name.startsWith('blk.')) continue;
    counts.set(dtype, (counts.get(dtype) ?? 0) + shape[0]! * shape[1]!);
  }
  return [...counts].toSorted(([, a], [, b]) => b - a);
}

/** Stands between an engine and its executor, and profiles steps where that is wanted. */
class Recorder {
  #executor: WasmExecutor | undefined;
  #totals: Float64Array | undefined;
  #nSteps = 0;

  wrap(executor: Executor): Executor {
    if (!(executor instanceof WasmExecutor)) return executor;
    this.#executor = executor;
    const run = executor.run.bind(executor);
    executor.run = (program = 0): void => {
      if (!this.#totals) return run(program);
      this.#nSteps++;
      executor.profile(this.#totals, program);
    };
    return executor;
  }

  get executor(): WasmExecutor {
    assert(this.#executor, 'the reference has no context to fill');
    return this.#executor;
  }

  start(): void {
    this.#nSteps = 0;
    this.#totals = new Float64Array(this.#executor?.programs[0]!.instructions.length ?? 0);
  }

  stop(): Profile {
    const totals = this.#totals ?? new Float64Array(0);
    this.#totals = undefined;
    const instructions = this.#executor?.programs[0]!.instructions ?? [];
    const group = (nameOf: (i: number) => string): ProfileRow[] => {
      const rows = new Map<string, { ms: number; count: number }>();
      totals.forEach((ms, i) => {
        const row = rows.get(nameOf(i)) ?? { ms: 0, count: 0 };
        rows.set(nameOf(i), { ms: row.ms + ms, count: row.count + 1 });
      });
      return [...rows].map(([name, row]) => ({ name, ...row }));
    };
    const operation = (i: number): string => {
      const { op, inputs } = instructions[i]!;
      return op === 'matmul' ? `matmul ${inputs[1]!.tensor.dtype} ${inputs[1]!.tensor.shape.join(' × ')}` : op;
    };
    const layer = (i: number): string => /^blk\.(\d+)\./.exec(instructions[i]!.out.tensor.name)?.[1] ?? 'outside';
    const byOperation = group(operation).toSorted((a, b) => b.ms - a.ms);
    return { nSteps: this.#nSteps, byOperation, byLayer: group(layer) };
  }
}

/** Bytes that the read limit is measured over: far more than caches hold. */
const LIMIT_BYTES = 512 << 20;

/** Gigabytes a second that `threads` read from memory through WebAssembly: the best of several passes. */
async function measureReadLimit(threads: number): Promise<number> {
  const graph = new Graph();
  const state = graph.leaf('state', 'memory', 'F32', [LIMIT_BYTES / 4]);
  graph.output(graph.apply('sumSquares', [state]));
  const options = { kernels: 'auto', activations: 'f32', nThreads: threads } as const;
  const executor = await WasmExecutor.create(graph, { read: async () => {} }, options);
  try {
    // Touched once, so that the pages are there.
    executor.state('memory').fill(0.5);
    let bestMs = Infinity;
    for (let i = 0; i < 6; i++) {
      const startMs = performance.now();
      executor.run();
      bestMs = Math.min(bestMs, performance.now() - startMs);
    }
    return LIMIT_BYTES / bestMs / 1e6;
  } finally {
    await executor.close();
  }
}
