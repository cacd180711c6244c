// Proves that the reader returns what the writer, and other people's writers, put into a file, and how much of the file
// it reads for that. What it refuses is in hostile.test.ts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { memorySource } from '../base/byte-source.ts';
import type { ByteSource } from '../base/byte-source.ts';
import { BLOCK_FORMATS } from '../base/dtype.ts';
import type { DType } from '../base/dtype.ts';
import { GgufError, SmallMindError } from '../base/errors.ts';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { getTensor, readGguf, readTensorBytes } from './reader.ts';
import type { MetadataEntry } from './value-types.ts';
import { writeGguf } from './writer.ts';
import type { TensorData } from './writer.ts';

const shared = needsShared();

/** A tensor whose bytes count up from `first`. */
function tensor(name: string, dtype: DType, shape: number[], first = 1): TensorData {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  const nBytes = (shape.reduce((a, b) => a * b, 1) / blockElements) * blockBytes;
  return { name, dtype, shape, bytes: Uint8Array.from({ length: nBytes }, (_, i) => first + i) };
}

/** A source over `bytes` that notes what is read. */
function recordingSource(bytes: Uint8Array): ByteSource & { readonly reads: [start: number, end: number][] } {
  const reads: [number, number][] = [];
  return {
    ...memorySource(bytes, 'recorded.gguf'),
    reads,
    async read(offsetBytes, target) {
      reads.push([offsetBytes, offsetBytes + target.length]);
      target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
    },
  };
}

const EVERY_TYPE: Record<string, MetadataEntry> = {
  u8: { type: 'u8', value: 255 },
  i8: { type: 'i8', value: -128 },
  u16: { type: 'u16', value: 65_535 },
  i16: { type: 'i16', value: -32_768 },
  u32: { type: 'u32', value: 4_294_967_295 },
  i32: { type: 'i32', value: -2_147_483_648 },
  f32: { type: 'f32', value: 0.15625 },
  f64: { type: 'f64', value: Math.PI },
  u64: { type: 'u64', value: Number.MAX_SAFE_INTEGER },
  i64: { type: 'i64', value: Number.MIN_SAFE_INTEGER },
  'u64 huge': { type: 'u64', value: 2n ** 64n - 1n },
  'u64 just too large': { type: 'u64', value: 2n ** 53n },
  'i64 huge': { type: 'i64', value: -(2n ** 63n) },
  yes: { type: 'bool', value: true },
  no: { type: 'bool', value: false },
  'text with everything': { type: 'string', value: 'é ▁ 😀 \0 \ufeff' },
  'byte order mark': { type: 'string', value: '\ufeff' },
  empty: { type: 'string', value: '' },
  'list u8': { type: 'array', elementType: 'u8', value: Uint8Array.of(0, 255) },
  'list i8': { type: 'array', elementType: 'i8', value: Int8Array.of(-1, 1) },
  'list u16': { type: 'array', elementType: 'u16', value: Uint16Array.of(65_535) },
  'list i16': { type: 'array', elementType: 'i16', value: Int16Array.of(-2, 2, 3) },
  'list u32': { type: 'array', elementType: 'u32', value: Uint32Array.of(4_294_967_295) },
  'list i32': { type: 'array', elementType: 'i32', value: Int32Array.of(-3, 3) },
  'list f32': { type: 'array', elementType: 'f32', value: Float32Array.of(0.1, -Infinity, NaN) },
  'list f64': { type: 'array', elementType: 'f64', value: Float64Array.of(0.1) },
  'list u64': { type: 'array', elementType: 'u64', value: Float64Array.of(1, Number.MAX_SAFE_INTEGER) },
  'list u64 huge': { type: 'array', elementType: 'u64', value: BigUint64Array.of(1n, 2n ** 63n) },
  'list i64': { type: 'array', elementType: 'i64', value: Float64Array.of(-1) },
  'list i64 huge': { type: 'array', elementType: 'i64', value: BigInt64Array.of(-(2n ** 60n), 1n) },
  'list bool': { type: 'array', elementType: 'bool', value: [true, false] },
  'list string': { type: 'array', elementType: 'string', value: ['', 'a', '\ufeffé'] },
  'list empty': { type: 'array', elementType: 'f32', value: new Float32Array(0) },
  'list nested': {
    type: 'array',
    elementType: 'array',
    value: [
      { type: 'array', elementType: 'i32', value: Int32Array.of(1, 2) },
      { type: 'array', elementType: 'string', value: ['b'] },
    ],
  },
};

