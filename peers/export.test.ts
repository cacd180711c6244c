// What SmallMind trains and exports, in llama.cpp: both architectures, both tokenizers, every type. The same tokens go
// into both; the log-probabilities of every position are compared with exact arithmetic on the file's own weights, and
// with those of our engine.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { memorySource } from '../src/base/byte-source.ts';
import { Random } from '../src/base/random.ts';
import { readGguf, readTensorBytes } from '../src/gguf/reader.ts';
import { loadModel } from '../src/index.ts';
import { dequantize } from '../src/quant/codecs.ts';
import { createTokenizer } from '../src/tokenizer/tokenizer.ts';
import { exportGguf } from '../src/training/export.ts';
import type { ExportType } from '../src/training/export.ts';
import type { Checkpoint } from '../src/training/checkpoint.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { exactLogits, layoutOf, randomCheckpoint } from '../test/random-checkpoint.ts';
import { describeFile, describeRuns } from './described-file.ts';
import { logSoftmax, needsPeers, openLlama } from './llama.ts';

/**
 * How far log-probabilities may be apart, for logits with a deviation of about 1 and three layers. Quantised: both
 * sides of a product are rounded to 8 bits, as peers/random-llama.test.ts derives: 12 · sqrt(2 · 13) · 5.3e-3.
 */
const TOLERANCE: Readonly<Record<ExportType, number>> = { F32: 1e-2, F16: 1e-2, Q8_0: 0.33, Q4_0: 0.33 };
const N_CTX = 64;
/** Fewer than the context holds: node-llama-cpp shifts a full one. */
const N_TOKENS = 48;

const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
after(() => rmSync(folder, { recursive: true }));

/** The checkpoint with the weights that its exported file has. */
async function roundLike(checkpoint: Checkpoint, bytes: Uint8Array): Promise<Checkpoint> {
  const gguf = await readGguf(memorySource(bytes));
  const parameters = checkpoint.arrays.parameters.slice();
  for (const { name, offset } of layoutOf(checkpoint.config).parameters) {
    const info = gguf.tensors.get(name)!;
    parameters.set(dequantize(info.dtype, await readTensorBytes(gguf, info)), offset);
  }
  return { ...checkpoint, arrays: { ...checkpoint.arrays, parameters } };
}

function furthest(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  assert.equal(a.length, b.length);
  return Math.max(...a.flatMap((row, i) => Array.from(row, (value, j) => Math.abs(value - b[i]![j]!))));
}

describe('exported models in llama.cpp', needsPeers(), () => {
  for (const [architecture, tokenizer] of [
    ['llama', 'bpe'],
    ['llama', 'char'],
    ['gpt2', 'bpe'],
    ['gpt2', 'char'],
  ] as const) {
    for (const type of ['F32', 'F16', 'Q8_0', 'Q4_0'] as const) {
      test(`${architecture} with a ${tokenizer} tokenizer as ${type} gives the logits of the trained model`, async (t) => {
        const nHeadKv = architecture === 'llama' ? 2 : 4;
        const shape = { nLayer: 3, nHead: 4, nHeadKv, nEmbd: 64, nFf: 160, nCtx: N_CTX, vocabSize: 290 };
        const checkpoint = randomCheckpoint({ architecture, tokenizer, ...shape, seed: 3 });
        const { bytes, fallbacks } = exportGguf(checkpoint, { type });
        assert.deepEqual(fallbacks, []);
        const path = join(folder, 'model.gguf');
        writeFileSync(path, bytes);

        const { nVocab } = checkpoint.config;
        const random = new Random(4);
        const tokens = Array.from({ length: N_TOKENS }, () => Math.floor(random.uniform() * nVocab));
        const rowsOf = (logits: Float32Array): Float32Array[] =>
          tokens.map((_, i) => logSoftmax(logits.subarray(i * nVocab, (i + 1) * nVocab)));
        const exact = rowsOf(await exactLogits(await roundLike(checkpoint, bytes), tokens));

        const llama = await openLlama(path, { contextSize: N_CTX, kvType: 'F32' });
        try {
          const theirs = await llama.logProbs(tokens);
          const apart = furthest(theirs, exact);
          t.diagnostic(`${architecture}, ${tokenizer}, ${type}: llama.cpp ${apart.toExponential(1)} from exact`);
          assert.ok(apart <= TOLERANCE[type], `${apart}`);
          await using model = await loadModel(path, { thread: 'inline', kvType: 'F32' });
          const ours = rowsOf(await model.logits(tokens, { all: true }));
          assert.ok(furthest(ours, theirs) <= TOLERANCE[type], `ours: ${furthest(ours, theirs)}`);
          const text = 'The cat ran to the mat, and sat.\nThe tree';
          assert.deepEqual(llama.tokenize(text), createTokenizer(checkpoint.vocabulary).encode(text));
          const end = '<|endoftext|>';
          assert.deepEqual(llama.tokenize(end, true), [checkpoint.vocabulary.eosId]);
          recordComparison('models', {
            what: `exported by \`smallmind export\`, ${tokenizer} tokenizer`,
            ...(await describeFile(bytes)),
            dtype: type,
            kvType: 'F32',
            ...describeRuns([model.info.executor]),
            nModel: 1,
            nTokens: N_TOKENS,
            nPosition: N_TOKENS,
          });
        } finally {
          await llama.close();
        }
      });
    }
  }
});
