// How long a page's own thread is kept from its events while a model loads and generates: a timer beats as fast as it
// may, and the longest time between two beats is what a user could feel.

import type { LoadOptions } from '../../src/index.ts';
import type { BrowserPage } from './browsers.ts';

/**
 * Loads the model of a URL in the page, generates from a prompt of several chunks, reading each piece, and closes it.
 * Fetching is the browser's own affair (WebKitGTK stops for 0.1 s to make a Blob of 77 MB) and is not measured.
 * @returns milliseconds
 */
export function longestGapMs(page: BrowserPage, url: string, options: LoadOptions): Promise<number> {
  return page.evaluate(
    async ({ file, loadOptions }) => {
      const blob = await (await fetch(file)).blob();
      let longest = 0;
      let last = performance.now();
      const beat = (): void => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
      };
      const heart = setInterval(beat, 1);
      const model = await smallmind.loadModel(blob, { ...loadOptions, nCtx: 512 });
      const prompt = Array.from({ length: 160 }, (_, i) => 300 + i);
      const run = model.generate(prompt, { maxTokens: 16, temperature: 0 });
      for await (const piece of run) if (piece === undefined) throw new Error('no piece');
      await model.close();
      clearInterval(heart);
      beat();
      return Math.round(longest);
    },
    { file: url, loadOptions: options },
  );
}