describe('what was written is read', () => {
  test('metadata of every type, in the same order', async () => {
    const gguf = await readGguf(memorySource(writeGguf({ metadata: Object.entries(EVERY_TYPE), tensors: [] })));
    assert.deepEqual([...gguf.metadata.entries()], Object.entries(EVERY_TYPE));
    assert.equal(gguf.metadata.size, Object.keys(EVERY_TYPE).length);
    assert.equal(gguf.version, 3);
    assert.equal(gguf.alignment, 32);
    assert.equal(gguf.tensors.size, 0);
  });

  test('a file that is read and written again has the same bytes', async () => {
    const bytes = writeGguf({ metadata: Object.entries(EVERY_TYPE), tensors: [], alignment: 64 });
    const { metadata } = await readGguf(memorySource(bytes));
    assert.deepEqual(writeGguf({ metadata: metadata.entries(), tensors: [] }), bytes);
  });

  test('tensors of every dtype and rank, with their data', async () => {
    const dtypes = Object.keys(BLOCK_FORMATS) as DType[];
    const tensors = [
      ...dtypes.map((dtype, i) => tensor(`t.${dtype}`, dtype, [2, 3 * BLOCK_FORMATS[dtype].blockElements], i)),
      tensor('scalar', 'F32', []),
      tensor('vector', 'F16', [7]),
      tensor('cube', 'F32', [2, 3, 5]),
      tensor('four', 'Q8_0', [2, 3, 5, 64]),
    ];
    const gguf = await readGguf(memorySource(writeGguf({ metadata: [], tensors })));
    assert.deepEqual(
      [...gguf.tensors.keys()],
      tensors.map(({ name }) => name),
    );
    for (const { name, dtype, shape, bytes } of tensors) {
      const info = getTensor(gguf, name);
      assert.deepEqual([info.name, info.dtype, info.shape, info.sizeBytes], [name, dtype, shape, bytes.length]);
      assert.deepEqual(await readTensorBytes(gguf, info), bytes, name);
    }
    assert.equal(gguf.tensors.get('t.F32')!.offsetBytes, gguf.dataOffsetBytes);
  });

  for (const alignment of [1, 8, 64, 4096, 65_536]) {
    test(`tensor data aligned to ${alignment} bytes`, async () => {
      const tensors = [tensor('a', 'F32', [3]), tensor('b', 'F16', [5]), tensor('c', 'Q4_0', [32])];
      const gguf = await readGguf(memorySource(writeGguf({ metadata: [], tensors, alignment })));
      assert.equal(gguf.alignment, alignment);
      for (const { name, bytes } of tensors) {
        const info = getTensor(gguf, name);
        assert.equal(info.offsetBytes % alignment, 0);
        assert.deepEqual(await readTensorBytes(gguf, info), bytes);
      }
    });
  }

  test('metadata that is much larger than the first window', async () => {
    const tokens = Array.from({ length: 50_000 }, (_, i) => `token ${i}`);
    const metadata: [string, MetadataEntry][] = [
      ['tokens', { type: 'array', elementType: 'string', value: tokens }],
      ['bytes', { type: 'array', elementType: 'u8', value: new Uint8Array(300_000).fill(7) }],
      ['last', { type: 'string', value: 'x'.repeat(500_000) }],
    ];
    const gguf = await readGguf(memorySource(writeGguf({ metadata, tensors: [tensor('a', 'F32', [3])] })));
    assert.deepEqual(gguf.metadata.getStrings('tokens'), tokens);
    assert.equal(gguf.metadata.getNumbers('bytes').length, 300_000);
    assert.equal(gguf.metadata.getString('last').length, 500_000);
    assert.deepEqual(await readTensorBytes(gguf, getTensor(gguf, 'a')), tensor('a', 'F32', [3]).bytes);
  });
});

