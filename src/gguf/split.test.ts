// Proves that a model which is split over files is read as if it were one, and that parts which are missing or do not
// belong together are refused by their name, with nothing left open.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { memorySource } from '../base/byte-source.ts';
import type { ByteSource } from '../base/byte-source.ts';
import { SmallMindError } from '../base/errors.ts';
import { goodModel } from '../../test/hostile/edited-model.ts';
import { MemoryFolder, partName, splitGguf } from '../../test/split-gguf.ts';
import type { PartContent } from '../../test/split-gguf.ts';
import { getTensor, readGguf, readTensorBytes } from './reader.ts';
import type { MetadataEntry } from './value-types.ts';

const WHOLE = goodModel({ nEmbd: 64, nFf: 64 });
const FIRST = partName(0, 3);

const u16 = (value: number): MetadataEntry => ({ type: 'u16', value });

describe('a model that is split', () => {
  for (const [what, nParts, edit] of [
    ['into two', 2, () => {}],
    ['into three', 3, () => {}],
    ['into one', 1, () => {}],
    ['into more parts than it has tensors', 40, () => {}],
    ['with other alignments', 3, aligned],
  ] as const) {
    test(`${what} has the tensors and the metadata of the whole`, async () => {
      const whole = await readGguf(memorySource(WHOLE));
      const folder = new MemoryFolder(await splitGguf(WHOLE, nParts, edit));
      const gguf = await readGguf(await folder.open(partName(0, nParts)));
      assert.deepEqual([...gguf.tensors.keys()], [...whole.tensors.keys()]);
      for (const info of gguf.tensors.values()) {
        const expected = getTensor(whole, info.name);
        assert.deepEqual({ ...info, offsetBytes: 0 }, { ...expected, offsetBytes: 0 });
        assert.deepEqual(await readTensorBytes(gguf, info), await readTensorBytes(whole, expected), info.name);
      }
      for (const [key, entry] of whole.metadata.entries()) assert.deepEqual(gguf.metadata.get(key), entry);
      assert.equal(folder.nOpen, nParts);
      await gguf.source.close();
      assert.equal(folder.nOpen, 0);
    });
  }

  test('is one source, which can be read across its parts, and no further than its end', async () => {
    const files = await splitGguf(WHOLE, 3);
    const gguf = await readGguf(await new MemoryFolder(files).open(FIRST));
    const all = new Uint8Array(Buffer.concat([...files.values()]));
    assert.equal(gguf.source.sizeBytes, all.length);
    const first = files.get(FIRST)!.length;
    for (const [at, n] of [
      [0, all.length],
      [first - 5, 10],
      [first, 5],
      [all.length, 0],
    ] as const) {
      const target = new Uint8Array(n);
      await gguf.source.read(at, target);
      assert.deepEqual(target, all.slice(at, at + n));
    }
    await assert.rejects(gguf.source.read(all.length - 1, new Uint8Array(2)), { code: 'GGUF_TRUNCATED' });
  });

  test('is found by URLs with a query', async () => {
    const files = Array.from(await splitGguf(WHOLE, 3), ([name, bytes]) => [`http://x/${name}?a=b`, bytes] as const);
    const gguf = await readGguf(await new MemoryFolder(new Map(files)).open(`http://x/${FIRST}?a=b`));
    assert.equal(gguf.tensors.size, (await readGguf(memorySource(WHOLE))).tensors.size);
  });
});

