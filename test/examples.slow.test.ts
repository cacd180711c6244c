// The examples as a user builds and runs them, with the package from its tarball: bundles for Node, pages in Chromium
// with threads and without, under a strict policy and under ones that forbid too much, from another origin, and from
// files. All tell the same story. `npm run examples` installs the bundlers; the size of the page's code is a budget.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import type { Browser, Page } from 'playwright-core';
import { loadModel } from '../src/index.ts';
import { storiesModel } from '../src/stories.ts';
import { ROOT, packPackage, runOk } from './packed-package.ts';
import { sendRange } from './range-server.ts';

const EXAMPLES = join(ROOT, 'examples');
const MODULES = join(EXAMPLES, 'node_modules');
const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const ENGINE_GZIP_BYTES_MAX = 150_000;
const PROMPT = 'Once upon a time';
const ISOLATION = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };
const STRICT =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'";
const TYPES: Readonly<Record<string, string>> = { '.js': 'text/javascript', '.html': 'text/html', '.css': 'text/css' };

function whySkip(): string | false {
  if (process.env['CI'] === 'true') return false;
  if (!existsSync(join(MODULES, 'vite'))) return 'needs the bundlers of the examples: npm run examples';
  return existsSync(CHROMIUM) ? false : `needs Chromium at ${CHROMIUM} (or CHROMIUM): npm run browsers`;
}

interface FolderServer extends Disposable {
  /** Ends in a slash. */
  readonly url: string;
}

