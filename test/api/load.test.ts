// Loading: every kind of source, progress, and giving up in the middle. In the worker and inline alike.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { loadModel } from '../../src/index.ts';
import type { ByteSource, LoadProgressEvent, ModelSource, SmallMindError } from '../../src/index.ts';
import { serveRanges } from '../range-server.ts';
import type { RangeServer } from '../range-server.ts';
import { MemoryFolder, partName, splitGguf } from '../split-gguf.ts';
import { THREADS, smallModel } from './small-model.ts';

const REASON = { why: 'a reason of any kind' };
const isReason = (error: unknown): boolean => error === REASON;

/** Counts what is done with it. */
class CountingSource implements ByteSource {
  readonly name = 'counting';
  nReads = 0;
  nCloses = 0;
  /** Called before the read of that number; what it gives is awaited. */
  onRead: (n: number) => unknown = () => {};
  readonly #bytes = smallModel();

  get sizeBytes(): number {
    return this.#bytes.length;
  }

  async read(offsetBytes: number, target: Uint8Array): Promise<void> {
    await this.onRead(++this.nReads);
    target.set(this.#bytes.subarray(offsetBytes, offsetBytes + target.length));
  }

  async close(): Promise<void> {
    this.nCloses++;
  }
}

describe('loadModel', () => {
  let folder: string;
  let path: string;
  let expected: readonly number[];
  let server: RangeServer;
  /** Called when a request comes that is never answered. */
  let onSilence = (): void => {};
  before(async () => {
    const parts = await splitGguf(smallModel(), 3);
    server = await serveRanges({
      '/model.gguf': smallModel(),
      '/silent.gguf': () => onSilence(),
      ...Object.fromEntries(Array.from(parts, ([name, bytes]) => [`/${name}`, bytes])),
    });
    folder = mkdtempSync(join(tmpdir(), 'smallmind-'));
    path = join(folder, 'a model, 100 % ünusual.gguf');
    writeFileSync(path, smallModel());
    for (const [name, bytes] of parts) writeFileSync(join(folder, name), bytes);
    await using model = await loadModel(path, { thread: 'inline', kernels: 'reference' });
    expected = (await model.generate('1', { temperature: 0, maxTokens: 4 }).result).tokens;
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await server[Symbol.asyncDispose]();
  });

  for (const thread of THREADS) {
    const sources: Record<string, () => ModelSource> = {
      'a path': () => path,
      'a file: URL': () => pathToFileURL(path),
      'a file: URL as text': () => pathToFileURL(path).href,
      'a Blob': () => new Blob([smallModel()]),
      'a File': () => new File([smallModel()], 'model.gguf'),
      'an ArrayBuffer': () => smallModel().buffer,
      'a Uint8Array': () => smallModel(),
      'a Uint8Array inside a larger buffer': () => new Uint8Array([9, ...smallModel(), 9]).subarray(1, -1),
      'a ByteSource': () => new CountingSource(),
      'the first file of a split model': () => join(folder, partName(0, 3)),
      'the first URL of a split model': () => new URL(partName(0, 3), server.url),
      'an http: URL': () => new URL('model.gguf', server.url),
      'an http: URL as text': () => `${server.url}model.gguf?download=true`,
    };
    for (const [name, source] of Object.entries(sources)) {
      test(`reads ${name}, thread: ${thread}`, async () => {
        await using model = await loadModel(source(), { thread, threads: 1 });
        const { tokens } = await model.generate('1', { temperature: 0, maxTokens: 4 }).result;
        assert.deepEqual(tokens, expected);
      });
    }

    test(`reads a split model from a ByteSource that opens the others, and closes all, thread: ${thread}`, async () => {
      const files = new MemoryFolder(await splitGguf(smallModel(), 3));
      await using model = await loadModel(await files.open(partName(0, 3)), { thread, threads: 1 });
      assert.equal(files.nOpen, 0);
      const { tokens } = await model.generate('1', { temperature: 0, maxTokens: 4 }).result;
      assert.deepEqual(tokens, expected);
    });

    test(`refuses a split model whose other files it cannot open, and says why, thread: ${thread}`, async () => {
      const parts = await splitGguf(smallModel(), 3);
      const files = new MemoryFolder(new Map([...parts].slice(0, 2)));
      const missing = { name: 'GgufError', code: 'GGUF_MISSING', message: /part 3 of 3 of the model is missing/ };
      await assert.rejects(loadModel(await files.open(partName(0, 3)), { thread, threads: 1 }), missing);
      assert.equal(files.nOpen, 0);
      const { openSibling: _, ...alone } = await files.open(partName(0, 3));
      const unknown = { code: 'UNSUPPORTED_FEATURE', message: /split over 3 files.*a ByteSource with openSibling/ };
      await assert.rejects(loadModel(alone, { thread, threads: 1 }), unknown);
      assert.equal(files.nOpen, 0);
    });

    test(`closes what opens only after its signal has aborted, thread: ${thread}`, async () => {
      const files = new MemoryFolder(await splitGguf(smallModel(), 2));
      const abort = new AbortController();
      let open!: () => void;
      const mayOpen = new Promise<void>((resolve) => (open = resolve));
      const first = await files.open(partName(0, 2));
      const openSibling = async (name: string): Promise<ByteSource> => {
        abort.abort(REASON);
        await mayOpen;
        return files.open(name);
      };
      await assert.rejects(
        loadModel({ ...first, openSibling }, { thread, threads: 1, signal: abort.signal }),
        isReason,
      );
      open();
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(files.nOpen, 0);
    });

    test(`leaves the bytes it was given alone, thread: ${thread}`, async () => {
      const bytes = smallModel();
      await using _ = await loadModel(bytes, { thread, threads: 1 });
      assert.deepEqual(bytes, smallModel());
    });

    test(`closes a ByteSource once, loaded or not, thread: ${thread}`, async () => {
      const good = new CountingSource();
      await using _ = await loadModel(good, { thread, threads: 1 });
      assert.equal(good.nCloses, 1);
      const bad = new CountingSource();
      bad.onRead = (n) => {
        if (n === 3) throw new Error('the cable is out');
      };
      await assert.rejects(loadModel(bad, { thread, threads: 1 }), /the cable is out/);
      assert.equal(bad.nCloses, 1);
    });

    test(`reports progress from 0 to all, never backwards, thread: ${thread}`, async () => {
      const events: LoadProgressEvent[] = [];
      await using model = await loadModel(smallModel(), { thread, threads: 1, onProgress: (e) => events.push(e) });
      const { totalBytes } = events[0]!;
      assert.ok(events.length > 2 && totalBytes >= 4 * model.info.nParameters);
      assert.equal(events[0]!.loadedBytes, 0);
      assert.equal(events.at(-1)!.loadedBytes, totalBytes);
      for (let i = 1; i < events.length; i++) {
        assert.ok(events[i]!.loadedBytes >= events[i - 1]!.loadedBytes);
        assert.equal(events[i]!.totalBytes, totalBytes);
      }
    });

    test(`fails by what onProgress throws, thread: ${thread}`, async () => {
      const onProgress = (): void => {
        throw REASON;
      };
      await assert.rejects(loadModel(smallModel(), { thread, threads: 1, onProgress }), isReason);
    });

    test(`rejects with the reason of its signal: before, amid and at the end, thread: ${thread}`, async () => {
      const early = new CountingSource();
      await assert.rejects(loadModel(early, { thread, signal: AbortSignal.abort(REASON) }), isReason);
      assert.deepEqual([early.nReads, early.nCloses], [0, 1]);
      const source = new CountingSource();
      const amid = new AbortController();
      source.onRead = (n) => n === 4 && amid.abort(REASON);
      await assert.rejects(loadModel(source, { thread, threads: 1, signal: amid.signal }), isReason);
      assert.equal(source.nCloses, 1);
      assert.ok(source.nReads <= 5, `${source.nReads} reads`);
      const late = new AbortController();
      const onProgress = ({ loadedBytes, totalBytes }: LoadProgressEvent): void => {
        if (loadedBytes === totalBytes) late.abort(REASON);
      };
      await assert.rejects(loadModel(smallModel(), { thread, threads: 1, signal: late.signal, onProgress }), isReason);
    });

    test(`does not wait for a read that never ends once its signal aborts, thread: ${thread}`, async () => {
      const source = new CountingSource();
      const abort = new AbortController();
      source.onRead = (n) => {
        if (n < 3) return undefined;
        abort.abort(REASON);
        return new Promise(() => {});
      };
      await assert.rejects(loadModel(source, { thread, threads: 1, signal: abort.signal }), isReason);
      assert.equal(source.nCloses, 1);
    });

    test(`passes on that memory ran out before it takes any, thread: ${thread}`, async () => {
      const options = { thread, threads: 1, nCtx: 2 ** 20, parallel: 64 } as const;
      await assert.rejects(loadModel(smallModel(), options), (error) => {
        const { name, code, message, details } = error as Error & { code: string; details: { neededBytes: number } };
        assert.deepEqual([name, code], ['UnsupportedError', 'UNSUPPORTED_FEATURE']);
        assert.match(message, /needs [\d.]+ GiB of memory, .* use a smaller context/);
        assert.ok(details.neededBytes > 2 ** 32);
        return true;
      });
    });

    test(`says what is wrong with a URL, thread: ${thread}`, async () => {
      const ftp = { name: 'UnsupportedError', code: 'UNSUPPORTED_FEATURE', message: /ftp: URLs .* fetch it/ };
      await assert.rejects(loadModel('ftp://example.com/model.gguf', { thread }), ftp);
      const missing = {
        name: 'SmallMindError',
        code: 'FILE_NOT_FOUND',
        message: /none\.gguf: no such file \(HTTP 404/,
      };
      await assert.rejects(loadModel(new URL('none.gguf', server.url), { thread }), missing);
    });

    test(`gives up a request that is not answered once its signal aborts, thread: ${thread}`, async () => {
      const abort = new AbortController();
      onSilence = () => abort.abort(REASON);
      await assert.rejects(loadModel(`${server.url}silent.gguf`, { thread, signal: abort.signal }), isReason);
    });
  }
});

test('a machine without the memory for a context says how much is needed, and loads a smaller one', async (t) => {
  const { Memory } = WebAssembly;
  const PAGES_MAX = 64 << 4;
  const mock = t.mock.method(WebAssembly, 'Memory', function (descriptor: WebAssembly.MemoryDescriptor) {
    if (descriptor.initial > PAGES_MAX) throw new RangeError('could not allocate memory');
    return new Memory(descriptor);
  });
  const load = (nCtx: number) => loadModel(smallModel(), { thread: 'inline', threads: 2, nCtx, parallel: 8 });
  await assert.rejects(load(2 ** 17), (error: SmallMindError) => {
    assert.equal(error.code, 'OUT_OF_MEMORY');
    assert.match(error.message, /could not reserve \d+ MiB.*use a smaller context/);
    assert.ok((error.details['neededBytes'] as number) > PAGES_MAX * 65536);
    return true;
  });
  await using model = await load(64);
  assert.equal((await model.logits([1])).length, 320);
  assert.ok(mock.mock.callCount() >= 2);
});
