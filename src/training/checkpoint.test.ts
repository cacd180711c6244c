// Checkpoints come back bit for bit, and no damage goes unnoticed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomCheckpoint } from '../../test/random-checkpoint.ts';
import { crc32, decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import type { Checkpoint } from './checkpoint.ts';

const checkpoint = randomCheckpoint({ nLayer: 1, nHead: 1, nEmbd: 4, nFf: 4, nCtx: 4, tokenizer: 'char' });
const bytes = encodeCheckpoint(checkpoint);

const refused = (damaged: Uint8Array, message: RegExp): void => {
  assert.throws(() => decodeCheckpoint(damaged, 'a.checkpoint'), { code: 'FILE_UNREADABLE', message });
};

const withValues = (values: readonly number[]): Checkpoint => {
  const parameters = checkpoint.arrays.parameters.slice();
  parameters.set(values);
  return { ...checkpoint, arrays: { ...checkpoint.arrays, parameters } };
};

test('the checksum is the CRC-32 of zlib', () => {
  assert.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926);
  assert.equal(crc32(new Uint8Array(0)), 0);
});

test('what is encoded is decoded', () => {
  const decoded = decodeCheckpoint(bytes, 'a.checkpoint');
  // As JSON has it: without what is undefined.
  const { arrays, ...head } = checkpoint;
  const { arrays: decodedArrays, ...decodedHead } = decoded;
  assert.deepEqual(decodedHead, { ...JSON.parse(JSON.stringify(head)) });
  assert.deepEqual(decodedArrays, arrays);
});

test('every bit of the arrays survives, and decimal fractions do', () => {
  const values = [-0, 1e-45, -3.4028234663852886e38, 0.1, 1 / 3];
  const saved = { ...withValues(values), bestValidationLoss: 0.1 + 0.2, step: 2 ** 40 };
  const decoded = decodeCheckpoint(encodeCheckpoint(saved), 'a.checkpoint');
  const bitsOf = (array: Float32Array): Uint32Array => new Uint32Array(array.buffer.slice(0));
  assert.deepEqual(bitsOf(decoded.arrays.parameters), bitsOf(saved.arrays.parameters));
  assert.equal(decoded.bestValidationLoss, 0.1 + 0.2);
  assert.equal(decoded.step, 2 ** 40);
});

test('bytes may be a view of a larger buffer, as those of files are', () => {
  const larger = Buffer.alloc(bytes.length + 7);
  larger.set(bytes, 3);
  const decoded = decodeCheckpoint(larger.subarray(3, 3 + bytes.length), 'a.checkpoint');
  assert.deepEqual(decoded.arrays, checkpoint.arrays);
  assert.notEqual(decoded.arrays.parameters.buffer, larger.buffer);
});

test('typed arrays of a vocabulary become plain ones', () => {
  const vocabulary = { ...checkpoint.vocabulary, scores: Float32Array.of(1.5, -2) };
  const decoded = decodeCheckpoint(encodeCheckpoint({ ...checkpoint, vocabulary }), 'a.checkpoint');
  assert.deepEqual(decoded.vocabulary.scores, [1.5, -2]);
});

test('a byte that differs anywhere is noticed', () => {
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 0x10;
    refused(damaged, /^a\.checkpoint: /);
  }
});

test('a file that ends early is noticed, wherever it ends', () => {
  for (let length = 0; length < bytes.length; length += length < 64 ? 1 : 61) {
    refused(bytes.subarray(0, length), /not a SmallMind checkpoint|cut off/);
  }
  refused(Uint8Array.of(...bytes, 0), /damaged or cut off/);
});

test('other files and newer versions are told apart from damage', () => {
  refused(new TextEncoder().encode('GGUF and so on, for a while'), /not a SmallMind checkpoint; give a file that/);
  const newer = bytes.slice();
  newer[8] = 2;
  refused(newer, /of version 2, this SmallMind reads version 1/);
});
