// From what users give as a model's source to a ByteSource, here or in the worker.

import { platform } from '#platform';
import { blobSource, memorySource } from './base/byte-source.ts';
import type { ByteSource } from './base/byte-source.ts';
import { describeValue } from './base/describe-value.ts';
import { OptionError, UnsupportedError } from './base/errors.ts';
import type { ModelSource } from './options.ts';
import type { PostedSource } from './worker-protocol.ts';

const isByteSource = (source: object): source is ByteSource =>
  'read' in source && typeof source.read === 'function' && 'sizeBytes' in source;

/**
 * The source in a form that can be posted.
 * @throws {OptionError} for what is no source, {UnsupportedError} for a URL that cannot be read yet
 */
export function describeSource(source: ModelSource): PostedSource {
  if (typeof source === 'string' || source instanceof URL) return describeLocation(String(source));
  if (source instanceof Uint8Array) return { kind: 'bytes', bytes: source, name: 'memory' };
  if (source instanceof ArrayBuffer) return { kind: 'bytes', bytes: new Uint8Array(source), name: 'memory' };
  if (typeof Blob !== 'undefined' && source instanceof Blob) {
    return { kind: 'blob', blob: source, name: 'name' in source ? String(source.name) : 'blob' };
  }
  if (typeof source === 'object' && source !== null && isByteSource(source)) {
    return { kind: 'remote', name: source.name, sizeBytes: source.sizeBytes };
  }
  const expected = 'a path, a file: URL, a Blob, an ArrayBuffer or a ByteSource';
  throw new OptionError(`"source" expected ${expected}, got ${describeValue(source)}`, { option: 'source' });
}

/** A source whose reads end when `signal` aborts, even one that its own source would never end. */
export function abortable(source: ByteSource, signal: AbortSignal | undefined): ByteSource {
  if (!signal) return source;
  return {
    name: source.name,
    sizeBytes: source.sizeBytes,
    read: (offsetBytes, target) =>
      new Promise((resolve, reject) => {
        signal.throwIfAborted();
        const abort = (): void => reject(signal.reason);
        signal.addEventListener('abort', abort, { once: true });
        const done = source.read(offsetBytes, target);
        void done.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
      }),
    close: () => source.close(),
  };
}

function describeLocation(location: string): PostedSource {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(location)?.[1]?.toLowerCase();
  if (scheme === undefined || scheme === 'file') return { kind: 'file', path: location };
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `"source": ${scheme}: URLs are not read yet; fetch it and give the bytes, e.g. await (await fetch(url)).arrayBuffer()`,
  );
}

/** @param remote  reads a source of kind `remote` */
export async function openSource(source: PostedSource, remote: ByteSource | undefined): Promise<ByteSource> {
  switch (source.kind) {
    case 'file':
      return platform.openFile(source.path);
    case 'bytes':
      return memorySource(source.bytes, source.name);
    case 'blob':
      return blobSource(source.blob, source.name);
    case 'remote':
      return remote!;
  }
}
