// Reads the head of a GGUF file (v2, v3): file bytes → metadata and tensor descriptors, all checked, so that the rest
// of SmallMind can trust them. It reads a window from the start of the file and widens it as needed; of tensor data it
// sees only what the window happens to cover. Which keys and tensors a model needs is not known here.
// Source: the GGUF specification (ggml, docs/gguf.md). Nothing of a hostile file is believed before it is checked.

import type { ByteSource } from '../base/byte-source.ts';
import { GgufError, SmallMindError, UnsupportedError, assert } from '../base/errors.ts';
import { Cursor, WindowTooShort } from './cursor.ts';
import { GGUF_LIMITS } from './limits.ts';
import type { GgufLimits } from './limits.ts';
import { METADATA_ENTRY_BYTES_MIN, readMetadata } from './metadata-reader.ts';
import { quote } from './metadata.ts';
import type { Metadata } from './metadata.ts';
import { joinParts } from './split.ts';
import { readTensorInfos, TENSOR_INFO_BYTES_MIN } from './tensor-reader.ts';
import type { TensorInfo } from './tensor-reader.ts';

export type { TensorInfo };

export interface Gguf {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: Metadata;
  /** By name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Where tensor data starts; beyond the end of a file that has no tensors and no padding. */
  readonly dataOffsetBytes: number;
  /** What tensors are read from: the file, or all parts one after the other. */
  readonly source: ByteSource;
}

const FIRST_WINDOW_BYTES = 64 * 1024;

/**
 * Reads metadata and tensor descriptors, of a model that is split those of all its parts. On success it is the source
 * of the result that the caller has to close, else the one that was given.
 * @param limits  replaces single limits of `GGUF_LIMITS`
 * @throws {GgufError} GGUF_TRUNCATED, GGUF_INVALID or GGUF_LIMIT, with source, field and offset in message and details;
 *   GGUF_MISSING for a part that is not there
 * @throws {UnsupportedError} UNSUPPORTED_FEATURE for big-endian files and versions other than 2 and 3
 */
export async function readGguf(source: ByteSource, limits: Partial<GgufLimits> = {}): Promise<Gguf> {
  const allLimits = { ...GGUF_LIMITS, ...limits };
  return joinParts(await readHead(source, allLimits), allLimits, (part) => readHead(part, allLimits));
}

/** Reads one file. */
async function readHead(source: ByteSource, limits: GgufLimits): Promise<Gguf> {
  let window = await widen(source, new Uint8Array(0), FIRST_WINDOW_BYTES);
  // Parsing again from the start keeps the parser synchronous and free of states. The window doubles at least, so all
  // attempts together cost at most twice the last one, and each byte is read from the source once.
  for (;;) {
    try {
      return { ...parseHead(new Cursor(source, window, limits)), source };
    } catch (error) {
      if (!(error instanceof WindowTooShort)) throw error;
      assert(window.length < source.sizeBytes, 'the window is the whole file');
      window = await widen(source, window, Math.max(2 * window.length, error.endBytes));
    }
  }
}

/**
 * The descriptor of tensor `name`.
 * @throws {GgufError} GGUF_MISSING when the file has none of that name
 */
export function getTensor(gguf: Gguf, name: string): TensorInfo {
  const info = gguf.tensors.get(name);
  if (info !== undefined) return info;
  throw new GgufError(
    'GGUF_MISSING',
    `${gguf.source.name}: the file has no tensor "${name}"; convert the model again with a current converter`,
    { source: gguf.source.name, field: name },
  );
}

/**
 * The bytes of a tensor as they stand in the file, `info.sizeBytes` of them, in memory of their own.
 * @throws {SmallMindError} OUT_OF_MEMORY when that much cannot be allocated
 */
