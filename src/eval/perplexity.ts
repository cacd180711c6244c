// How well a model predicts a text: the mean surprise of its tokens, as perplexity and as bits per byte, which compares
// models of different vocabularies. Knows a tokenizer and a way to get logits, no files.

import { exp, log } from '../base/math.ts';
import { OptionError } from '../base/errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** What is measured. */
export interface ScoredModel {
  readonly tokenizer: Tokenizer;
  /** Logits f32[tokens.length, nVocab] of every position, from an empty context. */
  logits(tokens: readonly number[]): Promise<Float32Array>;
}

export interface PerplexityOptions {
  /** Tokens of a window, the first one that is only context included; 2 or more. */
  readonly nCtx: number;
  /** Before each window. */
  readonly onProgress?: (nDone: number, nTokens: number) => void;
  readonly signal?: AbortSignal;
}

/** How well a model predicts a text. */
export interface PerplexityResult {
  /** exp(meanNll). */
  readonly perplexity: number;
  /** Mean negative log-likelihood of a predicted token, in nats. */
  readonly meanNll: number;
  /**
   * Bits that the model needs for the text, over its bytes in UTF-8. What it cannot predict, counts with 8 bits a byte:
   * characters that became unknown tokens and, without BOS, the first token.
   */
  readonly bitsPerByte: number;
  /** Tokens of the text, without BOS. */
  readonly nTokens: number;
  /** Of these, predicted. */
  readonly nPredicted: number;
  /** Of the text in UTF-8. */
  readonly nBytes: number;
  /** Bytes of characters that the vocabulary does not have. */
  readonly nUnknownBytes: number;
}

/**
 * Goes through the text in windows side by side, each from an empty context. With a tokenizer that adds BOS, a window
 * is BOS and nCtx - 1 tokens, all of which count. Without, it begins with the last token of the window before; then all
 * count but the first of the text. (llama.cpp's tool counts only the second half of each window, so its figures
 * differ.)
 * @throws {OptionError} for a text with no token to predict, or a window that is too short
 */
export async function measurePerplexity(
  { tokenizer, logits }: ScoredModel,
  text: string,
  options: PerplexityOptions,
): Promise<PerplexityResult> {
  const { nCtx, onProgress, signal } = options;
  if (!(Number.isInteger(nCtx) && nCtx >= 2)) throw new OptionError(`"nCtx" expected an integer from 2, got ${nCtx}`);
  const tokens = tokenizer.encode(text, { addSpecial: false });
  const start = tokenizer.addBos ? [tokenizer.bosId!] : tokens.slice(0, 1);
  const predicted = tokenizer.addBos ? tokens : tokens.slice(1);
  if (predicted.length === 0) throw new OptionError('the text has no token to predict; give it a longer text');

  let context = start[0]!;
  let nats = 0;
  let unknownNats = 0;
  for (let at = 0; at < predicted.length; at += nCtx - 1) {
    onProgress?.(at, predicted.length);
    signal?.throwIfAborted();
    const window = predicted.slice(at, at + nCtx - 1);
    // The last token is only predicted.
    const rows = await logits([context, ...window.slice(0, -1)]);
    window.forEach((token, i) => {
      const row = rows.subarray(i * tokenizer.nVocab, (i + 1) * tokenizer.nVocab);
      const surprise = surpriseOf(row, token);
      nats += surprise;
      if (token === tokenizer.unknownId) unknownNats += surprise;
    });
    if (!tokenizer.addBos) context = window.at(-1)!;
  }

  const nBytes = new TextEncoder().encode(text).length;
  const nUnknownBytes = countUnknownBytes(tokenizer, text, tokens);
  const isFirstCounted = tokenizer.addBos || tokens[0] === tokenizer.unknownId;
  const nRawBytes = nUnknownBytes + (isFirstCounted ? 0 : tokenizer.pieceBytes(tokens[0]!).length);
  const meanNll = nats / predicted.length;
  return {
    perplexity: exp(meanNll),
    meanNll,
    bitsPerByte: ((nats - unknownNats) / Math.LN2 + 8 * nRawBytes) / nBytes,
    nTokens: tokens.length,
    nPredicted: predicted.length,
    nBytes,
    nUnknownBytes,
  };
}

/** -log softmax(row)[token], in float64. */
function surpriseOf(row: Float32Array, token: number): number {
  let max = -Infinity;
  for (let i = 0; i < row.length; i++) max = Math.max(max, row[i]!);
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += exp(row[i]! - max);
  return max + log(sum) - row[token]!;
}

/** Bytes of the text that no token but the unknown one stands for. */
function countUnknownBytes(tokenizer: Tokenizer, text: string, tokens: readonly number[]): number {
  if (tokenizer.unknownId === undefined || !tokens.includes(tokenizer.unknownId)) return 0;
  let nKnown = 0;
  let nLeadingSpaces = 0;
  let isLeading = true;
  for (const id of tokens) {
    if (id === tokenizer.unknownId) {
      isLeading = false;
      continue;
    }
    for (const byte of tokenizer.pieceBytes(id)) {
      nKnown++;
      isLeading &&= byte === 0x20;
      if (isLeading) nLeadingSpaces++;
    }
  }
  // Some tokenizers put a space before the text.
  const nAdded = nLeadingSpaces - /^ */.exec(text)![0].length;
  return new TextEncoder().encode(text).length - (nKnown - nAdded);
}
