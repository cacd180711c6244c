// The browsers that tests run in, as Debian packages them, each without a window and with one page that holds the built
// package as `smallmind`. A test sees no more of them than `evaluate`. One that needs a browser takes
// `needsBrowser(browser)` as its options: without it the test is skipped and says so; in CI it fails.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { servePages } from './page-server.ts';
import type { PageServerOptions } from './page-server.ts';

declare global {
  var smallmind: typeof import('../../src/index.ts');
  /** Where a page is asked to hold it. */
  var smallmindGguf: typeof import('../../src/gguf.ts');
}

export interface BrowserPage extends AsyncDisposable {
  /** Of the browser, e.g. `156.0.8078.108`. */
  readonly version: string;
  /**
   * Calls the function in the page, where it knows nothing of what surrounds it here, and waits for its result.
   * Argument and result are JSON. Not every browser knows `using` yet.
   * @throws {Error} what it throws, with the page's stack
   */
  evaluate<R>(fn: () => R | Promise<R>): Promise<R>;
  evaluate<A, R>(fn: (arg: A) => R | Promise<R>, arg: A): Promise<R>;
}

export interface Browser<P extends BrowserPage = BrowserPage> {
  readonly name: string;
  /** All that must be there for it to start: paths of files. */
  readonly files: readonly string[];
  open(url: string): Promise<P>;
}

const missingOf = ({ files }: Browser): string | undefined => files.find((file) => !existsSync(file));
const remedyOf = ({ name }: Browser, file: string): string =>
  `${name} needs ${file}: npm run browsers, as root on Debian or Ubuntu`;

/** Options for `test()`/`describe()`: skips where the browser is not installed, except in CI, where it then fails. */
export function needsBrowser(browser: Browser): { skip: string | false } {
  const missing = missingOf(browser);
  return { skip: missing === undefined || process.env['CI'] === 'true' ? false : remedyOf(browser, missing) };
}

/** Makes `dist/` what the sources say. @throws {Error} with the compiler's words */
export function buildPackage(): void {
  const script = fileURLToPath(new URL('../../scripts/build.js', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/**
 * Opens a page of the package as it is in `dist/`.
 * @throws {Error} without the browser, saying how to install it
 */
export async function openPage<P extends BrowserPage>(browser: Browser<P>, options: PageServerOptions): Promise<P> {
  const missing = missingOf(browser);
  if (missing !== undefined) throw new Error(remedyOf(browser, missing));
  const server = await servePages(options);
  const page = await browser.open(server.url).catch((error: unknown) => {
    server.close();
    throw error;
  });
  const closeBrowser = page[Symbol.asyncDispose].bind(page);
  page[Symbol.asyncDispose] = async () => {
    await closeBrowser();
    server.close();
  };
  return page;
}
