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
  getSequence(): LlamaSequence;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  clearHistory(): Promise<void>;
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

/** @throws as `findPeer` does */
export async function openPeer(
  path: string,
  threads: number,
  nCtx: number,
  kvType: ResolvedLoadOptions['kvType'] = 'F16',
): Promise<Peer> {
  const { getLlama } = (await import(pathToFileURL(findPeer()).href)) as LlamaModule;
  const quiet = { logLevel: 'error', progressLogs: false };
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads, ...quiet });
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({
    contextSize: nCtx,
    batchSize: 512,
    threads: { ideal: threads, min: threads },
    experimentalKvCacheKeyType: kvType,
    experimentalKvCacheValueType: kvType,
    // llama.cpp has quantised values with flash attention only.
    ...(kvType === 'Q8_0' && { flashAttention: true }),
  });
  const sequence = context.getSequence();
  return {
    name: 'llama.cpp (node-llama-cpp)',
    async run({ prompt, nGenerate }) {
      await sequence.clearHistory();
      const startMs = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(prompt);
      const prefillMs = performance.now() - startMs;
      let n = 0;
      let firstMs = 0;
      // The first token is that of the step that begins decoding; the others are timed.
      for await (const _ of sequence.evaluate([777], { temperature: 0, yieldEogToken: true })) {
        if (n === 0) firstMs = performance.now();
        if (++n > nGenerate) break;
      }
      return { prefill: (1000 * prompt.length) / prefillMs, decode: (1000 * (n - 1)) / (performance.now() - firstMs) };
    },
    async [Symbol.asyncDispose]() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}
