// How far our log-probabilities of a random-weight model are from llama.cpp's and from exact arithmetic, over many
// models of one format: what the suites of random weights have in common. What was compared is recorded for
// docs/models.md, by architecture.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { BLOCK_FORMATS } from '../src/base/dtype.ts';
import type { DType } from '../src/base/dtype.ts';
import { Random } from '../src/base/random.ts';
import type { KvDtype } from '../src/graph/step.ts';
import { loadModel } from '../src/index.ts';
import type { LoadOptions } from '../src/index.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { describeFile, describeRuns } from './described-file.ts';
import type { DescribedFile } from './described-file.ts';
import { logSoftmax, needsPeers, openLlama } from './llama.ts';

export interface Format {
  readonly dtype: DType;
  readonly kvType: KvDtype;
  /** What else the models have in common, for the names of the tests. */
  readonly kind?: string;
  /** llama.cpp takes GELU from a table of F16. */
  readonly hasGelu?: boolean;
}

export interface Case {
  readonly label: string;
  readonly nLayer: number;
  /** The model file. */
  readonly write: () => Uint8Array;
  readonly tokens: readonly number[];
  /**
   * A second text, which begins like `tokens`. Both are also read to the same lengths, in one batch, with what they
   * have in common taken from the cache.
   */
  readonly branch?: readonly number[];
  readonly options: LoadOptions;
}

export const N_CTX = 128;
/** Three key-value blocks, the last one begun. */
const N_TOKENS = 90;
/** Of these, what texts that begin alike have in common: two blocks. */
const N_COMMON = 64;
/** How far texts that begin alike are read: by one token, and by several. */
const BRANCH_ENDS = [65, 78] as const;
const BOS = 1;

/**
 * Root mean square of one rounding, relative to the vector that is rounded. F16: half a unit is 2^-11 at most, uniform,
 * over mantissas from 1 to 2. Q8: the largest of 32 normal values is 2.35 of them, in 127 steps. Q8K: where weights
 * come in blocks of 256, llama.cpp takes 256 activations together, and of a gated product the largest of so many is far
 * out (measured: 1.5 times the error). F32: a sum of some 100 products in whatever order.
 */
const ROUNDING = { F32: 3e-7, F16: 2.1e-4, BF16: 1.7e-3, Q8: 5.3e-3, Q8K: 8e-3 } as const;
/**
 * Of a million normal values none is beyond 5 deviations; but where the parts of a residual nearly cancel, the norm
 * scales their errors up (seen: 12.6 deviations, where llama.cpp is 2.6 times as far off as we are).
 */
const DEVIATIONS_MAX = 14;
/**
 * How much further from exact arithmetic than llama.cpp we may be. It holds for F32, too, where both are at the
 * rounding of float32 (divergence 2.5e-13): that of the log-probabilities as they are held here is a tenth of it.
 */
const RATIO_MAX = 1.5;

/**
 * How far our log-probabilities and llama.cpp's may be apart. Random weights keep every vector's size, so logits have a
 * deviation of 1, and independent roundings add up in squares, over both sides. Rounded are the inputs of matrices
 * (four a layer, one for the logits; by both in Q8, by llama.cpp to F16 where weights are F16); with an F16 or Q8_0
 * cache, keys and values (by both), and queries and attention probabilities (by llama.cpp).
 */
function toleranceOf({ dtype, kvType, hasGelu }: Format, nLayer: number): number {
  const nInput = 4 * nLayer + 1;
  let variance = 2 * (nInput + 4 * nLayer) * ROUNDING.F32 ** 2;
  if (kvType !== 'F32') variance += 6 * nLayer * ROUNDING[kvType === 'F16' ? 'F16' : 'Q8'] ** 2;
  if (hasGelu) variance += 2 * nLayer * ROUNDING.F16 ** 2;
  if (dtype === 'F16' || dtype === 'BF16') variance += nInput * ROUNDING[dtype] ** 2;
  const { blockElements } = BLOCK_FORMATS[dtype];
  const theirs = blockElements === 256 ? ROUNDING.Q8K : ROUNDING.Q8;
  if (blockElements > 1) variance += nInput * (ROUNDING.Q8 ** 2 + theirs ** 2);
  return DEVIATIONS_MAX * Math.sqrt(variance);
}

/** BOS and random tokens: three key-value blocks, the last one begun. */
export function randomTokens(seed: number, nVocab: number): number[] {
  const random = new Random(seed);
  return [BOS, ...Array.from({ length: N_TOKENS - 1 }, () => Math.floor(random.uniform() * nVocab))];
}

