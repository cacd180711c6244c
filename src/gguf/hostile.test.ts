// Proves that damaged and hostile files are refused: each rule and each limit with a file that breaks just that one, by
// a typed error that names source, field and offset, and without reading or allocating what a file merely claims.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { memorySource } from '../base/byte-source.ts';
import type { ByteSource } from '../base/byte-source.ts';
import { GgufError, SmallMindError, UnsupportedError } from '../base/errors.ts';
import { ARRAY, BOOL, F32, STRING, entry, file, list, str, tensor, u64, u8 } from '../../test/hostile/gguf-pieces.ts';
import type { Piece } from '../../test/hostile/gguf-pieces.ts';
import { MALFORMED, UNSUPPORTED, wellFormed } from '../../test/hostile/malformed-gguf.ts';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { MemoryFolder, partName, splitGguf } from '../../test/split-gguf.ts';
import { GGUF_LIMITS } from './limits.ts';
import type { GgufLimits } from './limits.ts';
import { readGguf } from './reader.ts';

const shared = needsShared();

/** A file of any size of which only the first bytes are given; the rest is zeros. Notes how far it was read. */
function hugeSource(head: Uint8Array, sizeBytes: number): ByteSource & { readBytes: number } {
  return {
    name: 'huge.gguf',
    sizeBytes,
    readBytes: 0,
    async read(offsetBytes, target) {
      this.readBytes = Math.max(this.readBytes, offsetBytes + target.length);
      target.fill(0);
      if (offsetBytes < head.length) target.set(head.subarray(offsetBytes, offsetBytes + target.length));
    },
    async close() {},
  };
}

async function refusal(input: Uint8Array | ByteSource, limits?: Partial<GgufLimits>): Promise<SmallMindError> {
  try {
    await readGguf(input instanceof Uint8Array ? memorySource(input, 'bad.gguf') : input, limits);
  } catch (error) {
    assert(error instanceof SmallMindError, `not a typed error: ${error}`);
    return error;
  }
  return assert.fail('the file was accepted');
}

/** Checks code, message, and that the error says where: in words and in details. */
async function assertRefused(bytes: Uint8Array, code: string, message: RegExp): Promise<void> {
  const error = await refusal(bytes);
  assert(error instanceof GgufError);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  assert.match(error.message, /^bad\.gguf: .* at byte \d+ .*; /s);
  assert.equal(error.details['source'], 'bad.gguf');
  assert.equal(typeof error.details['field'], 'string');
  assert.equal(typeof error.details['offsetBytes'], 'number');
}

test('the well-formed file, of which the others are variations, is accepted', async () => {
  const gguf = await readGguf(memorySource(wellFormed));
  assert.deepEqual([gguf.metadata.size, gguf.tensors.size], [6, 2]);
});

describe('a file is refused', () => {
  for (const [why, bytes, code, message] of MALFORMED) {
    test(`for: ${why}`, () => assertRefused(bytes, code, message));
  }

  for (const [why, bytes, code, message] of UNSUPPORTED) {
    test(`as unsupported for: ${why}`, async () => {
      const error = await refusal(bytes);
      assert(error instanceof UnsupportedError);
      assert.equal(error.code, code);
      assert.match(error.message, message);
    });
  }

  test('at the count, and not later, where what it counts is one more than the file can hold', async () => {
    for (const [elementType, bytesEach] of [
      [0, 1],
      [10, 8],
      [BOOL, 1],
      [STRING, 8],
      [ARRAY, 12],
    ] as const) {
      const counting = (n: number) =>
        file({ alignment: 1, entries: [entry('k', ARRAY, list(elementType, n, Buffer.alloc(3 * bytesEach)))] });
      await readGguf(memorySource(counting(3)));
      const error = await refusal(counting(4));
      assert.equal(error.code, 'GGUF_TRUNCATED');
      // Header 24, key 9, type 4, type of elements 4.
      assert.equal(error.details['offsetBytes'], 41, error.message);
    }
  });

  test('wherever it is cut off', async () => {
    const gguf = await readGguf(memorySource(wellFormed));
    const last = gguf.tensors.get('q')!;
    const endBytes = last.offsetBytes + last.sizeBytes;
    assert.equal(endBytes, wellFormed.length);
    for (let nBytes = 0; nBytes < endBytes; nBytes++) {
      const error = await refusal(wellFormed.subarray(0, nBytes));
      assert.equal(error.code, 'GGUF_TRUNCATED', `cut after ${nBytes} bytes: ${error.message}`);
    }
  });

  test('or accepted, but never crashes, whichever byte is changed', async () => {
    let nRefused = 0;
    for (let at = 0; at < wellFormed.length; at++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xff, wellFormed[at]! ^ 1]) {
        const bytes = Uint8Array.from(wellFormed);
        bytes[at] = value;
        try {
          await readGguf(memorySource(bytes));
        } catch (error) {
          assert(error instanceof SmallMindError, `byte ${at} = ${value}: ${error}`);
          nRefused++;
        }
      }
    }
    assert.ok(nRefused > 500);
  });

  test('with a message that is short and free of control characters, whatever its keys are', async () => {
    const error = await refusal(file({ entries: [entry(`\x1b[2J${'k'.repeat(60_000)}`, 13)] }));
    assert.ok(error.message.length < 400);
    assert.ok(!error.message.includes('\x1b'));
  });
});

