// A model in this thread: puts file, tokenizer, executor and engine together. The worker holds one of these for each
// model it serves; `thread: 'inline'` holds it in the caller's thread.

import { platform } from '#platform';
import { RUNNABLE_DTYPES } from './backend/executor.ts';
import type { Executor, WeightSource } from './backend/executor.ts';
import { ReferenceExecutor } from './backend/reference/executor.ts';
import { WasmExecutor } from './backend/wasm/executor.ts';
import type { ByteSource } from './base/byte-source.ts';
import type { DType } from './base/dtype.ts';
import { OptionError, SmallMindError, UnsupportedError, closedError } from './base/errors.ts';
import { ChatFormat, readTemplates } from './chat/format.ts';
import type { FormatRequest } from './chat/format.ts';
import type { ChatPrompt } from './chat/prompt.ts';
import { buildPrograms, contextSizeOf, withFittingContext } from './context-size.ts';
import type { ProgramSet } from './context-size.ts';
import { Engine } from './engine/engine.ts';
import type { EngineRequest, Sequence } from './engine/sequence.ts';
import type { ProgramLimits } from './graph/step.ts';
import { getTensor, readGguf } from './gguf/reader.ts';
import type { Gguf } from './gguf/reader.ts';
import { LocalEmbedding } from './local-embedding.ts';
import type { EmbeddingInput } from './local-embedding.ts';
import { LocalRun } from './local-run.ts';
import { requireOutput } from './models/model.ts';
import type { HyperParameters, ModelDefinition } from './models/model.ts';
import { defineModel } from './models/registry.ts';
import { POOLINGS } from './options.ts';
import type {
  EmbeddingResult,
  GenerateResult,
  LoadProgressEvent,
  ModelInfo,
  Pooling,
  ResolvedEmbedOptions,
  ResolvedGenerateOptions,
  ResolvedLoadOptions,
} from './options.ts';
import { chooseThreads, weightBytesPerToken } from './threads.ts';
import { createTokenizer } from './tokenizer/tokenizer.ts';
import type { EncodeOptions, Tokenizer } from './tokenizer/tokenizer.ts';
import { readVocabulary } from './tokenizer/vocabulary.ts';

/** A running generation, or embedding, as hosts of models report it. */
export interface HostedRun<Result = GenerateResult> {
  readonly result: Promise<Result>;
  /** Ends it before its next step: a generation has the finish reason `abort`, an embedding rejects. */
  abort(): void;
}

/** What a model can do, wherever it runs: in this thread or behind a worker. */
export interface ModelHost {
  readonly info: ModelInfo;
  /** Functions cannot cross to a worker. */
  readonly thread: 'worker' | 'inline';
  generate(
    prompt: string | readonly number[],
    options: ResolvedGenerateOptions,
    onPiece: (text: string) => void,
  ): HostedRun;
  tokenize(text: string, options: EncodeOptions): Promise<number[]>;
  detokenize(tokens: readonly number[]): Promise<string>;
  /** A conversation as the model's template puts it. */
  prompt(request: FormatRequest): Promise<ChatPrompt>;
  embed(texts: readonly EmbeddingInput[], options: ResolvedEmbedOptions): HostedRun<EmbeddingResult>;
  /** f32[n, nVocab] for every position, or f32[nVocab] for the last. */
  logits(tokens: readonly number[], all: boolean): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface LoadHooks {
  readonly onProgress?: (progress: LoadProgressEvent) => void;
  readonly isAborted?: () => boolean;
  /**
   * Called between steps: what to wait for before the next, if anything. By default the event loop gets a turn, which
   * costs a kilobyte of heap.
   */
  readonly pause?: () => Promise<void> | undefined;
  /** For benchmarks: what the file holds, before it is planned. What it throws ends loading. */
  readonly onDefinition?: (definition: ModelDefinition) => void;
  /** For benchmarks: what stands in the executor's place. */
  readonly wrapExecutor?: (executor: Executor) => Executor;
}

export class LocalModel implements ModelHost {
  readonly info: ModelInfo;
  readonly thread = 'inline';
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly #parameters: HyperParameters;
  readonly #format: ChatFormat;
  readonly #executor: Executor;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #pause: NonNullable<LoadHooks['pause']>;
  #isPumping = false;
  #isClosed = false;

