// Exported files against the model that was trained: the same numbers in the tensors, the same logits from the engine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exactLogits, layoutOf, randomCheckpoint } from '../../test/random-checkpoint.ts';
import { memorySource } from '../base/byte-source.ts';
import { Random } from '../base/random.ts';
import { readGguf, readTensorBytes } from '../gguf/reader.ts';
import type { Gguf } from '../gguf/reader.ts';
import { loadModel } from '../index.ts';
import { dequantize } from '../quant/codecs.ts';
import { createTokenizer } from '../tokenizer/tokenizer.ts';
import { readVocabulary } from '../tokenizer/vocabulary.ts';
import { EXPORT_TYPES, exportGguf } from './export.ts';
import type { ExportType } from './export.ts';
import type { TrainingOptions } from './options.ts';

const SMALL: TrainingOptions = { nLayer: 2, nHead: 4, nHeadKv: 2, nEmbd: 32, nFf: 64, nCtx: 24, vocabSize: 280 };

async function valuesOf(gguf: Gguf, name: string): Promise<Float32Array> {
  const info = gguf.tensors.get(name)!;
  return dequantize(info.dtype, await readTensorBytes(gguf, info));
}

for (const architecture of ['llama', 'gpt2'] as const) {
  test(`an exported ${architecture} model computes the logits of the trained one`, async () => {
    const checkpoint = randomCheckpoint({ ...SMALL, architecture });
    const random = new Random(9);
    const tokens = Array.from({ length: 20 }, () => Math.floor(random.uniform() * checkpoint.config.nVocab));
    const expected = await exactLogits(checkpoint, tokens);
    const { bytes } = exportGguf(checkpoint, { type: 'F32' });
    for (const kernels of ['reference', 'auto', 'strict'] as const) {
      await using model = await loadModel(bytes, { thread: 'inline', kernels, kvType: 'F32', activations: 'f32' });
      const logits = await model.logits(tokens, { all: true });
      assert.equal(logits.length, expected.length);
      const furthest = logits.reduce((max, logit, i) => Math.max(max, Math.abs(logit - expected[i]!)), 0);
      assert.ok(furthest < 1e-4, `${kernels}: ${furthest}`);
      assert.ok(expected.some((logit) => Math.abs(logit) > 1));
    }
  });

  test(`every parameter of a ${architecture} model is in the file under its name, to the bit in F32`, async () => {
    const checkpoint = randomCheckpoint({ ...SMALL, architecture });
    const { bytes, nParameters } = exportGguf(checkpoint, { type: 'F32' });
    const gguf = await readGguf(memorySource(bytes));
    const { parameters } = layoutOf(checkpoint.config);
    assert.deepEqual(
      [...gguf.tensors.keys()],
      parameters.map((p) => p.name),
    );
    assert.equal(
      nParameters,
      parameters.reduce((n, p) => n + p.size, 0),
    );
    for (const { name, shape, offset, size } of parameters) {
      assert.deepEqual([...gguf.tensors.get(name)!.shape], [...shape]);
      assert.deepEqual(await valuesOf(gguf, name), checkpoint.arrays.parameters.slice(offset, offset + size));
    }
  });

  test(`the hyper-parameters of a ${architecture} model are those of its training`, async () => {
    const { bytes } = exportGguf(randomCheckpoint({ ...SMALL, architecture }), { type: 'Q8_0', name: 'cats' });
    const { metadata } = await readGguf(memorySource(bytes));
    const numberOf = (key: string): number => metadata.getNumber(`${architecture}.${key}`);
    assert.equal(metadata.getString('general.architecture'), architecture);
    assert.equal(metadata.getString('general.name'), 'cats');
    assert.equal(metadata.getNumber('general.file_type'), 7);
    const heads = [numberOf('attention.head_count'), numberOf('attention.head_count_kv')];
    assert.deepEqual(heads, [4, 2]);
    const sizes = ['block_count', 'embedding_length', 'feed_forward_length', 'context_length'].map(numberOf);
    assert.deepEqual(sizes, [2, 32, 64, 24]);
    const epsilon = architecture === 'gpt2' ? 'layer_norm_epsilon' : 'layer_norm_rms_epsilon';
    assert.equal(numberOf(`attention.${epsilon}`), Math.fround(1e-5));
  });
}

test('matrices have the wanted type, vectors and position embeddings are F32', async () => {
  for (const type of EXPORT_TYPES) {
    const { bytes, fallbacks } = exportGguf(randomCheckpoint({ ...SMALL, architecture: 'gpt2' }), { type });
    assert.deepEqual(fallbacks, []);
    const { tensors } = await readGguf(memorySource(bytes));
    for (const { name, shape, dtype } of tensors.values()) {
      assert.equal(dtype, shape.length === 1 || name === 'position_embd.weight' ? 'F32' : type, name);
    }
  }
});

test('matrices whose rows are no whole blocks become F16, and are named', async () => {
  const { bytes, fallbacks } = exportGguf(randomCheckpoint({ ...SMALL, nFf: 40 }), { type: 'Q4_0' });
  assert.deepEqual(fallbacks, ['blk.0.ffn_down.weight', 'blk.1.ffn_down.weight']);
  const { tensors } = await readGguf(memorySource(bytes));
  assert.equal(tensors.get('blk.0.ffn_down.weight')!.dtype, 'F16');
  assert.equal(tensors.get('blk.0.ffn_up.weight')!.dtype, 'Q4_0');
});

for (const tokenizer of ['bpe', 'char'] as const) {
  test(`the ${tokenizer} tokenizer in the file splits text as the one that was trained with`, async () => {
    const checkpoint = randomCheckpoint({ ...SMALL, tokenizer });
    const gguf = await readGguf(memorySource(exportGguf(checkpoint).bytes));
    const [before, after] = [createTokenizer(checkpoint.vocabulary), createTokenizer(readVocabulary(gguf.metadata))];
    const text = 'The cat ran, and sat on the tree.\n<|endoftext|>';
    const ids = after.encode(text, { parseSpecial: true });
    assert.deepEqual(ids, before.encode(text, { parseSpecial: true }));
    assert.equal(ids.at(-1), after.eosId);
    assert.equal(after.decode(ids), text.replace('<|endoftext|>', ''));
  });
}

test('rejects a type that cannot be exported, and arrays of another model', () => {
  const checkpoint = randomCheckpoint(SMALL);
  assert.throws(() => exportGguf(checkpoint, { type: 'Q5_0' as ExportType }), /"type" expected one of F32, F16, Q8_0/);
  const arrays = { ...checkpoint.arrays, parameters: checkpoint.arrays.parameters.slice(16) };
  assert.throws(() => exportGguf({ ...checkpoint, arrays }), { code: 'FILE_UNREADABLE' });
});
