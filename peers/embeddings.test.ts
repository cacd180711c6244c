// Vectors of random-weight encoders and decoders against llama.cpp: the same tokens into both, pooled as the file says,
// before they are normalised. Both are compared with exact arithmetic (our float64 reference). Ours are made of all
// texts in one batch; llama.cpp gets them one by one, and has keys and values in F16 whatever the weights.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Random } from '../src/base/random.ts';
import { cosineSimilarity, loadModel } from '../src/index.ts';
import type { EmbedOptions, LoadOptions } from '../src/index.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { randomDecoderGguf } from '../test/random-decoder.ts';
import { CLS, ENCODER_KINDS, SEP, randomEncoderGguf } from '../test/random-encoder.ts';
import type { EncoderShape } from '../test/random-encoder.ts';
import { u32 } from '../test/random-model.ts';
import { describeFile, describeRuns } from './described-file.ts';
import { needsPeers, openLlamaEmbedding } from './llama.ts';

type Vectors = readonly Float32Array[];

/** By the number that files have for them. */
const POOLINGS = { 1: 'mean', 2: 'cls', 3: 'last' } as const;
const DTYPES = ['F32', 'Q8_0'] as const;
const N_CTX = 128;
const N_VOCAB = 300;
/** Tokens of each text: next to none, to the end of a block and beyond, and nearly all that the context holds. */
const LENGTHS = [1, 31, 33, 70, 118];
const SHAPE: Omit<EncoderShape, 'dtype'> = {
  seed: 1,
  nLayer: 2,
  nEmbd: 64,
  nHead: 2,
  nFf: 96,
  nVocab: N_VOCAB,
  nCtx: N_CTX,
};

/**
 * How far vectors may be from each other, as a part of their length. Roundings of a layer add up in squares: with F32
 * weights llama.cpp has GELU, keys, values, queries and probabilities in F16 (2.1e-4 each, relative); with Q8_0 both
 * round the inputs of four matrices a layer to 8 bits (5.3e-3). Norms behind each part keep errors from growing.
 */
const TOLERANCE = { F32: 3 * 2.1e-4 * Math.sqrt(5 * 2), Q8_0: 3 * 5.3e-3 * Math.sqrt(2 * 4 * 2) } as const;
/** How much further from exact arithmetic than llama.cpp we may be, over all texts of a kind of file. */
const RATIO_MAX = 1.5;

/** Token ids of texts, as a vocabulary wraps them where it does. */
function randomTexts(wrap: (ids: number[]) => number[]): number[][] {
  const random = new Random(7);
  return LENGTHS.map((n) => wrap(Array.from({ length: n }, () => 8 + Math.floor(random.uniform() * (N_VOCAB - 8)))));
}

interface Kind {
  readonly write: (dtype: (typeof DTYPES)[number], poolingType: number, seed: number) => Uint8Array;
  readonly texts: readonly (readonly number[])[];
  readonly options?: LoadOptions;
}

const encoders = Object.entries(ENCODER_KINDS).map(([name, kind]): [string, Kind] => [
  name,
  {
    write: (dtype, poolingType, seed) => randomEncoderGguf(kind, { ...SHAPE, dtype, poolingType, seed }),
    texts: randomTexts((ids) => [CLS, ...ids, SEP]),
  },
]);

const decoder = (causal: boolean): Kind => ({
  write(dtype, poolingType, seed) {
    const metadata = {
      pooling_type: u32(poolingType),
      ...(!causal && { 'attention.causal': { type: 'bool', value: false } as const }),
    };
    const shape = { ...SHAPE, nHeadKv: 1, headDim: 32, dtype, seed };
    return randomDecoderGguf({ architecture: 'llama', metadata: () => metadata }, shape);
  },
  texts: randomTexts((ids) => [1, ...ids]),
  options: { parallel: 3, prefillChunk: 40 },
});

const KINDS: Readonly<Record<string, Kind>> = {
  ...Object.fromEntries(encoders),
  llama: decoder(true),
  'llama, not causal': decoder(false),
};

interface Embedded {
  readonly vectors: Vectors;
  /** As `ModelInfo` has it. */
  readonly executor: string;
}

async function embed({ texts }: Kind, path: string, options: LoadOptions, how: EmbedOptions = {}): Promise<Embedded> {
  await using model = await loadModel(path, { thread: 'inline', ...options });
  const { data } = await model.embed(texts, { normalize: false, ...how });
  return { vectors: data.map(({ embedding }) => embedding), executor: model.info.executor };
}

