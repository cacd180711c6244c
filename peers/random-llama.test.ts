// Random-weight llama files against llama.cpp: the same tokens into both, the log-probabilities of every position
// compared with each other and with exact arithmetic (our float64 reference). Every format runs on every seed, with
// grouped and single heads, tied and separate output; each seed has a shape, a prefill chunk and tokens of its own.
// Kernel sets and thread counts rotate, so that each shape meets all four.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Random } from '../src/base/random.ts';
import { loadModel } from '../src/index.ts';
import type { LoadOptions } from '../src/index.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import type { RandomLlamaOptions } from '../test/random-model.ts';
import { logSoftmax, needsPeers, openLlama } from './llama.ts';

interface Format {
  readonly dtype: RandomLlamaOptions['dtype'];
  readonly kvType: 'F16' | 'F32';
}

interface Case {
  readonly label: string;
  readonly model: RandomLlamaOptions;
  readonly tokens: readonly number[];
  readonly options: LoadOptions;
}

/** The first has next to nothing to round, and so the sharpest eye; the others are what users get. */
const FORMATS: readonly Format[] = [
  { dtype: 'F32', kvType: 'F32' },
  { dtype: 'F32', kvType: 'F16' },
  { dtype: 'F16', kvType: 'F16' },
  { dtype: 'Q8_0', kvType: 'F16' },
  { dtype: 'Q4_0', kvType: 'F16' },
];

/** Seed 1 is the first row. `nHeadKv` is that of the grouped variant; rows of `nFf` are odd unless quantised. */
const SHAPES = [
  { nLayer: 2, nEmbd: 64, nHead: 4, headDim: 16, nHeadKv: 2, nFf: 96, nVocab: 515, prefillChunk: 7 },
  { nLayer: 3, nEmbd: 96, nHead: 6, headDim: 16, nHeadKv: 3, nFf: 224, nVocab: 331, prefillChunk: 32 },
  { nLayer: 1, nEmbd: 32, nHead: 2, headDim: 16, nHeadKv: 1, nFf: 64, nVocab: 1001, prefillChunk: 1 },
  { nLayer: 2, nEmbd: 96, nHead: 8, headDim: 12, nHeadKv: 4, nFf: 128, nVocab: 260, prefillChunk: 64 },
  { nLayer: 4, nEmbd: 64, nHead: 2, headDim: 32, nHeadKv: 1, nFf: 160, nVocab: 293, prefillChunk: 13 },
  { nLayer: 1, nEmbd: 128, nHead: 16, headDim: 8, nHeadKv: 4, nFf: 192, nVocab: 515, prefillChunk: 128 },
  { nLayer: 2, nEmbd: 64, nHead: 3, headDim: 64, nHeadKv: 1, nFf: 32, nVocab: 450, prefillChunk: 33 },
  { nLayer: 2, nEmbd: 96, nHead: 3, headDim: 32, nHeadKv: 1, nFf: 256, nVocab: 387, prefillChunk: 48 },
] as const;

const N_CTX = 128;
/** Three key-value blocks, the last one begun. */
const N_TOKENS = 90;
const BOS = 1;

/**
 * Root mean square of one rounding, relative to the vector that is rounded. F16: half a unit is 2^-11 at most, uniform,
 * over mantissas from 1 to 2. Q8: the largest of 32 normal values is 2.35 of them, in 127 steps. F32: a sum of some 100
 * products in whatever order.
 */
const ROUNDING = { F32: 3e-7, F16: 2.1e-4, Q8: 5.3e-3 } as const;
/**
 * Of a million normal values none is beyond 5 deviations; but where the parts of a residual nearly cancel, the norm
 * scales their errors up (seen: 8.8 deviations).
 */
const DEVIATIONS_MAX = 12;
/** How much further from exact arithmetic than llama.cpp we may be. */
const RMS_RATIO_MAX = 1.5;

