// Serves the built package and further files to pages on this machine, with the headers that make a page cross-origin
// isolated or without them. No bundler has been at work: pages hold what dist/browser/ is made for.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beginRange } from '../range-server.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
};

const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

export interface PageServerOptions {
  /** Whether pages may share memory between threads. */
  readonly isolated: boolean;
  /** Beside `/dist/`: the start of a URL's path → the file or folder that is meant, e.g. `/model.gguf`, `/wllama/`. */
  readonly files?: Readonly<Record<string, string>>;
  /** Beside `smallmind`: a global variable of the page → the URL of the module that it holds. */
  readonly modules?: Readonly<Record<string, string>>;
}

export interface PageServer {
  /** Of the empty page that holds the modules. */
  readonly url: string;
  close(): void;
}

export async function servePages(options: PageServerOptions): Promise<PageServer> {
  const files = { '/dist/': join(ROOT, 'dist/'), ...options.files };
  const page = pageOf({ smallmind: '/dist/browser/index.js', ...options.modules });
  const server = createServer((request, response) => {
    const { url = '/' } = request;
    for (const [name, value] of Object.entries(options.isolated ? ISOLATION : {})) response.setHeader(name, value);
    if (url === '/') response.setHeader('content-type', 'text/html').end(page);
    else sendFile(request, files, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => closeNow(server) };
}

function pageOf(modules: Readonly<Record<string, string>>): string {
  const lines = Object.entries(modules).map(
    ([name, url]) => `import * as ${name} from '${url}'; globalThis.${name} = ${name};`,
  );
  // Else the browser asks for an icon.
  const head = '<!doctype html><title>SmallMind</title><link rel="icon" href="data:,">';
  return `${head}<script type="module">${lines.join('\n')}</script>`;
}

function sendFile(request: IncomingMessage, files: Readonly<Record<string, string>>, response: ServerResponse): void {
  const { url = '/' } = request;
  const start = Object.keys(files).find((prefix) => url.startsWith(prefix));
  const path = start === undefined ? '' : files[start] + url.slice(start.length);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile()) return void response.writeHead(404).end();
  response.setHeader('content-type', CONTENT_TYPES[extname(path)] ?? 'application/octet-stream');
  const range = beginRange(stat.size, request, response);
  if (range) createReadStream(path, { start: range.start, end: range.end - 1 }).pipe(response);
}

function closeNow(server: Server): void {
  server.close();
  server.closeAllConnections();
}