/** Texts of that seed: one, and another that begins like it. */
export function branchingTokens(seed: number, nVocab: number): { tokens: number[]; branch: number[] } {
  const [tokens, other] = [randomTokens(seed, nVocab), randomTokens(seed + 1000, nVocab)];
  return { tokens, branch: [...tokens.slice(0, N_COMMON), ...other.slice(N_COMMON)] };
}

/** Log-probabilities of every position of the first text, and of the ends of texts that begin alike. */
interface Evaluation {
  readonly rows: Float32Array[];
  /** As `ModelInfo` has it. */
  readonly executor: string;
}

/** With our public API. */
async function evaluate(path: string, { tokens, branch }: Case, options: LoadOptions): Promise<Evaluation> {
  const parallel = branch === undefined ? 1 : 2 * BRANCH_ENDS.length;
  await using model = await loadModel(path, { thread: 'inline', parallel, ...options });
  const { nVocab, executor } = model.info;
  const logits = await model.logits(tokens, { all: true });
  const rows = tokens.map((_, i) => logSoftmax(logits.subarray(i * nVocab, (i + 1) * nVocab)));
  if (branch === undefined) return { rows, executor };
  const texts = BRANCH_ENDS.flatMap((end) => [tokens.slice(0, end), branch.slice(0, end)]);
  const together = await Promise.all(texts.map((text) => model.logits(text)));
  const { cachedTokens } = await model.generate(texts[1]!, { maxTokens: 1 }).result;
  assert.equal(cachedTokens, N_COMMON);
  return { rows: [...rows, ...together.map(logSoftmax)], executor };
}

async function evaluateLlamaCpp(path: string, { tokens, branch }: Case, { kvType }: Format): Promise<Float32Array[]> {
  const llama = await openLlama(path, { contextSize: N_CTX, kvType });
  try {
    const rows = await llama.logProbs(tokens);
    if (branch === undefined) return rows;
    const others = await llama.logProbs(branch.slice(0, Math.max(...BRANCH_ENDS)));
    return [...rows, ...BRANCH_ENDS.flatMap((end) => [rows[end - 1]!, others[end - 1]!])];
  } finally {
    await llama.close();
  }
}

/** More digits change from machine to machine. */
const round = (rms: number): number => Number(rms.toPrecision(3));

const nameOf = ({ dtype, kvType, kind }: Format): string => `${kind ? `${kind}, ` : ''}${dtype}, ${kvType} cache`;

/** What is known of a format after all its cases. */
class Comparison {
  readonly #format: Format;
  #nLogit = 0;
  #nPosition = 0;
  #nSame = 0;
  #oursSquared = 0;
  #theirsSquared = 0;
  #oursKl = 0;
  #theirsKl = 0;
  #nReused = 0;
  readonly #executors: string[] = [];
  readonly #files: DescribedFile[] = [];
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

  /** Mean Kullback-Leibler divergence of the distributions from the exact ones, in nats a position. */
  get oursKl(): number {
    return this.#oursKl / this.#nPosition;
  }

  get theirsKl(): number {
    return this.#theirsKl / this.#nPosition;
  }

