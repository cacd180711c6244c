// How fast a model runs here: prefill and decoding, in tokens a second and as shares of what the machine's memory
// gives, and where the time goes, operation by operation. What is printed, and what is compared with, is the caller's.

import { WasmExecutor } from './backend/wasm/executor.ts';
import type { Executor } from './backend/executor.ts';
import type { ByteSource } from './base/byte-source.ts';
import { Random } from './base/random.ts';
import { bytesReadAToken } from './convert/synthetic-model.ts';
import { Graph } from './graph/tensor.ts';
import { readGguf } from './gguf/reader.ts';
import { LocalModel } from './local-model.ts';
import { resolveGenerateOptions, resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelInfo, ModelSource } from './options.ts';
import { describeSource, openSource } from './source.ts';

export { syntheticModel } from './convert/synthetic-model.ts';

/** What a run does: evaluates a prompt, then so many tokens one by one. */
export interface Workload {
  readonly prompt: readonly number[];
  readonly nGenerate: number;
}

/** Tokens a second. */
export interface Speed {
  readonly prefill: number;
  readonly decode: number;
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
  readonly #model: LocalModel;
  readonly #recorder: Recorder;
  readonly #nVocab: number;

  private constructor(model: LocalModel, recorder: Recorder, weightBytesAToken: number) {
    this.#model = model;
    this.#recorder = recorder;
    this.info = model.info;
    this.#nVocab = model.tokenizer.nVocab;
    this.weightBytesAToken = weightBytesAToken;
  }

  /** @throws what `loadModel` throws */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<BenchmarkModel> {
    const resolved = resolveLoadOptions(options);
    const { signal, onProgress } = options;
    const posted = describeSource(source);
    const opened = await openSource(posted, posted.kind === 'remote' ? (source as ByteSource) : undefined);
    const recorder = new Recorder();
    const { tensors } = await readGguf(opened);
    const hooks = { onProgress, isAborted: () => signal?.aborted ?? false, wrapExecutor: recorder.wrap.bind(recorder) };
    const model = await LocalModel.load(opened, resolved, hooks);
    return new BenchmarkModel(model, recorder, bytesReadAToken(tensors.values()));
  }

  /** Random tokens. Every seed is another prompt, so that nothing is found in the cache. */
  workload(nPrompt: number, nGenerate: number, seed: number): Workload {
    const random = new Random(seed);
    const prompt = Array.from({ length: nPrompt }, () => Math.floor(random.uniform() * this.#nVocab));
    return { prompt, nGenerate };
  }

  async run(workload: Workload): Promise<Speed> {
    const { timings } = await this.#generate(workload);
    return { prefill: timings.promptTokensPerSecond, decode: timings.decodeTokensPerSecond };
  }

  /** One run, instruction by instruction. Each costs a call more than in `run`, about a microsecond. */
  async profile(workload: Workload): Promise<Profile> {
    this.#recorder.start();
    await this.#generate(workload);
    return this.#recorder.stop();
  }

  #generate({ prompt, nGenerate }: Workload) {
    // Of what follows, the first token comes out of the prompt; a text must not end before it is measured.
    const options = { temperature: 0, maxTokens: nGenerate + 1 };
    const resolved = { ...resolveGenerateOptions(options), ignoresEnd: true };
    return this.#model.generate(prompt, resolved, () => {}).result;
  }

  close(): Promise<void> {
    return this.#model.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
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
export async function measureReadLimit(threads: number): Promise<number> {
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