  private constructor(
    info: ModelInfo,
    { definition, tokenizer, format }: PreparedModel,
    executor: Executor,
    engine: Engine,
    { pause = platform.yieldToEvents }: LoadHooks,
  ) {
    this.#pause = pause;
    this.info = info;
    this.#parameters = definition.hyperParameters;
    this.tokenizer = tokenizer;
    this.#format = format;
    this.engine = engine;
    this.#executor = executor;
    const ids = Array.from({ length: tokenizer.nVocab }, (_, id) => id);
    this.#stopTokens = new Set(ids.filter((id) => tokenizer.isEndOfGeneration(id)));
  }

  /** Loads a model and closes the source, whatever happens. */
  static async load(source: ByteSource, options: ResolvedLoadOptions, hooks: LoadHooks = {}): Promise<LocalModel> {
    const startMs = performance.now();
    let opened = source;
    try {
      const gguf = await readGguf(source);
      opened = gguf.source;
      const prepared = await prepareModel(gguf, options, hooks);
      const { definition, limits, outputs } = prepared;
      const created = await createExecutor(gguf, prepared, options, hooks);
      const executor = hooks.wrapExecutor?.(created) ?? created;
      const engine = new Engine(executor, limits, { ...definition.hyperParameters, outputs });
      const { memoryBytes, nThreads: threads, description } = executor;
      const loadMs = performance.now() - startMs;
      const info = { ...prepared.info, memoryBytes, threads, executor: description, loadMs };
      return new LocalModel(info, prepared, executor, engine, hooks);
    } finally {
      await opened.close();
    }
  }

  generate(
    prompt: string | readonly number[],
    options: ResolvedGenerateOptions,
    onPiece: (text: string) => void,
  ): HostedRun {
    this.#requireOpen();
    requireOutput('logits', this.#parameters);
    const tokens = typeof prompt === 'string' ? this.tokenizer.encode(prompt, options) : prompt;
    const { nCtx } = this.engine.limits;
    const run = new LocalRun(this.tokenizer, nCtx, tokens, options, onPiece);
    const { maxTimeMs, contextKeep } = options;
    const sequence = this.#start({
      tokens,
      nGenerateMax: options.maxTokens ?? (contextKeep === undefined ? nCtx : Infinity),
      sampler: run.sampler,
      stopTokens: new Set([...(options.ignoresEnd ? [] : this.#stopTokens), ...options.stopTokens]),
      deadlineMs: maxTimeMs === undefined ? undefined : run.startMs + maxTimeMs,
      nKeep: contextKeep,
      onToken: (token, _, logits) => run.onToken(token, logits),
      onFinish: (reason, ended) => run.onFinish(reason, ended),
      onError: (error) => run.reject(error),
    });
    return { result: run.result, abort: () => this.#abort(sequence) };
  }

  embed(texts: readonly EmbeddingInput[], options: ResolvedEmbedOptions): HostedRun<EmbeddingResult> {
    this.#requireOpen();
    const pooling = options.pooling ?? this.info.pooling;
    if (pooling === undefined) {
      throw new UnsupportedError(
        'UNSUPPORTED_FEATURE',
        `this model's file wants vectors pooled in a way that is not supported (a reranker's, perhaps); ` +
          `supported: ${POOLINGS.join(', ')}, with the option "pooling"`,
        { option: 'pooling' },
      );
    }
    const { nEmbd } = this.#parameters;
    const { engine, tokenizer } = this;
    const start = (request: EngineRequest): Sequence => this.#start(request);
    const pause = async (): Promise<void> => {
      await platform.yieldToEvents();
      this.#requireOpen();
    };
    const model = { engine, tokenizer, nEmbd, start, pause };
    return new LocalEmbedding(model, texts, options, pooling);
  }

  async tokenize(text: string, options: EncodeOptions = {}): Promise<number[]> {
    this.#requireOpen();
    return this.tokenizer.encode(text, options);
  }

  async detokenize(tokens: readonly number[]): Promise<string> {
    this.#requireOpen();
    const bad = tokens.find((t) => !(Number.isInteger(t) && t >= 0 && t < this.tokenizer.nVocab));
    if (bad !== undefined) {
      throw new OptionError(`a token expected an id of 0..${this.tokenizer.nVocab - 1}, got ${bad}`);
    }
    return this.tokenizer.decode(tokens);
  }

  async prompt(request: FormatRequest): Promise<ChatPrompt> {
    this.#requireOpen();
    return this.#format.prompt(request);
  }

  async logits(tokens: readonly number[], all: boolean): Promise<Float32Array> {
    this.#requireOpen();
    requireOutput('logits', this.#parameters);
    const { nVocab } = this.engine;
    // More tokens than the context holds are refused below.
    const rows = allocateRows(all ? Math.min(tokens.length, this.engine.limits.nCtx) : 1, nVocab);
    await new Promise<void>((resolve, reject) => {
      this.#start({
        tokens,
        nGenerateMax: 0,
        wantsRows: all ? 'all' : 'last',
        onRow: (position, logits) => rows.set(logits, all ? position * nVocab : 0),
        onFinish: () => resolve(),
        onError: reject,
      });
    });
    return rows;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.engine.failAll(closedError());
    await this.#executor.close();
  }

  #start(request: EngineRequest): Sequence {
    this.#requireOpen();
    const sequence = this.engine.start(request);
    this.#pump();
    return sequence;
  }

  #abort(sequence: Sequence): void {
    this.engine.abort(sequence);
    this.#pump();
  }