describe('each limit', () => {
  /** For each limit: what costs it exactly `n`. */
  const atLimit: Record<keyof GgufLimits, (n: number) => Uint8Array | Promise<ByteSource>> = {
    metadataCount: (n) => file({ entries: Array.from({ length: n }, (_, i) => entry(`k${i}`, 0, u8(1))) }),
    tensorCount: (n) =>
      file({ tensors: Array.from({ length: n }, (_, i) => tensor(`t${i}`, [8], F32, 32 * i)), dataBytes: 32 * n }),
    splitCount: async (n) => new MemoryFolder(await splitGguf(wellFormed, n)).open(partName(0, n)),
    keyBytes: (n) => file({ entries: [entry('k'.repeat(n), 0, u8(1))] }),
    tensorNameBytes: (n) => file({ tensors: [tensor('t'.repeat(n), [8], F32, 0)], dataBytes: 32 }),
    stringBytes: (n) => file({ entries: [entry('k', STRING, str('x'.repeat(n)))] }),
    arrayLength: (n) => file({ entries: [entry('k', ARRAY, list(0, n, Buffer.alloc(n)))] }),
    arrayDepth: (n) => {
      let value = list(0, 1, u8(1));
      for (let depth = 1; depth < n; depth++) value = list(ARRAY, 1, value);
      return file({ entries: [entry('k', ARRAY, value)] });
    },
    arrayCount: (n) => file({ entries: Array.from({ length: n }, (_, i) => entry(`k${i}`, ARRAY, list(0, 0))) }),
    dimensions: (n) => file({ tensors: [tensor('t', Array<number>(n).fill(1), F32, 0)], dataBytes: 32 }),
    // Header 24, key 9, type 4, length 8.
    metadataBytes: (n) => file({ entries: [entry('k', STRING, str('x'.repeat(n - 45)))] }),
  };
  const smallLimits: Partial<Record<keyof GgufLimits, number>> = { metadataBytes: 70 };

  for (const name of Object.keys(GGUF_LIMITS) as (keyof GgufLimits)[]) {
    test(`${name} is accepted when reached and refused by name when passed`, async () => {
      const limit = smallLimits[name] ?? 3;
      const reached = await atLimit[name](limit);
      await readGguf(reached instanceof Uint8Array ? memorySource(reached) : reached, { [name]: limit });
      const error = await refusal(await atLimit[name](limit + 1), { [name]: limit });
      assert.equal(error.code, 'GGUF_LIMIT');
      assert.match(error.message, new RegExp(`above the limit ${name} of ${limit};`));
      assert.equal(error.details['limit'], limit);
      assert.equal(Number(error.details['value']), limit + 1);
    });
  }

  test('arrays inside an array count as arrays', async () => {
    const nested = file({ entries: [entry('k', ARRAY, list(ARRAY, 3, list(0, 0), list(0, 0), list(0, 0)))] });
    await readGguf(memorySource(nested), { arrayCount: 4 });
    assert.match((await refusal(nested, { arrayCount: 3 })).message, /arrayCount/);
  });
});

describe('a huge file', () => {
  const huge = 2 ** 45;
  for (const [why, head, message] of [
    ['a string of terabytes', file({ entries: [entry('k', STRING, u64(2 ** 44))] }), /stringBytes of 67108864/],
    ['an array of terabytes', file({ entries: [entry('k', ARRAY, list(0, 2 ** 44))] }), /arrayLength of 4194304/],
    ['billions of entries', file({ nEntries: 2 ** 32 }), /metadataCount of 65536/],
    ['billions of tensors', file({ nTensors: 2 ** 32 }), /tensorCount of 65536/],
    [
      'deep arrays',
      file({ entries: [entry('k', ARRAY, ...Array<Piece>(99).fill(list(ARRAY, 1)))] }),
      /arrayDepth of 4/,
    ],
  ] as const) {
    test(`that claims ${why} is refused after the first 64 KiB, with hardly any memory`, async () => {
      const source = hugeSource(head, huge);
      const before = process.memoryUsage().arrayBuffers;
      await assert.rejects(readGguf(source), (error) => error instanceof GgufError && message.test(error.message));
      assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 20);
      assert.equal(source.readBytes, 65_536);
    });
  }

  test('that really has long arrays before its mistake is read no further than twice up to that', async () => {
    // The file is all zeros from there: the array is full of empty strings, and then two keys are empty.
    const head = file({ nEntries: 3, entries: [entry('k', ARRAY, list(STRING, 2 ** 17))] });
    const source = hugeSource(head, huge);
    await assert.rejects(
      readGguf(source),
      (error) => error instanceof GgufError && /key 2.*repeats ""/.test(error.message),
    );
    assert.ok(source.readBytes <= 2 * (head.length + 8 * 2 ** 17 + 64));
  });

  test('is read when it is well-formed: tensors beyond 4 GiB have exact offsets', async () => {
    const big = 2 ** 40;
    const tensors = [tensor('a', [2 ** 38], F32, 0), tensor('b', [8], F32, big)];
    const gguf = await readGguf(hugeSource(file({ tensors }), huge));
    assert.equal(gguf.tensors.get('a')!.sizeBytes, big);
    assert.equal(gguf.tensors.get('b')!.offsetBytes, gguf.dataOffsetBytes + big);
  });
});

describe('the shared malformed files', () => {
  interface ManifestEntry {
    file: string;
    expect: 'accept' | 'reject';
    why: string;
  }
  test('are accepted and rejected as their manifest says', shared, async () => {
    const path = (name: string): string => sharedPath('malformed', 'gguf', name);
    const manifest: ManifestEntry[] = JSON.parse(readFileSync(path('manifest.json'), 'utf8'));
    assert.ok(manifest.length >= 13);
    for (const { file: name, expect, why } of manifest) {
      const bytes = readFileSync(path(name));
      if (expect === 'accept') await readGguf(memorySource(bytes, name));
      else await assert.rejects(readGguf(memorySource(bytes, name)), SmallMindError, `${name}: ${why}`);
    }
  });
});
