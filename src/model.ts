// The public handle of a model.

import { Chat } from './chat.ts';
import { requireMessages } from './chat/messages.ts';
import type { ChatMessage } from './chat/messages.ts';
import type { ChatPrompt } from './chat/prompt.ts';
import { Generation } from './generation.ts';
import type { EmbeddingInput } from './local-embedding.ts';
import type { ModelHost } from './local-model.ts';
import {
  requireNoFunctions,
  requireText,
  requireTexts,
  requireTokens,
  resolveApplyTemplateOptions,
  resolveCount,
  resolveEmbedOptions,
  resolveEncodeOptions,
  resolveGenerateOptions,
  resolveLogitsOptions,
} from './options.ts';
import type {
  ApplyTemplateOptions,
  ChatOptions,
  EmbedOptions,
  EmbeddingResult,
  GenerateManyOptions,
  GenerateOptions,
  LogitsOptions,
  ModelInfo,
} from './options.ts';
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

  /**
   * Makes a vector of each text, f32[nEmbd]: the last hidden states of its tokens, pooled. Texts are evaluated beside
   * each other: by encoders up to 32, by models that generate text as many as they were loaded for with `parallel`. One
   * that fails fails them all.
   * @param texts  a text, or several; each may be given as token ids, which are then taken as they are
   * @throws {SmallMindError} CONTEXT_FULL for a text that the context does not hold, NUMERIC for a vector that is not
   *   finite, MODEL_CLOSED; {OptionError} INVALID_OPTION, also for a text without tokens; {UnsupportedError}
   *   UNSUPPORTED_FEATURE for a file that wants another pooling (a reranker's)
   * @example
   * import { cosineSimilarity, loadModel } from 'smallmind';
   *
   * await using model = await loadModel('MODEL.gguf');
   * const { data, usage } = await model.embed(['The cat sleeps.', 'A cat is asleep.']);
   * console.log(cosineSimilarity(data[0]!.embedding, data[1]!.embedding), usage);
   */
  async embed(texts: string | readonly EmbeddingInput[], options: EmbedOptions = {}): Promise<EmbeddingResult> {
    requireTexts(texts);
    const resolved = resolveEmbedOptions(options);
    const { signal } = options;
    signal?.throwIfAborted();
    const run = this.#host.embed(typeof texts === 'string' ? [texts] : texts, resolved);
    const abort = (): void => run.abort();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await run.result;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
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
   * A conversation as the model wants it, in text and tokens, by the template of its file. Control tokens are the
   * template's alone: spelled out in a message they stay text. The tokens are a prompt for `generate`.
   * @throws {SmallMindError} CHAT_TEMPLATE where there is none that fits, and with the template's own words
   */
  async applyChatTemplate(messages: readonly ChatMessage[], options: ApplyTemplateOptions = {}): Promise<ChatPrompt> {
    requireMessages(messages);
    return this.#host.prompt({ messages, ...resolveApplyTemplateOptions(options) });
  }

  /**
   * Begins a conversation.
   * @throws {OptionError} INVALID_OPTION
   * @example
   * import { loadModel } from 'smallmind';
   *
   * await using model = await loadModel('MODEL.gguf');
   * const chat = model.chat({ system: 'Answer in one sentence.', template: 'chatml' });
   * for await (const piece of chat.send('Why is the sky blue?', { maxTokens: 20 })) process.stdout.write(piece);
   */
  chat(options: ChatOptions = {}): Chat {
    return new Chat(this.#host, options);
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
