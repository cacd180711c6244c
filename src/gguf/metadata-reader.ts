// Reads the metadata section of a GGUF file, value by value, and checks what can be checked without knowing what a key
// is for: types, lengths, limits, duplicates. `general.alignment` is the one key that the format itself needs.

import type { Cursor } from './cursor.ts';
import { describeEntry, Metadata, quote } from './metadata.ts';
import { NUMBER_FORMATS, VALUE_TYPES } from './value-types.ts';
import type { ArrayEntry, MetadataEntry, ValueType } from './value-types.ts';

/** The smallest entry: an empty key, a type and a value of one byte. */
export const METADATA_ENTRY_BYTES_MIN = 8 + 4 + 1;
/** What an element of an array takes at least, where it is not a number: a length, or a type and a length. */
const ELEMENT_BYTES_MIN = { bool: 1, string: 8, array: 4 + 8 } as const;

export const ALIGNMENT_KEY = 'general.alignment';
export const DEFAULT_ALIGNMENT = 32;

/** Reads `nEntries` entries. `alignment` is the one that tensor data has, in bytes. */
export function readMetadata(cursor: Cursor, nEntries: number): { metadata: Metadata; alignment: number } {
  const entries = new Map<string, MetadataEntry>();
  let alignment = DEFAULT_ALIGNMENT;
  for (let i = 0; i < nEntries; i++) {
    const keyAt = cursor.offsetBytes;
    const key = cursor.string(`metadata key ${i}`, 'keyBytes');
    const field = quote(key);
    if (entries.has(key)) throw cursor.error('GGUF_INVALID', `metadata key ${i}`, keyAt, `repeats ${field}`);
    const valueAt = cursor.offsetBytes;
    const entry = readEntry(cursor, field);
    entries.set(key, entry);
    if (key === ALIGNMENT_KEY) {
      if (!isAlignment(entry.value)) {
        const problem = `expected a power of two of at most 2^31, got ${describeEntry(entry)}`;
        throw cursor.error('GGUF_INVALID', field, valueAt, problem, { value: describeEntry(entry) });
      }
      alignment = entry.value;
    }
  }
  return { metadata: new Metadata(entries, cursor.sourceName), alignment };
}

/** Whether tensor data can be aligned to `value` bytes: the powers of two that fit the u32 of the specification. */
export function isAlignment(value: unknown): value is number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > 2 ** 31) return false;
  return (value & (value - 1)) === 0;
}

function readEntry(cursor: Cursor, field: string): MetadataEntry {
  const type = readValueType(cursor, field);
  if (type === 'string') return { type, value: cursor.string(field, 'stringBytes') };
  if (type === 'bool') return { type, value: cursor.bool(field) };
  if (type === 'array') return readArray(cursor, field, 1);
  return { type, value: cursor.number(type, field) };
}

function readArray(cursor: Cursor, field: string, depth: number): ArrayEntry {
  const at = cursor.offsetBytes;
  cursor.nArrays++;
  cursor.checkLimit('arrayCount', cursor.nArrays, field, at);
  cursor.checkLimit('arrayDepth', depth, field, at);

  const elementType = readValueType(cursor, field);
  if (elementType !== 'bool' && elementType !== 'string' && elementType !== 'array') {
    const { bytes, list } = NUMBER_FORMATS[elementType];
    const length = cursor.count(field, 'arrayLength', bytes);
    return { type: 'array', elementType, value: list(cursor.bytes(length * bytes, field)) };
  }
  const length = cursor.count(field, 'arrayLength', ELEMENT_BYTES_MIN[elementType]);
  // Not Array.from({ length }): an array that grows while the elements turn out to be there is what the file pays for.
  const elements = <T>(readElement: () => T): T[] => {
    const value: T[] = [];
    for (let i = 0; i < length; i++) value.push(readElement());
    return value;
  };
  if (elementType === 'bool') return { type: 'array', elementType, value: elements(() => cursor.bool(field)) };
  if (elementType === 'string') {
    return { type: 'array', elementType, value: elements(() => cursor.string(field, 'stringBytes')) };
  }
  return { type: 'array', elementType, value: elements(() => readArray(cursor, field, depth + 1)) };
}

function readValueType(cursor: Cursor, field: string): ValueType {
  const at = cursor.offsetBytes;
  const number = cursor.u32(field);
  const type = VALUE_TYPES[number];
  if (type !== undefined) return type;
  const problem = `expected a value type of 0 to ${VALUE_TYPES.length - 1}, got ${number}`;
  throw cursor.error('GGUF_INVALID', field, at, problem, { value: number });
}
