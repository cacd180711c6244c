// The real models with their golden answers, as the shared data folder holds them: what the JSON files say, typed, and
// the measures by which logits are compared. Nothing is read before a test asks for it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { loadModel } from '../../src/index.ts';
import type { LoadOptions, Model } from '../../src/index.ts';
import { sharedPath } from '../shared-data.ts';

type TokenLogit = readonly [token: number, logit: number];

/** One prompt on one file: exact arithmetic (float64 on the dequantised weights) and what llama.cpp says. */
export interface GoldenCase {
  readonly model: string;
  readonly prompt: string;
  /** With BOS. */
  readonly tokens: readonly number[];
  /** After the prompt, greatest first. */
  readonly exact_top20_logits: readonly TokenLogit[];
  readonly exact_logit_sum: number;
  /** All logits, little-endian float32; F32 files only. */
  readonly exact_logits_f32_b64?: string;
  /** F32 files only. */
  readonly exact_greedy_tokens?: readonly number[];
  readonly llama_cpp_top10_logits: readonly TokenLogit[];
  readonly llama_cpp_greedy_tokens: readonly number[];
  readonly llama_cpp_greedy_text: string;
}

export interface GoldenPerplexity {
  readonly model: string;
  readonly token_ids: readonly number[] | null;
  readonly tokens: number;
  readonly mean_nll: number;
  readonly perplexity: number;
}

interface GreedyStory {
  readonly prompt: string;
  readonly tokens: number;
  readonly text: string;
}

const readJson = (...parts: string[]): unknown => JSON.parse(readFileSync(sharedPath('models', ...parts), 'utf8'));

export const STORIES_F32 = 'stories260K-f32.gguf';

/** Every GGUF file of the golden answers. */
export const MODELS = [
  STORIES_F32,
  'stories260K-q8_0.gguf',
  'TinyStories-656K-f16.gguf',
  'TinyStories-656K-q8_0.gguf',
  'TinyStories-656K-q4_0.gguf',
] as const;

export function modelPath(file: string): string {
  return sharedPath('models', file.startsWith('stories') ? 'stories260K' : 'tinystories-656k', file);
}

/** Inline, so that a test that fails leaves no worker behind. */
export function loadGolden(file: string, options: LoadOptions): Promise<Model> {
  return loadModel(modelPath(file), { thread: 'inline', ...options });
}

export function goldenCases(): readonly GoldenCase[] {
  return readJson('golden.json') as GoldenCase[];
}

export function greedyStory(): GreedyStory {
  return readJson('stories260K', 'expected-greedy.json') as GreedyStory;
}

export function goldenPerplexities(): { text: string; results: readonly GoldenPerplexity[] } {
  const { own_story: text, results } = readJson('golden-nll.json') as {
    own_story: string;
    results: GoldenPerplexity[];
  };
  return { text, results };
}

/** The float32 values behind `exact_logits_f32_b64`. */
export function decodeLogits(base64: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
  assert.equal(bytes.length % 4, 0);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** Of equal values, the lowest index. */
export function indexOfGreatest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

export function rootMeanSquare(values: readonly number[]): number {
  assert.ok(values.length > 0);
  return Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
}
