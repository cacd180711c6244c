// The public API of model files: GGUF in and out, and the block formats of their tensors. Without the engine and its
// workers: small, and at home wherever JavaScript runs.

import { readGguf as readHead, getTensor, readTensorBytes } from './gguf/reader.ts';
import type { Gguf, TensorInfo } from './gguf/reader.ts';
import type { GgufLimits } from './gguf/limits.ts';
import type { BigIntList, MetadataEntry, NumberList } from './gguf/value-types.ts';
import type { ModelSource } from './options.ts';
import { dequantize } from './quant/codecs.ts';
import { openHere } from './source.ts';

// The regions are the groups of this entry's page in docs/api.
// #region Read
/**
 * Reads metadata and tensor descriptors of a GGUF file (version 2 or 3), checked against the file's size. Of tensor
 * data it reads nothing, and of a remote file it fetches a little more than that. Of a model that is split over files
 * (`NAME-00001-of-00003.gguf`) the first opens the others beside it, and all are one.
 * @param source  a path or `file:` URL (Node), an `http(s):` URL whose server answers Range requests, a Blob or File,
 *   the file's bytes, or any `ByteSource`, which is closed with the file, or when reading fails
 * @throws {GgufError} for a damaged file, {UnsupportedError} for a big-endian one or another version,
 *   {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE, {OptionError} for what is no source
 * @example
 * import { readGguf } from 'smallmind/gguf';
 *
 * await using file = await readGguf('MODEL.gguf');
 * const values = await file.readValues('output_norm.weight');
 * console.log(file.metadata.get('general.architecture'), file.tensors.size, values.slice(0, 4));
 */
export async function readGguf(source: ModelSource, options: ReadGgufOptions = {}): Promise<GgufFile> {
  const opened = await openHere(source, options.signal);
  try {
    return new GgufFile(await readHead(opened, options.limits));
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Limits and a signal for reading. */
export interface ReadGgufOptions {
  /** Replaces single limits of `GGUF_LIMITS`, which no known file reaches. */
  limits?: Partial<GgufLimits>;
  /** Aborts reading, now and later: it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** A file whose head has been read; tensors are read when they are asked for. Close it when it is no longer needed. */
export class GgufFile implements AsyncDisposable {
  /** Path, URL, name of the File, `blob` or `memory`. */
  readonly name: string;
  /** Of the whole file; of a model that is split, of all files. */
  readonly sizeBytes: number;
  /** Of the format: 2 or 3. */
  readonly version: number;
  /** Of tensor data, in bytes. */
  readonly alignment: number;
  /** Values by key, in the order of the file. */
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  /** The same with GGUF's types, as `writeGguf` takes it. */
  readonly typedMetadata: ReadonlyMap<string, MetadataEntry>;
  /** Descriptors by name, in the order of the file: dtype, shape (rows first), place and size. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #gguf: Gguf;

  /** @internal Made by `readGguf`. */
  constructor(gguf: Gguf) {
    const { source, version, alignment, metadata, tensors } = gguf;
    this.#gguf = gguf;
    this.name = source.name;
    this.sizeBytes = source.sizeBytes;
    this.version = version;
    this.alignment = alignment;
    this.typedMetadata = new Map(metadata.entries());
    this.metadata = new Map(Array.from(this.typedMetadata, ([key, entry]) => [key, plainValue(entry)]));
    this.tensors = tensors;
  }

  /**
   * A tensor's bytes as they stand in the file, in memory of their own.
   * @throws {GgufError} GGUF_MISSING for a name that is not there, {SmallMindError} OUT_OF_MEMORY
   */
  async readTensor(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return readTensorBytes(this.#gguf, getTensor(this.#gguf, name));
  }

  /**
   * A tensor's values, row-major, decoded exactly.
   * @throws as `readTensor` does, and {UnsupportedError} UNSUPPORTED_DTYPE for a dtype that cannot be decoded
   */
  async readValues(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { dtype } = getTensor(this.#gguf, name);
    return dequantize(dtype, await this.readTensor(name));
  }

  /** Closes what it is read from. */
  close(): Promise<void> {
    return this.#gguf.source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * A value of the metadata without its type. Arrays of numbers are typed arrays; a 64-bit integer is a bigint only
 * beyond ±(2^53 - 1), and an array of them is one of bigints when any is.
 */
export type MetadataValue = string | number | bigint | boolean | NumberList | BigIntList | readonly MetadataValue[];

export type { ModelSource } from './options.ts';
export type { ByteSource } from './base/byte-source.ts';
export type { TensorInfo } from './gguf/reader.ts';
export { GGUF_LIMITS } from './gguf/limits.ts';
export type { GgufLimits } from './gguf/limits.ts';
// #endregion

// #region Write
export { writeGguf, writeGgufHead } from './gguf/writer.ts';
export type { GgufContent, TensorData, GgufOutline, TensorDescriptor, GgufHead } from './gguf/writer.ts';
// #endregion

// #region Metadata with types
export type { MetadataEntry, ArrayEntry, ValueType, NumberType, NumberList, BigIntList } from './gguf/value-types.ts';
// #endregion

// #region Types of tensors
export { dequantize, quantize } from './quant/codecs.ts';
export type { DType } from './base/dtype.ts';
// #endregion

// #region Errors
export { SmallMindError, GgufError, UnsupportedError, OptionError, ShapeError } from './base/errors.ts';
export type { ErrorCode, ErrorDetails } from './base/errors.ts';
// #endregion

function plainValue({ value }: MetadataEntry): MetadataValue {
  // The elements of an array of arrays are entries.
  const isNested = Array.isArray(value) && typeof value[0] === 'object';
  return isNested ? (value as MetadataEntry[]).map(plainValue) : (value as MetadataValue);
}
