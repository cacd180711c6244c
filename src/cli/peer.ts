// llama.cpp through node-llama-cpp, where that is installed: what `bench --against` measures beside our own engine. The
// package is the user's; this one does not depend on it.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Speed, Workload } from '../benchmark.ts';
import type { ResolvedLoadOptions } from '../options.ts';
import { UsageError } from './usage.ts';

export interface Peer extends AsyncDisposable {
  /** With its version. */
  readonly name: string;
  run(workload: Workload): Promise<Speed>;
}

/** As much of node-llama-cpp as is used here. */
interface LlamaModule {
  getLlama(options: object): Promise<{
    loadModel(options: { modelPath: string }): Promise<LlamaModel>;
    dispose(): Promise<void>;
  }>;
}
interface LlamaModel {
  createContext(options: object): Promise<LlamaContext>;
  dispose(): Promise<void>;
}
interface LlamaContext {
  /** Each call gives one more. */
  getSequence(): LlamaSequence;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  readonly nextTokenIndex: number;
  loadStateFromFile(path: string, options: { acceptRisk: true }): Promise<void>;
  eraseContextTokenRanges(ranges: readonly { start: number; end: number }[]): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>;
}

/**
 * Where node-llama-cpp begins.
 * @throws {UsageError} when it is not installed in the present folder
 */
export function findPeer(): string {
  try {
    return createRequire(join(process.cwd(), 'package.json')).resolve('node-llama-cpp');
  } catch {
    throw new UsageError('--against llama.cpp needs node-llama-cpp in this folder: npm install node-llama-cpp');
  }
}

export interface PeerOptions {
  readonly threads: number;
  /** Of each sequence. */
  readonly nCtx: number;
  /** Sequences that run at once. Default 1. */
  readonly nSeq?: number;
  /** A file with the state of a sequence, as llama.cpp saves it: every run begins behind its tokens. Default: none. */
  readonly statePath?: string;
  /** Of its cache. Default F16. */
  readonly kvType?: ResolvedLoadOptions['kvType'] | undefined;
}

/** @throws as `findPeer` does */
export async function openPeer(path: string, options: PeerOptions): Promise<Peer> {
  const { threads, nCtx, nSeq = 1, statePath, kvType = 'F16' } = options;
  const { getLlama } = (await import(pathToFileURL(findPeer()).href)) as LlamaModule;
  const quiet = { logLevel: 'error', progressLogs: false };
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads, ...quiet });
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({
    sequences: nSeq,
    contextSize: nCtx,
    batchSize: 512,
    threads: { ideal: threads, min: threads },
    experimentalKvCacheKeyType: kvType,
    experimentalKvCacheValueType: kvType,
    // llama.cpp has quantised values with flash attention only.
    ...(kvType === 'Q8_0' && { flashAttention: true }),
  });
  const sequences = Array.from({ length: nSeq }, () => context.getSequence());
  if (statePath !== undefined) {
    for (const sequence of sequences) await sequence.loadStateFromFile(statePath, { acceptRisk: true });
  }
  const depth = sequences[0]!.nextTokenIndex;
  return {
    name: 'llama.cpp (node-llama-cpp)',
    async run({ prompts, nGenerate }) {
      for (const sequence of sequences) {
        await sequence.eraseContextTokenRanges([{ start: depth, end: sequence.nextTokenIndex }]);
      }
      const nPrompt = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
      const startMs = performance.now();
      await Promise.all(sequences.map((sequence, i) => sequence.evaluateWithoutGeneratingNewTokens(prompts[i]!)));
      const prefill = (1000 * nPrompt) / (performance.now() - startMs);
      const rates = await Promise.all(sequences.map((sequence) => decodeRate(sequence, nGenerate)));
      return { prefill, decode: rates.reduce((sum, rate) => sum + rate, 0) };
    },
    async [Symbol.asyncDispose]() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

/** Tokens a second. The first is that of the step that begins decoding; the others are timed. */
async function decodeRate(sequence: LlamaSequence, nGenerate: number): Promise<number> {
  let n = 0;
  let firstMs = 0;
  for await (const _ of sequence.evaluate([777], { temperature: 0, yieldEogToken: true })) {
    if (n === 0) firstMs = performance.now();
    if (++n > nGenerate) break;
  }
  return (1000 * (n - 1)) / (performance.now() - firstMs);
}