/**
 * How far our log-probabilities and llama.cpp's may be apart. Random weights keep every vector's size, so logits have a
 * deviation of 1, and independent roundings add up in squares, over both sides. Rounded are the inputs of matrices
 * (four a layer, one for the logits; by both in Q8, by llama.cpp to F16 where weights are F16); with an F16 cache, keys
 * and values (by both), and queries and attention probabilities (by llama.cpp).
 */
function toleranceOf({ dtype, kvType }: Format, nLayer: number): number {
  const nInput = 4 * nLayer + 1;
  let variance = 2 * (nInput + 4 * nLayer) * ROUNDING.F32 ** 2;
  if (kvType === 'F16') variance += 6 * nLayer * ROUNDING.F16 ** 2;
  if (dtype === 'F16') variance += nInput * ROUNDING.F16 ** 2;
  if (dtype === 'Q8_0' || dtype === 'Q4_0') variance += 2 * nInput * ROUNDING.Q8 ** 2;
  return DEVIATIONS_MAX * Math.sqrt(variance);
}

function casesOf({ dtype, kvType }: Format): Case[] {
  const variants = [true, false].flatMap((grouped) => [true, false].map((tied) => ({ grouped, tied })));
  return variants.flatMap(({ grouped, tied }, variant) =>
    SHAPES.map(({ prefillChunk, ...shape }, i) => {
      const seed = i + 1;
      const nHeadKv = grouped ? shape.nHeadKv : shape.nHead;
      const nFf = dtype === 'F32' || dtype === 'F16' ? shape.nFf + 1 : shape.nFf;
      const model = { ...shape, seed, dtype, tied, nHeadKv, nFf, nCtx: N_CTX };
      const kernels = (variant + i) % 2 === 0 ? 'auto' : 'strict';
      const threads = 1 + (Math.floor((variant + i) / 2) % 2);
      const random = new Random(seed);
      const tokens = [BOS, ...Array.from({ length: N_TOKENS - 1 }, () => Math.floor(random.uniform() * shape.nVocab))];
      const variantName = `${grouped ? 'grouped' : 'single'} heads, ${tied ? 'tied' : 'separate'} output`;
      const label = `seed ${seed}, ${variantName}, ${kernels}, ${threads} thread(s)`;
      return { label, model, tokens, options: { kernels, threads, prefillChunk, kvType } };
    }),
  );
}

/** Log-probabilities of every position, from our public API. */
async function evaluate(path: string, tokens: readonly number[], options: LoadOptions): Promise<Float32Array[]> {
  await using model = await loadModel(path, { thread: 'inline', ...options });
  const { nVocab } = model.info;
  const logits = await model.logits(tokens, { all: true });
  return tokens.map((_, i) => logSoftmax(logits.subarray(i * nVocab, (i + 1) * nVocab)));
}

async function evaluateLlamaCpp(path: string, tokens: readonly number[], { kvType }: Format): Promise<Float32Array[]> {
  const llama = await openLlama(path, { contextSize: N_CTX, kvType });
  try {
    return await llama.logProbs(tokens);
  } finally {
    await llama.close();
  }
}

/** What is known of a format after all its cases. */
class Comparison {
  readonly #format: Format;
  #nCase = 0;
  #nLogit = 0;
  #nPosition = 0;
  #nSame = 0;
  #oursSquared = 0;
  #theirsSquared = 0;
  /** Positions at which llama.cpp's most likely token leads by more than rounding can change. */
  nDecided = 0;
  /** Of these, where ours is another. */
  readonly swapped: string[] = [];
  /** The largest difference, in tolerances, and where. */
  worst = { inTolerances: 0, where: '' };

  constructor(format: Format) {
    this.#format = format;
  }

