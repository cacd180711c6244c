// The entry `smallmind/gguf`: every kind of source, plain values, the way from a file to values and back, and that
// nothing of the engine comes with it.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { GgufError, OptionError, SmallMindError, dequantize, quantize, readGguf, writeGguf } from './gguf.ts';
import { serveRanges } from '../test/range-server.ts';
import type { RangeServer } from '../test/range-server.ts';
import type { ByteSource, DType, GgufContent, GgufFile, MetadataEntry, ModelSource } from './gguf.ts';

const VALUES = Float32Array.from({ length: 64 }, (_, i) => (i - 20) / 8);

const METADATA: Readonly<Record<string, MetadataEntry>> = {
  'general.architecture': { type: 'string', value: 'none' },
  'a.count': { type: 'u32', value: 7 },
  'a.huge': { type: 'u64', value: 2n ** 60n },
  'a.flag': { type: 'bool', value: true },
  'a.words': { type: 'array', elementType: 'string', value: ['one', 'two'] },
  'a.scores': { type: 'array', elementType: 'f32', value: Float32Array.of(1, -0.5) },
  'a.flags': { type: 'array', elementType: 'bool', value: [true, false] },
  'a.none': { type: 'array', elementType: 'array', value: [] },
  'a.lists': {
    type: 'array',
    elementType: 'array',
    value: [
      { type: 'array', elementType: 'i32', value: Int32Array.of(1, 2) },
      { type: 'array', elementType: 'string', value: ['x'] },
    ],
  },
};

const content = (dtype: DType = 'F32'): GgufContent => ({
  metadata: Object.entries(METADATA),
  tensors: [
    { name: 'a', dtype, shape: [2, 32], bytes: quantize(dtype, VALUES) },
    { name: 'b', dtype: 'F32', shape: [3], bytes: quantize('F32', VALUES.subarray(0, 3)) },
  ],
});

/** Counts how often it is closed. */
function countingSource(bytes: Uint8Array): ByteSource & { nCloses: number } {
  return {
    name: 'counting',
    sizeBytes: bytes.length,
    nCloses: 0,
    async read(offsetBytes, target) {
      target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
    },
    async close() {
      this.nCloses++;
    },
  };
}

