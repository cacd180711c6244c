// The gpt2 graph: what it reads from a file, what it refuses, and where the rows of the joint projection are. That it
// computes what was trained is for src/training/export.test.ts, that it computes what llama.cpp does for peers/.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomGpt2Gguf } from '../../test/random-model.ts';
import type { RandomGpt2Options } from '../../test/random-model.ts';
import { memorySource } from '../base/byte-source.ts';
import { getTensor, readGguf, readTensorBytes } from '../gguf/reader.ts';
import type { Gguf } from '../gguf/reader.ts';
import type { ProgramLimits } from '../graph/step.ts';
import { dimMax } from '../graph/tensor.ts';
import type { ModelDefinition } from './model.ts';
import { defineModel } from './registry.ts';

const SMALL: RandomGpt2Options = {
  seed: 1,
  dtype: 'Q8_0',
  nLayer: 2,
  nEmbd: 64,
  nHead: 4,
  nFf: 96,
  nVocab: 320,
  nCtx: 64,
  tied: false,
};
const LIMITS: ProgramLimits = { nTokensMax: 16, nOutputMax: 4, nSeqMax: 2, nCtx: 64, nKvBlock: 4, kvDtype: 'F16' };

const read = (options: Partial<RandomGpt2Options> = {}): Promise<Gguf> =>
  readGguf(memorySource(randomGpt2Gguf({ ...SMALL, ...options }), 'random.gguf'));

const define = async (options: Partial<RandomGpt2Options> = {}): Promise<ModelDefinition> =>
  defineModel(await read(options));

/** The file without a tensor, or with another shape of it. */
function withTensor(gguf: Gguf, name: string, shape?: readonly number[]): Gguf {
  const tensors = new Map(gguf.tensors);
  if (shape) tensors.set(name, { ...getTensor(gguf, name), shape });
  else tensors.delete(name);
  return { ...gguf, tensors };
}

test('hyper-parameters come from the file', async () => {
  const { nVocab, nEmbd, nLayer, nHead, nHeadKv, headDim, nFf, nCtxTrain } = (await define()).hyperParameters;
  assert.deepEqual([nVocab, nEmbd, nLayer, nHead, nHeadKv, headDim, nFf, nCtxTrain], [320, 64, 2, 4, 4, 16, 96, 64]);
});

test('the graph adds learned positions, and rotates nothing', async () => {
  const graph = (await define()).buildGraph(LIMITS);
  const embedded = graph.nodes.find((n) => n.name === 'embedded')!;
  assert.deepEqual(
    embedded.inputs.map((n) => n.inputs[0]!.name),
    ['token_embd.weight', 'position_embd.weight'],
  );
  assert.equal(embedded.inputs[1]!.inputs[1]!.name, 'positions');
  const countOf = (op: string): number => graph.nodes.filter((n) => n.op === op).length;
  assert.deepEqual(['rope', 'attention', 'layerNorm', 'gelu'].map(countOf), [0, 2, 5, 2]);
  assert.deepEqual(graph.outputs[0]!.shape.map(dimMax), [4, 320]);
});

test('logits come from an output matrix of their own, or from the embeddings', async () => {
  const weightOf = async (tied: boolean): Promise<string> =>
    (await define({ tied })).buildGraph(LIMITS).outputs[0]!.inputs[1]!.name;
  assert.deepEqual([await weightOf(false), await weightOf(true)], ['output.weight', 'token_embd.weight']);
});

for (const dtype of ['F32', 'Q8_0', 'Q4_0'] as const) {
  test(`queries, keys and values are the rows of one tensor, in this order, in ${dtype}`, async () => {
    const file = await read({ dtype });
    const { gguf } = await defineModel(file);
    for (const kind of ['weight', 'bias']) {
      const names = ['q', 'k', 'v'].map((part) => `blk.1.attn_${part}.${kind}`);
      const parts = await Promise.all(names.map((name) => readTensorBytes(gguf, getTensor(gguf, name))));
      const whole = await readTensorBytes(file, getTensor(file, `blk.1.attn_qkv.${kind}`));
      assert.deepEqual(Buffer.concat(parts), Buffer.from(whole));
      for (const name of names) assert.deepEqual(getTensor(gguf, name).shape, kind === 'weight' ? [64, 64] : [64]);
    }
    assert.equal(gguf.tensors.has('blk.1.attn_qkv.weight'), false);
  });
}

test('refuses more positions than the model has learned', async () => {
  const { buildGraph } = await define();
  assert.throws(() => buildGraph({ ...LIMITS, nCtx: 65 }), { code: 'INVALID_OPTION', message: /"nCtx".*at most 64/ });
});

test('a missing tensor and one of a wrong shape are named', async () => {
  const file = await read();
  const building = async (gguf: Gguf): Promise<unknown> => (await defineModel(gguf)).buildGraph(LIMITS);
  await assert.rejects(building(withTensor(file, 'blk.0.attn_qkv.weight', [128, 64])), {
    code: 'SHAPE_MISMATCH',
    message: /"blk\.0\.attn_qkv\.weight" expected shape \[192, 64\], got \[128, 64\]/,
  });
  for (const name of ['blk.0.attn_qkv.weight', 'blk.0.ffn_norm.bias', 'output_norm.bias']) {
    await assert.rejects(building(withTensor(file, name)), { code: 'GGUF_MISSING' }, name);
  }
  await assert.rejects(building(withTensor(file, 'blk.1.ffn_up.bias')), {
    code: 'GGUF_MISSING',
    message: /"blk\.1\.ffn_up\.bias" is missing/,
  });
  await assert.rejects(building(withTensor(file, 'position_embd.weight', [63, 64])), { code: 'SHAPE_MISMATCH' });
});

test('refuses heads that do not divide', async () => {
  await assert.rejects(define({ nHead: 3 }), { code: 'GGUF_INVALID', message: /heads do not divide.*heads 3/ });
});
