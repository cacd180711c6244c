// Writes GGUF v3: metadata and tensors → bytes that `readGguf`, llama.cpp and others read, the inverse of the reader. A
// file is made in memory, or only its head, where the data that follows it is too large for that.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { describeValue } from '../base/describe-value.ts';
import { OptionError, ShapeError } from '../base/errors.ts';
import { GGUF_LIMITS } from './limits.ts';
import { ALIGNMENT_KEY, DEFAULT_ALIGNMENT, isAlignment } from './metadata-reader.ts';
import { quote } from './metadata.ts';
import { alignUp } from './tensor-reader.ts';
import { NUMBER_FORMATS, VALUE_TYPES } from './value-types.ts';
import type { ArrayEntry, MetadataEntry, NumberType, ValueType } from './value-types.ts';

/** A tensor without its data. */
export interface TensorDescriptor {
  readonly name: string;
  readonly dtype: DType;
  /** Row-major, columns last, at most 4 dimensions; a row is a whole number of blocks. */
  readonly shape: readonly number[];
}

/** A tensor with its data. */
export interface TensorData extends TensorDescriptor {
  /** The blocks of all rows, one after the other. */
  readonly bytes: Uint8Array;
}

/** What a file holds, the tensors' data apart. */
export interface GgufOutline {
  /** Written in this order; `metadata.entries()` of a file that was read fits, as does `Object.entries(…)`. */
  readonly metadata: Iterable<readonly [string, MetadataEntry]>;
  readonly tensors: readonly TensorDescriptor[];
  /** Of tensor data, in bytes, written as general.alignment. Default: what the metadata says, or 32. */
  readonly alignment?: number;
}

/** What a file holds. */
export interface GgufContent extends GgufOutline {
  readonly tensors: readonly TensorData[];
}

/** The beginning of a file, padded to where the data begins, and what has to follow. */
export interface GgufHead {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where each tensor's data begins in the file, in their order; between them are zeros. */
  readonly offsetsBytes: readonly number[];
  /** Of the whole file. */
  readonly sizeBytes: number;
}

/**
 * The bytes of a GGUF file.
 * @throws {OptionError} for a key or name given twice or too long, a value that is not of its type, an unknown type or
 *   dtype, an impossible alignment
 * @throws {ShapeError} for a tensor whose bytes do not fit its shape and dtype
 */
export function writeGguf(content: GgufContent): Uint8Array<ArrayBuffer> {
  const { bytes, offsetsBytes, sizeBytes } = writeGgufHead(content);
  const file = new Uint8Array(sizeBytes);
  file.set(bytes);
  content.tensors.forEach((tensor, i) => {
    if (tensor.bytes?.length !== sizeOf(tensor)) throw misfit(tensor, ` in ${tensor.bytes?.length} bytes`);
    file.set(tensor.bytes, offsetsBytes[i]!);
  });
  return file;
}

/**
 * Everything of a file but its tensors' data.
 * @throws as `writeGguf` does
 */
export function writeGgufHead(outline: GgufOutline): GgufHead {
  const entries = uniqueByName('metadata key', 'keyBytes', outline.metadata);
  if (outline.alignment !== undefined) entries.set(ALIGNMENT_KEY, { type: 'u32', value: outline.alignment });
  const alignment = entries.get(ALIGNMENT_KEY)?.value ?? DEFAULT_ALIGNMENT;
  if (!isAlignment(alignment)) throw new OptionError(`"alignment" expected a power of two, got ${String(alignment)}`);
  const tensors = uniqueByName(
    'tensor',
    'tensorNameBytes',
    outline.tensors.map((tensor) => [tensor.name, tensor] as const),
  );

  const out = new ByteWriter();
  out.raw(new TextEncoder().encode('GGUF'));
  out.number('u32', 3);
  out.number('u64', tensors.size);
  out.number('u64', entries.size);
  for (const [key, entry] of entries) {
    out.string(key);
    writeEntry(out, entry, key);
  }
  const offsets: number[] = [];
  let dataBytes = 0;
  for (const tensor of tensors.values()) {
    const sizeBytes = sizeOf(tensor);
    writeDescriptor(out, tensor, dataBytes);
    offsets.push(dataBytes);
    dataBytes = alignUp(dataBytes + sizeBytes, alignment);
  }
  out.padTo(alignment);
  const bytes = out.finish();
  return { bytes, offsetsBytes: offsets.map((at) => bytes.length + at), sizeBytes: bytes.length + dataBytes };
}

function uniqueByName<T>(
  what: string,
  limit: 'keyBytes' | 'tensorNameBytes',
  named: Iterable<readonly [string, T]>,
): Map<string, T> {
  const map = new Map<string, T>();
  for (const [name, value] of named) {
    if (typeof name !== 'string') throw new OptionError(`${what} expected a string, got ${describeValue(name)}`);
    if (map.has(name)) throw new OptionError(`${what} ${quote(name)} is given twice; give it once`);
    if (new TextEncoder().encode(name).length > GGUF_LIMITS[limit]) {
      throw new OptionError(`${what} ${quote(name)} is longer than ${GGUF_LIMITS[limit]} bytes; shorten it`);
    }
    map.set(name, value);
  }
  return map;
}

