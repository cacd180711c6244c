// A ByteSource over HTTP: reads a file where it lies, by Range requests. Small reads come from blocks, of which the
// last few are kept; a large one is a request of its own and goes straight to its place. Nothing is fetched twice at a
// time.

import { truncatedError } from './byte-source.ts';
import type { ByteSource } from './byte-source.ts';
import { SmallMindError, UnsupportedError } from './errors.ts';

/** Large enough for most of a file's head, small enough that a norm between two matrices costs little. */
const BLOCK_BYTES = 1 << 18;
const KEPT_BLOCKS = 4;

export interface HttpOptions {
  /** Ends all requests: reads then reject with its reason. */
  signal?: AbortSignal;
  /** Bytes of a block. Default 256 KiB. */
  blockBytes?: number;
}

/**
 * Opens an `http:` or `https:` URL. The first request fetches the first block and tells the file's size.
 * @throws {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE for what the server or the network refuses
 * @throws {UnsupportedError} for a server that does not answer Range requests, or hides what it answers
 */
export async function openHttp(url: string, options: HttpOptions = {}): Promise<ByteSource> {
  const { blockBytes = BLOCK_BYTES } = options;
  const requests = new RangeRequests(url, options.signal);
  const { sizeBytes, bytes: first } = await requests.begin(blockBytes);
  const blocks = new BlockCache(async (index) => {
    const startBytes = index * blockBytes;
    const block = new Uint8Array(Math.min(blockBytes, sizeBytes - startBytes));
    await requests.read(startBytes, block);
    return block;
  });
  blocks.put(0, first);
  const source: ByteSource = {
    name: url,
    sizeBytes,
    async read(offsetBytes, target) {
      const endBytes = offsetBytes + target.length;
      if (endBytes > sizeBytes) throw truncatedError(source, 'a read', endBytes);
      if (target.length >= blockBytes) return requests.read(offsetBytes, target);
      for (let at = offsetBytes; at < endBytes;) {
        const index = Math.floor(at / blockBytes);
        const inBlock = at - index * blockBytes;
        const part = (await blocks.get(index)).subarray(inBlock, inBlock + endBytes - at);
        target.set(part, at - offsetBytes);
        at += part.length;
      }
    },
    openSibling: (sibling) => openHttp(sibling, options),
    async close() {
      requests.close();
      blocks.clear();
    },
  };
  return source;
}

/** The blocks that were used last. A block under way is shared by all who wait for it. */
class BlockCache {
  readonly #blocks = new Map<number, Promise<Uint8Array>>();
  readonly #fetchBlock: (index: number) => Promise<Uint8Array>;

  constructor(fetchBlock: (index: number) => Promise<Uint8Array>) {
    this.#fetchBlock = fetchBlock;
  }

  get(index: number): Promise<Uint8Array> {
    const known = this.#blocks.get(index);
    const block = known ?? this.#fetchBlock(index);
    this.#blocks.delete(index);
    this.#blocks.set(index, block);
    // What failed is not kept: another attempt may succeed.
    if (!known) block.catch(() => this.#blocks.get(index) === block && this.#blocks.delete(index));
    if (this.#blocks.size > KEPT_BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value!);
    return block;
  }

  put(index: number, block: Uint8Array): void {
    this.#blocks.set(index, Promise.resolve(block));
  }

  clear(): void {
    this.#blocks.clear();
  }
}

/** Requests for ranges of one file, which has to stay the same. */
class RangeRequests {
  readonly #url: string;
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;
  #sizeBytes: number | undefined;

  constructor(url: string, signal: AbortSignal | undefined) {
    this.#url = url;
    this.#signal = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal;
  }

  /** The first `nBytes` bytes, or all where there are fewer. */
  begin(nBytes: number): Promise<{ sizeBytes: number; bytes: Uint8Array }> {
    return this.#request(0, nBytes, async (response, sizeBytes) => {
      this.#sizeBytes = sizeBytes;
      const bytes = new Uint8Array(Math.min(nBytes, sizeBytes));
      if (sizeBytes > 0) await this.#receive(response, 0, bytes);
      return { sizeBytes, bytes };
    });
  }

