// The public API of evaluation: how well a model predicts a text.

import { measurePerplexity } from './eval/perplexity.ts';
import type { PerplexityResult } from './eval/perplexity.ts';
import { LocalModel } from './local-model.ts';
import { requireText, resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelSource } from './options.ts';
import { openHere } from './source.ts';

export type { PerplexityResult } from './eval/perplexity.ts';
export type { ByteSource } from './base/byte-source.ts';
export type { Kernels, KvDtype, ModelSource } from './options.ts';

/** How the model is loaded, and the windows that the text is cut into. */
export interface EvaluationOptions extends Omit<LoadOptions, 'thread' | 'parallel' | 'onProgress' | 'nCtx'> {
  /** Tokens of a window. Default: as trained, at most 512. */
  nCtx?: number;
  /** Called before each window with the tokens done, and all. */
  onProgress?: (nDone: number, nTokens: number) => void;
}

/** The figures, and what they were measured with. */
export interface EvaluationResult extends PerplexityResult {
  /** Tokens of a window. */
  readonly nCtx: number;
  /** What computed, in words. */
  readonly executor: string;
}

const N_CTX_DEFAULT_MAX = 512;

/**
 * Loads a model, measures its perplexity on a text, and closes it. It computes on the calling thread, which each step
 * blocks. Windows lie side by side, each from an empty context; all their tokens count.
 * @throws what `loadModel` throws, and {OptionError} for a text with nothing to predict
 * @example
 * import { evaluatePerplexity } from 'smallmind/eval';
 *
 * const text = 'Once upon a time there was a little dog.';
 * const { perplexity, bitsPerByte } = await evaluatePerplexity('MODEL.gguf', text);
 * console.log(perplexity.toFixed(2), bitsPerByte.toFixed(3), 'bits per byte');
 */
export async function evaluatePerplexity(
  source: ModelSource,
  text: string,
  options: EvaluationOptions = {},
): Promise<EvaluationResult> {
  const { onProgress, signal, ...loadOptions } = options;
  const resolved = resolveLoadOptions(loadOptions);
  requireText('text', text);
  const model = await LocalModel.load(await openHere(source, signal), resolved, {
    isAborted: () => signal?.aborted ?? false,
  });
  try {
    const nCtx = options.nCtx ?? Math.min(model.info.nCtx, N_CTX_DEFAULT_MAX);
    const scored = { tokenizer: model.tokenizer, logits: (tokens: readonly number[]) => model.logits(tokens, true) };
    const result = await measurePerplexity(scored, text, { nCtx, onProgress, signal });
    return { ...result, nCtx, executor: model.info.executor };
  } finally {
    await model.close();
  }
}
