// A ByteSource over HTTP: reads a file where it lies, by Range requests. Small reads come from blocks, of which the
// last few are kept; a large one is a request of its own and goes straight to its place. Nothing is fetched twice at a
// time. What may be better in a moment is tried again, from where it broke.

import { truncatedError } from './byte-source.ts';
import type { ByteSource } from './byte-source.ts';
import { SmallMindError, UnsupportedError } from './errors.ts';

/** Large enough for most of a file's head, small enough that a norm between two matrices costs little. */
const BLOCK_BYTES = 1 << 18;
const KEPT_BLOCKS = 4;

const TRY_COUNT_MAX = 3;
/** Before the second try; each further one waits twice as long. */
const RETRY_MS = 300;
/** A server that asks to be left alone for longer is not waited for. */
const RETRY_AFTER_MS_MAX = 10_000;
const IDLE_MS_MAX = 30_000;
const isPassing = (status: number): boolean => status === 408 || status === 429 || status >= 500;

export interface HttpOptions {
  /** Ends all requests: reads then reject with its reason. */
  signal?: AbortSignal;
  /** Bytes of a block. Default 256 KiB. */
  blockBytes?: number;
  /** Milliseconds before the second of three tries; before the third, twice as many. Default 300. */
  retryMs?: number;
  /** Milliseconds without a byte after which a try has failed. Default 30 s. */
  idleMsMax?: number;
}

/**
 * Opens an `http:` or `https:` URL. The first request fetches the first block and tells the file's size. Each read is
 * tried three times where the network breaks or the server is busy (408, 429, 5xx, as `Retry-After` says).
 * @throws {SmallMindError} FILE_NOT_FOUND, FILE_UNREADABLE for what the server or the network refuses
 * @throws {UnsupportedError} for a server that does not answer Range requests, or hides what it answers
 */