/** Bytes of a tensor's data. @throws {ShapeError} for a shape that the dtype cannot have */
function sizeOf(tensor: TensorDescriptor): number {
  const { name, dtype, shape } = tensor;
  if (!Object.hasOwn(BLOCK_FORMATS, dtype)) {
    const known = Object.keys(BLOCK_FORMATS).join(', ');
    throw new OptionError(`tensor ${quote(name)} has the unknown dtype ${describeValue(dtype)}; use one of ${known}`);
  }
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const areDimensions = Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && n >= 1);
  if (!areDimensions || shape.length > 4) throw misfit(tensor);
  const nElements = shape.reduce((product, dimension) => product * dimension, 1);
  if (!Number.isSafeInteger(nElements) || (shape.at(-1) ?? 1) % blockElements !== 0) throw misfit(tensor);
  return (nElements / blockElements) * blockBytes;
}

function misfit({ name, dtype, shape }: TensorDescriptor, got = ''): ShapeError {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const expected = `at most 4 dimensions, rows of whole blocks (${blockElements} elements in ${blockBytes} bytes)`;
  return new ShapeError(`tensor ${quote(name)}: ${dtype} expected ${expected}; got [${shape}]${got}`);
}

function writeDescriptor(out: ByteWriter, { name, dtype, shape }: TensorDescriptor, dataOffsetBytes: number): void {
  const { ggmlType } = BLOCK_FORMATS[dtype];
  out.string(name);
  out.number('u32', shape.length);
  for (const dimension of shape.toReversed()) out.number('u64', dimension);
  out.number('u32', ggmlType);
  out.number('u64', dataOffsetBytes);
}

/** Types are checked since whoever writes JavaScript has no compiler that does. */
function writeType(out: ByteWriter, type: ValueType, key: string): void {
  const number = VALUE_TYPES.indexOf(type);
  if (number < 0) throw mismatch(key, `a type (${VALUE_TYPES.join(', ')})`, type);
  out.number('u32', number);
}

function writeEntry(out: ByteWriter, entry: MetadataEntry, key: string): void {
  writeType(out, entry?.type, key);
  if (entry.type === 'array') writeArray(out, entry, key);
  else writeScalar(out, entry.type, entry.value, key);
}

function writeArray(out: ByteWriter, entry: ArrayEntry, key: string): void {
  if (typeof entry?.value !== 'object' || typeof entry.value?.length !== 'number')
    throw mismatch(key, 'an array', entry?.value);
  const { elementType } = entry;
  writeType(out, elementType, key);
  out.number('u64', entry.value.length);
  for (const element of entry.value) {
    if (elementType === 'array') writeArray(out, element as ArrayEntry, key);
    else writeScalar(out, elementType, element, key);
  }
}

function writeScalar(out: ByteWriter, type: Exclude<ValueType, 'array'>, value: unknown, key: string): void {
  if (type === 'string') {
    if (typeof value !== 'string') throw mismatch(key, 'a string', value);
    out.string(value);
  } else if (type === 'bool') {
    if (typeof value !== 'boolean') throw mismatch(key, 'true or false', value);
    out.number('u8', Number(value));
  } else {
    if (typeof value !== 'number' && typeof value !== 'bigint') throw mismatch(key, `a number (${type})`, value);
    writeNumber(out, type, value, key);
  }
}

function mismatch(key: string, expected: string, value: unknown): OptionError {
  return new OptionError(`metadata ${quote(key)} expected ${expected}, got ${describeValue(value)}`);
}

function writeNumber(out: ByteWriter, type: NumberType, value: number | bigint, key: string): void {
  // Floats are rounded; an integer has to be one, and to be read back as what was given.
  const isFloat = type === 'f32' || type === 'f64';
  const isInteger = typeof value === 'bigint' || Number.isInteger(value);
  if (isFloat || isInteger) {
    const written = out.number(type, value);
    if (isFloat || BigInt(written) === BigInt(value)) return;
  }
  throw new OptionError(`metadata ${quote(key)} expected a value that fits ${type}, got ${value}; choose another type`);
}

/** Bytes that grow by doubling. */
class ByteWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  readonly #encoder = new TextEncoder();

  raw(bytes: Uint8Array): void {
    const start = this.#grow(bytes.length);
    this.#bytes.set(bytes, start);
  }

  /** Returns the number as it can be read back. */
  number(type: NumberType, value: number | bigint): number | bigint {
    const { bytes, write, read } = NUMBER_FORMATS[type];
    const at = this.#grow(bytes);
    write(this.#view, at, value);
    return read(this.#view, at);
  }

  string(text: string): void {
    const bytes = this.#encoder.encode(text);
    this.number('u64', bytes.length);
    this.raw(bytes);
  }

  padTo(alignment: number): void {
    this.#grow(alignUp(this.#length, alignment) - this.#length);
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  /** Makes room for `nBytes` zeros at the end and returns where they start. */
  #grow(nBytes: number): number {
    const start = this.#length;
    this.#length += nBytes;
    if (this.#length > this.#bytes.length) {
      const wider = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      wider.set(this.#bytes);
      this.#bytes = wider;
      this.#view = new DataView(wider.buffer);
    }
    return start;
  }
}
