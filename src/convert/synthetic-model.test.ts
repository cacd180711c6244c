// Synthetic models: the same bytes however they are read, sound files, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dequantize } from '../quant/codecs.ts';
import { getTensor, readGguf, readTensorBytes } from '../gguf/reader.ts';
import { bytesReadAToken, syntheticModel } from './synthetic-model.ts';

const NAME = 'SmolLM2-135M:Q4_0';

test('a part of it is the same bytes as when it is read with more', async () => {
  const source = syntheticModel(NAME);
  const at = source.sizeBytes - 5_000_000;
  const whole = new Uint8Array(1_000_000);
  await source.read(at, whole);
  const again = syntheticModel(NAME);
  for (const [from, to] of [
    [0, 1],
    [777, 70_000],
    [999_000, 1_000_000],
  ] as const) {
    const part = new Uint8Array(to - from);
    await again.read(at + from, part);
    assert.deepEqual(part, whole.subarray(from, to));
  }
});

test('it is a sound file of the shape that its name says, with weights that keep the size of activations', async () => {
  const gguf = await readGguf(syntheticModel('tinyllama-1.1b:q4_k_m'));
  assert.equal(gguf.metadata.getNumber('llama.block_count'), 22);
  assert.deepEqual(getTensor(gguf, 'blk.3.ffn_down.weight').shape, [2048, 5632]);
  assert.equal(getTensor(gguf, 'blk.0.attn_v.weight').dtype, 'Q6_K');
  assert.equal(getTensor(gguf, 'blk.3.attn_v.weight').dtype, 'Q4_K');
  assert.equal(getTensor(gguf, 'output.weight').dtype, 'Q6_K');
  const key = getTensor(gguf, 'blk.7.attn_k.weight');
  const values = dequantize(key.dtype, await readTensorBytes(gguf, key));
  const deviation = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  assert.ok(Math.abs(deviation * Math.sqrt(2048) - 1) < 0.15, `${deviation}`);
});

test('a step of one token reads every matrix but the table that it looks up a row of', async () => {
  const { tensors } = await readGguf(syntheticModel('TinyLlama-1.1B:Q8_0'));
  const all = [...tensors.values()].filter(({ shape }) => shape.length === 2);
  const table = tensors.get('token_embd.weight')!.sizeBytes;
  assert.equal(bytesReadAToken(tensors.values()), all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) - table);
});

test('unknown names are refused with those that there are', () => {
  assert.throws(() => syntheticModel('GPT-5:Q8_0'), { code: 'INVALID_OPTION', message: /SmolLM2-135M, Qwen2.5-0.5B/ });
  assert.throws(() => syntheticModel('SmolLM2-135M:Q9'), { code: 'INVALID_OPTION', message: /"Q9".*Q4_K_M/ });
  assert.throws(() => syntheticModel('SmolLM2-135M:Q4_K'), /no whole blocks of Q4_K \(256\)/);
});
