// The public API: load a model, generate text with it.

import { platform } from '#platform';
import { LocalModel } from './local-model.ts';
import type { ModelHost } from './local-model.ts';
import { Model } from './model.ts';
import { resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelSource, ResolvedLoadOptions } from './options.ts';
import { RemoteModel } from './remote-model.ts';
import { describeSource, openHere } from './source.ts';

export { SmallMindError, GgufError, OptionError, ShapeError, UnsupportedError } from './base/errors.ts';
export type { ErrorCode, ErrorDetails } from './base/errors.ts';
export type { ByteSource } from './base/byte-source.ts';
export { Chat } from './chat.ts';
export type { ChatMessage, Json, Tool, ToolCall } from './chat/messages.ts';
export type { ChatPrompt } from './chat/prompt.ts';
export { Generation } from './generation.ts';
export { Model } from './model.ts';
export { inspectModel } from './inspect.ts';
export type { MemoryNeeds, MetadataField, MetadataValue, ModelFileInfo, TensorSummary } from './inspect.ts';
export { diagnose } from './doctor.ts';
export type { Diagnosis, Finding, SelfTest } from './doctor.ts';
export type {
  ApplyTemplateOptions,
  ChatOptions,
  ChosenLogprob,
  FinishReason,
  GenerateManyOptions,
  GenerateOptions,
  GenerateResult,
  Kernels,
  LoadOptions,
  LoadProgressEvent,
  LogitsProcessor,
  ModelInfo,
  ModelSource,
  TemplateOptions,
  Timings,
  TokenLogprob,
} from './options.ts';

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

/**
 * Loads a GGUF model.
 * @param source  a path or `file:` URL (Node), an `http(s):` URL whose server answers Range requests, a Blob or File,
 *   the file's bytes, or any `ByteSource`. Bytes are copied to the worker; a ByteSource is read from here, and closed.
 *   Of a model that is split over files (`NAME-00001-of-00003.gguf`) give the path or URL of the first.
 * @throws {GgufError} for a damaged file, {UnsupportedError} for one that this version cannot run,
 *   {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE, OUT_OF_MEMORY, {OptionError} for a bad option
 * @example
 * await using model = await loadModel('stories260K-f32.gguf');
 * for await (const piece of model.generate('Once upon a time')) process.stdout.write(piece);
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

async function loadHost(
  source: ModelSource,
  resolved: ResolvedLoadOptions,
  { signal, onProgress, thread = 'worker' }: LoadOptions,
): Promise<ModelHost> {
  if (thread === 'inline') {
    const isAborted = (): boolean => signal?.aborted ?? false;
    return LocalModel.load(await openHere(source, signal), resolved, { onProgress, isAborted });
  }
  const { posted, remote } = describeSource(source, signal);
  if (signal?.aborted) await remote?.close();
  signal?.throwIfAborted();
  return RemoteModel.load(posted, remote, resolved, { onProgress, signal });
}
