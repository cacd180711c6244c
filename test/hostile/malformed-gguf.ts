// The hand-made half of the hostile corpus: for each rule of the format a file that breaks just that one, and the
// well-formed file of which they are variations. The other half, mutations.ts makes from seeds.

import { ARRAY, BOOL, F32, Q8_0, STRING, entry, file, list, str, tensor, u32, u64, u8 } from './gguf-pieces.ts';

/** What the message has to say is a pattern. */
type Malformed = readonly [why: string, bytes: Uint8Array, code: string, message: RegExp];

/** Everything that may occur in a small file, well-formed. */
export const wellFormed = file({
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

const t = (...args: Parameters<typeof tensor>) => [tensor(...args)];
/** Files of which each breaks one rule, with the error that it gets. */
export const MALFORMED: readonly Malformed[] = [
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
  ['key twice', file({ entries: [entry('k', 0, u8(1)), entry('k', 0, u8(1))] }), 'GGUF_INVALID', /key 1.*repeats "k"/],
  ['value type 13', file({ entries: [entry('k', 13, u64(0))] }), 'GGUF_INVALID', /"k".*value type.*13/],
  ['element type 13', file({ entries: [entry('k', ARRAY, list(13, 0))] }), 'GGUF_INVALID', /"k".*value type.*13/],
  ['boolean of 2', file({ entries: [entry('k', BOOL, u8(2))] }), 'GGUF_INVALID', /"k".*boolean.*got 2/],
  ['boolean in array', file({ entries: [entry('k', ARRAY, list(BOOL, 1, u8(3)))] }), 'GGUF_INVALID', /boolean.*got 3/],
  ['string longer than the rest', file({ entries: [entry('k', STRING, u64(5000))] }), 'GGUF_TRUNCATED', /"k".*5000/],
  ['huge key', file({ entries: [u64(2 ** 40), Buffer.alloc(8)] }), 'GGUF_LIMIT', /key 0.*1099511627776.*keyBytes/],
  ['huge string', file({ entries: [entry('k', STRING, u64(2n ** 63n))] }), 'GGUF_LIMIT', /"k".*stringBytes/],
  ['huge array', file({ entries: [entry('k', ARRAY, list(0, 2n ** 62n))] }), 'GGUF_LIMIT', /"k".*arrayLength/],
  ['numbers beyond the end', file({ entries: [entry('k', ARRAY, list(10, 9))] }), 'GGUF_TRUNCATED', /"k".*72 more/],
  ['strings beyond the end', file({ entries: [entry('k', ARRAY, list(STRING, 9))] }), 'GGUF_TRUNCATED', /"k".*72 more/],
  ['arrays beyond the end', file({ entries: [entry('k', ARRAY, list(ARRAY, 9))] }), 'GGUF_TRUNCATED', /"k".*108 more/],
  ['booleans beyond the end', file({ entries: [entry('k', ARRAY, list(BOOL, 99))] }), 'GGUF_TRUNCATED', /"k".*99 more/],
  ...[0, 24, 33, 2 ** 32 - 1].map((alignment): Malformed => [
    `alignment ${alignment}`,
    file({ entries: [entry('general.alignment', 4, u32(alignment))] }),
    'GGUF_INVALID',
    new RegExp(`"general.alignment".*power of two.*${alignment}`),
  ]),
  ['alignment 2^32', file({ entries: [entry('general.alignment', 10, u64(2 ** 32))] }), 'GGUF_INVALID', /power of two/],
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
  ['data beyond the end', file({ tensors: t('t', [8], F32, 64), dataBytes: 64 }), 'GGUF_TRUNCATED', /"t".*up to byte/],
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

/** Sound files of a kind that is not read. */
export const UNSUPPORTED: readonly Malformed[] = [
  ['big-endian, version 3', file({ version: 0x03000000 }), 'UNSUPPORTED_FEATURE', /big-endian.*gguf_convert_endian/],
  ['big-endian, version 2', file({ version: 0x02000000 }), 'UNSUPPORTED_FEATURE', /big-endian/],
  ['version 1', file({ version: 1 }), 'UNSUPPORTED_FEATURE', /version 1.*convert/],
  ['version 4', file({ version: 4 }), 'UNSUPPORTED_FEATURE', /version 4.*update/],
];
