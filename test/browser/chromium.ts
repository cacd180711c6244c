// Chromium, driven by Playwright over its own protocol. Errors in the page's console are printed.

import { chromium as playwright } from 'playwright-core';
import type { Page } from 'playwright-core';
import type { Browser, BrowserPage } from './browsers.ts';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-component-update', '--disable-sync'];

export interface ChromiumPage extends BrowserPage {
  readonly page: Page;
}

export const chromium: Browser<ChromiumPage> = { name: 'Chromium', files: [CHROMIUM], open };

async function open(url: string): Promise<ChromiumPage> {
  const browser = await playwright.launch({ executablePath: CHROMIUM, args: FLAGS });
  const page = await browser.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') console.error(`[page] ${message.text()}`);
  });
  page.on('pageerror', (error) => console.error('[page]', error));
  await page.goto(url);
  return {
    page,
    version: browser.version(),
    evaluate: page.evaluate.bind(page) as BrowserPage['evaluate'],
    [Symbol.asyncDispose]: () => browser.close(),
  };
}
