// The seeded half of the hostile corpus: mutants of real files and of files that we write. Mutant n is a function of n
// and of the seed files alone, so that a number is enough to make it again. It damages bytes, as a bad disk would, and
// what the format means, as an attacker would: lengths, counts, types, values, places.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { memorySource } from '../../src/base/byte-source.ts';
import { Random } from '../../src/base/random.ts';
import { readGguf } from '../../src/gguf/reader.ts';
import { alignUp } from '../../src/gguf/tensor-reader.ts';
import { sharedPath } from '../shared-data.ts';
import { goodModel } from './edited-model.ts';
import { ARRAY, BOOL, STRING, list, str, u32, u64, u8 } from './gguf-pieces.ts';
import type { Piece } from './gguf-pieces.ts';
import { wellFormed } from './malformed-gguf.ts';

/** A sound file, and where in it what stands. All places are bytes from its start. */
export interface SeedFile {
  readonly name: string;
  readonly bytes: Buffer;
  /** Of each metadata entry: its key, with the length before it; its type and value; its end. */
  readonly entries: readonly { readonly at: number; readonly typeAt: number; readonly endAt: number }[];
  /** Of each tensor descriptor: its rank, after the name. */
  readonly tensorsAt: readonly number[];
  readonly headEnd: number;
  readonly dataAt: number;
  readonly alignment: number;
}

export interface Mutant {
  /** The seed file and what was done to it. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SHARED = [
  ['models', 'stories260K', 'stories260K-q8_0.gguf'],
  ['models', 'tinystories-656k', 'TinyStories-656K-q4_0.gguf'],
  ['malformed', 'gguf', 'ok-basic.gguf'],
  ['malformed', 'gguf', 'ok-v2.gguf'],
  ['malformed', 'gguf', 'ok-custom-align.gguf'],
  ['vocab', 'ggml-vocab-llama-spm.gguf'],
  ['vocab', 'ggml-vocab-gpt-2.gguf'],
];
/** Heads longer than this take milliseconds to read, and their files are chosen less often. */
const LONG_HEAD_BYTES = 1 << 18;
const SHORT_HEAD_CHANCES = 12;

/** The files that mutants are made from; of the shared ones those that are there. */
export async function loadSeedFiles(): Promise<SeedFile[]> {
  const model = { nEmbd: 64, nFf: 64 };
  const files: [name: string, bytes: Uint8Array][] = [
    ['every value type', wellFormed],
    ['a model in F32', goodModel(model)],
    ['a model in Q4_0', goodModel({ ...model, dtype: 'Q4_0', tied: true })],
    ['stories.gguf', readFileSync(join(ROOT, 'assets/stories.gguf'))],
  ];
  for (const path of SHARED.map((parts) => sharedPath(...parts))) {
    if (existsSync(path)) files.push([path.split(/[/\\]/).at(-1)!, readFileSync(path)]);
  }
  return Promise.all(files.map(([name, bytes]) => dissect(name, Buffer.from(bytes))));
}

async function dissect(name: string, bytes: Buffer): Promise<SeedFile> {
  const gguf = await readGguf(memorySource(bytes, name));
  let at = 24;
  const find = (text: string): number => {
    at = bytes.indexOf(str(text), at);
    assert(at > 0, `${name} has no "${text}" where it should`);
    return at;
  };
  const keys = Array.from(gguf.metadata.entries(), ([key]) => ({ at: find(key), length: str(key).length }));
  const tensors = Array.from(gguf.tensors.values(), ({ name: tensor, shape }) => {
    const nameAt = find(tensor);
    const rankAt = nameAt + str(tensor).length;
    return { nameAt, rankAt, endAt: rankAt + 4 + 8 * shape.length + 4 + 8 };
  });
  const dataAt = Math.min(bytes.length, gguf.dataOffsetBytes);
  const entriesEnd = tensors[0]?.nameAt ?? dataAt;
  return {
    name,
    bytes,
    entries: keys.map((key, i) => ({
      at: key.at,
      typeAt: key.at + key.length,
      endAt: keys[i + 1]?.at ?? entriesEnd,
    })),
    tensorsAt: tensors.map(({ rankAt }) => rankAt),
    headEnd: tensors.at(-1)?.endAt ?? entriesEnd,
    dataAt,
    alignment: gguf.alignment,
  };
}

/** Mutant number `n` of these files. */
export function makeMutant(seeds: readonly SeedFile[], n: number): Mutant {
  const dice = new Dice(n);
  const chances = seeds.flatMap((seed) =>
    Array<SeedFile>(seed.headEnd < LONG_HEAD_BYTES ? SHORT_HEAD_CHANCES : 1).fill(seed),
  );
  const seed = dice.pick(chances);
  const [kind, mutate] = dice.pick(MUTATIONS);
  let bytes = mutate(seed, dice, seeds);
  const isDamagedToo = dice.below(4) === 0;
  if (isDamagedToo) bytes = damageBytes({ ...seed, bytes }, dice);
  return { name: `${seed.name}: ${kind}${isDamagedToo ? ', bytes' : ''}`, bytes };
}

/** Random choices, fixed by a number. */
class Dice {
  readonly #random: Random;

