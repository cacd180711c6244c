// The public options and results, with their defaults, and the check at the door: behind it, everything is trusted.

import type { ByteSource } from './base/byte-source.ts';
import { describeValue } from './base/describe-value.ts';
import { OptionError } from './base/errors.ts';
import { requireMessages } from './chat/messages.ts';
import type { ChatMessage, Json, Tool } from './chat/messages.ts';
import type { FinishReason } from './engine/sequence.ts';
import { KV_DTYPES } from './graph/step.ts';
import type { KvDtype } from './graph/step.ts';
import type { LogitChanges, LogitsProcessor } from './sampler/logit-changes.ts';
import { resolveSamplerOptions } from './sampler/options.ts';
import type { SamplerOptions } from './sampler/options.ts';
import type { EncodeOptions } from './tokenizer/tokenizer.ts';

export { FALLBACK_NAMES } from './chat/fallbacks.ts';
export type { EncodeOptions, FinishReason, KvDtype, LogitsProcessor, SamplerOptions };

/**
 * Where a model comes from: a path or `file:` URL (Node), an `http(s):` URL whose server answers Range requests, a Blob
 * or File, bytes, or any random-access source.
 */
export type ModelSource = string | URL | Blob | ArrayBuffer | Uint8Array | ByteSource;

/**
 * Kernel sets. `relaxed` is the fastest; `simd` needs no relaxed SIMD; `strict` gives the same bits on every machine;
 * `auto` is the fastest that the JavaScript engine has; `reference` computes in float64, slowly, as an oracle.
 */
export type Kernels = 'auto' | 'relaxed' | 'simd' | 'strict' | 'reference';

/** How far the weights have been read. */
export interface LoadProgressEvent {
  /** Read so far. */
  readonly loadedBytes: number;
  /** To be read. */
  readonly totalBytes: number;
}

/** How a model is loaded: where and on how many threads it runs, and what its context may hold. */
export interface LoadOptions {
  /**
   * Where the engine runs: in a worker, or on the calling thread, which it then blocks for each step. Default `worker`.
   */
  thread?: 'worker' | 'inline';
  /**
   * Threads that compute, 1..64. Default: one for each fast core that this process may use, at most 8; fewer for a
   * model of less than 2 MiB of weights a thread; 1 without shared memory.
   */
  threads?: number;
  /**
   * Context in tokens, prompt and answer together, 1..1048576, or `fit`: the largest of these up to what the model was
   * trained for that fits into free memory. Default: what the model was trained for, at most 4096.
   */
  nCtx?: number | 'fit';
  /**
   * Texts that can be generated or embedded at the same time, each with its own context, 1..64; further ones wait.
   * Encoders evaluate 32 at least. Default 1.
   */
  parallel?: number;
  /** Prompt tokens evaluated in one step, 1..4096; encoders evaluate a whole text at least. Default 128. */
  prefillChunk?: number;
  /** Kernel set. `strict` gives the same bits on every machine and with any number of threads. Default `auto`. */
  kernels?: Kernels;
  /** `q8`: activations in 8 bits for quantised weights (fast). `f32`: as they are (exact). Default `q8`. */
  activations?: 'q8' | 'f32';
  /** Type of the key-value cache. `Q8_0` takes about half the memory of `F16`, for heads of 32·n. Default `F16`. */
  kvType?: KvDtype;
  /** Called while weights are read. */
  onProgress?: (progress: LoadProgressEvent) => void;
  /** Aborts loading: `loadModel` then rejects with its reason. */
  signal?: AbortSignal;
}

/** Tokens that a context may have. */
export const N_CTX_MAX = 2 ** 20;
const N_STOP_MAX = 16;
/** As in OpenAI's API. */
const BIAS_MAX = 100;

/** `LoadOptions` with every default in place, except those that depend on the model or the machine. */
export interface ResolvedLoadOptions {
  readonly threads: number | undefined;
  readonly nCtx: number | 'fit' | undefined;
  readonly parallel: number;
  readonly prefillChunk: number;
  readonly kernels: Kernels;
  readonly activations: 'q8' | 'f32';
  readonly kvType: KvDtype;
}

