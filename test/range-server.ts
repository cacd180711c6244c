// A web server on this machine that serves bytes and answers Range requests, and notes what it was asked for.

import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface RangeServer extends AsyncDisposable {
  /** Ends in a slash. */
  readonly url: string;
  /** The `Range` of each request so far, in their order; empty where there was none. */
  readonly ranges: string[];
}

type Respond = (request: IncomingMessage, response: ServerResponse) => void;

/** @param files  what is served, by path (`/model.gguf`): bytes, or what answers in their place */
export async function serveRanges(files: Readonly<Record<string, Uint8Array | Respond>>): Promise<RangeServer> {
  const ranges: string[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range ?? '');
    const file = files[request.url!.split('?')[0]!];
    if (file === undefined) response.writeHead(404).end();
    else if (typeof file === 'function') file(request, response);
    else sendRange(file, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    ranges,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers a request for a range with that, any other with all bytes. */
export function sendRange(bytes: Uint8Array, request: IncomingMessage, response: ServerResponse): void {
  const range = beginRange(bytes.length, request, response);
  if (range) response.end(bytes.subarray(range.start, range.end));
}

/**
 * Sends the head of the answer, as RFC 9110 says, for a file of `sizeBytes` bytes.
 * @returns the bytes that have to follow; undefined where there are none and the answer has ended
 */
export function beginRange(
  sizeBytes: number,
  { headers }: IncomingMessage,
  response: ServerResponse,
): { start: number; end: number } | undefined {
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '');
  const start = Number(range?.[1] ?? 0);
  const end = Math.min(sizeBytes, Number(range?.[2] ?? sizeBytes) + (range ? 1 : 0));
  if (range && start >= end) response.writeHead(416, { 'content-range': `bytes */${sizeBytes}` });
  else if (range) response.writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/${sizeBytes}` });
  else response.setHeader('content-length', sizeBytes);
  if (start < end) return { start, end };
  response.end();
  return undefined;
}