async function embedWithLlama({ texts }: Kind, path: string): Promise<Vectors> {
  const llama = await openLlamaEmbedding(path, N_CTX);
  try {
    const vectors: Float32Array[] = [];
    for (const text of texts) vectors.push(await llama.embed(text));
    return vectors;
  } finally {
    await llama.close();
  }
}

const lengthOf = (vector: Float32Array): number => Math.hypot(...vector);
/** |a - b| / |b| */
const distance = (a: Float32Array, b: Float32Array): number => lengthOf(a.map((x, i) => x - b[i]!)) / lengthOf(b);
const rms = (values: readonly number[]): number => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);

for (const [name, kind] of Object.entries(KINDS)) {
  for (const dtype of DTYPES) {
    describe(`vectors of ${name}, ${dtype}`, needsPeers(), () => {
      let folder: string;
      before(() => void (folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'))));
      after(() => rmSync(folder, { recursive: true }));

      test('are those of llama.cpp, and as near to exact arithmetic', async (t) => {
        const [ours, theirs, apart]: [number[], number[], number[]] = [[], [], []];
        const executors: string[] = [];
        let bytes = new Uint8Array();
        const kvType = dtype === 'F32' ? 'F32' : 'F16';
        for (const [type, pooling] of Object.entries(POOLINGS)) {
          // Pooling is a matter of the vectors, whatever made them.
          if (dtype !== 'F32' && pooling !== 'mean') continue;
          const path = join(folder, 'random.gguf');
          bytes = kind.write(dtype, Number(type), Number(type)) as Uint8Array<ArrayBuffer>;
          writeFileSync(path, bytes);
          const kernels = pooling === 'mean' ? 'strict' : 'auto';
          const threads = pooling === 'cls' ? 2 : 1;
          const { vectors, executor } = await embed(kind, path, { ...kind.options, kernels, threads, kvType });
          const peer = await embedWithLlama(kind, path);
          const { vectors: exact } = await embed(kind, path, { ...kind.options, kernels: 'reference' });
          executors.push(executor);
          vectors.forEach((vector, i) => {
            assert.equal(vector.length, SHAPE.nEmbd);
            ours.push(distance(vector, exact[i]!));
            theirs.push(distance(peer[i]!, exact[i]!));
            apart.push(distance(vector, peer[i]!));
            const where = `${pooling}, ${kind.texts[i]!.length} tokens: ${apart.at(-1)} of the vector's length apart`;
            assert.ok(apart.at(-1)! <= TOLERANCE[dtype], where);
          });
        }
        const [ourRms, theirRms] = [rms(ours), rms(theirs)];
        const furthest = Math.max(...apart) / TOLERANCE[dtype];
        t.diagnostic(
          `${name}, ${dtype}: ${apart.length} vectors | rms from exact: ours ${ourRms.toExponential(2)}, llama.cpp ` +
            `${theirRms.toExponential(2)} | furthest apart ${furthest.toFixed(2)} tolerances`,
        );
        assert.ok(ourRms <= RATIO_MAX * theirRms, `ours ${ourRms}, llama.cpp ${theirRms}`);
        recordComparison('models', {
          what: `embeddings of ${name}`,
          ...(await describeFile(bytes)),
          dtype,
          kvType,
          ...describeRuns(executors),
          nModel: executors.length,
          nTokens: Math.max(...kind.texts.map((text) => text.length)),
          nPosition: ours.length,
          nTogether: LENGTHS.length,
          rms: { ours: Number(ourRms.toPrecision(3)), theirs: Number(theirRms.toPrecision(3)) },
        });
      });
    });
  }
}

test('texts become the tokens, and the normalised vectors, that llama.cpp makes of them', needsPeers(), async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'random.gguf');
  const texts = ['A cat, a dog.', 'ab12 Zz?', '\u00c9t\u00e9 is 3.'];
  for (const kind of Object.values(ENCODER_KINDS)) {
    writeFileSync(path, randomEncoderGguf(kind, { ...SHAPE, dtype: 'F32', poolingType: 1 }));
    const llama = await openLlamaEmbedding(path, N_CTX);
    await using model = await loadModel(path, { thread: 'inline' });
    const { data } = await model.embed(texts);
    for (const [i, text] of texts.entries()) {
      const theirs = await llama.embed(text);
      const { embedding, promptTokens } = data[i]!;
      assert.equal(promptTokens, llama.nTokens(text), text);
      assert.ok(Math.abs(lengthOf(embedding) - 1) < 1e-6);
      assert.ok(
        distance(
          embedding,
          theirs.map((x) => x / lengthOf(theirs)),
        ) <= TOLERANCE.F32,
        text,
      );
      assert.ok(cosineSimilarity(embedding, theirs) > 0.99999, text);
    }
    await llama.close();
  }
});
