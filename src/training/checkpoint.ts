// The checkpoint: everything that a run needs to go on exactly where it was, or a model to be exported, as the bytes of
// one file. A head in JSON, the flat arrays of the training state, and a checksum over all of it. Knows no files.
//
//   8 bytes  "SMALLCKP"      u32  version        u32  bytes of the head, a multiple of 16
//   head     JSON in UTF-8, filled up with spaces
//   arrays   parameters, moment1, moment2: little-endian f32, `nElements` each
//   u32      CRC-32 of everything before

import { SmallMindError } from '../base/errors.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import type { Vocabulary } from '../tokenizer/vocabulary.ts';
import type { DataLoaderState } from './data.ts';
import type { ResolvedTrainingOptions } from './options.ts';

const MAGIC = 'SMALLCKP';
const VERSION = 1;
const PREFIX_BYTES = 16;
const CHECKSUM_BYTES = 4;

/** The flat arrays of a trainer's state, in the order of the file. */
export const STATE_ARRAYS = ['parameters', 'moment1', 'moment2'] as const;

export type StateArrays = Readonly<Record<(typeof STATE_ARRAYS)[number], Float32Array>>;

/** What a checkpoint holds besides the arrays; plain data. */
export interface CheckpointHead {
  /** Of the run. */
  readonly options: ResolvedTrainingOptions;
  /** The model's sizes. */
  readonly config: TransformerConfig;
  /** @internal */
  readonly vocabulary: Vocabulary;
  /** Steps taken. */
  readonly step: number;
  /** Of the best evaluation so far; null before the first. */
  readonly bestValidationLoss: number | null;
  /** @internal */
  readonly loader: DataLoaderState;
  /** CRC-32 of the token ids, to tell other data apart. @internal */
  readonly dataChecksum: number;
}

/** A run after a step, or a model to be exported. `encodeCheckpoint` makes bytes of it. */
export interface Checkpoint extends CheckpointHead {
  /** @internal */
  readonly arrays: StateArrays;
}

/** The bytes of a checkpoint file, with a version and a checksum. */
export function encodeCheckpoint({ arrays, ...head }: Checkpoint): Uint8Array<ArrayBuffer> {
  const nElements = arrays.parameters.length;
  // Vocabularies may hold typed arrays, which JSON would write as objects.
  const json = JSON.stringify({ ...head, nElements }, (_, value: unknown) =>
    ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : value,
  );
  const text = new TextEncoder().encode(json);
  const headBytes = Math.ceil(text.length / 16) * 16;
  const arrayBytes = 4 * nElements;
  const bytes = new Uint8Array(PREFIX_BYTES + headBytes + STATE_ARRAYS.length * arrayBytes + CHECKSUM_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, VERSION, true);
  view.setUint32(12, headBytes, true);
  bytes.fill(0x20, PREFIX_BYTES, PREFIX_BYTES + headBytes);
  bytes.set(text, PREFIX_BYTES);
  STATE_ARRAYS.forEach((name, i) => {
    new Float32Array(bytes.buffer, PREFIX_BYTES + headBytes + i * arrayBytes, nElements).set(arrays[name]);
  });
  const end = bytes.length - CHECKSUM_BYTES;
  view.setUint32(end, crc32(bytes.subarray(0, end)), true);
  return bytes;
}

/**
 * Reads a checkpoint file. Its arrays are copies.
 * @param name  of the file, for messages
 * @throws {SmallMindError} FILE_UNREADABLE for what is no checkpoint, is cut off, damaged or of a newer version
 */
export function decodeCheckpoint(bytes: Uint8Array, name: string): Checkpoint {
  const refuse = (problem: string): never => {
    throw new SmallMindError('FILE_UNREADABLE', `${name}: ${problem}`, { path: name });
  };
  const isCheckpoint = new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) === MAGIC;
  if (!isCheckpoint) refuse('this is not a SmallMind checkpoint; give a file that "smallmind train" wrote');
  if (bytes.length < PREFIX_BYTES + CHECKSUM_BYTES) refuse('the checkpoint is cut off; use an earlier one');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = view.getUint32(8, true);
  if (version !== VERSION) {
    refuse(
      `this is a checkpoint of version ${version}, this SmallMind reads version ${VERSION}; use the one it is from`,
    );
  }
  const end = bytes.length - CHECKSUM_BYTES;
  if (crc32(bytes.subarray(0, end)) !== view.getUint32(end, true)) {
    refuse('the checksum is wrong: the checkpoint is damaged or cut off; use an earlier one');
  }
  // The checksum vouches for what follows.
  const start = PREFIX_BYTES + view.getUint32(12, true);
  const json = new TextDecoder().decode(bytes.subarray(PREFIX_BYTES, start));
  const { nElements, ...head } = JSON.parse(json) as CheckpointHead & { nElements: number };
  if (end !== start + STATE_ARRAYS.length * 4 * nElements) refuse('the checkpoint is damaged; use an earlier one');
  const arrayOf = (i: number): Float32Array => {
    const at = start + 4 * nElements * i;
    // Not `bytes.slice`, which is a view where the bytes are a Buffer.
    return new Float32Array(Uint8Array.from(bytes.subarray(at, at + 4 * nElements)).buffer);
  };
  return { ...head, arrays: { parameters: arrayOf(0), moment1: arrayOf(1), moment2: arrayOf(2) } };
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

/** CRC-32 as in zlib and PNG: 0..2^32 - 1. */
export function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
}
