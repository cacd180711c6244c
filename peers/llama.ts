// llama.cpp as the oracle: exactly these token ids in, its log-probabilities of the whole vocabulary out, on the CPU.
// node-llama-cpp has no way to the raw logits (neither its API nor its native addon); softmax probabilities without any
// sampler are the nearest. Their logarithms are the logits up to one constant a row, which no softmax and no sampler
// without a repeat penalty can see; compare with `logSoftmax(ours)`. The constant itself is what golden.json checks.

import { existsSync } from 'node:fs';
import type { ControlledEvaluateInputItem as Input, Llama as Runtime, LlamaLogLevel, Token } from 'node-llama-cpp';
import type { KvDtype } from '../src/graph/step.ts';
import { recordComparison } from '../test/comparison-record.ts';

export interface LlamaOptions {
  /** Positions; more tokens than this are refused rather than shifted out. Default 512. */
  readonly contextSize?: number;
  /**
   * Storage of keys and values. llama.cpp's own default is F16; F32 leaves only its activation rounding; Q8_0 it has
   * with flash attention only.
   */
  readonly kvType?: KvDtype;
  /** Default 1: the order of its sums, and so the last bits, then never varies. */
  readonly threads?: number;
}

export interface Llama {
  /** Token ids of `text` as llama.cpp splits it, without BOS or EOS. `special` parses control tokens in the text. */
  tokenize(text: string, special?: boolean): number[];
  /**
   * Feeds `tokens` from an empty context (BOS is the caller's) and returns f32[nVocab] for each position from `from`
   * (default 0) on: row `i` ranks what follows `tokens[from + i]`. -Infinity where the probability underflows, some 87
   * below the largest.
   */
  logProbs(tokens: readonly number[], from?: number): Promise<Float32Array[]>;
  /** The `n` most likely tokens after `tokens`, one after the other; ends early after an end-of-generation token. */
  greedy(tokens: readonly number[], n: number): Promise<number[]>;
  close(): Promise<void>;
}

/** Below the smallest normal f32 a probability has lost its digits. */
const PROBABILITY_MIN = 1.2e-38;

/**
 * By thread count. Starting one takes 0.4 s, because it first tries its library in a process of its own; kept, it holds
 * neither models nor anything that keeps the process alive.
 */
const runtimes = new Map<number, Promise<Runtime>>();

/** Options for `test()`: skips where `npm run peers` has not been run, except in CI, where it then fails. */
export function needsPeers(): { skip: string | false } {
  const installed = existsSync(new URL('node_modules/node-llama-cpp', import.meta.url));
  return { skip: installed || process.env['CI'] === 'true' ? false : 'needs llama.cpp: npm run peers' };
}

/** Loads a GGUF file into llama.cpp. One model at a time keeps its memory predictable; `close` frees it. */
export async function openLlama(path: string, options: LlamaOptions = {}): Promise<Llama> {
  const { contextSize = 512, kvType = 'F16', threads = 1 } = options;
  const runtime = await openRuntime(threads);
  const model = await runtime.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize,
    threads,
    flashAttention: kvType === 'Q8_0',
    experimentalKvCacheKeyType: kvType,
    experimentalKvCacheValueType: kvType,
  });
  const sequence = context.getSequence();
  const restart = async (tokens: readonly number[], nNew: number): Promise<void> => {
    const n = tokens.length + nNew;
    if (n > contextSize) throw new RangeError(`contextSize ${contextSize} is less than ${n} tokens`);
    await sequence.clearHistory();
  };
  return {
    tokenize: (text, special = false) => [...model.tokenize(text, special)],
    async logProbs(tokens, from = 0) {
      await restart(tokens, 0);
      const generateNext = { probabilities: true, options: { temperature: 0 } };
      const input = (tokens as Token[]).map((token, i): Input => (i < from ? token : [token, { generateNext }]));
      const output = await sequence.controlledEvaluate(input);
      return output.slice(from).map((row) => toLogProbs(row!.next.probabilities!));
    },
    async greedy(tokens, n) {
      await restart(tokens, n);
      const out: number[] = [];
      for await (const token of sequence.evaluate(tokens as Token[], { temperature: 0, yieldEogToken: true })) {
        if (out.push(token) === n) break;
      }
      return out;
    },
    async close() {
      await context.dispose();
      await model.dispose();
    },
  };
}

export interface LlamaEmbedding {
  /** The vector of a text, or of token ids (with what its vocabulary puts around a text), pooled as the file says. */
  embed(input: string | readonly number[]): Promise<Float32Array>;
  /** Tokens of a text, with what its vocabulary puts around it. */
  nTokens(text: string): number;
  close(): Promise<void>;
}

/** Loads a GGUF file into llama.cpp for embeddings; its key-value cache, where there is one, is in F16. */
export async function openLlamaEmbedding(path: string, contextSize: number): Promise<LlamaEmbedding> {
  const runtime = await openRuntime(1);
  const model = await runtime.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createEmbeddingContext({ contextSize, batchSize: contextSize, threads: 1 });
  return {
    async embed(input) {
      const { vector } = await context.getEmbeddingFor(typeof input === 'string' ? input : ([...input] as Token[]));
      return Float32Array.from(vector);
    },
    nTokens: (text) => context.calculateInputLength(text),
    async close() {
      await context.dispose();
      await model.dispose();
    },
  };
}

function openRuntime(threads: number): Promise<Runtime> {
  let runtime = runtimes.get(threads);
  if (runtime === undefined) {
    const level = { logLevel: 'error' as LlamaLogLevel, progressLogs: false };
    const options = { gpu: false, build: 'never', maxThreads: threads, ...level } as const;
    runtime = import('node-llama-cpp').then(async ({ getLlama, getModuleVersion }) => {
      const started = await getLlama(options);
      const version = `llama.cpp ${started.llamaCppRelease.release}, node-llama-cpp ${await getModuleVersion()}`;
      recordComparison('peers', version);
      return started;
    });
    runtimes.set(threads, runtime);
  }
  return runtime;
}

/** log(softmax(logits)) of one row f32[nVocab], summed in float64: what llama.cpp's row is compared with. */
export function logSoftmax(logits: Float32Array): Float32Array {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0);
  return logits.map((logit) => logit - max - Math.log(sum));
}

function toLogProbs(probabilities: ReadonlyMap<number, number>): Float32Array {
  const out = new Float32Array(probabilities.size).fill(-Infinity);
  for (const [token, p] of probabilities) if (p >= PROBABILITY_MIN) out[token] = Math.log(p);
  return out;
}