  constructor(n: number) {
    this.#random = new Random(0x66757a7a, n);
  }

  /** An integer from 0 to `n` - 1. */
  below(n: number): number {
    return Math.floor(this.#random.uniform() * n);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** Some bytes of `length`, mostly few. */
  range(length: number): [start: number, end: number] {
    const start = this.below(length + 1);
    const size = this.below(2 ** this.below(Math.max(1, Math.log2(length + 1))) + 1);
    return [start, Math.min(length, start + size)];
  }
}

type Mutate = (seed: SeedFile, dice: Dice, seeds: readonly SeedFile[]) => Buffer;

/** Numbers at the edges of what fits somewhere. */
const EDGES = [
  0n,
  1n,
  2n,
  3n,
  13n,
  31n,
  33n,
  255n,
  1n << 16n,
  (1n << 31n) - 1n,
  1n << 31n,
  (1n << 32n) - 1n,
  1n << 32n,
].concat([(1n << 53n) - 1n, 1n << 53n, 1n << 60n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n, (1n << 64n) - 32n]);

/** Values that a key may not be ready for, with their types before them. */
const VALUES: readonly Piece[] = [
  ...[0, 1, 7, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1].map((value) => Buffer.concat([u32(4), u32(value)])),
  ...[-1, -(2 ** 31)].map((value) => Buffer.concat([u32(5), u32(value)])),
  ...[0x7fc00000, 0x7f800000, 0xff800000, 0x80000000, 0x3f800000, 1].map((bits) => Buffer.concat([u32(6), u32(bits)])),
  ...EDGES.flatMap((value) => [10, 11, 12].map((type) => Buffer.concat([u32(type), u64(value)]))),
  ...[0, 1, 2].map((value) => Buffer.concat([u32(BOOL), u8(value)])),
  ...['', 'llama', 'gpt2', 'none', '\0', '\ufffd'.repeat(300)].map((text) => Buffer.concat([u32(STRING), str(text)])),
  ...[0, 4, 5, 6, 10, 12].map((type) => Buffer.concat([u32(ARRAY), list(type, 0)])),
  ...[0, 1, 4, 64].map((n) => Buffer.concat([u32(ARRAY), list(5, n, Buffer.alloc(4 * n, 0xff))])),
  Buffer.concat([u32(ARRAY), list(STRING, 3, str('a'), str('a'), str(''))]),
  Buffer.concat([u32(ARRAY), list(BOOL, 2, u8(0), u8(1))]),
  Buffer.concat([u32(ARRAY), list(ARRAY, 2, list(0, 0), list(STRING, 1, str('x')))]),
  Buffer.concat([u32(ARRAY), list(6, 512, Buffer.alloc(2048, 0xff))]),
];

const MUTATIONS: readonly (readonly [kind: string, Mutate])[] = [
  ['bytes', damageBytes],
  ['number', writeEdge],
  ['number', writeEdge],
  ['value', replaceValue],
  ['value', replaceValue],
  ['value of another key', borrowValue],
  ['no such key', ({ entries, ...seed }, dice) => withoutEntry(seed, entries, dice)],
  ['cut', ({ bytes, headEnd }, dice) => bytes.subarray(0, dice.below(dice.pick([headEnd, bytes.length])))],
  ['removed', ({ bytes, headEnd }, dice) => spliced(bytes, dice.range(headEnd), Buffer.alloc(0))],
  ['filled', ({ bytes, headEnd }, dice) => filled(bytes, dice.range(headEnd), dice.pick([0, 1, 0x7f, 0xff]))],
  ['repeated', repeatRange],
  ['joined', joinFiles],
];

/** One to eight bytes, most of them in the head. */
function damageBytes({ bytes, headEnd }: SeedFile, dice: Dice): Buffer {
  const copy = Buffer.from(bytes);
  for (let left = 1 + dice.below(8); left > 0; left--) {
    const at = dice.below(dice.below(4) === 0 ? copy.length : Math.min(headEnd, copy.length));
    copy[at] = dice.pick([0, 1, 0x7f, 0x80, 0xff, dice.below(256), copy[at]! ^ (1 << dice.below(8))]);
  }
  return copy;
}

/** A number at the edge of something in the place of a count, length, type, dimension or offset. */
function writeEdge({ bytes, entries, tensorsAt }: SeedFile, dice: Dice): Buffer {
  const entry = dice.pick(entries);
  const tensorAt = dice.pick(tensorsAt);
  const places = [4, 8, 16];
  if (entry) places.push(entry.at, entry.typeAt, entry.typeAt + 4, entry.typeAt + 8);
  if (tensorAt !== undefined) for (const offset of [0, 4, 12, 16, 20, 24]) places.push(tensorAt + offset);
  const number = u64(dice.pick(EDGES)).subarray(0, dice.pick([1, 4, 8]));
  const copy = Buffer.from(bytes);
  number.copy(copy, dice.pick(places));
  return copy;
}

function replaceValue(seed: SeedFile, dice: Dice): Buffer {
  const entry = dice.pick(seed.entries);
  return entry ? withHeadPart(seed, [entry.typeAt, entry.endAt], dice.pick(VALUES)) : damageBytes(seed, dice);
}

function borrowValue(seed: SeedFile, dice: Dice): Buffer {
  const entry = dice.pick(seed.entries);
  const other = dice.pick(seed.entries);
  if (!entry || !other) return damageBytes(seed, dice);
  return withHeadPart(seed, [entry.typeAt, entry.endAt], seed.bytes.subarray(other.typeAt, other.endAt));
}

/** With an honest count, so that it is the key's reader that has to notice. */
function withoutEntry(seed: Omit<SeedFile, 'entries'>, entries: SeedFile['entries'], dice: Dice): Buffer {
  const entry = dice.pick(entries);
  if (!entry) return damageBytes({ ...seed, entries }, dice);
  const out = withHeadPart(seed, [entry.at, entry.endAt], Buffer.alloc(0));
  u64(entries.length - 1).copy(out, 16);
  return out;
}

function repeatRange({ bytes, headEnd }: SeedFile, dice: Dice): Buffer {
  const [start, end] = dice.range(headEnd);
  return spliced(bytes, [end, end], bytes.subarray(start, end));
}

/** The beginning of one file with the rest of another. */
function joinFiles({ bytes, headEnd }: SeedFile, dice: Dice, seeds: readonly SeedFile[]): Buffer {
  const other = dice.pick(seeds);
  return Buffer.concat([bytes.subarray(0, dice.below(headEnd)), other.bytes.subarray(dice.below(other.headEnd))]);
}

function spliced(bytes: Buffer, [start, end]: readonly [number, number], part: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, start), part, bytes.subarray(end)]);
}

function filled(bytes: Buffer, [start, end]: readonly [number, number], value: number): Buffer {
  return Buffer.from(bytes).fill(value, start, end);
}

/** Another part in the head of a file whose tensor data stays whole and aligned. */
function withHeadPart(seed: Omit<SeedFile, 'entries'>, range: readonly [number, number], part: Uint8Array): Buffer {
  const head = spliced(seed.bytes.subarray(0, seed.headEnd), range, part);
  const padding = Buffer.alloc(alignUp(head.length, seed.alignment) - head.length);
  return Buffer.concat([head, padding, seed.bytes.subarray(seed.dataAt)]);
}