  /** Steps the engine until it is idle, pausing between steps where others have something to do. */
  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    const turn = async (): Promise<void> => {
      // The first step waits, too: the caller gets its run before anything is reported.
      await platform.yieldToEvents();
      while (!this.#isClosed && this.engine.step()) {
        const pause = this.#pause();
        if (pause) await pause;
      }
      this.#isPumping = false;
    };
    turn().catch((error: unknown) => {
      this.#isPumping = false;
      this.engine.failAll(error);
    });
  }

  #requireOpen(): void {
    if (this.#isClosed) throw closedError();
  }
}

function allocateRows(nRows: number, nVocab: number): Float32Array {
  try {
    return new Float32Array(nRows * nVocab);
  } catch (error) {
    const message = `no memory for the logits of ${nRows} positions; ask for fewer at a time`;
    throw new SmallMindError('OUT_OF_MEMORY', message, { nRows, nVocab }, { cause: error });
  }
}

/** What is made of a file's head, before any weight is read. */
export interface PreparedModel extends ProgramSet {
  readonly info: HeadInfo;
  readonly definition: ModelDefinition;
  readonly tokenizer: Tokenizer;
  readonly format: ChatFormat;
  readonly nThreads: number;
}

type HeadInfo = Omit<ModelInfo, 'memoryBytes' | 'threads' | 'executor' | 'loadMs'>;

/** @throws {GgufError}, {UnsupportedError}, {ShapeError} for a file that is damaged or cannot run here */
export async function prepareModel(
  gguf: Gguf,
  options: ResolvedLoadOptions,
  { onDefinition }: LoadHooks = {},
): Promise<PreparedModel> {
  const definition = await defineModel(gguf);
  onDefinition?.(definition);
  const vocabulary = readVocabulary(gguf.metadata);
  const tokenizer = createTokenizer(vocabulary);
  const format = new ChatFormat(tokenizer, readTemplates(gguf.metadata, vocabulary.tokens));
  requireVocabulary(gguf, definition, tokenizer);
  const programs = buildPrograms(definition, options, contextSizeOf(definition, options));
  const nThreads = options.threads ?? chooseThreads(weightBytesPerToken(programs.graphs[0]!)).threads;
  requireKernels(gguf, programs);
  requireReaders(definition, programs);
  const info = readInfo(gguf, definition, programs.limits);
  return { info, definition, tokenizer, format, nThreads, ...programs };
}

