// Proves that the random model files are well-formed, reproducible and shaped as asked. That llama.cpp loads them is
// for the peer tests.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { memorySource } from '../src/base/byte-source.ts';
import { getTensor, readGguf, readTensorBytes } from '../src/gguf/reader.ts';
import { dequantize } from '../src/quant/codecs.ts';
import { randomLlamaGguf } from './random-model.ts';
import type { RandomLlamaOptions } from './random-model.ts';

const small: RandomLlamaOptions = {
  seed: 1,
  dtype: 'F32',
  nLayer: 2,
  nEmbd: 64,
  nHead: 4,
  nHeadKv: 2,
  nFf: 96,
  nVocab: 320,
  nCtx: 128,
  tied: true,
};

const read = (options: RandomLlamaOptions) => readGguf(memorySource(randomLlamaGguf(options)));

describe('a random model', () => {
  test('has the same bytes for the same seed, and other weights for another', () => {
    assert.deepEqual(randomLlamaGguf(small), randomLlamaGguf(small));
    assert.notDeepEqual(randomLlamaGguf(small), randomLlamaGguf({ ...small, seed: 2 }));
  });

  for (const dtype of ['F32', 'F16', 'Q8_0', 'Q4_0'] as const) {
    test(`in ${dtype} has matrices in that dtype and norms in F32`, async () => {
      const { tensors } = await read({ ...small, dtype });
      for (const info of tensors.values()) {
        assert.equal(info.dtype, info.name.includes('norm') ? 'F32' : dtype, info.name);
      }
      assert.equal(tensors.size, 2 + 2 * 9);
    });
  }

  test('has an output matrix only when it is not tied', async () => {
    assert.equal((await read(small)).tensors.has('output.weight'), false);
    assert.deepEqual((await read({ ...small, tied: false })).tensors.get('output.weight')!.shape, [320, 64]);
  });

  test('has rows of heads, also where a head is not nEmbd / nHead wide', async () => {
    const { tensors, metadata } = await read({ ...small, headDim: 32 });
    assert.deepEqual(tensors.get('blk.1.attn_q.weight')!.shape, [128, 64]);
    assert.deepEqual(tensors.get('blk.1.attn_v.weight')!.shape, [64, 64]);
    assert.deepEqual(tensors.get('blk.1.attn_output.weight')!.shape, [64, 128]);
    assert.equal(metadata.getNumber('llama.attention.key_length'), 32);
    assert.equal(metadata.getNumber('llama.rope.dimension_count'), 32);
    assert.equal((await read(small)).metadata.has('llama.attention.key_length'), false);
  });

  test('has weights of mean 0 and standard deviation 1/√nIn, and norms that vary around 1', async () => {
    const gguf = await read(small);
    const values = async (name: string) => dequantize('F32', await readTensorBytes(gguf, getTensor(gguf, name)));
    const down = await values('blk.0.ffn_down.weight');
    const mean = down.reduce((sum, x) => sum + x, 0) / down.length;
    const std = Math.sqrt(down.reduce((sum, x) => sum + (x - mean) ** 2, 0) / down.length);
    assert.ok(Math.abs(mean) < 0.005, `mean ${mean}`);
    assert.ok(Math.abs(std * Math.sqrt(96) - 1) < 0.03, `std ${std}`);
    const norm = await values('output_norm.weight');
    assert.ok(norm.every((x) => x >= 0.75 && x <= 1.25));
    assert.ok(new Set(norm).size > 60);
  });

  test('has nVocab different tokens, with a score and a type each', async () => {
    const { metadata } = await read(small);
    const tokens = metadata.getStrings('tokenizer.ggml.tokens');
    assert.equal(new Set(tokens).size, small.nVocab);
    assert.deepEqual([tokens[0], tokens[3], tokens[258], tokens[259]], ['<unk>', '<0x00>', '<0xFF>', '\u25810']);
    assert.equal(metadata.getNumbers('tokenizer.ggml.scores').length, small.nVocab);
    assert.deepEqual([...metadata.getNumbers('tokenizer.ggml.token_type')].slice(0, 4), [2, 3, 3, 6]);
    assert.equal(metadata.getNumbers('tokenizer.ggml.token_type')[319], 1);
  });
});