  /** Fills `target` with the bytes from `startBytes` on, all of which the file has. */
  read(startBytes: number, target: Uint8Array): Promise<void> {
    return this.#request(startBytes, target.length, async (response, sizeBytes) => {
      if (sizeBytes !== this.#sizeBytes) throw this.#error('changed while it was read; load it again');
      await this.#receive(response, startBytes, target);
    });
  }

  close(): void {
    this.#closing.abort(this.#error('was closed while it was read'));
  }

  async #request<T>(
    startBytes: number,
    nBytes: number,
    use: (response: Response, sizeBytes: number) => Promise<T>,
  ): Promise<T> {
    try {
      const headers = { range: `bytes=${startBytes}-${startBytes + nBytes - 1}` };
      const response = await fetch(this.#url, { headers, signal: this.#signal });
      try {
        return await use(response, this.#sizeOf(response));
      } finally {
        // What was not read to its end is not waited for.
        if (response.body && !response.bodyUsed) await response.body.cancel();
      }
    } catch (cause) {
      this.#signal.throwIfAborted();
      if (cause instanceof SmallMindError) throw cause;
      const { message, cause: deeper } = cause as Error;
      const why = deeper instanceof Error && deeper.message ? `${message}: ${deeper.message}` : message;
      const advice = 'check the address and the connection, and in a page that the server allows it (CORS)';
      throw this.#error(`could not be fetched (${why}); ${advice}`, {}, cause);
    }
  }

  /** The size of the whole file as the answer to a Range request tells it. */
  #sizeOf({ status, statusText, headers }: Response): number {
    const range = /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(headers.get('content-range') ?? '');
    if (range && (status === 206 || (status === 416 && Number(range[1]) === 0))) return Number(range[1]);
    const said = `HTTP ${[status, statusText].join(' ').trim()}`;
    if (status === 404 || status === 410) {
      const message = `${this.#url}: no such file (${said}); check the address`;
      throw new SmallMindError('FILE_NOT_FOUND', message, { url: this.#url, status });
    }
    if (status !== 200 && status !== 206) {
      const isForbidden = status === 401 || status === 403;
      const advice = isForbidden ? 'download it with an account that may, and give the file' : 'try again later';
      throw this.#error(`the server refuses it (${said}); ${advice}`, { status });
    }
    const problem =
      status === 200
        ? 'the server does not answer Range requests'
        : 'the answer does not say how long the file is (Content-Range), or a page may not see it ' +
          '(Access-Control-Expose-Headers)';
    const advice = 'fetch it whole and give that: await (await fetch(url)).blob()';
    const details = { url: this.#url, status };
    throw new UnsupportedError('UNSUPPORTED_FEATURE', `${this.#url}: ${problem}; ${advice}`, details);
  }

  /** Puts the body, which has to be the range from `startBytes` on, where it belongs. A server is not believed. */
  async #receive({ headers, body }: Response, startBytes: number, target: Uint8Array): Promise<void> {
    const asked = `bytes ${startBytes}-${startBytes + target.length - 1}/${this.#sizeBytes}`;
    const got = headers.get('content-range');
    if (got !== asked) throw this.#error(`expected ${asked} of the server, got ${got}; use another one`);
    let nBytes = 0;
    for await (const part of chunksOf(body)) {
      if (nBytes + part.length > target.length)
        throw this.#error(`the server sent more than ${asked}; use another one`);
      target.set(part, nBytes);
      nBytes += part.length;
    }
    if (nBytes < target.length) throw this.#error(`the server sent ${nBytes} bytes of ${asked}; try again`);
  }

  #error(problem: string, details: { status?: number } = {}, cause?: unknown): SmallMindError {
    const message = `${this.#url}: ${problem}`;
    return new SmallMindError('FILE_UNREADABLE', message, { url: this.#url, ...details }, { cause });
  }
}

/** Not every browser iterates over a stream by itself. Ends the stream when the consumer ends early. */
async function* chunksOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (!body) return;
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel();
  }
}
