// The public API: load a model, generate text with it.

import { platform } from '#platform';
import { ShapeError } from './base/errors.ts';
import type { ModelHost } from './local-model.ts';
import { Model } from './model.ts';
import { resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelSource, ResolvedLoadOptions } from './options.ts';
import { RemoteModel } from './remote-model.ts';
import { describeSource, openHere } from './source.ts';

// The regions are the groups of this entry's page in docs/api.
// #region Load a model
/**
 * Loads a GGUF model.
 * @param source  a path or `file:` URL (Node), an `http(s):` URL whose server answers Range requests, a Blob or File,
 *   the file's bytes, or any `ByteSource`. Bytes are copied to the worker; a ByteSource is read from here, and closed.
 *   Of a model that is split over files (`NAME-00001-of-00003.gguf`) give the path or URL of the first, or a ByteSource
 *   that has `openSibling`.
 * @throws {GgufError} for a damaged file, {UnsupportedError} for one that this version cannot run,
 *   {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE, OUT_OF_MEMORY, {OptionError} for a bad option
 * @example
 * import { loadModel } from 'smallmind';
 *
 * await using model = await loadModel('MODEL.gguf', { nCtx: 512 });
 * for await (const piece of model.generate('Once upon a time', { maxTokens: 40 })) process.stdout.write(piece);
 */
export async function loadModel(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
  const resolved = resolveLoadOptions(options);
  const { signal } = options;
  try {
    const model = new Model(await loadHost(source, resolved, options));
    if (signal?.aborted) await model.close();
    signal?.throwIfAborted();
    return model;
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

export type { ModelSource, LoadOptions, Kernels, KvDtype, LoadProgressEvent, ModelInfo } from './options.ts';
export type { ByteSource } from './base/byte-source.ts';
// #endregion

// #region Generate
export { Model } from './model.ts';
export { Generation } from './generation.ts';
export type {
  EncodeOptions,
  GenerateOptions,
  GenerateManyOptions,
  SamplerOptions,
  LogitsProcessor,
  LogitsOptions,
  GenerateResult,
  FinishReason,
  Timings,
  TokenLogprob,
  ChosenLogprob,
} from './options.ts';
// #endregion

// #region Embed
/**
 * How alike two vectors are in their direction: 1 for the same, 0 for none at all, -1 for opposite ones. 0 where one of
 * them is zero.
 * @throws {ShapeError} for vectors of different lengths
 */
export function cosineSimilarity(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw new ShapeError(`vectors to compare expected the same length, got ${a.length} and ${b.length}`);
  }
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return dot === 0 ? 0 : dot / Math.sqrt(aa * bb);
}

export type { EmbedOptions, EmbeddingResult, Embedding, Pooling } from './options.ts';
export type { EmbeddingInput } from './local-embedding.ts';
// #endregion

// #region Talk
export { Chat } from './chat.ts';
export type { ChatOptions, TemplateOptions, ApplyTemplateOptions } from './options.ts';
export type { ChatMessage, Tool, ToolCall, Json } from './chat/messages.ts';
export type { ChatPrompt } from './chat/prompt.ts';
// #endregion

// #region Look into a model file
export { inspectModel } from './inspect.ts';
export type { ModelFileInfo, TensorSummary, MetadataField, MetadataValue } from './inspect.ts';
export { estimateMemory } from './memory-estimate.ts';
export type { MemoryEstimate, CacheEstimate, ContextEstimate, MemoryNeeds } from './memory-estimate.ts';
// #endregion

// #region The machine
/**
 * Asks V8 to run the kernels with vectors of 256 bits (AVX2) instead of 128: the same results to the bit, prompts up to
 * twice as fast. Call it before the first model is loaded. It sets V8's flag `--experimental-wasm-revectorize`, which
 * counts for all WebAssembly of the process and which V8 calls experimental: therefore nobody but you sets it, except
 * the command line, whose process is its own.
 * @returns whether this engine knows how: Node 24 or later on x64; elsewhere nothing happens. Chromium and Electron
 *   take the flag where they start: `--js-flags=--experimental-wasm-revectorize`
 */
export function enableWideVectors(): boolean {
  return platform.enableWideVectors();
}

export { diagnose } from './doctor.ts';
export type { Diagnosis, Finding, SelfTest } from './doctor.ts';
// #endregion

// #region Errors
export { SmallMindError, GgufError, UnsupportedError, OptionError, ShapeError } from './base/errors.ts';
export type { ErrorCode, ErrorDetails } from './base/errors.ts';
// #endregion

async function loadHost(
  source: ModelSource,
  resolved: ResolvedLoadOptions,
  { signal, onProgress, thread = 'worker' }: LoadOptions,
): Promise<ModelHost> {
  if (thread === 'inline') {
    const isAborted = (): boolean => signal?.aborted ?? false;
    // Apart, so that pages load the engine once: in the worker.
    const { LocalModel } = await import('./local-model.ts');
    return LocalModel.load(await openHere(source, signal), resolved, { onProgress, isAborted });
  }
  const { posted, lender } = describeSource(source, signal);
  if (signal?.aborted) await lender?.close();
  signal?.throwIfAborted();
  return RemoteModel.load(posted, lender, resolved, { onProgress, signal });
}