/** What is generated: its length, how each token is chosen, and when to end. */
export interface GenerateOptions extends Partial<SamplerOptions> {
  /** Tokens to generate at most; 0 only evaluates the prompt. Default: until the text ends or the context is full. */
  maxTokens?: number;
  /**
   * Strings that end the text where the first of them is complete, wherever tokens begin and end: one, or up to 16. The
   * string is not part of the text; the tokens that it came in are part of `tokens`. Its beginning is held back from
   * the stream until it is clear that it is not one.
   */
  stop?: string | readonly string[];
  /** Further tokens that end the text, beside the model's own. They are not part of the result. */
  stopTokens?: readonly number[];
  /**
   * Ends the text so long after the call, in milliseconds, waiting included; looked at between steps. From 1 on.
   * Default: no limit.
   */
  maxTimeMs?: number;
  /**
   * When the context is full: `stop` ends the text. `shift` forgets the older half of what stands behind the first
   * `contextKeep` tokens and goes on, without end unless the text has one, or `maxTokens` or `maxTimeMs`. What is left
   * is evaluated again: half a context at once, which is a token of prompt for each that is generated. Default `stop`.
   */
  contextFull?: 'stop' | 'shift';
  /** Tokens at the beginning that a shift leaves, at most half of the context. Default 1: BOS, where there is one. */
  contextKeep?: number;
  /** Added to the logits of single tokens: id → -100..100; -Infinity bans the token. */
  logitBias?: Readonly<Record<number, number>>;
  /** Tokens that are never chosen. Without its end tokens a text does not end by itself. */
  bannedTokens?: readonly number[];
  /**
   * Functions that change the logits before each token is chosen, and before bias, bans and penalties do. They need
   * `thread: 'inline'`: functions cannot cross to the worker. One that throws ends the text with its error.
   */
  logitsProcessors?: readonly LogitsProcessor[];
  /** Log-probabilities of each token and of this many of the most likely ones, 0..20. Default: none. */
  logprobs?: number;
  /** Adds BOS to a text prompt where the model wants it. Default true. */
  addSpecial?: boolean;
  /** Reads control tokens written in a text prompt (`</s>`) as such; otherwise they are plain text. Default false. */
  parseSpecial?: boolean;
  /** Aborts: iteration and `result` then reject with its reason. */
  signal?: AbortSignal;
}

/** As for one text, and how many of them. */
export interface GenerateManyOptions extends GenerateOptions {
  /** How many texts, 1..64. Default 1. */
  n?: number;
}

/** How a conversation is put into the model's words. */
export interface TemplateOptions {
  /**
   * Jinja text, or the name of a family (`chatml`, `llama3`, `gemma`, `phi3`, `mistral`). Default: the file's own, or
   * that of a family which its vocabulary gives away.
   */
  template?: string;
  /** Further variables of the template, like `{ enable_thinking: false }`. */
  templateOptions?: Readonly<Record<string, Json>>;
  /** Functions that the model may call, for templates that know of them. */
  tools?: readonly Tool[];
}

/** What `model.applyChatTemplate` takes beside the messages. */
export interface ApplyTemplateOptions extends TemplateOptions {
  /** Whether the prompt ends where an answer begins. Default true. */
  addGenerationPrompt?: boolean;
}

/** How a conversation begins, and what becomes of it when the context is full. */
export interface ChatOptions extends TemplateOptions {
  /** The system's words, before all others. */
  system?: string;
  /** A history to go on from. */
  messages?: readonly ChatMessage[];
  /**
   * When the context is full: `forget` leaves the oldest messages out, question and answer together and never the
   * system's words, until half of the context is free; `stop` fails with CONTEXT_FULL. Default `forget`.
   */
  contextFull?: 'forget' | 'stop';
}

export const POOLINGS = ['mean', 'cls', 'last'] as const;

/** How the vectors of a text's tokens become one: their mean, the first one (BERT's [CLS]), or the last one. */
export type Pooling = (typeof POOLINGS)[number];

/** How texts become vectors. */
export interface EmbedOptions extends EncodeOptions {
  /** Default: what the file says; where it says nothing, `last` for models that generate text and `mean` for others. */
  pooling?: Pooling;
  /** Whether vectors have length 1, so that the dot product of two is their cosine similarity. Default true. */
  normalize?: boolean;
  /**
   * Whether a text that is longer than the context is cut to its first tokens, and the end token that the model puts
   * behind a text. Default false: it is refused.
   */
  truncate?: boolean;
  /** Aborts: `embed` then rejects with its reason. */
  signal?: AbortSignal;
}

/** `EmbedOptions` checked and filled in; crosses to the worker. */
export interface ResolvedEmbedOptions extends Required<EncodeOptions> {
  readonly pooling: Pooling | undefined;
  readonly normalize: boolean;
  readonly truncate: boolean;
}

