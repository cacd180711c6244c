// Absurd numbers in the metadata of every architecture, key by key: each file is one typed error, or a model whose
// vectors and logits are finite numbers and as many as there should be, within time.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { memorySource } from '../../src/base/byte-source.ts';
import { readGguf, readTensorBytes } from '../../src/gguf/reader.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { writeGguf } from '../../src/gguf/writer.ts';
import { SmallMindError, loadModel } from '../../src/index.ts';
import type { Model } from '../../src/index.ts';
import { FILE_KINDS, randomDecoderGguf } from '../random-decoder.ts';
import { ENCODER_KINDS, randomEncoderGguf } from '../random-encoder.ts';
import { threadMs } from '../thread-time.ts';

const MILLISECONDS_MAX = 1000;
const [N_EMBD, N_VOCAB] = [64, 300];
const SHAPE = {
  seed: 1,
  dtype: 'F32',
  nLayer: 1,
  nEmbd: N_EMBD,
  nHead: 4,
  nFf: 64,
  nVocab: N_VOCAB,
  nCtx: 64,
} as const;
const DECODER_SHAPE = { ...SHAPE, nHeadKv: 2, headDim: 16 };

/** One of each architecture. */
const FILES: ReadonlyMap<string, Uint8Array> = new Map(
  [
    ...Object.values(FILE_KINDS).map(
      (kind) => [kind, randomDecoderGguf({ ...kind, nLayer: 1 }, DECODER_SHAPE)] as const,
    ),
    ...Object.values(ENCODER_KINDS).map((kind) => [kind, randomEncoderGguf(kind, SHAPE)] as const),
  ].map(([{ architecture }, bytes]) => [architecture, bytes]),
);

/** Keys that a file may have; those that it has are tried as well. */
const KEYS = [
  'attention.causal',
  'attention.sliding_window',
  'attention.sliding_window_pattern',
  'expert_count',
  'pooling_type',
  'residual_scale',
  'logit_scale',
  'rope.freq_base_swa',
];

/** Every key gets the first two, and one of the others by turns. */
const VALUES: readonly MetadataEntry[] = [
  { type: 'u32', value: 2 ** 32 - 1 },
  { type: 'f32', value: 1e-20 },
  { type: 'u32', value: 0 },
  { type: 'u32', value: 1 },
  { type: 'bool', value: true },
  { type: 'f32', value: NaN },
  { type: 'i32', value: -1 },
  { type: 'f32', value: 1e30 },
  { type: 'string', value: 'x' },
];

/** Whether the model works. It may also refuse what is asked of it. */
async function use(model: Model): Promise<void> {
  const { data } = await model.embed(['a b', 'c'], { pooling: 'mean' });
  for (const { embedding } of data) {
    assert.ok(embedding.length === N_EMBD && embedding.every(Number.isFinite), `${embedding}`);
  }
  if (!model.info.canGenerate) return;
  const logits = await model.logits([1, 2, 3]);
  assert.ok(logits.length === N_VOCAB && logits.every(Number.isFinite), `${logits}`);
}

describe('absurd metadata is one error or a model that works:', () => {
  let turn = 0;
  for (const [architecture, bytes] of FILES) {
    test(architecture, async () => {
      const gguf = await readGguf(memorySource(bytes));
      const tensors = await Promise.all(
        [...gguf.tensors.values()].map(async (info) => ({ ...info, bytes: await readTensorBytes(gguf, info) })),
      );
      const good = new Map(gguf.metadata.entries());
      const own = [...good.keys()].filter((key) => key.startsWith(`${architecture}.`));
      for (const key of new Set([...own, ...KEYS.map((each) => `${architecture}.${each}`)])) {
        const [first, second, ...others] = VALUES;
        for (const value of [first!, second!, others[turn++ % others.length]!]) {
          const what = `${key} = ${value.value}`;
          const startMs = threadMs();
          try {
            const file = writeGguf({ metadata: new Map(good).set(key, value), tensors });
            await using model = await loadModel(file, { thread: 'inline', threads: 1, nCtx: 64 });
            await use(model);
          } catch (error) {
            const isTyped = error instanceof SmallMindError && error.code !== 'NUMERIC' && error.code !== 'INTERNAL';
            assert.ok(isTyped, `${what}: ${error}`);
          }
          assert.ok(threadMs() - startMs < MILLISECONDS_MAX, `${what} took too long`);
        }
      }
    });
  }
});