async function serveFolder(folder: string, headers: Readonly<Record<string, string>> = {}): Promise<FolderServer> {
  const server: Server = createServer((request, response) => {
    // The package lies beside the examples, not in each.
    const pathname = new URL(request.url!, 'http://localhost').pathname.replace(/^.*(?=\/node_modules\/)/, '');
    const path = join(folder, pathname.endsWith('/') ? `${pathname}index.html` : pathname);
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (pathname === '/empty.html') return void response.setHeader('content-type', 'text/html').end('<!doctype html>');
    if (!existsSync(path)) return void response.writeHead(404).end();
    response.setHeader('content-type', TYPES[extname(path)] ?? 'application/octet-stream');
    sendRange(readFileSync(path), request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    [Symbol.dispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

describe('examples', { skip: whySkip() }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'smallmind-examples-'));
  /** What Node tells from the sources. */
  let story = '';
  let browser: Browser;

  before(async () => {
    const tarball = packPackage(scratch);
    runOk('npm', ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', tarball], EXAMPLES);
    await using model = await loadModel(storiesModel);
    story = PROMPT + (await model.generate(PROMPT, { temperature: 0, maxTokens: 60 }).result).text;
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--allow-file-access-from-files'],
    });
  });
  after(async () => {
    await browser?.close();
    rmSync(scratch, { recursive: true, force: true });
  });

  const build = (example: string, ...args: string[]): string =>
    runOk('npm', ['run', '--silent', 'build', ...args], join(EXAMPLES, example));

  /** Opens a page; what it complains of in its console is collected. */
  async function open(
    url: string,
    prepare?: (page: Page) => Promise<unknown>,
  ): Promise<{ page: Page; errors: string[] }> {
    const page = await (await browser.newContext()).newPage();
    const errors: string[] = [];
    page.on('console', (message) => {
      // Chromium asks for an icon that no example has.
      const isIcon = message.location().url.endsWith('/favicon.ico');
      if (message.type() === 'error' && !isIcon) errors.push(message.text());
    });
    page.on('pageerror', (error) => errors.push(String(error)));
    await prepare?.(page);
    await page.goto(url);
    return { page, errors };
  }

  /** Waits until a simple page has told its story. */
  async function assertTells({ page, errors }: { page: Page; errors: string[] }, threads: number): Promise<void> {
    await page.waitForSelector('#story[data-threads]', { state: 'attached', timeout: 20_000 }).catch((error: Error) => {
      throw new Error(`${error.message}\n${errors.join('\n')}`);
    });
    const told = await page.$eval('#story', (p) => ({ text: p.textContent, threads: p.dataset['threads'] }));
    assert.deepEqual(told, { text: story, threads: String(threads) });
    assert.deepEqual(errors, []);
  }

  test('esbuild-node: a bundle for Node that needs no package beside it', () => {
    build('esbuild-node');
    const alone = join(scratch, 'bundle');
    cpSync(join(EXAMPLES, 'esbuild-node', 'dist'), alone, { recursive: true });
    const out = runOk(process.execPath, [join(alone, 'main.js'), fileURLToPath(storiesModel)], scratch);
    assert.equal(out.slice(0, story.length + 1), `${story}\n`);
    assert.match(out, /2 threads/);
  });

  test('esbuild-node without the bundles of the workers: an error that names the remedy', () => {
    const alone = join(scratch, 'lone-bundle');
    cpSync(join(EXAMPLES, 'esbuild-node', 'dist', 'main.js'), join(alone, 'main.mjs'));
    assert.throws(
      () => runOk(process.execPath, [join(alone, 'main.mjs'), fileURLToPath(storiesModel)], scratch),
      /could not start[^]*smallmind\/worker and smallmind\/pool-thread/,
    );
  });

  test('server-external: a server as Next.js bundles it', async () => {
    build('server-external');
    const file = join(EXAMPLES, 'server-external', 'dist', 'server.cjs');
    const server = spawn(process.execPath, [file], { env: { ...process.env, PORT: '0' } });
    try {
      const [line] = (await once(server.stdout, 'data')) as [Buffer];
      const answer = await fetch(String(line).trim());
      assert.equal(await answer.text(), story);
    } finally {
      server.kill();
    }
  });

  test('commonjs: `import()` and `require`', () => {
    const out = runOk(process.execPath, ['main.cjs'], join(EXAMPLES, 'commonjs'));
    assert.equal(out.slice(0, story.length + 1), `${story}\n`);
    assert.match(out, /2 threads/);
  });

  /** Presses the button of the Vite page, at temperature 0, and waits for the end. @returns story and status */
  async function tellOnVitePage(page: Page): Promise<{ text: string; status: string }> {
    const status = page.locator('#status');
    await page.waitForFunction(() => !document.getElementById('status')!.textContent!.includes('…'));
    await page.fill('#temperature', '0');
    await page.click('#tell');
    await page.waitForFunction(() => document.getElementById('status')!.textContent!.includes('tokens a second'));
    return { text: (await page.textContent('#story'))!, status: (await status.textContent())! };
  }

  for (const [title, headers, threads] of [
    ['with isolation and a strict policy, on two threads', { ...ISOLATION, 'Content-Security-Policy': STRICT }, 2],
    ['without isolation, on one thread', {}, 1],
  ] as const) {
    test(`vite-page ${title}`, async () => {
      if (!existsSync(join(EXAMPLES, 'vite-page', 'dist')) || threads === 2) build('vite-page');
      using server = await serveFolder(join(EXAMPLES, 'vite-page', 'dist'), headers);
      const { page, errors } = await open(server.url);
      const { text, status } = await tellOnVitePage(page);
      assert.ok(text.startsWith(story), text);
      assert.match(status, new RegExp(`${threads} threads`));
      assert.ok(page.workers().length >= 1);
      assert.deepEqual(errors, []);
    });
  }

  test('vite-page in a window that has `process`, as with nodeIntegration: the platform is still the browser', async () => {
    using server = await serveFolder(join(EXAMPLES, 'vite-page', 'dist'));
    const { page } = await open(server.url, (opening) =>
      opening.addInitScript(() => {
        Object.assign(globalThis, { process: { versions: { node: '24.0.0', electron: '40.0.0' }, type: 'renderer' } });
      }),
    );
    assert.ok((await tellOnVitePage(page)).text.startsWith(story));
  });

  for (const [title, policy, message] of [
    ["without 'wasm-unsafe-eval'", STRICT.replace(" 'wasm-unsafe-eval'", ''), /'wasm-unsafe-eval'.*script-src/],
    ['that forbids workers', STRICT.replace("worker-src 'self'", "worker-src 'none'"), /worker-src directive/],
  ] as const) {
    test(`vite-page under a policy ${title} says what to add`, async () => {
      using server = await serveFolder(join(EXAMPLES, 'vite-page', 'dist'), { 'Content-Security-Policy': policy });
      const { page } = await open(server.url);
      await page.waitForFunction(() => !document.getElementById('status')!.textContent!.includes('…'));
      assert.match((await page.textContent('#status'))!, message);
    });
  }

  test('the package from another origin', async () => {
    using cdn = await serveFolder(EXAMPLES, {
      'Access-Control-Allow-Origin': '*',
      'Access-Control-Expose-Headers': 'Content-Range',
      ...ISOLATION,
    });
    using server = await serveFolder(join(EXAMPLES, 'commonjs'), ISOLATION);
    const { page, errors } = await open(`${server.url}empty.html`);
    const told = await page.evaluate(
      async ({ url, prompt }) => {
        const { loadModel: load } = (await import(`${url}node_modules/smallmind/dist/browser/index.js`)) as {
          loadModel: typeof loadModel;
        };
        const file = new URL(`${url}node_modules/smallmind/assets/stories.gguf`);
        await using model = await load(file, { threads: 2 });
        const { text } = await model.generate(prompt, { temperature: 0, maxTokens: 60 }).result;
        return { text: prompt + text, threads: model.info.threads };
      },
      { url: cdn.url, prompt: PROMPT },
    );
    assert.deepEqual(told, { text: story, threads: 2 });
    assert.deepEqual(errors, []);
  });

  test('electron-renderer: from a file, with the conditions of a window of Electron', async () => {
    build('electron-renderer');
    const url = pathToFileURL(join(EXAMPLES, 'electron-renderer', 'dist', 'index.html')).href;
    const opened = await open(url);
    await opened.page.setInputFiles('input', fileURLToPath(storiesModel));
    await assertTells(opened, 1);
  });

  test(`the engine in a page is at most ${ENGINE_GZIP_BYTES_MAX / 1000} kB, and holds no training`, (t) => {
    const outDir = join(scratch, 'with-maps');
    build('vite-page', '--', '--sourcemap', '--outDir', outDir);
    const files = globSync('**/*.js', { cwd: outDir }).sort();
    const sourcesOf = (file: string) =>
      (JSON.parse(readFileSync(join(outDir, `${file}.map`), 'utf8')) as { sources: string[] }).sources;
    // Of the engine for the page's own thread, `thread: 'inline'`, and of chat templates: chunks not loaded unasked.
    const isLoaded = (file: string): boolean =>
      !file.includes('local-model') && !sourcesOf(file).some((source) => source.includes('/jinja/'));
    const loaded = files.filter(isLoaded);
    assert.equal(loaded.length, 3);
    const sizes = loaded.map((file) => gzipSync(readFileSync(join(EXAMPLES, 'vite-page', 'dist', file))).length);
    loaded.forEach((file, i) => t.diagnostic(`${file}: ${(sizes[i]! / 1000).toFixed(1)} kB gzip`));
    const total = sizes.reduce((sum, size) => sum + size, 0);
    t.diagnostic(`engine in a page: ${(total / 1000).toFixed(1)} kB gzip`);
    assert.ok(total <= ENGINE_GZIP_BYTES_MAX);
    const sources = files.flatMap(sourcesOf);
    assert.ok(sources.some((source) => source.includes('/engine/')));
    assert.deepEqual(
      sources.filter((source) => /smallmind\/(dist|src)\/(training|eval|cli|convert)/.test(source)),
      [],
    );
  });

  for (const isolated of [true, false]) {
    const headers: Record<string, string> = isolated ? ISOLATION : {};
    const threads = isolated ? 2 : 1;
    const title = isolated ? 'with isolation, on two threads' : 'without isolation, on one thread';

    test(`webpack-page ${title}`, async () => {
      if (isolated) build('webpack-page');
      using server = await serveFolder(join(EXAMPLES, 'webpack-page', 'dist'), headers);
      const opened = await open(server.url);
      await assertTells(opened, threads);
      assert.ok(opened.page.workers().length >= 1);
    });

    test(`plain-page ${title}, no bundler`, async () => {
      using server = await serveFolder(EXAMPLES, headers);
      const opened = await open(`${server.url}plain-page/`);
      await assertTells(opened, threads);
      assert.ok(opened.page.workers().length >= 1);
    });
  }
});