/** The vector of one text. */
export interface Embedding {
  /** Which text, from 0 on. */
  readonly index: number;
  /** f32[nEmbd] */
  readonly embedding: Float32Array;
  /** Tokens that were evaluated, those that the model puts around a text included. */
  readonly promptTokens: number;
  /** With the option `truncate`: whether the text was longer than the context. */
  readonly isTruncated: boolean;
}

/** The vectors of texts. */
export interface EmbeddingResult {
  /** One a text, in their order. */
  readonly data: readonly Embedding[];
  /** Tokens of all texts; nothing is generated, so that both are the same. */
  readonly usage: { readonly promptTokens: number; readonly totalTokens: number };
  /** By which they were made. */
  readonly pooling: Pooling;
}

/** Which logits `model.logits` gives. */
export interface LogitsOptions {
  /** Logits after every token and not only the last. Default false. */
  all?: boolean;
}

/** `GenerateOptions` checked and filled in; crosses to the worker. */
export interface ResolvedGenerateOptions {
  readonly sampler: SamplerOptions;
  readonly logitChanges: LogitChanges;
  readonly maxTokens: number | undefined;
  readonly maxTimeMs: number | undefined;
  readonly stop: readonly string[];
  readonly stopTokens: readonly number[];
  /** Tokens that a shift of the context leaves; undefined: it is not shifted. */
  readonly contextKeep: number | undefined;
  readonly logprobs: number | undefined;
  /** For benchmarks: goes on where the model would end the text. */
  readonly ignoresEnd?: boolean;
  readonly addSpecial: boolean;
  readonly parseSpecial: boolean;
}

/** A token and how likely the model holds it. */
export interface TokenLogprob {
  readonly token: number;
  readonly text: string;
  /** Natural logarithm of the probability, from the model's own distribution. */
  readonly logprob: number;
}

/** The token that was chosen, beside the most likely ones. */
export interface ChosenLogprob extends TokenLogprob {
  /** The most likely tokens, best first. */
  readonly top: readonly TokenLogprob[];
}

/** How long a text took, in milliseconds, and how fast it was. */
export interface Timings {
  /** From the call to the first chosen token. */
  readonly promptMs: number;
  /** Prompt tokens evaluated (those found in the cache are not) a second. */
  readonly promptTokensPerSecond: number;
  /** From the first token to the last. */
  readonly decodeMs: number;
  readonly decodeTokensPerSecond: number;
}

/** A text that has ended, with all that is known of it. */
export interface GenerateResult {
  /** What was generated, without the prompt. */
  readonly text: string;
  /** Its token ids, those of a stop string included. */
  readonly tokens: readonly number[];
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Of these, found in the cache. */
  readonly cachedTokens: number;
  /**
   * `stop`: the model, a stop token or a stop string ended the text. `length`: maxTokens. `context`: the context is
   * full. `time`: maxTimeMs. `abort`: `stop()`, or the loop was left.
   */
  readonly finishReason: FinishReason;
  /** With `stop`: the stop string, or the token, that ended the text. */
  readonly stoppedBy?: string | number;
  /** Give it as `seed` to get the same text again. */
  readonly seed: number;
  readonly timings: Timings;
  /** With the option `logprobs`: one entry a token. */
  readonly logprobs?: readonly ChosenLogprob[];
}

/** What is known of a loaded model. */
export interface ModelInfo {
  /** `general.architecture` of the file, e.g. `llama`. */
  readonly architecture: string;
  /** `general.name` of the file; empty where it has none. */
  readonly name: string;
  /** Weights, those of norms and biases included. */
  readonly nParameters: number;
  /** Tokens of the vocabulary. */
  readonly nVocab: number;
  /** Width of the residual stream. */
  readonly nEmbd: number;
  /** Transformer layers. */
  readonly nLayer: number;
  /** Context that the model was trained for, in tokens. */
  readonly nCtxTrain: number;
  /** Context that it was loaded with. */
  readonly nCtx: number;
  /** Whether it generates text. Models like BERT, whose tokens attend to what follows them, only make embeddings. */
  readonly canGenerate: boolean;
  /** How it makes embeddings unless told; undefined where the file asks for something that is not supported. */
  readonly pooling: Pooling | undefined;
  /** Bytes held for weights, key-value cache and work areas. */
  readonly memoryBytes: number;
  /** Threads that compute. */
  readonly threads: number;
  /** The executor in words, e.g. `wasm relaxed (u8, 256-bit vectors), 2 threads`. */
  readonly executor: string;
  /** How long loading took, in milliseconds. */
  readonly loadMs: number;
}

