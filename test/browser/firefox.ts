// Firefox, driven by Puppeteer over WebDriver BiDi, which Debian's own build speaks.

import { setTimeout } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';
import type { Browser, BrowserPage } from './browsers.ts';

const FIREFOX = process.env['FIREFOX'] ?? '/usr/bin/firefox-esr';

/** A page of which a worker hangs keeps it from ending. */
const CLOSING_MS_MAX = 5000;

export const firefox: Browser = { name: 'Firefox', files: [FIREFOX], open };

async function open(url: string): Promise<BrowserPage> {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX });
  const page = await browser.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error') console.error(`[page] ${message.text()}`);
  });
  page.on('pageerror', (error) => console.error('[page]', error));
  await page.goto(url);
  return {
    version: (await browser.version()).replace(/^\D*/, ''),
    evaluate: page.evaluate.bind(page) as BrowserPage['evaluate'],
    async [Symbol.asyncDispose]() {
      const closing = browser.close();
      closing.catch(() => {});
      await Promise.race([closing, setTimeout(CLOSING_MS_MAX, undefined, { ref: false })]);
      browser.process()?.kill('SIGKILL');
    },
  };
}
