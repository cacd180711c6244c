// What a model file holds and what it would need to run here, told from its head alone: no weight is read. A file that
// this version cannot run is described all the same, with the reason.

import { SmallMindError } from './base/errors.ts';
import type { ErrorCode } from './base/errors.ts';
import { readGguf } from './gguf/reader.ts';
import type { Gguf } from './gguf/reader.ts';
import type { MetadataEntry } from './gguf/value-types.ts';
import { countParameters, prepareModel } from './local-model.ts';
import { memoryNeeds } from './memory-estimate.ts';
import type { MemoryNeeds } from './memory-estimate.ts';
import { resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelSource, ResolvedLoadOptions } from './options.ts';
import { openHere } from './source.ts';

/** Integers beyond ±(2^53 - 1) are given as decimal text, so that everything here can be written as JSON. */
export type MetadataValue = string | number | boolean | readonly MetadataValue[];

/** One entry of the metadata. */
export interface MetadataField {
  readonly key: string;
  /** GGUF's type: `u32`, `string` …, and `f32[]` for an array. */
  readonly type: string;
  readonly value: MetadataValue;
}

/** What the file says of one tensor. */
export interface TensorSummary {
  readonly name: string;
  readonly dtype: string;
  /** Rows first, columns last. */
  readonly shape: readonly number[];
  readonly sizeBytes: number;
  /** From the start of the file; in a model that is split, of all files one after the other. */
  readonly offsetBytes: number;
}

/** A model file, described from its head. */
export interface ModelFileInfo {
  /** Path, URL, name of the File, `blob` or `memory`. */
  readonly source: string;
  /** Of a model that is split: of all files. */
  readonly sizeBytes: number;
  readonly ggufVersion: number;
  readonly alignment: number;
  /** `general.architecture` and `general.name`; empty where the file has none. */
  readonly architecture: string;
  readonly name: string;
  readonly nParameters: number;
  /** 0 where the file does not say. */
  readonly nVocab: number;
  readonly nCtxTrain: number;
  readonly metadata: readonly MetadataField[];
  readonly tensors: readonly TensorSummary[];
  /** Absent where `problem` keeps the model from being planned. */
  readonly memory?: MemoryNeeds;
  /** Why the model cannot be loaded here. Absent when it can. */
  readonly problem?: { readonly code: ErrorCode; readonly message: string };
}

/**
 * Describes a GGUF file and the memory that it would need here, from its head alone: no weight is read.
 * @param options  those that the model would be loaded with: context, threads, type of the cache … change the memory
 * @throws {GgufError} for what is no sound GGUF file, {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE,
 *   {OptionError} for a bad option
 * @example
 * import { inspectModel } from 'smallmind';
 *
 * const { architecture, memory, problem } = await inspectModel('MODEL.gguf', { nCtx: 2048 });
 * console.log(architecture, problem?.message ?? `needs ${memory!.totalBytes} bytes`);
 */
export async function inspectModel(source: ModelSource, options: LoadOptions = {}): Promise<ModelFileInfo> {
  const resolved = resolveLoadOptions(options);
  let opened = await openHere(source, options.signal);
  try {
    const gguf = await readGguf(opened);
    opened = gguf.source;
    return { ...describeHead(gguf), ...(await planMemory(gguf, resolved)) };
  } finally {
    await opened.close();
  }
}

function describeHead(gguf: Gguf): Omit<ModelFileInfo, 'memory' | 'problem'> {
  const { metadata, source } = gguf;
  const textOf = (key: string): string => {
    const entry = metadata.get(key);
    return entry?.type === 'string' ? entry.value : '';
  };
  const architecture = textOf('general.architecture');
  const nCtxTrain = metadata.get(`${architecture}.context_length`)?.value;
  const tokens = metadata.get('tokenizer.ggml.tokens');
  return {
    source: source.name,
    sizeBytes: source.sizeBytes,
    ggufVersion: gguf.version,
    alignment: gguf.alignment,
    architecture,
    name: textOf('general.name'),
    nParameters: countParameters(gguf),
    nVocab: tokens?.type === 'array' ? tokens.value.length : 0,
    nCtxTrain: typeof nCtxTrain === 'number' ? nCtxTrain : 0,
    metadata: Array.from(metadata.entries(), ([key, entry]) => ({ key, ...describeEntry(entry) })),
    tensors: Array.from(gguf.tensors.values(), ({ name, dtype, shape, sizeBytes, offsetBytes }) => ({
      name,
      dtype,
      shape,
      sizeBytes,
      offsetBytes,
    })),
  };
}

function describeEntry(entry: MetadataEntry): { type: string; value: MetadataValue } {
  if (entry.type === 'array') {
    const values = Array.from(entry.value as ArrayLike<unknown>, (value) =>
      entry.elementType === 'array' ? describeEntry(value as MetadataEntry).value : plainValue(value),
    );
    return { type: `${entry.elementType}[]`, value: values };
  }
  return { type: entry.type, value: plainValue(entry.value) };
}

const plainValue = (value: unknown): MetadataValue => (typeof value === 'bigint' ? String(value) : (value as number));

/** Plans the model as loading it would. */
async function planMemory(
  gguf: Gguf,
  options: ResolvedLoadOptions,
): Promise<Pick<ModelFileInfo, 'memory' | 'problem'>> {
  try {
    const { graphs, limits, nThreads } = await prepareModel(gguf, options);
    const { error, ...memory } = memoryNeeds(graphs, limits, options, nThreads);
    if (error) throw error;
    return { memory };
  } catch (error) {
    if (!(error instanceof SmallMindError) || error.code === 'INTERNAL') throw error;
    return { problem: { code: error.code, message: error.message } };
  }
}