function choice<T extends string>(name: string, value: unknown, fallback: T, allowed: readonly T[]): T {
  if (value === undefined) return fallback;
  if (allowed.includes(value as T)) return value as T;
  return refuse(name, `one of ${allowed.join(', ')}`, value);
}

function integer<T extends number | undefined>(
  name: string,
  value: unknown,
  fallback: T,
  min: number,
  max: number,
): number | T {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
  return refuse(name, `an integer from ${min} to ${max}`, value);
}

function refuse(name: string, expected: string, value: unknown): never {
  throw new OptionError(`"${name}" expected ${expected}, got ${describeValue(value)}`, { option: name });
}

export function requireText(name: string, value: unknown): void {
  if (typeof value !== 'string') refuse(name, 'a string', value);
}

/** Ids of a vocabulary: whole numbers from 0 on. Whether the model has them is for the engine to say. */
export function requireTokens(name: string, value: unknown): void {
  if (!Array.isArray(value)) refuse(name, 'an array of token ids', value);
  const bad = value.findIndex((id) => !(Number.isInteger(id) && id >= 0));
  if (bad >= 0) refuse(`${name}[${bad}]`, 'a token id, an integer from 0 on', value[bad]);
}

/** Refuses it with details that name the option, and not its element: a flag of the command line is found by them. */
function stopStrings(value: unknown): readonly string[] {
  const list: unknown = typeof value === 'string' ? [value] : (value ?? []);
  const isStop = (string: unknown): boolean => typeof string === 'string' && string !== '' && string.isWellFormed();
  if (Array.isArray(list) && list.length <= N_STOP_MAX && list.every(isStop)) return [...list];
  const bad: unknown = Array.isArray(list) ? list.find((string) => !isStop(string)) : list;
  const isTooMany = Array.isArray(list) && list.length > N_STOP_MAX;
  return refuse('stop', `at most ${N_STOP_MAX} strings, none empty`, isTooMany ? list.length : bad);
}

/** [token, bias] in the order of ids. */
function logitBiases(value: unknown): LogitChanges['biases'] {
  if (value === undefined) return [];
  const isRecord = typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Map);
  if (!isRecord) refuse('logitBias', 'an object of token ids and numbers', value);
  return Object.entries(value as object).map(([key, bias]: [string, unknown]) => {
    if (!/^(0|[1-9]\d{0,9})$/.test(key)) refuse('logitBias', 'token ids, integers from 0 on', key);
    const isBias = typeof bias === 'number' && ((bias >= -BIAS_MAX && bias <= BIAS_MAX) || bias === -Infinity);
    if (!isBias) refuse('logitBias', `a number from -${BIAS_MAX} to ${BIAS_MAX}, or -Infinity, for ${key}`, bias);
    return [Number(key), bias as number];
  });
}

function functions<T>(name: string, value: unknown): readonly T[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.every((item) => typeof item === 'function')) return [...value] as T[];
  return refuse(name, 'an array of functions', value);
}

function requireObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) refuse(name, 'an object', value);
}

function boolean(name: string, value: unknown, fallback: boolean): boolean {
  if (value !== undefined && typeof value !== 'boolean') refuse(name, 'true or false', value);
  return value ?? fallback;
}

function requireSignal(signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return;
  refuse('signal', 'an AbortSignal', signal);
}

/** @throws {OptionError} naming the option, its value and its range */
export function resolveLoadOptions(options: LoadOptions): ResolvedLoadOptions {
  requireObject('options', options);
  requireSignal(options.signal);
  const { onProgress } = options;
  if (onProgress !== undefined && typeof onProgress !== 'function') refuse('onProgress', 'a function', onProgress);
  choice('thread', options.thread, 'worker', ['worker', 'inline']);
  return {
    threads: integer('threads', options.threads, undefined, 1, 64),
    nCtx: options.nCtx === 'fit' ? 'fit' : integer('nCtx', options.nCtx, undefined, 1, N_CTX_MAX),
    parallel: integer('parallel', options.parallel, 1, 1, 64),
    prefillChunk: integer('prefillChunk', options.prefillChunk, 128, 1, 4096),
    kernels: choice('kernels', options.kernels, 'auto', ['auto', 'relaxed', 'simd', 'strict', 'reference']),
    activations: choice('activations', options.activations, 'q8', ['q8', 'f32']),
    kvType: choice('kvType', options.kvType, 'F16', KV_DTYPES),
  };
}

