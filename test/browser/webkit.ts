// WebKitGTK: its small browser on a display of its own that nobody sees, driven by W3C WebDriver over HTTP, of which
// this is as much as is needed here. It has no relaxed SIMD. Unlike Safari it shares no memory, isolated or not, unless
// it is told to.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { Readable } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import type { Browser, BrowserPage } from './browsers.ts';

const SCRIPT_MS_MAX = 120_000;

const XVFB = '/usr/bin/Xvfb';
const DRIVER = '/usr/bin/WebKitWebDriver';
const MINI_BROWSER =
  globSync('/usr/lib/*/webkit2gtk-4.1/MiniBrowser')[0] ?? '/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser';
const FILES = [XVFB, DRIVER, MINI_BROWSER];

export const webkit: Browser = { name: 'WebKitGTK', files: FILES, open: (url) => open(url, {}) };

/** As Safari is. */
export const webkitSharing: Browser = {
  name: 'WebKitGTK with shared memory',
  files: FILES,
  open: (url) => open(url, { JSC_useSharedArrayBuffer: '1' }),
};

async function open(url: string, environment: Readonly<Record<string, string>>): Promise<BrowserPage> {
  const { display, xvfb } = await startDisplay();
  const port = await freePort();
  const env = { ...process.env, ...environment, DISPLAY: display };
  const driver = spawn(DRIVER, [`--port=${port}`], { stdio: ['ignore', 'ignore', 'inherit'], env });
  const stop = (): void => [driver, xvfb].forEach((process) => process.kill());
  try {
    const session = await startSession(`http://127.0.0.1:${port}`);
    await session.send('POST', '/timeouts', { script: SCRIPT_MS_MAX });
    await goTo(url, session);
    return {
      version: session.version,
      evaluate: (fn: unknown, arg?: unknown) => evaluate(session, String(fn), arg) as Promise<never>,
      async [Symbol.asyncDispose]() {
        await session.send('DELETE', '');
        stop();
      },
    };
  } catch (error) {
    stop();
    throw error;
  }
}

/** The driver may take the end of the empty first page's loading for that of the wanted one. */
async function goTo(url: string, { send }: Session): Promise<void> {
  await send('POST', '/url', { url });
  const script = 'return document.readyState + location.href';
  await until(
    `${url} to load`,
    async () => (await send('POST', '/execute/sync', { script, args: [] })) === `complete${url}`,
  );
}

/** Runs a function in the page. A promise that is rejected says nothing over WebDriver, so its error is a value. */
async function evaluate({ send }: Session, fn: string, arg: unknown): Promise<unknown> {
  const script = `const [arg, done] = arguments;
    (async () => (${fn})(arg))().then((value) => done({ value }), (error) => done({ error: error + '\\n' + error.stack }));`;
  const { value, error } = (await send('POST', '/execute/async', { script, args: [arg ?? null] })) as {
    value?: unknown;
    error?: string;
  };
  if (error !== undefined) throw new Error(`in the page: ${error}`);
  return value;
}

interface Session {
  readonly version: string;
  send(method: string, path: string, body?: object): Promise<unknown>;
}

async function startSession(address: string): Promise<Session> {
  await until('WebKitWebDriver', () => isReady(address));
  const browserOptions = { binary: MINI_BROWSER, args: ['--automation'] };
  const { sessionId, capabilities } = (await request(address, 'POST', '/session', {
    capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': browserOptions } },
  })) as { sessionId: string; capabilities: { browserVersion: string } };
  return {
    version: capabilities.browserVersion,
    send: (method, path, body) => request(`${address}/session/${sessionId}`, method, path, body),
  };
}

async function isReady(address: string): Promise<boolean> {
  const status = (await request(address, 'GET', '/status').catch(() => ({}))) as { ready?: boolean };
  return status.ready === true;
}

/** @throws {Error} with the driver's words, e.g. `no such element` */
async function request(address: string, method: string, path: string, body?: object): Promise<unknown> {
  const response = await fetch(address + path, { method, body: body === undefined ? null : JSON.stringify(body) });
  const { value } = (await response.json()) as { value: { error?: string; message?: string } | null };
  if (!response.ok) throw new Error(`WebKitWebDriver ${method} ${path}: ${value?.error}: ${value?.message}`);
  return value;
}

/** Of all displays it takes the first that is free, and says which. */
async function startDisplay(): Promise<{ display: string; xvfb: ChildProcess }> {
  const xvfb = spawn(XVFB, ['-displayfd', '3', '-nolisten', 'tcp'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
  const [number] = (await once(xvfb.stdio[3] as Readable, 'data')) as [Buffer];
  return { display: `:${String(number).trim()}`, xvfb };
}

/** @throws {Error} after ten seconds */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    if (tries === 200) throw new Error(`waited too long for ${what}`);
    await setTimeout(50);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
