// How many threads compute when none are asked for, and why so many.

import { platform } from '#platform';
import type { Cores } from './base/platform.ts';
import { sizeBytesMax } from './graph/tensor.ts';
import type { Graph, Tensor } from './graph/tensor.ts';

export interface ThreadChoice {
  readonly threads: number;
  /** In words, to follow the number. */
  readonly reason: string;
}

const THREADS_MAX = 8;

/**
 * Weights that a thread should have to read in a step. With less, threads wait for each other longer than they compute.
 * Measured on two cores, two threads beside one: 0.4 to 0.9 of the speed with 1 to 2 MB of weights, 0.9 to 1.1 with
 * 3.5 MB. (Where nobody receives the text meanwhile, they are faster from 0.4 MB on.)
 */
const WEIGHT_BYTES_MIN = 2 << 20;

/**
 * One thread a fast core: hyper-threads share what computes, and a slow core would let the fast ones wait for it at
 * each barrier. A small model gets fewer, a program that needs them all the same can ask for them.
 * @param weightBytes  what a step reads; without it, a large model is meant
 */
export function chooseThreads(weightBytes = Infinity, cores: Cores = platform.cores()): ThreadChoice {
  const nHelpful = Math.max(1, Math.round(weightBytes / WEIGHT_BYTES_MIN));
  const threads = Math.min(cores.nFast, THREADS_MAX, nHelpful);
  if (threads === cores.nFast) {
    return { threads, reason: cores.nFast < cores.nPhysical ? 'one for each fast core' : 'one for each core' };
  }
  if (threads === THREADS_MAX) return { threads, reason: 'the most that are started unasked' };
  return { threads, reason: 'more would not help so small a model' };
}

/** Bytes of weights that one token's step reads: of a table that is only looked up, next to nothing. */
export function weightBytesPerToken({ nodes }: Graph): number {
  const read = new Set<Tensor>();
  for (const { op, inputs } of nodes) {
    if (op === 'embed') continue;
    for (const input of inputs) if (input.op === 'weight') read.add(input);
  }
  return [...read].reduce((sum, weight) => sum + sizeBytesMax(weight), 0);
}
