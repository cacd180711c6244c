// The browser half of `#files`: a page has no paths. Files come to it as Blob or by URL.

import type { ByteSource } from './base/byte-source.ts';
import { UnsupportedError } from './base/errors.ts';

/** @throws {UnsupportedError} always */
export async function openFile(path: string): Promise<ByteSource> {
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `a browser cannot open the path "${path}"; give a File, Blob or URL`,
  );
}