  add(
    { label, nLayer, tokens }: Case,
    file: DescribedFile,
    ours: Evaluation,
    theirs: Float32Array[],
    exact: Evaluation,
  ): void {
    const tolerance = toleranceOf(this.#format, nLayer);
    this.#files.push(file);
    this.#executors.push(ours.executor);
    this.#nReused += ours.rows.length - tokens.length;
    ours.rows.forEach((row, i) => {
      const where = i < tokens.length ? `position ${i}` : `text ${i - tokens.length} of those that begin alike`;
      this.#addRow(row, theirs[i]!, exact.rows[i]!, tolerance, `${label}, ${where}`);
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
    this.#oursKl += klDivergence(exact, ours);
    this.#theirsKl += klDivergence(exact, theirs);
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
      nameOf(this.#format).padEnd(15),
      `${this.#files.length} models`,
      `rms from exact: ours ${this.oursRms.toExponential(2)}, llama.cpp ${this.theirsRms.toExponential(2)}`,
      `KL divergence: ours ${this.oursKl.toExponential(2)}, llama.cpp ${this.theirsKl.toExponential(2)}`,
      `furthest apart ${this.worst.inTolerances.toFixed(2)} tolerances`,
      `same first of ${this.#nPosition}: ${this.#nSame}, of ${this.nDecided} decided: ${nKept}`,
    ];
    return columns.join(' | ');
  }

  /** Of models of one architecture. */
  record(): void {
    recordComparison('models', {
      what: this.#format.kind ?? 'random weights',
      architecture: this.#files[0]!.architecture,
      dtype: this.#format.dtype,
      dtypes: [...new Set(this.#files.flatMap(({ dtypes }) => dtypes))],
      kvType: this.#format.kvType,
      ...describeRuns(this.#executors),
      nModel: this.#files.length,
      nTokens: N_TOKENS,
      window: this.#files.find(({ window }) => window !== undefined)?.window,
      nPosition: this.#nPosition,
      nPositionReused: this.#nReused,
      nTogether: this.#nReused > 0 ? 2 * BRANCH_ENDS.length : 1,
      nDecided: this.nDecided,
      nSame: this.nDecided - this.swapped.length,
      rms: { ours: round(this.oursRms), theirs: round(this.theirsRms) },
    });
  }
}

/**
 * Σ p (log p - log q), of log-probabilities. It is summed as p (e^δ - 1 - δ) with δ = log q - log p, which is the same
 * where p and q both sum to 1, but has no term below 0: nothing cancels, and divergences down to 1e-14 can be told.
 */
function klDivergence(exact: Float32Array, approximate: Float32Array): number {
  let sum = 0;
  for (let token = 0; token < exact.length; token++) {
    const delta = approximate[token]! - exact[token]!;
    sum += Math.exp(exact[token]!) * (Math.expm1(delta) - delta);
  }
  return sum;
}

function topTwo(values: Float32Array): [first: number, second: number] {
  let [first, second] = values[1]! > values[0]! ? [1, 0] : [0, 1];
  for (let i = 2; i < values.length; i++) {
    if (values[i]! > values[first]!) [first, second] = [i, first];
    else if (values[i]! > values[second]!) second = i;
  }
  return [first, second];
}

/** All cases together, and those of each architecture. */
interface Comparisons {
  readonly all: Comparison;
  readonly byArchitecture: ReadonlyMap<string, Comparison>;
}

async function compareAll(format: Format, cases: readonly Case[], folder: string): Promise<Comparisons> {
  const all = new Comparison(format);
  const byArchitecture = new Map<string, Comparison>();
  for (const each of cases) {
    const path = join(folder, 'random.gguf');
    const bytes = each.write();
    writeFileSync(path, bytes);
    const theirs = await evaluateLlamaCpp(path, each, format);
    const ours = await evaluate(path, each, each.options);
    const exact = await evaluate(path, each, { kernels: 'reference' });
    const file = await describeFile(bytes);
    const own = byArchitecture.get(file.architecture) ?? new Comparison(format);
    byArchitecture.set(file.architecture, own);
    for (const comparison of [all, own]) comparison.add(each, file, ours, theirs, exact);
  }
  return { all, byArchitecture };
}

/** Defines the tests of a format. */
export function comparePeers(format: Format, cases: readonly Case[], nDecidedMin = 100): void {
  describe(`logits of random weights (${nameOf(format)})`, needsPeers(), () => {
    let folder: string;
    let comparison: Comparison;
    let byArchitecture: Comparisons['byArchitecture'];
    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
      ({ all: comparison, byArchitecture } = await compareAll(format, cases, folder));
    });
    after(() => {
      rmSync(folder, { recursive: true });
      for (const each of byArchitecture?.values() ?? []) each.record();
    });

    test('are within the tolerance of llama.cpp at every position', () => {
      const { inTolerances, where } = comparison.worst;
      assert.ok(inTolerances <= 1, `${inTolerances} tolerances apart at ${where}`);
    });

    test('have the same most likely token wherever its lead exceeds twice the tolerance', () => {
      assert.ok(comparison.nDecided > nDecidedMin, `only ${comparison.nDecided} positions are decided`);
      assert.deepEqual(comparison.swapped, []);
    });

    test('are at most 1.5 times as far from exact arithmetic as those of llama.cpp', (t) => {
      t.diagnostic(String(comparison));
      const { oursRms, theirsRms } = comparison;
      assert.ok(oursRms <= RATIO_MAX * theirsRms, `ours ${oursRms}, llama.cpp ${theirsRms}`);
    });

    test('have at most 1.5 times the divergence from exact arithmetic of those of llama.cpp', () => {
      const { oursKl, theirsKl } = comparison;
      assert.ok(oursKl <= RATIO_MAX * theirsKl, `ours ${oursKl}, llama.cpp ${theirsKl}`);
    });
  });
}
