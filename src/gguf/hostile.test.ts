// Proves that damaged and hostile files are refused: each rule and each limit with a file that breaks just that one, by
// a typed error that names source, field and offset, and without reading or allocating what a file merely claims.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { memorySource } from '../base/byte-source.ts';
import type { ByteSource } from '../base/byte-source.ts';
import { GgufError, SmallMindError, UnsupportedError } from '../base/errors.ts';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { GGUF_LIMITS } from './limits.ts';
import type { GgufLimits } from './limits.ts';
import { readGguf } from './reader.ts';

const shared = needsShared();

// A file piece by piece, since the writer refuses to write what is tested here.
type Piece = Buffer;
const u8 = (value: number): Piece => Buffer.of(value);
const u64 = (value: number | bigint): Piece => {
  const piece = Buffer.alloc(8);
  piece.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return piece;
};
const u32 = (value: number): Piece => u64(value).subarray(0, 4);
const str = (text: string): Piece => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);
const entry = (key: string, type: number, ...value: Piece[]): Piece => Buffer.concat([str(key), u32(type), ...value]);
const list = (elementType: number, length: number | bigint, ...elements: Piece[]): Piece =>
  Buffer.concat([u32(elementType), u64(length), ...elements]);
const tensor = (name: string, ne: (number | bigint)[], type: number, offset: number | bigint): Piece =>
  Buffer.concat([str(name), u32(ne.length), ...ne.map(u64), u32(type), u64(offset)]);

const [BOOL, STRING, ARRAY] = [7, 8, 9];
const [F32, Q8_0] = [0, 8];

interface Parts {
  version?: number;
  entries?: Piece[];
  tensors?: Piece[];
  nEntries?: number | bigint;
  nTensors?: number | bigint;
  dataBytes?: number;
  alignment?: number;
}

function file(parts: Parts): Uint8Array {
  const { version = 3, entries = [], tensors = [], dataBytes = 0, alignment = 32 } = parts;
  const { nEntries = entries.length, nTensors = tensors.length } = parts;
  const head = [Buffer.from('GGUF'), u32(version), u64(nTensors), u64(nEntries), ...entries, ...tensors];
  const nBytes = head.reduce((sum, piece) => sum + piece.length, 0);
  const padding = (alignment - (nBytes % alignment)) % alignment;
  return Buffer.concat([...head, Buffer.alloc(padding + dataBytes)]);
}

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

