// From what users give as a model's source to a ByteSource, here or in the worker.

import { openFile } from '#files';
import { blobSource, memorySource } from './base/byte-source.ts';
import type { ByteSource } from './base/byte-source.ts';
import { describeValue } from './base/describe-value.ts';
import { OptionError, UnsupportedError } from './base/errors.ts';
import { openHttp } from './base/http-source.ts';
import { SourceLender } from './lent-source.ts';
import type { LentSource } from './lent-source.ts';
import type { ModelSource } from './options.ts';
import type { PostedSource } from './worker-protocol.ts';

const isByteSource = (source: unknown): source is ByteSource =>
  typeof source === 'object' &&
  source !== null &&
  'read' in source &&
  typeof source.read === 'function' &&
  'sizeBytes' in source;

/** A source in a form that can be posted, and who lends it where it has to stay in this thread. */
export interface DescribedSource {
  readonly posted: PostedSource;
  readonly lender?: SourceLender;
}

/**
 * @param signal  ends the reads of a ByteSource
 * @throws {OptionError} for what is no source, {UnsupportedError} for a URL that is neither of a file nor of a server
 */
export function describeSource(source: ModelSource, signal?: AbortSignal): DescribedSource {
  if (!isByteSource(source)) return { posted: describeValueSource(source) };
  const lender = new SourceLender(abortable(source, signal));
  return { posted: { kind: 'lent', lent: lender.first }, lender };
}

function describeValueSource(source: Exclude<ModelSource, ByteSource>): PostedSource {
  if (typeof source === 'string' || source instanceof URL) return describeLocation(String(source));
  if (source instanceof Uint8Array) return { kind: 'bytes', bytes: source, name: 'memory' };
  if (source instanceof ArrayBuffer) return { kind: 'bytes', bytes: new Uint8Array(source), name: 'memory' };
  if (typeof Blob !== 'undefined' && source instanceof Blob) {
    return { kind: 'blob', blob: source, name: 'name' in source ? String(source.name) : 'blob' };
  }
  const expected = 'a path, a URL, a Blob, an ArrayBuffer or a ByteSource';
  throw new OptionError(`"source" expected ${expected}, got ${describeValue(source)}`, { option: 'source' });
}

/** A source whose reads end when `signal` aborts, even one that its own source would never end. */
function abortable(source: ByteSource, signal: AbortSignal | undefined): ByteSource {
  if (!signal) return source;
  const { name, sizeBytes } = source;
  const openSibling = async (sibling: string): Promise<ByteSource> => {
    signal.throwIfAborted();
    const opening = source.openSibling!(sibling);
    try {
      return abortable(await endBy(signal, opening), signal);
    } catch (error) {
      // Nobody waits for what opens after that.
      void opening.then(
        (opened) => opened.close(),
        () => {},
      );
      throw error;
    }
  };
  return {
    name,
    sizeBytes,
    async read(offsetBytes, target) {
      signal.throwIfAborted();
      await endBy(signal, source.read(offsetBytes, target));
    },
    ...(source.openSibling ? { openSibling } : {}),
    close: () => source.close(),
  };
}

async function endBy<T>(signal: AbortSignal, task: Promise<T>): Promise<T> {
  let abort!: () => void;
  const aborted = new Promise<never>((_, reject) => (abort = () => reject(signal.reason)));
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([task, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function describeLocation(location: string): PostedSource {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(location)?.[1]?.toLowerCase();
  if (scheme === undefined || scheme === 'file') return { kind: 'file', path: location };
  if (scheme === 'http' || scheme === 'https') return { kind: 'http', url: location };
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `"source": ${scheme}: URLs are not read; fetch it and give the bytes, e.g. await (await fetch(url)).arrayBuffer()`,
  );
}

/**
 * @param borrow  makes a source of one that is lent; within a thread nothing is
 * @param signal  ends what may take long: requests
 */
export async function openSource(
  source: PostedSource,
  borrow: ((lent: LentSource) => ByteSource) | undefined,
  signal?: AbortSignal,
): Promise<ByteSource> {
  switch (source.kind) {
    case 'file':
      return openFile(source.path);
    case 'http':
      return openHttp(source.url, { signal });
    case 'bytes':
      return memorySource(source.bytes, source.name);
    case 'blob':
      return blobSource(source.blob, source.name);
    case 'lent':
      return borrow!(source.lent);
  }
}

/** Opens a source in this thread. @throws as `describeSource` and opening do, or the signal's reason */
export async function openHere(source: ModelSource, signal?: AbortSignal): Promise<ByteSource> {
  if (isByteSource(source)) {
    if (signal?.aborted) await source.close();
    signal?.throwIfAborted();
    return abortable(source, signal);
  }
  const posted = describeValueSource(source);
  signal?.throwIfAborted();
  return openSource(posted, undefined, signal);
}
