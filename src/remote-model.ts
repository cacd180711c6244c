// A model behind the engine's worker: every call is a message. One worker serves all models of the process; it starts
// with the first and ends with the last, and it keeps the process alive only while a request is under way.

import { platform } from '#platform';
import { spawnEngineWorker } from '#spawnEngine';
import { SmallMindError, closedError, fromErrorRecord } from './base/errors.ts';
import type { FormatRequest } from './chat/format.ts';
import type { ChatPrompt } from './chat/prompt.ts';
import type { WorkerHandle } from './base/platform.ts';
import type { SourceLender } from './lent-source.ts';
import type { EmbeddingInput } from './local-embedding.ts';
import type { HostedRun, LoadHooks, ModelHost } from './local-model.ts';
import type {
  EmbeddingResult,
  ModelInfo,
  ResolvedEmbedOptions,
  ResolvedGenerateOptions,
  ResolvedLoadOptions,
} from './options.ts';
import type { EncodeOptions } from './tokenizer/tokenizer.ts';
import type { FromWorker, PostedSource, RequestType, Requests, ToWorker } from './worker-protocol.ts';

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  readonly onEvent?: (event: FromWorker) => void;
}

/** The connection to the worker. */
class EngineWorker {
  readonly #worker: WorkerHandle;
  /** Counts the messages to the worker, which looks here between steps: to return to its event loop costs heap. */
  readonly #posted: Int32Array | undefined;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #nModels = 0;
  /** Why it has died; it then answers nothing any more. */
  #crash: SmallMindError | undefined;

  /** The process's worker, started on demand. */
  static current: EngineWorker | undefined;

  static get(): EngineWorker {
    EngineWorker.current ??= new EngineWorker();
    return EngineWorker.current;
  }

  constructor() {
    this.#worker = spawnEngineWorker();
    this.#worker.onMessage((message) => this.#receive(message as FromWorker));
    this.#worker.onError((error) => this.#die(error));
    if (!platform.canShareMemory()) return;
    this.#posted = new Int32Array(new SharedArrayBuffer(4));
    this.post({ id: 0, type: 'start', posted: this.#posted });
  }

  /** Sends a request. @returns its number, for `abort`, and the answer */
  request<T extends RequestType>(
    type: T,
    args: Requests[T]['args'],
    onEvent?: (event: FromWorker) => void,
  ): { id: number; answer: Promise<Requests[T]['answer']> } {
    const id = this.#nextId++;
    if (this.#crash) return { id, answer: Promise.reject(this.#crash) };
    const answer = new Promise<Requests[T]['answer']>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject, onEvent });
    });
    this.#worker.keepAlive(true);
    this.post({ id, type, args } as ToWorker);
    return { id, answer };
  }

  post(message: ToWorker): void {
    if (this.#posted) Atomics.add(this.#posted, 0, 1);
    this.#worker.post(message);
  }

  /** Counts a model that is loading or loaded. */
  retain(): void {
    this.#nModels++;
  }

  /** Without models the worker ends, and with it what still runs. */
  async release(): Promise<void> {
    if (--this.#nModels > 0) return;
    if (EngineWorker.current === this) EngineWorker.current = undefined;
    this.#rejectAll(closedError());
    await this.#worker.terminate();
  }

  #receive(message: FromWorker): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.type === 'answer') this.#settle(message.id)?.resolve(message.value);
    else if (message.type === 'error') this.#settle(message.id)?.reject(fromErrorRecord(message.error));
    else this.#handleEvent(pending, message);
  }

  /** A caller's handler that throws fails its request. */
  #handleEvent(pending: Pending, message: FromWorker): void {
    try {
      pending.onEvent?.(message);
    } catch (error) {
      this.post({ id: message.id, type: 'abort' });
      this.#settle(message.id)?.reject(error);
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0) this.#worker.keepAlive(false);
    return pending;
  }

  #die(error: Error): void {
    if (EngineWorker.current === this) EngineWorker.current = undefined;
    this.#crash ??=
      error instanceof SmallMindError
        ? error
        : new SmallMindError('ENGINE_CRASHED', `the engine's worker died: ${error.message}; load the model again`);
    this.#rejectAll(this.#crash);
  }

  #rejectAll(error: SmallMindError): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

export class RemoteModel implements ModelHost {
  readonly info: ModelInfo;
  readonly thread = 'worker';
  readonly #worker: EngineWorker;
  readonly #model: number;
  #closing: Promise<void> | undefined;

  private constructor(worker: EngineWorker, model: number, info: ModelInfo) {
    this.#worker = worker;
    this.#model = model;
    this.info = info;
  }

  /** @param lender  has the source in this thread, where it is lent; closed at the end */
  static async load(
    source: PostedSource,
    lender: SourceLender | undefined,
    options: ResolvedLoadOptions,
    { onProgress, signal }: Pick<LoadHooks, 'onProgress'> & { signal?: AbortSignal },
  ): Promise<RemoteModel> {
    const worker = EngineWorker.get();
    worker.retain();
    const { id, answer } = worker.request('load', { source, options }, (event) => {
      if (event.type === 'progress') onProgress?.(event.progress);
      if (event.type === 'ask') void answerQuestion(worker, lender!, event);
    });
    const abort = (): void => worker.post({ id, type: 'abort' });
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const { model, info } = await answer;
      return new RemoteModel(worker, model, info);
    } catch (error) {
      await worker.release();
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
      await lender?.close();
    }
  }

  generate(
    prompt: string | readonly number[],
    options: ResolvedGenerateOptions,
    onPiece: (text: string) => void,
  ): HostedRun {
    const args = { model: this.#model, prompt, options };
    const { id, answer } = this.#request('generate', args, (event) => {
      if (event.type === 'piece') onPiece(event.text);
    });
    return this.#running(id, answer);
  }

  embed(texts: readonly EmbeddingInput[], options: ResolvedEmbedOptions): HostedRun<EmbeddingResult> {
    const { id, answer } = this.#request('embed', { model: this.#model, texts, options });
    return this.#running(id, answer);
  }

  async tokenize(text: string, options: EncodeOptions): Promise<number[]> {
    return this.#request('tokenize', { model: this.#model, text, options }).answer;
  }

  async detokenize(tokens: readonly number[]): Promise<string> {
    return this.#request('detokenize', { model: this.#model, tokens }).answer;
  }

  async prompt(request: FormatRequest): Promise<ChatPrompt> {
    return this.#request('prompt', { model: this.#model, request }).answer;
  }

  async logits(tokens: readonly number[], all: boolean): Promise<Float32Array> {
    return this.#request('logits', { model: this.#model, tokens, all }).answer;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#worker.request('close', { model: this.#model }).answer;
    } catch (error) {
      // A worker that has died has closed the model, too.
      if (!(error instanceof SmallMindError && error.code === 'ENGINE_CRASHED')) throw error;
    } finally {
      await this.#worker.release();
    }
  }

  #running<Result>(id: number, result: Promise<Result>): HostedRun<Result> {
    result.catch(() => {});
    return { result, abort: () => this.#worker.post({ id, type: 'abort' }) };
  }

  #request<T extends RequestType>(type: T, args: Requests[T]['args'], onEvent?: (event: FromWorker) => void) {
    if (this.#closing) throw closedError();
    return this.#worker.request(type, args, onEvent);
  }
}

async function answerQuestion(
  worker: EngineWorker,
  lender: SourceLender,
  { id, question, asked }: Extract<FromWorker, { type: 'ask' }>,
): Promise<void> {
  worker.post({ id, type: 'told', question, answer: await lender.answer(asked) });
}
