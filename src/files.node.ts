// The Node half of `#files` (also Bun and Deno): opens files by path.

import { open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { truncatedError } from './base/byte-source.ts';
import type { ByteSource } from './base/byte-source.ts';
import { SmallMindError } from './base/errors.ts';

/**
 * Opens a path or `file:` URL.
 * @throws {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE
 */
export async function openFile(location: string): Promise<ByteSource> {
  const path = location.startsWith('file:') ? fileURLToPath(location) : location;
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw openError(path, error);
  });
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    const kind = stat.isDirectory() ? 'a directory' : 'not a regular file';
    throw new SmallMindError('FILE_UNREADABLE', `${path} is ${kind}; give the path of a .gguf file`, { path });
  }
  const source: ByteSource = {
    name: path,
    sizeBytes: stat.size,
    async read(offsetBytes, target) {
      for (let done = 0; done < target.length;) {
        const { bytesRead } = await handle.read(target, done, target.length - done, offsetBytes + done);
        if (bytesRead === 0) throw truncatedError(source, 'a read', offsetBytes + target.length);
        done += bytesRead;
      }
    },
    openSibling: openFile,
    close: () => handle.close(),
  };
  return source;
}

function openError(path: string, error: NodeJS.ErrnoException): SmallMindError {
  const details = { path };
  if (error.code === 'ENOENT') {
    return new SmallMindError('FILE_NOT_FOUND', `${path}: no such file; check the path`, details, { cause: error });
  }
  if (error.code === 'EACCES' || error.code === 'EPERM') {
    return new SmallMindError('FILE_UNREADABLE', `${path}: permission denied`, details, { cause: error });
  }
  return new SmallMindError('FILE_UNREADABLE', `${path}: ${error.message}`, details, { cause: error });
}