async function refusal(bytes: Uint8Array, limits?: Partial<GgufLimits>): Promise<SmallMindError> {
  try {
    await readGguf(memorySource(bytes, 'bad.gguf'), limits);
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

/** Everything that may occur in a small file, well-formed. */
const wellFormed = file({
  entries: [
    entry('general.alignment', 4, u32(32)),
    entry('s', STRING, str('text')),
    entry('b', BOOL, u8(1)),
    entry('l', ARRAY, list(STRING, 2, str('x'), str('yz'))),
    entry('n', ARRAY, list(ARRAY, 1, list(5, 2, u32(1), u32(2)))),
    entry('f', ARRAY, list(BOOL, 2, u8(0), u8(1))),
  ],
  tensors: [tensor('t', [8, 2], F32, 0), tensor('q', [32], Q8_0, 64)],
  dataBytes: 64 + 34,
});

test('the well-formed file, of which the others are variations, is accepted', async () => {
  const gguf = await readGguf(memorySource(wellFormed));
  assert.deepEqual([gguf.metadata.size, gguf.tensors.size], [6, 2]);
});

describe('a file is refused', () => {
  const t = (...args: Parameters<typeof tensor>) => [tensor(...args)];
  const cases: [why: string, bytes: Uint8Array, code: string, message: RegExp][] = [
    ['empty', new Uint8Array(0), 'GGUF_TRUNCATED', /the file is empty/],
    ['another format', Buffer.from('{"metadata": {}}'), 'GGUF_INVALID', /not a GGUF file/],
    ['a Git LFS pointer', Buffer.from('version https://git-lfs'), 'GGUF_INVALID', /not a GGUF file.*Git LFS pointer/],
    ['a web page', Buffer.from('<!DOCTYPE html>'), 'GGUF_INVALID', /not a GGUF file.*web page/],
    ['two bytes of another format', Buffer.from('PK'), 'GGUF_INVALID', /not a GGUF file/],
    ['nothing but half a magic', Buffer.from('GG'), 'GGUF_TRUNCATED', /version/],
    ['version 0', file({ version: 0 }), 'GGUF_INVALID', /version.*expected 2 or 3, got 0/],
    ['a nonsense version', file({ version: 0x12345678 }), 'GGUF_INVALID', /version.*expected 2 or 3/],
    ['more tensors than fit', file({ nTensors: 1000 }), 'GGUF_TRUNCATED', /tensor count.*1000/],
    ['more entries than fit', file({ nEntries: 1000 }), 'GGUF_TRUNCATED', /metadata count.*1000/],
    ['-1 tensors', file({ nTensors: -1 }), 'GGUF_LIMIT', /tensor count.*18446744073709551615.*tensorCount/],
    ['-1 entries', file({ nEntries: -1 }), 'GGUF_LIMIT', /metadata count.*metadataCount/],
    [
      'key twice',
      file({ entries: [entry('k', 0, u8(1)), entry('k', 0, u8(1))] }),
      'GGUF_INVALID',
      /key 1.*repeats "k"/,
    ],
    ['value type 13', file({ entries: [entry('k', 13, u64(0))] }), 'GGUF_INVALID', /"k".*value type.*13/],
    ['element type 13', file({ entries: [entry('k', ARRAY, list(13, 0))] }), 'GGUF_INVALID', /"k".*value type.*13/],
    ['boolean of 2', file({ entries: [entry('k', BOOL, u8(2))] }), 'GGUF_INVALID', /"k".*boolean.*got 2/],
    [
      'boolean in array',
      file({ entries: [entry('k', ARRAY, list(BOOL, 1, u8(3)))] }),
      'GGUF_INVALID',
      /boolean.*got 3/,
    ],
    ['string longer than the rest', file({ entries: [entry('k', STRING, u64(5000))] }), 'GGUF_TRUNCATED', /"k".*5000/],
    ['huge key', file({ entries: [u64(2 ** 40), Buffer.alloc(8)] }), 'GGUF_LIMIT', /key 0.*1099511627776.*keyBytes/],
    ['huge string', file({ entries: [entry('k', STRING, u64(2n ** 63n))] }), 'GGUF_LIMIT', /"k".*stringBytes/],
    ['huge array', file({ entries: [entry('k', ARRAY, list(0, 2n ** 62n))] }), 'GGUF_LIMIT', /"k".*arrayLength/],
    ['numbers beyond the end', file({ entries: [entry('k', ARRAY, list(10, 9))] }), 'GGUF_TRUNCATED', /"k".*72 more/],
    [
      'strings beyond the end',
      file({ entries: [entry('k', ARRAY, list(STRING, 9))] }),
      'GGUF_TRUNCATED',
      /"k".*72 more/,
    ],
    [
      'arrays beyond the end',
      file({ entries: [entry('k', ARRAY, list(ARRAY, 9))] }),
      'GGUF_TRUNCATED',
      /"k".*108 more/,
    ],
    [
      'booleans beyond the end',
      file({ entries: [entry('k', ARRAY, list(BOOL, 99))] }),
      'GGUF_TRUNCATED',
      /"k".*99 more/,
    ],
    ...[0, 24, 33, 2 ** 32 - 1].map((alignment): [string, Uint8Array, string, RegExp] => [
      `alignment ${alignment}`,
      file({ entries: [entry('general.alignment', 4, u32(alignment))] }),
      'GGUF_INVALID',
      new RegExp(`"general.alignment".*power of two.*${alignment}`),
    ]),
    [
      'alignment 2^32',
      file({ entries: [entry('general.alignment', 10, u64(2 ** 32))] }),
      'GGUF_INVALID',
      /power of two/,
    ],
    ['alignment 1.5', file({ entries: [entry('general.alignment', 6, u32(0x3fc00000))] }), 'GGUF_INVALID', /1\.5/],
    ['alignment as text', file({ entries: [entry('general.alignment', STRING, str('32'))] }), 'GGUF_INVALID', /"32"/],
    [
      'name twice',
      file({ tensors: [t('t', [8], F32, 0), t('t', [8], F32, 32)].flat(), dataBytes: 64 }),
      'GGUF_INVALID',
      /tensor 1.*repeats "t"/,
    ],
    [
      'five dimensions',
      file({ tensors: t('t', [1, 1, 1, 1, 1], F32, 0), dataBytes: 4 }),
      'GGUF_LIMIT',
      /"t".*says 5.*dimensions/,
    ],
    [
      '2^32 - 1 dimensions',
      file({ tensors: [Buffer.concat([str('t'), u32(-1), Buffer.alloc(64)])] }),
      'GGUF_LIMIT',
      /dimensions/,
    ],
    ['dimension 0', file({ tensors: t('t', [8, 0], F32, 0), dataBytes: 32 }), 'GGUF_INVALID', /"t".*dimension 1 of 0/],
    [
      'dimension -1',
      file({ tensors: t('t', [8, -1], F32, 0), dataBytes: 32 }),
      'GGUF_INVALID',
      /dimension 1 of 18446744073709551615/,
    ],
    [
      '2^63 elements',
      file({ tensors: t('t', [2 ** 32, 2 ** 31], F32, 0), dataBytes: 32 }),
      'GGUF_INVALID',
      /dimension 1 of/,
    ],
    [
      '2^64 + 8 elements, which wrap',
      file({ tensors: t('t', [8, 2n ** 61n + 1n], F32, 0), dataBytes: 32 }),
      'GGUF_INVALID',
      /dimension 1 of/,
    ],
    ['removed type 4', file({ tensors: t('t', [32], 4, 0), dataBytes: 64 }), 'GGUF_INVALID', /"t".*type 4/],
    ['unknown type 999', file({ tensors: t('t', [32], 999, 0), dataBytes: 64 }), 'GGUF_INVALID', /"t".*type 999/],
    [
      'half blocks',
      file({ tensors: t('t', [16, 2], Q8_0, 0), dataBytes: 34 }),
      'GGUF_INVALID',
      /"t".*rows of 16.*multiple of 32/,
    ],
    ['scalar block', file({ tensors: t('t', [], Q8_0, 0), dataBytes: 34 }), 'GGUF_INVALID', /"t".*rows of 1 /],
    [
      'unaligned data',
      file({ tensors: t('t', [8], F32, 16), dataBytes: 64 }),
      'GGUF_INVALID',
      /"t".*offset 16.*alignment of 32/,
    ],
    [
      'data beyond the end',
      file({ tensors: t('t', [8], F32, 64), dataBytes: 64 }),
      'GGUF_TRUNCATED',
      /"t".*up to byte/,
    ],
    ['data one byte short', file({ tensors: t('t', [8], F32, 0), dataBytes: 31 }), 'GGUF_TRUNCATED', /"t".*up to byte/],
    ['data at -32', file({ tensors: t('t', [8], F32, -32), dataBytes: 64 }), 'GGUF_TRUNCATED', /"t".*up to byte/],
    [
      'data of exabytes',
      file({ tensors: t('t', [2 ** 52], F32, 0), dataBytes: 64 }),
      'GGUF_TRUNCATED',
      /"t".*up to byte/,
    ],
    [
      'two tensors on the same bytes',
      file({ tensors: [...t('a', [8], F32, 0), ...t('b', [8], F32, 0)], dataBytes: 32 }),
      'GGUF_INVALID',
      /"b".*on that of tensor "a"/,
    ],
    [
      'a tensor that reaches into one described before it',
      file({ tensors: [...t('a', [8], F32, 32), ...t('b', [9], F32, 0)], dataBytes: 96 }),
      'GGUF_INVALID',
      /"a".*on that of tensor "b"/,
    ],
  ];
  for (const [why, bytes, code, message] of cases) {
    test(`for: ${why}`, () => assertRefused(bytes, code, message));
  }

  for (const [why, version, message] of [
    ['big-endian, version 3', 0x03000000, /big-endian.*gguf_convert_endian/],
    ['big-endian, version 2', 0x02000000, /big-endian/],
    ['version 1', 1, /version 1.*convert/],
    ['version 4', 4, /version 4.*update/],
  ] as const) {
    test(`as unsupported for: ${why}`, async () => {
      const error = await refusal(file({ version }));
      assert(error instanceof UnsupportedError);
      assert.equal(error.code, 'UNSUPPORTED_FEATURE');
      assert.match(error.message, message);
    });
  }

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
  const atLimit: Record<keyof GgufLimits, (n: number) => Uint8Array> = {
    metadataCount: (n) => file({ entries: Array.from({ length: n }, (_, i) => entry(`k${i}`, 0, u8(1))) }),
    tensorCount: (n) =>
      file({ tensors: Array.from({ length: n }, (_, i) => tensor(`t${i}`, [8], F32, 32 * i)), dataBytes: 32 * n }),
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
      await readGguf(memorySource(atLimit[name](limit)), { [name]: limit });
      const error = await refusal(atLimit[name](limit + 1), { [name]: limit });
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
