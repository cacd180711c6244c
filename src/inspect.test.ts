// Describing a file from its head alone: plain data, whatever the metadata holds, and a reason where it cannot run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySource } from './base/byte-source.ts';
import { writeGguf } from './gguf/writer.ts';
import type { MetadataEntry } from './gguf/value-types.ts';
import { inspectModel } from './inspect.ts';
import { randomLlamaGguf } from '../test/random-model.ts';

const shape = { nLayer: 2, nEmbd: 64, nHead: 2, nHeadKv: 2, nFf: 96, nVocab: 320, nCtx: 128, tied: true } as const;
const bytes = randomLlamaGguf({ seed: 1, dtype: 'Q8_0', ...shape });

test('metadata of every type is plain data that survives JSON', async () => {
  const entries: Record<string, MetadataEntry> = {
    huge: { type: 'u64', value: 2n ** 63n + 1n },
    small: { type: 'u64', value: 7 },
    flag: { type: 'bool', value: true },
    floats: { type: 'array', elementType: 'f32', value: [0.5, -2] },
    nested: {
      type: 'array',
      elementType: 'array',
      value: [{ type: 'array', elementType: 'i64', value: [-(2n ** 60n), 1n] }],
    },
  };
  const info = await inspectModel(writeGguf({ metadata: Object.entries(entries), tensors: [] }));
  assert.deepEqual(info.metadata, [
    { key: 'huge', type: 'u64', value: '9223372036854775809' },
    { key: 'small', type: 'u64', value: 7 },
    { key: 'flag', type: 'bool', value: true },
    { key: 'floats', type: 'f32[]', value: [0.5, -2] },
    { key: 'nested', type: 'array[]', value: [['-1152921504606846976', '1']] },
  ]);
  assert.deepEqual(JSON.parse(JSON.stringify(info)), info);
  assert.equal(info.problem?.code, 'GGUF_MISSING');
});

test('no byte of tensor data is read beyond the first window', async () => {
  const source = memorySource(bytes);
  const reads: number[] = [];
  const watched = {
    ...source,
    read(offsetBytes: number, target: Uint8Array) {
      reads.push(offsetBytes + target.length);
      return source.read(offsetBytes, target);
    },
  };
  const { memory, problem } = await inspectModel(watched);
  assert.equal(problem, undefined);
  assert.ok(memory!.totalBytes > bytes.length / 2);
  assert.ok(Math.max(...reads) <= 64 * 1024 && bytes.length > 64 * 1024, `${reads} of ${bytes.length}`);
});

test('the options of loading change the memory that is needed', async () => {
  const needs = async (options: Parameters<typeof inspectModel>[1]) => (await inspectModel(bytes, options)).memory!;
  const base = await needs({ nCtx: 64 });
  assert.equal((await needs({ nCtx: 128 })).kvBytes, 2 * base.kvBytes);
  assert.equal((await needs({ nCtx: 64, kvType: 'F32' })).kvBytes, 2 * base.kvBytes);
  const { kvBytes } = await needs({ nCtx: 64, kvType: 'Q8_0' });
  // A block of Q8_0 has 34 bytes where 32 halves have 64.
  assert.equal(kvBytes, (34 / 64) * base.kvBytes);
  assert.equal((await needs({ nCtx: 64, parallel: 3 })).kvBytes, 3 * base.kvBytes);
  assert.ok((await needs({ nCtx: 64, threads: 8 })).workBytes > (await needs({ nCtx: 64, threads: 1 })).workBytes);
});

test('a cache that cannot hold the heads is the reason why a model does not run', async () => {
  const narrow = randomLlamaGguf({ seed: 1, dtype: 'Q8_0', ...shape, nHead: 4, nHeadKv: 4 });
  const { memory, problem } = await inspectModel(narrow, { kvType: 'Q8_0' });
  assert.equal(memory, undefined);
  assert.equal(problem?.code, 'UNSUPPORTED_FEATURE');
  assert.match(problem.message, /Q8_0 takes heads of a multiple of 32 elements.*have 16/);
});

test('a model that does not fit into memory says so', async () => {
  const { memory, problem } = await inspectModel(bytes, { nCtx: 2 ** 20, parallel: 64 });
  assert.equal(memory, undefined);
  assert.match(problem!.message, /needs [\d.]+ GiB of memory.*smaller context/);
});

test('bad options and what is no GGUF file are errors', async () => {
  await assert.rejects(inspectModel(bytes, { nCtx: 0 }), { code: 'INVALID_OPTION' });
  await assert.rejects(inspectModel(new Uint8Array(0)), { code: 'GGUF_TRUNCATED' });
});
