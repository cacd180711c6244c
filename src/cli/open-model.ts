// Opens the model that a command writes with: in a worker if it is large, with a progress bar if that takes long.

import { stat } from 'node:fs/promises';
import type { LoadOptions, Model } from '../index.ts';
import { LOAD_FLAGS } from './flags.ts';
import { LoadingBar } from './loading-bar.ts';
import { formatBytes, formatCount } from './text.ts';
import { inFlags } from './usage.ts';

/** Models up to this size take a step in milliseconds. */
const INLINE_FILE_BYTES_MAX = 64 << 20;

/** @throws as `loadModel`, {UsageError} for an option that the model does not take, or the signal's reason */
export async function openModel(path: string, options: LoadOptions, signal: AbortSignal): Promise<Model> {
  const { loadModel } = await import('../index.ts');
  // The worker keeps this thread free to hear Ctrl-C while a large model takes a step, but its start takes 100 ms.
  const fileBytes = await stat(path).then(
    ({ size }) => size,
    () => (/^https?:/i.test(path) ? Infinity : 0),
  );
  const thread = fileBytes <= INLINE_FILE_BYTES_MAX ? 'inline' : 'worker';
  const bar = new LoadingBar(path);
  try {
    return await loadModel(path, { ...options, thread, signal, onProgress: (progress) => bar.update(progress) });
  } catch (error) {
    throw inFlags(LOAD_FLAGS, error);
  } finally {
    await bar.stop();
  }
}

/** On one line. */
export function describeModel({ info }: Model, loadMs: number): string {
  const { architecture, nParameters, nCtx, memoryBytes, executor } = info;
  const size = `${formatCount(nParameters)} parameters, ${nCtx} tokens of context, ${formatBytes(memoryBytes)}`;
  return `${architecture}, ${size}; ${executor}; loaded in ${loadMs.toFixed(0)} ms`;
}
