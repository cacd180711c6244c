// Reads GGUF's primitive values one after the other from a window onto the start of a file. Each length is held against
// its limit and against what is left of the file before anything is allocated; all errors of the reader are made here.
// It knows the primitives of the format, not its structure.

import { GgufError } from '../base/errors.ts';
import type { ErrorDetails } from '../base/errors.ts';
import type { GgufLimits } from './limits.ts';
import { NUMBER_FORMATS } from './value-types.ts';
import type { NumberType } from './value-types.ts';

/** Not an error of the file: the window ends before byte `endBytes`, which the file has. Widen it and parse again. */
export class WindowTooShort extends Error {
  readonly endBytes: number;

  constructor(endBytes: number) {
    super(`the window ends before byte ${endBytes}`);
    this.endBytes = endBytes;
  }
}

interface ErrorFacts {
  readonly value?: string | number;
  readonly limit?: number;
  /** What the user can do; by default what usually helps with such a code. */
  readonly advice?: string;
}

type CursorErrorCode = Exclude<GgufError['code'], 'GGUF_MISSING'>;

const ADVICE: Readonly<Record<CursorErrorCode, string>> = {
  GGUF_TRUNCATED: 'the file is cut off or damaged, download or copy it again',
  GGUF_INVALID: 'the file is damaged or its writer was faulty, download or convert it again',
  GGUF_LIMIT: 'the file is most likely damaged; if it is not, pass a higher limit to the reader',
};

export class Cursor {
  readonly sourceName: string;
  /** Size of the whole file. */
  readonly sizeBytes: number;
  readonly limits: GgufLimits;
  /** Next byte to read, from the start of the file. */
  offsetBytes = 0;
  /** Arrays that were begun so far, to be held against `limits.arrayCount`. */
  nArrays = 0;
  readonly #window: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  // Lenient, since a vocabulary may hold broken UTF-8; with `ignoreBOM`, since a token may start with U+FEFF.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** @param window  bytes 0..window.length of the file, in memory that is not shared (TextDecoder refuses that) */
  constructor(
    source: { readonly name: string; readonly sizeBytes: number },
    window: Uint8Array<ArrayBuffer>,
    limits: GgufLimits,
  ) {
    this.sourceName = source.name;
    this.sizeBytes = source.sizeBytes;
    this.limits = limits;
    this.#window = window;
    this.#view = new DataView(window.buffer, window.byteOffset, window.byteLength);
  }

  /** A number of `type`; `field` says in messages what it is. */
  number(type: NumberType, field: string): number | bigint {
    const { bytes, read } = NUMBER_FORMATS[type];
    return read(this.#view, this.#take(bytes, field));
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#take(4, field), true);
  }

  /** A byte that has to be 0 or 1. */
  bool(field: string): boolean {
    const at = this.#take(1, field);
    const byte = this.#window[at]!;
    if (byte > 1)
      throw this.error('GGUF_INVALID', field, at, `expected a boolean of 0 or 1, got ${byte}`, { value: byte });
    return byte === 1;
  }

  /**
   * A u64 that counts things which follow in the file, each of at least `bytesEachMin` bytes.
   * @throws {GgufError} GGUF_LIMIT above `limits[limit]`, GGUF_TRUNCATED when the rest of the file is too small for it
   */
  count(field: string, limit: keyof GgufLimits, bytesEachMin: number): number {
    const at = this.offsetBytes;
    const count = this.number('u64', field);
    this.checkLimit(limit, count, field, at);
    const neededBytes = Number(count) * bytesEachMin;
    const leftBytes = this.sizeBytes - this.offsetBytes;
    if (neededBytes > leftBytes) {
      const problem = `says ${count}, which needs at least ${neededBytes} more bytes, but the file has ${leftBytes}`;
      throw this.error('GGUF_TRUNCATED', field, at, problem, { value: Number(count), limit: leftBytes });
    }
    return Number(count);
  }

  /** A string with its length before it. Broken UTF-8 becomes U+FFFD. */
  string(field: string, limit: 'keyBytes' | 'tensorNameBytes' | 'stringBytes'): string {
    const nBytes = this.count(field, limit, 1);
    const start = this.#take(nBytes, field);
    return this.#decoder.decode(this.#window.subarray(start, start + nBytes));
  }

  /** A copy of the next `nBytes` bytes. */
  bytes(nBytes: number, field: string): Uint8Array<ArrayBuffer> {
    const start = this.#take(nBytes, field);
    return this.#window.slice(start, start + nBytes);
  }

  checkLimit(name: keyof GgufLimits, value: number | bigint, field: string, offsetBytes: number): void {
    const limit = this.limits[name];
    if (value <= limit) return;
    const problem = `says ${value}, above the limit ${name} of ${limit}`;
    // A bigint does not survive JSON.
    const shown = typeof value === 'bigint' ? String(value) : value;
    throw this.error('GGUF_LIMIT', field, offsetBytes, problem, { value: shown, limit });
  }

  /** The error for `field` at `offsetBytes`; `problem` continues the sentence. */
  error(
    code: CursorErrorCode,
    field: string,
    offsetBytes: number,
    problem: string,
    { advice = ADVICE[code], ...facts }: ErrorFacts = {},
  ): GgufError {
    const details: ErrorDetails = { source: this.sourceName, field, offsetBytes, ...facts };
    return new GgufError(code, `${this.sourceName}: ${field} at byte ${offsetBytes} ${problem}; ${advice}`, details);
  }

  /** Moves over `nBytes` bytes that the window is known to hold, and returns where they start. */
  #take(nBytes: number, field: string): number {
    const start = this.offsetBytes;
    const end = start + nBytes;
    if (end > this.sizeBytes) {
      const problem = `needs ${nBytes} bytes, but the file has ${this.sizeBytes - start} left`;
      throw this.error('GGUF_TRUNCATED', field, start, problem, { value: nBytes, limit: this.sizeBytes - start });
    }
    const limit = this.limits.metadataBytes;
    if (end > limit) {
      const problem = `ends at byte ${end}, above the limit metadataBytes of ${limit}`;
      throw this.error('GGUF_LIMIT', field, start, problem, { value: end, limit });
    }
    if (end > this.#window.length) throw new WindowTooShort(end);
    this.offsetBytes = end;
    return start;
  }
}