describe('the reader', () => {
  test('reverses dimensions, so that columns come last', async () => {
    const bytes = writeGguf({ metadata: [], tensors: [tensor('a', 'F32', [2, 8])] });
    // Header 24, name 9, rank 4: the first dimension of the file is the number of columns.
    assert.equal(new DataView(bytes.buffer).getUint32(37, true), 8);
    assert.deepEqual(getTensor(await readGguf(memorySource(bytes)), 'a').shape, [2, 8]);
  });

  test('turns broken UTF-8 into U+FFFD and keeps the rest of the string', async () => {
    const bytes = writeGguf({ metadata: [['key', { type: 'string', value: 'a?b' }]], tensors: [] });
    bytes[bytes.indexOf(0x3f)] = 0xff;
    assert.equal((await readGguf(memorySource(bytes))).metadata.getString('key'), 'a\ufffdb');
  });

  test('takes tensors whose data stand in another order than their descriptors', async () => {
    const bytes = writeGguf({ metadata: [], tensors: [tensor('a', 'F32', [8]), tensor('b', 'F32', [8], 101)] });
    // Each descriptor: name 9, rank 4, dimension 8, type 4, offset 8.
    const view = new DataView(bytes.buffer);
    view.setUint32(24 + 25, 32, true);
    view.setUint32(24 + 33 + 25, 0, true);
    const gguf = await readGguf(memorySource(bytes));
    assert.equal((await readTensorBytes(gguf, getTensor(gguf, 'a')))[0], 101);
    assert.equal((await readTensorBytes(gguf, getTensor(gguf, 'b')))[0], 1);
  });

  test('reads the first 64 KiB, and no more, of a large file with little metadata', async () => {
    const source = recordingSource(writeGguf({ metadata: [], tensors: [tensor('a', 'F32', [1024, 1024])] }));
    await readGguf(source);
    assert.deepEqual(source.reads, [[0, 65_536]]);
  });

  test('reads every byte of long metadata once, and at most as much again beyond it', async () => {
    const value = Array.from({ length: 30_000 }, (_, i) => `token ${i}`);
    const metadata: [string, MetadataEntry][] = [['tokens', { type: 'array', elementType: 'string', value }]];
    const source = recordingSource(writeGguf({ metadata, tensors: [tensor('a', 'F32', [1024, 1024])] }));
    const gguf = await readGguf(source);
    const reads = source.reads;
    assert.ok(reads.length > 1);
    assert.equal(reads[0]![0], 0);
    for (let i = 1; i < reads.length; i++) assert.equal(reads[i]![0], reads[i - 1]![1]);
    assert.ok(reads.at(-1)![1] <= 2 * gguf.dataOffsetBytes);
  });

  test('lets errors of the source through', async () => {
    const failure = new SmallMindError('FILE_UNREADABLE', 'the disk is on fire');
    const source: ByteSource = { ...memorySource(new Uint8Array(100)), read: () => Promise.reject(failure) };
    await assert.rejects(readGguf(source), failure);
  });

  test('names the tensor and the file when a tensor is missing', async () => {
    const gguf = await readGguf(memorySource(writeGguf({ metadata: [], tensors: [] }), 'tiny.gguf'));
    assert.throws(
      () => getTensor(gguf, 'output.weight'),
      (error) =>
        error instanceof GgufError &&
        error.code === 'GGUF_MISSING' &&
        /tiny\.gguf.*"output\.weight"/.test(error.message),
    );
  });

  test('says how much memory a tensor would have needed', async () => {
    const gguf = await readGguf(memorySource(writeGguf({ metadata: [], tensors: [tensor('a', 'F32', [3])] })));
    await assert.rejects(
      readTensorBytes(gguf, { ...getTensor(gguf, 'a'), sizeBytes: 2 ** 53 - 1 }),
      (error) =>
        error instanceof SmallMindError && error.code === 'OUT_OF_MEMORY' && /9007199254740991/.test(error.message),
    );
  });
});

