// A ByteSource is anything random-access that a model can be read from: a file, memory, a Blob, a URL (http-source.ts).
// Readers ask for what they need; nobody reads a whole file by accident.

import { GgufError } from './errors.ts';

/** Bytes that can be read at any place: implement it to load models from where you like. */
export interface ByteSource {
  /** For messages: a path, a URL, or `memory`. */
  readonly name: string;
  /** Of all bytes. */
  readonly sizeBytes: number;
  /**
   * Reads `target.length` bytes from `offsetBytes` into `target` (which may view shared memory). A few reads may be
   * under way at the same time.
   * @throws {GgufError} GGUF_TRUNCATED when the source ends before.
   */
  read(offsetBytes: number, target: Uint8Array): Promise<void>;
  /**
   * Opens what has another name in the same place: a file by its path, a URL. Only models that are split over files
   * need it; `name` is then that of this source but for the number of the part. Closed like this source.
   * @throws {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE
   */
  openSibling?(name: string): Promise<ByteSource>;
  /** Reads that are still under way then may fail: nobody waits for them. */
  close(): Promise<void>;
}

/** The error for a source that ends before what is needed does. */
export function truncatedError(
  source: Pick<ByteSource, 'name' | 'sizeBytes'>,
  what: string,
  endBytes: number,
): GgufError {
  return new GgufError(
    'GGUF_TRUNCATED',
    `${source.name}: ${what} needs ${endBytes} bytes, the file has ${source.sizeBytes}; it is cut off, download or copy it again`,
    { neededBytes: endBytes, sizeBytes: source.sizeBytes },
  );
}

/** A source over bytes in memory; the bytes are not copied. */
export function memorySource(bytes: ArrayBuffer | Uint8Array, name = 'memory'): ByteSource {
  const all = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const source: ByteSource = {
    name,
    sizeBytes: all.length,
    async read(offsetBytes, target) {
      const endBytes = offsetBytes + target.length;
      if (endBytes > all.length) throw truncatedError(source, 'a read', endBytes);
      target.set(all.subarray(offsetBytes, endBytes));
    },
    async close() {},
  };
  return source;
}

/** A source over a Blob or File, read slice by slice. */
export function blobSource(blob: Blob, name: string): ByteSource {
  const source: ByteSource = {
    name,
    sizeBytes: blob.size,
    async read(offsetBytes, target) {
      const endBytes = offsetBytes + target.length;
      if (endBytes > blob.size) throw truncatedError(source, 'a read', endBytes);
      target.set(new Uint8Array(await blob.slice(offsetBytes, endBytes).arrayBuffer()));
    },
    async close() {},
  };
  return source;
}