/** @throws {OptionError} naming the option, its value and its range */
export function resolveGenerateOptions(options: GenerateOptions): ResolvedGenerateOptions {
  requireObject('options', options);
  requireSignal(options.signal);
  const { stopTokens = [], bannedTokens = [] } = options;
  requireTokens('stopTokens', stopTokens);
  requireTokens('bannedTokens', bannedTokens);
  const contextFull = choice('contextFull', options.contextFull, 'stop', ['stop', 'shift']);
  const contextKeep = integer('contextKeep', options.contextKeep, 1, 0, N_CTX_MAX);
  return {
    sampler: resolveSamplerOptions(options),
    logitChanges: {
      processors: functions('logitsProcessors', options.logitsProcessors),
      biases: logitBiases(options.logitBias),
      bannedTokens: [...bannedTokens],
    },
    maxTokens: integer('maxTokens', options.maxTokens, undefined, 0, 2 ** 31 - 1),
    maxTimeMs: integer('maxTimeMs', options.maxTimeMs, undefined, 1, 2 ** 31 - 1),
    stop: stopStrings(options.stop),
    stopTokens: [...stopTokens],
    contextKeep: contextFull === 'shift' ? contextKeep : undefined,
    logprobs: integer('logprobs', options.logprobs, undefined, 0, 20),
    ...resolveEncodeOptions(options),
  };
}

/** @throws {OptionError} naming the option, its value and its range */
export function resolveCount(options: GenerateManyOptions): number {
  requireObject('options', options);
  return integer('n', options.n, 1, 1, 64);
}

/** Functions need the caller's thread. @throws {OptionError} naming the option and what works */
export function requireNoFunctions({ logitChanges }: ResolvedGenerateOptions): void {
  if (logitChanges.processors.length === 0) return;
  throw new OptionError(
    `"logitsProcessors" expected a model loaded with thread: 'inline', got one in a worker, to which functions cannot cross`,
    { option: 'logitsProcessors' },
  );
}

/** @throws {OptionError} naming the option and its value */
export function resolveEncodeOptions(options: EncodeOptions): Required<EncodeOptions> {
  requireObject('options', options);
  return {
    addSpecial: boolean('addSpecial', options.addSpecial, true),
    parseSpecial: boolean('parseSpecial', options.parseSpecial, false),
  };
}

/** @throws {OptionError} naming the option and its value */
export function resolveApplyTemplateOptions(options: ApplyTemplateOptions) {
  return {
    ...resolveTemplateOptions(options),
    addGenerationPrompt: boolean('addGenerationPrompt', options.addGenerationPrompt, true),
  };
}

/** @throws {OptionError} naming the option and its value */
export function resolveChatOptions(options: ChatOptions): ChatOptions {
  const { system, messages } = options;
  if (system !== undefined) requireText('system', system);
  const isEmpty = Array.isArray(messages) && messages.length === 0;
  if (messages !== undefined && !isEmpty) requireMessages(messages);
  return {
    ...resolveTemplateOptions(options),
    contextFull: choice<'forget' | 'stop'>('contextFull', options.contextFull, 'forget', ['forget', 'stop']),
  };
}

function resolveTemplateOptions(options: TemplateOptions): TemplateOptions {
  requireObject('options', options);
  const { template, templateOptions, tools } = options;
  if (template !== undefined) requireText('template', template);
  if (templateOptions !== undefined) requireObject('templateOptions', templateOptions);
  if (tools !== undefined && !Array.isArray(tools)) refuse('tools', 'an array of tools', tools);
  return { template, templateOptions, tools };
}

/** @throws {OptionError} naming the option and its value */
export function resolveEmbedOptions(options: EmbedOptions): ResolvedEmbedOptions {
  requireObject('options', options);
  requireSignal(options.signal);
  const { pooling } = options;
  return {
    pooling: pooling === undefined ? undefined : choice('pooling', pooling, pooling, POOLINGS),
    normalize: boolean('normalize', options.normalize, true),
    truncate: boolean('truncate', options.truncate, false),
    ...resolveEncodeOptions(options),
  };
}

/** A text, or several, each as text or as token ids. @throws {OptionError} naming the one that is neither */
export function requireTexts(value: unknown): void {
  if (typeof value === 'string') return;
  if (!Array.isArray(value)) refuse('texts', 'a text or an array of texts', value);
  for (const [i, item] of value.entries()) {
    if (Array.isArray(item)) requireTokens(`texts[${i}]`, item);
    else if (typeof item !== 'string') refuse(`texts[${i}]`, 'a text, or an array of token ids', item);
  }
}

/** @throws {OptionError} naming the option and its value */
export function resolveLogitsOptions(options: LogitsOptions): Required<LogitsOptions> {
  requireObject('options', options);
  return { all: boolean('all', options.all, false) };
}