describe('files of others', () => {
  const open = (...path: string[]) => readGguf(memorySource(readFileSync(sharedPath(...path))));

  test('version 2 has the same layout', shared, async () => {
    const [v2, v3] = await Promise.all(['ok-v2', 'ok-basic'].map((name) => open('malformed', 'gguf', `${name}.gguf`)));
    assert.equal(v2!.version, 2);
    assert.deepEqual([...v2!.metadata.entries()], [...v3!.metadata.entries()]);
    assert.deepEqual(v2!.tensors, v3!.tensors);
  });

  test('ok-basic.gguf has the content that its description says', shared, async () => {
    const gguf = await open('malformed', 'gguf', 'ok-basic.gguf');
    assert.deepEqual(gguf.metadata.getStrings('tokenizer.ggml.tokens'), ['a', 'b', 'é']);
    assert.equal(gguf.metadata.getNumber('x.f'), 1.5);
    assert.equal(gguf.metadata.getBoolean('x.b'), true);
    const [a, b] = [...gguf.tensors.values()];
    assert.deepEqual(a, { name: 'a.weight', dtype: 'F32', shape: [4, 8], offsetBytes: 352, sizeBytes: 128 });
    assert.deepEqual(b, { name: 'b.weight', dtype: 'Q4_0', shape: [32], offsetBytes: 480, sizeBytes: 18 });
  });

  test('a real model in F32 has the hyper-parameters that its origin says', shared, async () => {
    const { metadata, tensors } = await open('models', 'stories260K', 'stories260K-f32.gguf');
    assert.equal(metadata.getString('general.architecture'), 'llama');
    assert.equal(metadata.getNumber('llama.embedding_length'), 64);
    assert.equal(metadata.getNumber('llama.block_count'), 5);
    assert.equal(metadata.getNumber('llama.attention.head_count_kv'), 4);
    assert.equal(metadata.getNumber('llama.attention.layer_norm_rms_epsilon'), Math.fround(1e-5));
    assert.equal(metadata.getStrings('tokenizer.ggml.tokens').length, 512);
    assert.ok(metadata.getNumbers('tokenizer.ggml.scores') instanceof Float32Array);
    assert.equal(tensors.size, 48);
    const { dtype, shape } = tensors.get('blk.0.ffn_gate.weight')!;
    assert.deepEqual([dtype, shape], ['F32', [172, 64]]);
  });

  for (const [name, dtype] of [
    ['f16', 'F16'],
    ['q8_0', 'Q8_0'],
    ['q4_0', 'Q4_0'],
  ] as const) {
    test(`a real model in ${dtype} has its matrices in that dtype and its norms in F32`, shared, async () => {
      const { tensors } = await open('models', 'tinystories-656k', `TinyStories-656K-${name}.gguf`);
      const down = tensors.get('blk.1.ffn_down.weight')!;
      assert.deepEqual([down.dtype, down.shape], [dtype, [128, 384]]);
      assert.equal(tensors.get('output_norm.weight')!.dtype, 'F32');
    });
  }

  for (const [name, model, nTokens] of [
    ['llama-spm', 'llama', 32_000],
    ['gpt-2', 'gpt2', 50_257],
    ['bert-bge', 'bert', 30_522],
  ] as const) {
    test(`the vocabulary ${name} has ${nTokens} different tokens, and no tensors`, shared, async () => {
      const gguf = await open('vocab', `ggml-vocab-${name}.gguf`);
      assert.equal(gguf.metadata.getString('tokenizer.ggml.model'), model);
      const tokens = gguf.metadata.getStrings('tokenizer.ggml.tokens');
      assert.equal(tokens.length, nTokens);
      assert.equal(new Set(tokens).size, nTokens);
      assert.equal(gguf.tensors.size, 0);
    });
  }
});
