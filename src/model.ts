// The public handle of a model, and of a text being generated.

import type { ModelHost } from './local-model.ts';
import {
  requireNoFunctions,
  requireText,
  requireTokens,
  resolveCount,
  resolveEncodeOptions,
  resolveGenerateOptions,
  resolveLogitsOptions,
} from './options.ts';
import type { GenerateManyOptions, GenerateOptions, GenerateResult, LogitsOptions, ModelInfo } from './options.ts';
import type { EncodeOptions } from './tokenizer/tokenizer.ts';

/** A loaded model. Close it when it is no longer needed, or declare it with `await using`. */
export class Model implements AsyncDisposable {
  readonly #host: ModelHost;

  /** @internal Use `loadModel`. */
  constructor(host: ModelHost) {
    this.#host = host;
  }

  /** What is known of it: sizes, context, memory, what computes. */
  get info(): ModelInfo {
    return this.#host.info;
  }

  /**
   * Starts generating at once: `for await (const piece of run)` streams the text, `await run.result` gives the whole.
   * @param prompt  text, or token ids
   * @throws {OptionError} INVALID_OPTION at the call; {SmallMindError} CONTEXT_FULL, NUMERIC … from the run
   * @example
   * import { loadModel } from 'smallmind';
   *
   * await using model = await loadModel('MODEL.gguf');
   * const run = model.generate('The little dog', { temperature: 0, maxTokens: 20, stop: '\n' });
   * const { text, finishReason, timings } = await run.result;
   * console.log(text, finishReason, timings.decodeTokensPerSecond);
   */
  generate(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    if (typeof prompt !== 'string') requireTokens('prompt', prompt);
    const resolved = resolveGenerateOptions(options);
    if (this.#host.thread === 'worker') requireNoFunctions(resolved);
    return new Generation((onPiece) => this.#host.generate(prompt, resolved, onPiece), options.signal);
  }

  /**
   * Starts `n` texts after one prompt, which is evaluated once: as many at a time as the model was loaded for with
   * `parallel`. Each has a seed of its own, counting up from `seed`; with `temperature: 0` all are the same.
   * @throws {OptionError} as `generate`
   * @example
   * import { loadModel } from 'smallmind';
   *
   * await using model = await loadModel('MODEL.gguf', { parallel: 3 });
   * const runs = model.generateMany('Once upon a time', { n: 3, maxTokens: 20 });
   * for (const { text, seed } of await Promise.all(runs.map((run) => run.result))) console.log(seed, text);
   */
  generateMany(prompt: string | readonly number[], options: GenerateManyOptions): Generation[] {
    const n = resolveCount(options);
    const { seed } = resolveGenerateOptions(options).sampler;
    return Array.from({ length: n }, (_, i) => this.generate(prompt, { ...options, seed: seed + i }));
  }

  /** Token ids of `text`, with BOS or EOS as the model wants them unless `addSpecial` is false. */
  async tokenize(text: string, options: EncodeOptions = {}): Promise<number[]> {
    requireText('text', text);
    return this.#host.tokenize(text, resolveEncodeOptions(options));
  }

  /** Text of whole tokens; control tokens are left out. @throws {OptionError} for an id that the model does not have */
  async detokenize(tokens: readonly number[]): Promise<string> {
    requireTokens('tokens', tokens);
    return this.#host.detokenize(tokens);
  }

  /**
   * Raw logits after `tokens`: f32[nVocab] of the last position, or with `all` f32[tokens.length, nVocab].
   * @throws {SmallMindError} CONTEXT_FULL when there are more tokens than the context holds
   */
  async logits(tokens: readonly number[], options: LogitsOptions = {}): Promise<Float32Array> {
    requireTokens('tokens', tokens);
    return this.#host.logits(tokens, resolveLogitsOptions(options).all);
  }

  /** Ends what is being generated with MODEL_CLOSED and gives back memory and threads. May be called twice. */
  close(): Promise<void> {
    return this.#host.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A text being generated. Pieces that nobody has read yet wait; leaving the loop early ends the generation. */
export class Generation implements AsyncIterable<string> {
  /** The whole text with counts and timings; rejects with the signal's reason when aborted. */
  readonly result: Promise<GenerateResult>;
  readonly #pieces: string[] = [];
  #abort: () => void = () => {};
  #isDone = false;
  #wake: () => void = () => {};

  /** @internal Use `model.generate`. */
  constructor(
    start: (onPiece: (text: string) => void) => { result: Promise<GenerateResult>; abort(): void },
    signal?: AbortSignal,
  ) {
    this.result = this.#run(start, signal);
    // Whoever reads the pieces gets the error, too; nobody awaiting `result` must not end the process.
    this.result.catch(() => {});
  }

  /** Ends the generation; `result` then holds what there is, with the finish reason `abort`. */
  stop(): void {
    this.#abort();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for (;;) {
        while (this.#pieces.length > 0) yield this.#pieces.shift()!;
        if (this.#isDone) break;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      await this.result;
    } finally {
      this.#abort();
    }
  }

  async #run(
    start: (onPiece: (text: string) => void) => { result: Promise<GenerateResult>; abort(): void },
    signal: AbortSignal | undefined,
  ): Promise<GenerateResult> {
    try {
      signal?.throwIfAborted();
      const run = start((text) => {
        this.#pieces.push(text);
        this.#wake();
      });
      this.#abort = () => run.abort();
      signal?.addEventListener('abort', this.#abort, { once: true });
      const result = await run.result;
      signal?.throwIfAborted();
      return result;
    } finally {
      signal?.removeEventListener('abort', this.#abort);
      this.#isDone = true;
      this.#wake();
    }
  }
}
