// The public options and results, with their defaults, and the check at the door: behind it, everything is trusted.

import type { ByteSource } from './base/byte-source.ts';
import { describeValue } from './base/describe-value.ts';
import { OptionError } from './base/errors.ts';
import type { FinishReason } from './engine/sequence.ts';
import { KV_DTYPES } from './graph/step.ts';
import type { KvDtype } from './graph/step.ts';
import { resolveSamplerOptions } from './sampler/options.ts';
import type { SamplerOptions } from './sampler/options.ts';
import type { EncodeOptions } from './tokenizer/tokenizer.ts';

export type { FinishReason };

/**
 * Where a model comes from: a path or `file:` URL (Node), an `http(s):` URL whose server answers Range requests, a Blob
 * or File, bytes, or any random-access source.
 */
export type ModelSource = string | URL | Blob | ArrayBuffer | Uint8Array | ByteSource;

/** `auto` probes the engine; `reference` is the slow float64 oracle. */
export type Kernels = 'auto' | 'relaxed' | 'simd' | 'strict' | 'reference';

export interface LoadProgressEvent {
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

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
  /** Context in tokens, prompt and answer together. Default: what the model was trained for, at most 4096. */
  nCtx?: number;
  /** Texts that can be generated at the same time, each with its own context; further ones wait. 1..64, default 1. */
  parallel?: number;
  /** Prompt tokens evaluated in one step, 1..4096. Default 128. */
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

/** `LoadOptions` with every default in place, except those that depend on the model or the machine. */
export interface ResolvedLoadOptions {
  readonly threads: number | undefined;
  readonly nCtx: number | undefined;
  readonly parallel: number;
  readonly prefillChunk: number;
  readonly kernels: Kernels;
  readonly activations: 'q8' | 'f32';
  readonly kvType: KvDtype;
}

export interface GenerateOptions extends Partial<SamplerOptions> {
  /** Tokens to generate at most; 0 only evaluates the prompt. Default: until the text ends or the context is full. */
  maxTokens?: number;
  /** Further tokens that end the text, beside the model's own. They are not part of the result. */
  stopTokens?: readonly number[];
  /** Log-probabilities of each token and of this many of the most likely ones, 0..20. Default: none. */
  logprobs?: number;
  /** Adds BOS to a text prompt where the model wants it. Default true. */
  addSpecial?: boolean;
  /** Reads control tokens written in a text prompt (`</s>`) as such. Default false: they are plain text. */
  parseSpecial?: boolean;
  /** Aborts: iteration and `result` then reject with its reason. */
  signal?: AbortSignal;
}

export interface LogitsOptions {
  /** Logits after every token and not only the last. Default false. */
  all?: boolean;
}

/** `GenerateOptions` checked and filled in; crosses to the worker. */
export interface ResolvedGenerateOptions {
  readonly sampler: SamplerOptions;
  readonly maxTokens: number | undefined;
  readonly stopTokens: readonly number[];
  readonly logprobs: number | undefined;
  /** For benchmarks: goes on where the model would end the text. */
  readonly ignoresEnd?: boolean;
  readonly addSpecial: boolean;
  readonly parseSpecial: boolean;
}

export interface TokenLogprob {
  readonly token: number;
  readonly text: string;
  /** Natural logarithm of the probability, from the model's own distribution. */
  readonly logprob: number;
}

export interface ChosenLogprob extends TokenLogprob {
  /** The most likely tokens, best first. */
  readonly top: readonly TokenLogprob[];
}

export interface Timings {
  /** From the call to the first chosen token. */
  readonly promptMs: number;
  /** Prompt tokens evaluated (those found in the cache are not) a second. */
  readonly promptTokensPerSecond: number;
  /** From the first token to the last. */
  readonly decodeMs: number;
  readonly decodeTokensPerSecond: number;
}

export interface GenerateResult {
  readonly text: string;
  readonly tokens: readonly number[];
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Of these, found in the cache. */
  readonly cachedTokens: number;
  /** `stop`: the model ended the text. `length`: maxTokens. `context`: the context is full. */
  readonly finishReason: FinishReason;
  /** Give it as `seed` to get the same text again. */
  readonly seed: number;
  readonly timings: Timings;
  /** With the option `logprobs`: one entry a token. */
  readonly logprobs?: readonly ChosenLogprob[];
}

/** What is known of a loaded model. */
export interface ModelInfo {
  readonly architecture: string;
  /** `general.name` of the file; empty where it has none. */
  readonly name: string;
  readonly nParameters: number;
  readonly nVocab: number;
  readonly nEmbd: number;
  readonly nLayer: number;
  readonly nCtxTrain: number;
  /** Context that it was loaded with. */
  readonly nCtx: number;
  /** Bytes held for weights, key-value cache and work areas. */
  readonly memoryBytes: number;
  readonly threads: number;
  /** The executor in words, e.g. `wasm relaxed (u8, 256-bit vectors), 2 threads`. */
  readonly executor: string;
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
    nCtx: integer('nCtx', options.nCtx, undefined, 1, 2 ** 20),
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
  const { stopTokens = [] } = options;
  requireTokens('stopTokens', stopTokens);
  return {
    sampler: resolveSamplerOptions(options),
    maxTokens: integer('maxTokens', options.maxTokens, undefined, 0, 2 ** 31 - 1),
    stopTokens: [...stopTokens],
    logprobs: integer('logprobs', options.logprobs, undefined, 0, 20),
    ...resolveEncodeOptions(options),
  };
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
export function resolveLogitsOptions(options: LogitsOptions): Required<LogitsOptions> {
  requireObject('options', options);
  return { all: boolean('all', options.all, false) };
}
