// Rotary position embedding (arXiv:2104.09864): pairs of a head's elements are rotated by position · frequency.
// The angles of all positions are a constant of the graph, computed once in float64 with our own functions, so that
// every machine gets the same bits.

import { cos, log, pow, sin } from '../base/math.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';

export interface RopeConfig {
  readonly headDim: number;
  /** Rotated elements of a head, even, at most headDim. */
  readonly nRot: number;
  readonly freqBase: number;
  /** Frequencies are multiplied by this: 1 / factor where positions are stretched by a factor, else 1. */
  readonly freqScale: number;
  /** YaRN (arXiv:2309.00071): `freqScale` is for slow frequencies only, and fast ones stay as they are. */
  readonly yarn?: { readonly nCtxOrig: number };
  /** By what each frequency is divided, f32[nRot / 2] (Llama 3.1). Default 1. */
  readonly freqFactors?: Float32Array;
  /** Queries and keys are multiplied by this when they are rotated; YaRN adds a factor of its own. Default 1. */
  readonly attnFactor?: number;
  /** `interleaved`: pairs (2i, 2i+1), llama's GGUF order. `halves`: pairs (i, i + nRot/2), NeoX's. */
  readonly pairing: 'interleaved' | 'halves';
  /** Tells the angles of one configuration from those of another in the same graph. Default `angles`. */
  readonly table?: string;
}

export class Rope {
  readonly #graph: Graph;
  readonly #config: RopeConfig;
  readonly #angles: Tensor;

  constructor(graph: Graph, config: RopeConfig, nCtx: number) {
    this.#graph = graph;
    this.#config = config;
    this.#angles = graph.constant(`rope.${config.table ?? 'angles'}`, [nCtx, config.nRot], () =>
      ropeAngles(config, nCtx),
    );
  }

  /** x: f32[rows, nHead · headDim], positions: i32[rows] → the same shape as x */
  forward(x: Tensor, positions: Tensor, name = ''): Tensor {
    const { headDim, nRot, pairing } = this.#config;
    const params = { headDim, nRot, neox: pairing === 'halves' ? 1 : 0 };
    return this.#graph.apply('rope', [x, positions, this.#angles], params, name);
  }
}

/** f32[nCtx, nRot]: for position p and pair i, magnitude · cos and sin of p · frequency i. */
export function ropeAngles(config: RopeConfig, nCtx: number): Float32Array {
  const { nRot } = config;
  const angles = new Float32Array(nCtx * nRot);
  const magnitude = magnitudeOf(config);
  for (let pair = 0; pair < nRot / 2; pair++) {
    const frequency = frequencyOf(config, pair);
    for (let position = 0; position < nCtx; position++) {
      const at = position * nRot + 2 * pair;
      angles[at] = magnitude * cos(position * frequency);
      angles[at + 1] = magnitude * sin(position * frequency);
    }
  }
  return angles;
}

/** freqBase^(−2i / nRot), scaled. */
function frequencyOf(config: RopeConfig, pair: number): number {
  const { nRot, freqBase, freqScale, freqFactors } = config;
  const frequency = pow(freqBase, (-2 * pair) / nRot) / (freqFactors?.[pair] ?? 1);
  const kept = keptByYarn(config, pair);
  return frequency * (freqScale * (1 - kept) + kept);
}

/** Turns in the original context of a pair that YaRN keeps (at least), and of one that it scales (at most). */
const YARN_BETA_FAST = 32;
const YARN_BETA_SLOW = 1;

/** How much of a frequency stays as it is, 0..1: all of fast ones, nothing of slow ones, with a ramp in between. */
function keptByYarn({ nRot, freqBase, yarn }: RopeConfig, pair: number): number {
  if (!yarn) return 0;
  /** The pair that turns so often in the original context, if there were one for every number of turns. */
  const pairOf = (turns: number): number => (nRot * log(yarn.nCtxOrig / (turns * 2 * Math.PI))) / (2 * log(freqBase));
  const first = Math.max(0, Math.floor(pairOf(YARN_BETA_FAST)));
  const last = Math.min(nRot - 1, Math.ceil(pairOf(YARN_BETA_SLOW)));
  return 1 - Math.min(1, Math.max(0, (pair - first) / Math.max(0.001, last - first)));
}

/** YaRN makes up for attention that thins out over more positions. */
function magnitudeOf({ freqScale, yarn, attnFactor = 1 }: RopeConfig): number {
  return yarn && freqScale < 1 ? attnFactor * (1 + 0.1 * log(1 / freqScale)) : attnFactor;
}
