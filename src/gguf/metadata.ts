// The metadata of a model file, read through getters that check: a key that is missing or of the wrong type is an error
// that names the key, the type and the file, never an `undefined` that surfaces three folders later.

import { GgufError } from '../base/errors.ts';
import type { MetadataEntry, NumberList } from './value-types.ts';

export class Metadata {
  readonly #entries: ReadonlyMap<string, MetadataEntry>;
  readonly #sourceName: string;

  /** @param sourceName  the file, for messages */
  constructor(entries: Iterable<readonly [string, MetadataEntry]>, sourceName = 'metadata') {
    this.#entries = new Map(entries);
    this.#sourceName = sourceName;
  }

  get size(): number {
    return this.#entries.size;
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** The entry with its type, for keys that may be one number or one a layer; `undefined` when there is none. */
  get(key: string): MetadataEntry | undefined {
    return this.#entries.get(key);
  }

  /** Keys and entries in the order of the file. */
  entries(): IterableIterator<[string, MetadataEntry]> {
    return this.#entries.entries();
  }

  // Every getter: without `fallback` a missing key is GGUF_MISSING; a value of another type is always GGUF_INVALID.

  getString(key: string, fallback?: string): string {
    const entry = this.#entries.get(key);
    if (entry === undefined) return fallback ?? this.#missing(key);
    return entry.type === 'string' ? entry.value : this.#mismatch(key, 'a string', entry);
  }

  /** A number of any numeric type; a 64-bit integer beyond ±(2^53 - 1) is refused, since it would not be exact. */
  getNumber(key: string, fallback?: number): number {
    const entry = this.#entries.get(key);
    if (entry === undefined) return fallback ?? this.#missing(key);
    if (typeof entry.value === 'number') return entry.value;
    return this.#mismatch(key, 'a number of at most 2^53 - 1', entry);
  }

  getBoolean(key: string, fallback?: boolean): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return fallback ?? this.#missing(key);
    return entry.type === 'bool' ? entry.value : this.#mismatch(key, 'a boolean', entry);
  }

  getStrings(key: string, fallback?: readonly string[]): readonly string[] {
    const entry = this.#entries.get(key);
    if (entry === undefined) return fallback ?? this.#missing(key);
    if (entry.type === 'array' && entry.elementType === 'string') return entry.value;
    return this.#mismatch(key, 'an array of strings', entry);
  }

  /** An array of any numeric type, as the file's own typed array. */
  getNumbers(key: string, fallback?: NumberList): NumberList {
    const entry = this.#entries.get(key);
    if (entry === undefined) return fallback ?? this.#missing(key);
    if (entry.type === 'array' && isNumberArray(entry)) return entry.value as NumberList;
    return this.#mismatch(key, 'an array of numbers of at most 2^53 - 1', entry);
  }

  #missing(key: string): never {
    throw new GgufError(
      'GGUF_MISSING',
      `${this.#sourceName}: the metadata has no "${key}"; convert the model again with a current converter`,
      { source: this.#sourceName, field: key },
    );
  }

  #mismatch(key: string, expected: string, entry: MetadataEntry): never {
    const got = describeEntry(entry);
    throw new GgufError(
      'GGUF_INVALID',
      `${this.#sourceName}: metadata "${key}" expected ${expected}, got ${got}; convert the model again`,
      { source: this.#sourceName, field: key, value: got },
    );
  }
}

function isNumberArray(entry: MetadataEntry & { type: 'array' }): boolean {
  if (entry.elementType === 'bool' || entry.elementType === 'string' || entry.elementType === 'array') return false;
  return entry.value.length === 0 || typeof entry.value[0] === 'number';
}

/** Type and value for a message; long values are cut. */
export function describeEntry(entry: MetadataEntry): string {
  if (entry.type === 'array') return `an array of ${entry.value.length} ${entry.elementType}`;
  const text = entry.type === 'string' ? quote(entry.value) : String(entry.value);
  return `${entry.type} ${text}`;
}

/** Text from a file for a message: cut, and with control characters escaped, since messages reach terminals. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