function requireKernels(gguf: Gguf, { graphs }: ProgramSet): void {
  for (const { op, name, dtype } of graphs.flatMap(({ nodes }) => nodes)) {
    if (op !== 'weight' || RUNNABLE_DTYPES.includes(dtype as DType)) continue;
    throw new UnsupportedError(
      'UNSUPPORTED_DTYPE',
      `${gguf.source.name}: tensor "${name}" is in ${dtype}, which does not run yet; ` +
        `use a file in one of ${RUNNABLE_DTYPES.join(', ')}`,
      { tensor: name, dtype },
    );
  }
}

/** A tensor of a layer that no graph reads changes what the model gives, in a way that is not known here. */
function requireReaders({ gguf, hyperParameters }: ModelDefinition, { graphs }: ProgramSet): void {
  const read = new Set(graphs.flatMap(({ nodes }) => nodes.flatMap(({ op, name }) => (op === 'weight' ? name : []))));
  const unread = [...gguf.tensors.keys()].find((name) => name.startsWith('blk.') && !read.has(name));
  if (unread === undefined) return;
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `${gguf.source.name}: tensor "${unread}" belongs to a variant of "${hyperParameters.architecture}" that is not ` +
      'supported yet; use another model of the family',
    { tensor: unread },
  );
}

function requireVocabulary(gguf: Gguf, { hyperParameters }: ModelDefinition, tokenizer: Tokenizer): void {
  if (tokenizer.nVocab === hyperParameters.nVocab) return;
  throw new SmallMindError(
    'SHAPE_MISMATCH',
    `${gguf.source.name}: the vocabulary has ${tokenizer.nVocab} tokens, the embedding table ${hyperParameters.nVocab} rows`,
  );
}

async function createExecutor(
  gguf: Gguf,
  { definition, graphs, nThreads }: PreparedModel,
  options: ResolvedLoadOptions,
  { onProgress, isAborted }: LoadHooks,
): Promise<Executor> {
  const source: WeightSource = {
    async read(name, offsetBytes, target) {
      if (isAborted?.()) throw new SmallMindError('MODEL_CLOSED', 'loading was aborted');
      await gguf.source.read(getTensor(definition.gguf, name).offsetBytes + offsetBytes, target);
    },
  };
  const report = (loadedBytes: number, totalBytes: number): void => onProgress?.({ loadedBytes, totalBytes });
  if (options.kernels === 'reference') return ReferenceExecutor.create(graphs, source, report);
  const { kernels, activations } = options;
  try {
    return await WasmExecutor.create(graphs, source, { kernels, activations, nThreads, onProgress: report });
  } catch (error) {
    throw withFittingContext(error, definition, options);
  }
}

function readInfo(gguf: Gguf, { hyperParameters }: ModelDefinition, { nCtx }: ProgramLimits): HeadInfo {
  const { architecture, nVocab, nEmbd, nLayer, nCtxTrain, isCausal } = hyperParameters;
  return {
    architecture,
    name: gguf.metadata.getString('general.name', ''),
    nParameters: countParameters(gguf),
    nVocab,
    nEmbd,
    nLayer,
    nCtxTrain,
    nCtx,
    canGenerate: isCausal,
    pooling: readPooling(gguf, hyperParameters),
  };
}

/** By the number in the file; 0 means that there is none. */
const POOLING_TYPES: readonly (Pooling | undefined)[] = [undefined, 'mean', 'cls', 'last'];

function readPooling({ metadata }: Gguf, { architecture, isCausal }: HyperParameters): Pooling | undefined {
  const type = metadata.getNumber(`${architecture}.pooling_type`, 0);
  return type === 0 ? (isCausal ? 'last' : 'mean') : POOLING_TYPES[type];
}

export function countParameters(gguf: Gguf): number {
  let nParameters = 0;
  for (const { shape } of gguf.tensors.values()) nParameters += shape.reduce((n, d) => n * d, 1);
  return nParameters;
}