describe('a model that is split is refused', () => {
  type Files = Map<string, Uint8Array>;
  const cases: readonly [what: string, code: string, message: RegExp, edit: Edit, change?: (files: Files) => void][] = [
    [
      'for a part that is missing',
      'GGUF_MISSING',
      /^model-00002-of-00003\.gguf: part 2 of 3 of the model is missing; put it beside the first$/,
      () => {},
      (files) => files.delete(partName(1, 3)),
    ],
    [
      'for a part that is cut off',
      'GGUF_TRUNCATED',
      /^model-00003-of-00003\.gguf: tensor/,
      () => {},
      (files) => files.set(partName(2, 3), files.get(partName(2, 3))!.subarray(0, -1)),
    ],
    [
      'for a part that is no GGUF file',
      'GGUF_INVALID',
      /^model-00002-of-00003\.gguf: magic/,
      () => {},
      (files) => files.set(partName(1, 3), Buffer.from('<!DOCTYPE html>')),
    ],
    [
      'for parts in another order',
      'GGUF_INVALID',
      /^model-00002-of-00003\.gguf: "split\.no" says that this is part 3 of 3, expected part 2 of 3/,
      ({ metadata }, i) => i > 0 && metadata.set('split.no', u16(3 - i)),
    ],
    [
      'for a part of another split',
      'GGUF_INVALID',
      /^model-00003-of-00003\.gguf: "split\.no" says that this is part 3 of 4, expected part 3 of 3/,
      ({ metadata }, i) => i === 2 && metadata.set('split.count', u16(4)),
    ],
    [
      'for a part that does not say that it is one',
      'GGUF_MISSING',
      /^model-00002-of-00003\.gguf: the metadata has no "split\.no"/,
      ({ metadata }, i) => i === 1 && metadata.delete('split.no'),
    ],
    [
      'for a tensor too few',
      'GGUF_INVALID',
      /^model-00001-of-00003\.gguf: "split\.tensors\.count" says 21, but the parts have 20; they are not of one model/,
      ({ tensors }, i) => i === 1 && tensors.pop(),
    ],
    [
      'for a tensor in two parts',
      'GGUF_INVALID',
      /^model-00002-of-00003\.gguf: "tensor token_embd\.weight" is in an earlier part, too/,
      ({ tensors }, i) => i === 1 && tensors.push({ ...tensors[0]!, name: 'token_embd.weight' }),
    ],
    [
      'without a count of tensors',
      'GGUF_MISSING',
      /"split\.tensors\.count"/,
      ({ metadata }, i) => i === 0 && metadata.delete('split.tensors.count'),
    ],
    ['into no parts', 'GGUF_INVALID', /"split\.count" expected a count.*got 0/, firstCount(u16(0))],
    ['into half a part', 'GGUF_INVALID', /"split\.count".*got 0\.5/, firstCount({ type: 'f32', value: 0.5 })],
    ['into a text', 'GGUF_INVALID', /"split\.count" expected a number/, firstCount({ type: 'string', value: '3' })],
    ['into 65535 parts', 'GGUF_LIMIT', /above the limit splitCount of 1024/, firstCount(u16(65_535))],
    [
      'into as many parts as its name does not say',
      'GGUF_INVALID',
      /"split\.count" says 4, expected a file whose name ends in -00001-of-00004\.gguf/,
      firstCount(u16(4)),
    ],
  ];
  for (const [what, code, message, edit, change] of cases) {
    test(what, async () => {
      const files: Files = await splitGguf(WHOLE, 3, edit);
      change?.(files);
      const folder = new MemoryFolder(files);
      const first = await folder.open(FIRST);
      await assertRefused(first, code, message);
      assert.equal(folder.nOpen, 1);
    });
  }

  test('where another part than the first is given', async () => {
    const folder = new MemoryFolder(await splitGguf(WHOLE, 3));
    const message = /"split\.no" says that this is part 2 of 3; give the first, which ends in -00001-of-00003\.gguf/;
    await assertRefused(await folder.open(partName(1, 3)), 'GGUF_INVALID', message);
  });

  test('where its source knows no others', async () => {
    const bytes = (await splitGguf(WHOLE, 3)).get(FIRST)!;
    const message = /split over 3 files, and part 2 of 3 cannot be found.*give the path or URL/;
    await assertRefused(memorySource(bytes, FIRST), 'UNSUPPORTED_FEATURE', message);
  });

  test('by the error of the source where that is another than that the part is not there', async () => {
    const bytes = (await splitGguf(WHOLE, 3)).get(FIRST)!;
    const failure = new SmallMindError('FILE_UNREADABLE', 'permission denied');
    const source: ByteSource = { ...memorySource(bytes, FIRST), openSibling: () => Promise.reject(failure) };
    await assert.rejects(readGguf(source), failure);
  });
});

type Edit = (content: PartContent, index: number) => unknown;

function firstCount(entry: MetadataEntry): Edit {
  return ({ metadata }, i) => i === 0 && metadata.set('split.count', entry);
}

function aligned({ metadata }: PartContent, index: number): void {
  metadata.set('general.alignment', { type: 'u32', value: 32 << index });
}

async function assertRefused(source: ByteSource, code: string, message: RegExp): Promise<void> {
  await assert.rejects(readGguf(source), (error) => {
    assert.ok(error instanceof SmallMindError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}
