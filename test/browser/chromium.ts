// Chromium without a window, as Debian packages it, with one page that holds the built package as `smallmind`. A test
// that needs it takes `needsChromium()` as its options: without it the test is skipped and says so; in CI it fails.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import type { Page } from 'playwright-core';
import { servePages } from './page-server.ts';
import type { PageServerOptions } from './page-server.ts';

declare global {
  var smallmind: typeof import('../../src/index.ts');
  /** Where a page is asked to hold it. */
  var smallmindGguf: typeof import('../../src/gguf.ts');
}

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-component-update', '--disable-sync'];

const REMEDY = `needs Chromium at ${CHROMIUM} (or CHROMIUM): npm run chromium, as root on Debian or Ubuntu`;

/** Options for `test()`/`describe()`: skips where Chromium is not installed, except in CI, where it then fails. */
export function needsChromium(): { skip: string | false } {
  return { skip: existsSync(CHROMIUM) || process.env['CI'] === 'true' ? false : REMEDY };
}

export interface ChromiumPage extends AsyncDisposable {
  readonly page: Page;
  /** Of Chromium, e.g. `156.0.8078.108`. */
  readonly version: string;
}

/** Makes `dist/` what the sources say. @throws {Error} with the compiler's words */
export function buildPackage(): void {
  const script = fileURLToPath(new URL('../../scripts/build.js', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/**
 * Opens a page of the package as it is in `dist/`. Errors in the page's console are printed.
 * @throws {Error} without Chromium, saying how to install it
 */
export async function openPage(options: PageServerOptions): Promise<ChromiumPage> {
  if (!existsSync(CHROMIUM)) throw new Error(REMEDY);
  const server = await servePages(options);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  const page = await browser.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') console.error(`[page] ${message.text()}`);
  });
  page.on('pageerror', (error) => console.error('[page]', error));
  await page.goto(server.url);
  return {
    page,
    version: browser.version(),
    async [Symbol.asyncDispose]() {
      await browser.close();
      server.close();
    },
  };
}