describe('readGguf', () => {
  const bytes = writeGguf(content());
  /** 40 KB of head, 8 MB of data. */
  const large = writeGguf({
    metadata: [['words', { type: 'array', elementType: 'string', value: Array<string>(4000).fill('ab') }]],
    tensors: [{ name: 'large', dtype: 'F32', shape: [2048, 1024], bytes: new Uint8Array(2 ** 23).fill(63) }],
  });
  let folder: string;
  let path: string;
  let server: RangeServer;
  before(async () => {
    server = await serveRanges({ '/x.gguf': bytes, '/large.gguf': large });
    folder = mkdtempSync(join(tmpdir(), 'smallmind-'));
    path = join(folder, 'a file.gguf');
    writeFileSync(path, bytes);
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await server[Symbol.asyncDispose]();
  });

  const sources: Record<string, [source: () => ModelSource, name: () => string]> = {
    'a path': [() => path, () => path],
    'a file: URL': [() => pathToFileURL(path), () => path],
    'an http: URL': [() => new URL('x.gguf', server.url), () => `${server.url}x.gguf`],
    'a Blob': [() => new Blob([bytes]), () => 'blob'],
    'a File': [() => new File([bytes], 'x.gguf'), () => 'x.gguf'],
    'an ArrayBuffer': [() => bytes.buffer, () => 'memory'],
    'a Uint8Array': [() => bytes, () => 'memory'],
    'a ByteSource': [() => countingSource(bytes), () => 'counting'],
  };
  for (const [what, [source, name]] of Object.entries(sources)) {
    test(`reads ${what}`, async () => {
      await using file = await readGguf(source());
      assert.deepEqual([file.name, file.sizeBytes, file.version, file.alignment], [name(), bytes.length, 3, 32]);
      assert.equal(file.metadata.get('a.count'), 7);
      assert.deepEqual(await file.readValues('a'), VALUES);
    });
  }

  test('fetches of a remote file the head, and tensors when they are asked for', async () => {
    const nBefore = server.ranges.length;
    await using file = await readGguf(`${server.url}large.gguf`);
    assert.equal((file.metadata.get('words') as string[]).length, 4000);
    assert.deepEqual(server.ranges.slice(nBefore), ['bytes=0-262143']);
    assert.equal((await file.readTensor('large')).length, 2 ** 23);
    assert.equal(server.ranges.length, nBefore + 2);
  });

  test('gives values without their types, and with them', async () => {
    await using file = await readGguf(bytes);
    assert.deepEqual(Object.fromEntries(file.metadata), {
      'general.architecture': 'none',
      'a.count': 7,
      'a.huge': 2n ** 60n,
      'a.flag': true,
      'a.words': ['one', 'two'],
      'a.scores': Float32Array.of(1, -0.5),
      'a.flags': [true, false],
      'a.none': [],
      'a.lists': [Int32Array.of(1, 2), ['x']],
    });
    assert.deepEqual(Object.fromEntries(file.typedMetadata), METADATA);
    const { offsetBytes, ...rest } = file.tensors.get('a')!;
    assert.deepEqual(rest, { name: 'a', dtype: 'F32', shape: [2, 32], sizeBytes: 256 });
    assert.deepEqual(await file.readTensor('a'), bytes.slice(offsetBytes, offsetBytes + 256));
  });

  test('what it read can be written again, byte for byte', async () => {
    await using file = await readGguf(bytes);
    assert.deepEqual(await writeAgain(file), bytes);
  });

  test('closes a ByteSource with the file, and when there is none', async () => {
    const good = countingSource(bytes);
    const file = await readGguf(good);
    assert.equal(good.nCloses, 0);
    await file.close();
    assert.equal(good.nCloses, 1);
    const bad = countingSource(bytes.subarray(0, 99));
    await assert.rejects(readGguf(bad), GgufError);
    assert.equal(bad.nCloses, 1);
  });

  test('ends with the reason of its signal, also in the middle of a read', async () => {
    const reason = { why: 'any' };
    await assert.rejects(readGguf(bytes, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
    const source: ByteSource = { ...countingSource(bytes), read: () => new Promise(() => {}) };
    const abort = new AbortController();
    const reading = readGguf(source, { signal: abort.signal });
    abort.abort(reason);
    await assert.rejects(reading, (error) => error === reason);
  });

  test('takes limits', async () => {
    await assert.rejects(readGguf(bytes, { limits: { tensorCount: 1 } }), { code: 'GGUF_LIMIT' });
  });

  test('refuses by name what is not there and what is no source', async () => {
    await using file = await readGguf(bytes);
    await assert.rejects(file.readTensor('c'), { code: 'GGUF_MISSING', message: /"c"/ });
    await assert.rejects(readGguf(join(folder, 'none.gguf')), { code: 'FILE_NOT_FOUND' });
    await assert.rejects(readGguf(5 as unknown as Blob), OptionError);
  });
});

async function writeAgain(file: GgufFile): Promise<Uint8Array> {
  const tensors = await Promise.all(
    Array.from(file.tensors.values(), async (info) => ({ ...info, bytes: await file.readTensor(info.name) })),
  );
  return writeGguf({ metadata: file.typedMetadata, tensors });
}

describe('quantize and dequantize', () => {
  for (const [dtype, error] of [
    ['F32', 0],
    ['F16', 0],
    ['BF16', 0],
    ['Q8_0', 0.03],
    ['Q4_0', 0.4],
  ] as const) {
    test(`bring values into a file as ${dtype} and back`, async () => {
      await using file = await readGguf(writeGguf(content(dtype)));
      assert.equal(file.tensors.get('a')!.dtype, dtype);
      const values = await file.readValues('a');
      assert.deepEqual(values, dequantize(dtype, quantize(dtype, VALUES)));
      const worst = values.reduce((max, value, i) => Math.max(max, Math.abs(value - VALUES[i]!)), 0);
      assert.ok(worst <= error && (error === 0 || worst > 0), `${worst}`);
    });
  }

  test('refuse by name what they cannot do', () => {
    const typed = (code: string, message: RegExp) => ({ name: 'UnsupportedError', code, message });
    assert.throws(() => quantize('Q6_K', VALUES), typed('UNSUPPORTED_DTYPE', /Q6_K.*encoded.*Q8_0/));
    assert.throws(() => dequantize('I16', new Uint8Array(50)), typed('UNSUPPORTED_DTYPE', /I16.*decoded/));
    assert.throws(() => dequantize('Q9' as DType, new Uint8Array(50)), SmallMindError);
    assert.throws(() => dequantize('toString' as DType, new Uint8Array(50)), SmallMindError);
    assert.throws(() => quantize('Q8_0', VALUES.subarray(1)), { code: 'SHAPE_MISMATCH' });
  });
});

test('nothing of the engine comes with the entry: no worker, no kernel, no package', () => {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    const text = readFileSync(file, 'utf8');
    assert.doesNotMatch(text, /new URL\(/, file);
    // An import of types alone is not there at run time.
    for (const [, specifier] of text.matchAll(/^(?:import|export)\s(?!type\b)[^;]*?from\s'([^']+)'/gm)) {
      const path = specifier === '#files' ? './files.browser.ts' : specifier!;
      assert.match(path, /^\./, `${file} imports ${path}`);
      visit(join(dirname(file), path));
    }
  };
  visit(fileURLToPath(new URL('gguf.ts', import.meta.url)));
  const folders = Array.from(reached, (file) => dirname(file).split(/[/\\]/).at(-1)!);
  assert.deepEqual([...new Set(folders)].sort(), ['base', 'gguf', 'grids', 'quant', 'src']);
  assert.ok(reached.size > 15);
});