  get oursRms(): number {
    return Math.sqrt(this.#oursSquared / this.#nLogit);
  }

  get theirsRms(): number {
    return Math.sqrt(this.#theirsSquared / this.#nLogit);
  }

  add({ label, model }: Case, ours: Float32Array[], theirs: Float32Array[], exact: Float32Array[]): void {
    const tolerance = toleranceOf(this.#format, model.nLayer);
    this.#nCase++;
    ours.forEach((row, position) => {
      this.#addRow(row, theirs[position]!, exact[position]!, tolerance, `${label}, position ${position}`);
    });
  }

  #addRow(ours: Float32Array, theirs: Float32Array, exact: Float32Array, tolerance: number, where: string): void {
    assert.deepEqual([ours.length, theirs.length], [exact.length, exact.length], where);
    let furthest = 0;
    for (let token = 0; token < exact.length; token++) {
      furthest = Math.max(furthest, Math.abs(ours[token]! - theirs[token]!));
      this.#oursSquared += (ours[token]! - exact[token]!) ** 2;
      this.#theirsSquared += (theirs[token]! - exact[token]!) ** 2;
    }
    this.#nLogit += exact.length;
    this.#nPosition++;
    // Negated, so that NaN counts as the worst.
    if (!(furthest / tolerance <= this.worst.inTolerances)) this.worst = { inTolerances: furthest / tolerance, where };
    const [first, second] = topTwo(theirs);
    const isSame = topTwo(ours)[0] === first;
    if (isSame) this.#nSame++;
    if (theirs[first]! - theirs[second]! <= 2 * tolerance) return;
    this.nDecided++;
    if (!isSame) this.swapped.push(where);
  }

  toString(): string {
    const nKept = this.nDecided - this.swapped.length;
    const columns = [
      `${this.#format.dtype}, ${this.#format.kvType} cache`.padEnd(15),
      `${this.#nCase} models`,
      `rms from exact: ours ${this.oursRms.toExponential(2)}, llama.cpp ${this.theirsRms.toExponential(2)}`,
      `furthest apart ${this.worst.inTolerances.toFixed(2)} tolerances`,
      `same first of ${this.#nPosition}: ${this.#nSame}, of ${this.nDecided} decided: ${nKept}`,
    ];
    return columns.join(' | ');
  }
}

function topTwo(values: Float32Array): [first: number, second: number] {
  let [first, second] = values[1]! > values[0]! ? [1, 0] : [0, 1];
  for (let i = 2; i < values.length; i++) {
    if (values[i]! > values[first]!) [first, second] = [i, first];
    else if (values[i]! > values[second]!) second = i;
  }
  return [first, second];
}

async function compareAll(format: Format, folder: string): Promise<Comparison> {
  const comparison = new Comparison(format);
  for (const each of casesOf(format)) {
    const path = join(folder, 'random.gguf');
    writeFileSync(path, randomLlamaGguf(each.model));
    const theirs = await evaluateLlamaCpp(path, each.tokens, format);
    const ours = await evaluate(path, each.tokens, each.options);
    const exact = await evaluate(path, each.tokens, { kernels: 'reference' });
    comparison.add(each, ours, theirs, exact);
  }
  return comparison;
}

for (const format of FORMATS) {
  describe(`logits of random ${format.dtype} weights with an ${format.kvType} cache`, needsPeers(), () => {
    let folder: string;
    let comparison: Comparison;
    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
      comparison = await compareAll(format, folder);
    });
    after(() => rmSync(folder, { recursive: true }));

    test('are within the tolerance of llama.cpp at every position', () => {
      const { inTolerances, where } = comparison.worst;
      assert.ok(inTolerances <= 1, `${inTolerances} tolerances apart at ${where}`);
    });

    test('have the same most likely token wherever its lead exceeds twice the tolerance', () => {
      assert.ok(comparison.nDecided > 100, `only ${comparison.nDecided} positions are decided`);
      assert.deepEqual(comparison.swapped, []);
    });

    test('are at most 1.5 times as far from exact arithmetic as those of llama.cpp', (t) => {
      t.diagnostic(String(comparison));
      const { oursRms, theirsRms } = comparison;
      assert.ok(oursRms <= RMS_RATIO_MAX * theirsRms, `ours ${oursRms}, llama.cpp ${theirsRms}`);
    });
  });
}
