// Whole files in and out, with errors that say what to do. Writing is atomic: the bytes go to a neighbour that takes
// the file's place once it is complete and on the disk, so that a failure leaves what was there before.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ByteSource } from '../index.ts';

const READ_REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file; check the path',
  EISDIR: 'this is a folder; name a file in it',
  EACCES: 'permission denied',
};

const WRITE_REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on the device; free some',
  EDQUOT: 'the disk quota is used up; free some space',
  EACCES: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOENT: 'the folder does not exist; make it first',
  EISDIR: 'this is a folder; give the name of a file',
  EEXIST: 'this is no folder; give the name of one',
  ENOTDIR: 'a part of the path is no folder',
};

/** A file that could not be read or written; `code` is the operating system's. */
export class FileError extends Error {
  readonly code: string;

  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.code = (cause as NodeJS.ErrnoException).code ?? 'EIO';
  }
}

export function writeError(path: string, cause: unknown): FileError {
  const { code = '', message } = cause as NodeJS.ErrnoException;
  return new FileError(`${path} could not be written: ${WRITE_REASONS[code] ?? message}`, cause);
}

export function readError(path: string, cause: unknown): FileError {
  const { code = '', message } = cause as NodeJS.ErrnoException;
  return new FileError(`${path}: ${READ_REASONS[code] ?? message}`, cause);
}

/** @throws {FileError} */
export async function readBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await readFile(path);
  } catch (error) {
    throw readError(path, error);
  }
}

/** Of a file in UTF-8. @throws {FileError} */
export async function readText(path: string): Promise<string> {
  return new TextDecoder().decode(await readBytes(path));
}

/**
 * Makes `bytes` the whole content of the file; it is safe on the disk on return.
 * @throws {FileError} the file is then as it was
 */
export function writeFileAtomic(path: string, bytes: Uint8Array | string): void {
  const temporary = `${path}.tmp`;
  const content = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes;
  try {
    const file = openSync(temporary, 'w');
    try {
      for (let done = 0; done < content.length;) done += writeSync(file, content, done);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (error) {
    // A device such as /dev/full cannot have a neighbour, which is why this may fail as well.
    rmSync(temporary, { force: true });
    throw writeError(path, error);
  }
}

/**
 * Writes all of a source to a file, part by part: for scratch files, which need not be whole or not there at all.
 * @throws {FileError}, or the signal's reason
 */
export async function writeSource(source: ByteSource, path: string, signal?: AbortSignal): Promise<void> {
  const chunk = new Uint8Array(Math.min(source.sizeBytes, 16 << 20));
  let file: number | undefined;
  try {
    file = openSync(path, 'w');
    for (let at = 0; at < source.sizeBytes; at += chunk.length) {
      signal?.throwIfAborted();
      const part = chunk.subarray(0, Math.min(chunk.length, source.sizeBytes - at));
      await source.read(at, part);
      for (let done = 0; done < part.length;) done += writeSync(file, part, done);
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw writeError(path, error);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Makes the renaming last. Not every system lets a folder be opened. */
function syncFolder(path: string): void {
  if (process.platform === 'win32') return;
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