export async function readTensorBytes(gguf: Gguf, info: TensorInfo): Promise<Uint8Array<ArrayBuffer>> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(info.sizeBytes);
  } catch (cause) {
    const what = `the ${info.sizeBytes} bytes of tensor ${quote(info.name)}`;
    const message = `${gguf.source.name}: no memory for ${what}; use a smaller model`;
    throw new SmallMindError('OUT_OF_MEMORY', message, { sizeBytes: info.sizeBytes }, { cause });
  }
  await gguf.source.read(info.offsetBytes, bytes);
  return bytes;
}

/** A window of `nBytes` bytes, or the whole file if that is smaller, that starts with those of `window`. */
async function widen(source: ByteSource, window: Uint8Array<ArrayBuffer>, nBytes: number) {
  const wider = new Uint8Array(Math.min(nBytes, source.sizeBytes));
  wider.set(window);
  await source.read(window.length, wider.subarray(window.length));
  return wider;
}

function parseHead(cursor: Cursor): Omit<Gguf, 'source'> {
  readMagic(cursor);
  const version = readVersion(cursor);
  const nTensors = cursor.count('tensor count', 'tensorCount', TENSOR_INFO_BYTES_MIN);
  const nEntries = cursor.count('metadata count', 'metadataCount', METADATA_ENTRY_BYTES_MIN);
  const { metadata, alignment } = readMetadata(cursor, nEntries);
  const { tensors, dataOffsetBytes } = readTensorInfos(cursor, nTensors, alignment);
  return { version, alignment, metadata, tensors, dataOffsetBytes };
}

/** What files that are taken for a GGUF file often are instead, by their first four bytes. */
const OTHER_FILES: Readonly<Record<string, string>> = {
  vers: 'it looks like a Git LFS pointer, fetch the file itself (git lfs pull)',
  '<!DO': 'it looks like a web page, use the download link of the file itself',
  '<!do': 'it looks like a web page, use the download link of the file itself',
  '<htm': 'it looks like a web page, use the download link of the file itself',
  'PK\x03\x04': 'it looks like a zip or PyTorch file, convert it to GGUF',
  tjgg: 'it is in a format before GGUF, download a current version of the model',
};

function readMagic(cursor: Cursor): void {
  if (cursor.sizeBytes === 0) {
    throw cursor.error('GGUF_TRUNCATED', 'magic', 0, 'is missing: the file is empty', { advice: 'download it again' });
  }
  const magic = String.fromCharCode(...cursor.bytes(Math.min(4, cursor.sizeBytes), 'magic'));
  if (!'GGUF'.startsWith(magic)) {
    throw cursor.error('GGUF_INVALID', 'magic', 0, `expected "GGUF", got ${JSON.stringify(magic)}: not a GGUF file`, {
      value: magic,
      advice: OTHER_FILES[magic] ?? 'give a model in GGUF format',
    });
  }
  // Less than four bytes of the magic: let the cursor say what is missing.
  if (magic.length < 4) cursor.u32('version');
}

function readVersion(cursor: Cursor): number {
  const version = cursor.u32('version');
  if (version === 2 || version === 3) return version;
  const refuse = (what: string, advice: string): UnsupportedError => {
    const details = { source: cursor.sourceName, field: 'version', offsetBytes: 4, value: version };
    return new UnsupportedError('UNSUPPORTED_FEATURE', `${cursor.sourceName}: ${what}; ${advice}`, details);
  };
  // A small number with its bytes swapped has its low half empty.
  if (version !== 0 && (version & 0xffff) === 0) {
    throw refuse('is a big-endian GGUF file', 'convert it with llama.cpp: gguf_convert_endian.py FILE little');
  }
  if (version === 0 || version > 0xffff) {
    throw cursor.error('GGUF_INVALID', 'version', 4, `expected 2 or 3, got ${version}`, { value: version });
  }
  const advice = version === 1 ? 'convert the model again with a current converter' : 'update SmallMind';
  throw refuse(`is GGUF version ${version}, versions 2 and 3 work`, advice);
}