export async function openHttp(url: string, options: HttpOptions = {}): Promise<ByteSource> {
  const { blockBytes = BLOCK_BYTES } = options;
  const requests = new RangeRequests(url, options);
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
  readonly #retryMs: number;
  readonly #idleMsMax: number;
  #sizeBytes: number | undefined;
  /** What the first answer said of this state of the file. */
  #validators: Validators = {};

  constructor(url: string, { signal, retryMs = RETRY_MS, idleMsMax = IDLE_MS_MAX }: HttpOptions) {
    this.#url = url;
    this.#retryMs = retryMs;
    this.#idleMsMax = idleMsMax;
    this.#signal = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal;
  }

  /** The first `nBytes` bytes, or all where there are fewer. */
  begin(nBytes: number): Promise<{ sizeBytes: number; bytes: Uint8Array }> {
    return this.#persist(() =>
      this.#request(0, nBytes, async (response, sizeBytes, onBytes) => {
        this.#sizeBytes = sizeBytes;
        this.#validators = validatorsOf(response);
        const bytes = new Uint8Array(Math.min(nBytes, sizeBytes));
        if (sizeBytes > 0) await this.#receive(response, { startBytes: 0, target: bytes, nDone: 0 }, onBytes);
        return { sizeBytes, bytes };
      }),
    );
  }

  /** Fills `target` with the bytes from `startBytes` on, all of which the file has. */
  read(startBytes: number, target: Uint8Array): Promise<void> {
    const transfer: Transfer = { startBytes, target, nDone: 0 };
    return this.#persist(() =>
      this.#request(startBytes + transfer.nDone, target.length - transfer.nDone, async (response, size, onBytes) => {
        if (size !== this.#sizeBytes || isOther(this.#validators, validatorsOf(response)))
          throw this.#error('changed while it was read; load it again');
        await this.#receive(response, transfer, onBytes);
      }),
    );
  }

  close(): void {
    this.#closing.abort(this.#error('was closed while it was read'));
  }

  /** Tries again what may be better in a moment. */
  async #persist<T>(attempt: () => Promise<T>): Promise<T> {
    for (let nTries = 1; ; nTries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof Setback)) throw error;
        const { afterMs = this.#retryMs * 2 ** (nTries - 1) } = error;
        if (nTries === TRY_COUNT_MAX || afterMs > RETRY_AFTER_MS_MAX) throw error.error;
        await wait(afterMs, this.#signal);
      }
    }
  }

  /** @throws {Setback} for what is worth another try */
  async #request<T>(
    startBytes: number,
    nBytes: number,
    use: (response: Response, sizeBytes: number, onBytes: () => void) => Promise<T>,
  ): Promise<T> {
    const idle = new Deadline(this.#idleMsMax);
    try {
      const headers = { range: `bytes=${startBytes}-${startBytes + nBytes - 1}` };
      const response = await fetch(this.#url, { headers, signal: AbortSignal.any([this.#signal, idle.signal]) });
      try {
        return await use(response, this.#sizeOf(response), () => idle.postpone());
      } finally {
        // What was not read to its end is not waited for.
        if (response.body && !response.bodyUsed) await response.body.cancel();
      }
    } catch (cause) {
      this.#signal.throwIfAborted();
      if (cause instanceof SmallMindError || cause instanceof Setback) throw cause;
      const { message, cause: deeper } = cause as Error;
      const why = deeper instanceof Error && deeper.message ? `${message}: ${deeper.message}` : message;
      const advice = 'check the address and the connection, and in a page that the server allows it (CORS)';
      throw new Setback(this.#error(`could not be fetched (${why}); ${advice}`, {}, cause));
    } finally {
      idle.end();
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
      const error = this.#error(`the server refuses it (${said}); ${advice}`, { status });
      throw isPassing(status) ? new Setback(error, retryAfterMs(headers)) : error;
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

  /** Puts the body, which has to be the rest of the transfer, where it belongs. A server is not believed. */
  async #receive({ headers, body }: Response, transfer: Transfer, onBytes: () => void): Promise<void> {
    const { startBytes, target, nDone } = transfer;
    const asked = `bytes ${startBytes + nDone}-${startBytes + target.length - 1}/${this.#sizeBytes}`;
    const got = headers.get('content-range');
    if (got !== asked) throw this.#error(`expected ${asked} of the server, got ${got}; use another one`);
    for await (const part of chunksOf(body)) {
      onBytes();
      if (transfer.nDone + part.length > target.length)
        throw this.#error(`the server sent more than ${asked}; use another one`);
      target.set(part, transfer.nDone);
      transfer.nDone += part.length;
    }
    const nBytes = transfer.nDone - nDone;
    if (transfer.nDone < target.length) throw this.#error(`the server sent ${nBytes} bytes of ${asked}; try again`);
  }

  #error(problem: string, details: { status?: number } = {}, cause?: unknown): SmallMindError {
    const message = `${this.#url}: ${problem}`;
    return new SmallMindError('FILE_UNREADABLE', message, { url: this.#url, ...details }, { cause });
  }
}

/** Bytes on their way: those from `startBytes` of the file on, of which `nDone` are there. */
interface Transfer {
  readonly startBytes: number;
  readonly target: Uint8Array;
  nDone: number;
}

/** What failed and may be better in a moment: the error if it does not, and when the server wants to be asked again. */
class Setback {
  readonly error: SmallMindError;
  readonly afterMs: number | undefined;

  constructor(error: SmallMindError, afterMs?: number) {
    this.error = error;
    this.afterMs = afterMs;
  }
}

/** What tells one state of a file from another, as far as the server says it and a page may see it. */
interface Validators {
  readonly etag?: string;
  readonly lastModified?: string;
}

/** Without a weak tag, which may differ between servers that hold the same bytes. */
function validatorsOf({ headers }: Response): Validators {
  const etag = headers.get('etag') ?? undefined;
  return { etag: etag?.startsWith('W/') ? undefined : etag, lastModified: headers.get('last-modified') ?? undefined };
}

function isOther(known: Validators, now: Validators): boolean {
  if (known.etag !== undefined && now.etag !== undefined) return known.etag !== now.etag;
  const [before, after] = [known.lastModified, now.lastModified];
  return before !== undefined && after !== undefined && before !== after;
}

/** In seconds or as a date, as RFC 9110 says. */
function retryAfterMs(headers: Headers): number | undefined {
  const value = headers.get('retry-after');
  if (value === null) return undefined;
  const afterMs = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(afterMs) ? undefined : Math.max(0, afterMs);
}

/** Aborts its signal when nothing has postponed it for so long. */
class Deadline {
  readonly #abort = new AbortController();
  readonly #ms: number;
  #timer: ReturnType<typeof setTimeout>;

  constructor(ms: number) {
    this.#ms = ms;
    this.#timer = this.#start();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  postpone(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#start();
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #start(): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.#abort.abort(new Error(`no byte came for ${this.#ms / 1000} s`)), this.#ms);
  }
}

/** @throws the signal's reason, at once */
async function wait(ms: number, signal: AbortSignal): Promise<void> {
  let end = (): void => {};
  const aborted = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    end = () => {
      clearTimeout(timer);
      resolve();
    };
    signal.addEventListener('abort', end, { once: true });
  });
  if (!signal.aborted) await aborted;
  end();
  signal.removeEventListener('abort', end);
  signal.throwIfAborted();
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
