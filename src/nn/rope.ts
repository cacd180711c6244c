// Rotary position embedding (arXiv:2104.09864): pairs of a head's elements are rotated by position · frequency.
// The angles of all positions are a constant of the graph, computed once in float64 with our own functions, so that
// every machine gets the same bits.

import { cos, pow, sin } from '../base/math.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';

export interface RopeConfig {
  readonly headDim: number;
  /** Rotated elements of a head, even, at most headDim. */
  readonly nRot: number;
  readonly freqBase: number;
  /** Positions are divided by this (linear scaling); 1 for none. */
  readonly freqScale: number;
  /** `interleaved`: pairs (2i, 2i+1), llama's GGUF order. `halves`: pairs (i, i + nRot/2), NeoX's. */
  readonly pairing: 'interleaved' | 'halves';
}

export class Rope {
  readonly #graph: Graph;
  readonly #config: RopeConfig;
  readonly #angles: Tensor;

  constructor(graph: Graph, config: RopeConfig, nCtx: number) {
    this.#graph = graph;
    this.#config = config;
    this.#angles = graph.constant('rope.angles', [nCtx, config.nRot], () => ropeAngles(config, nCtx));
  }

  /** x: f32[rows, nHead · headDim], positions: i32[rows] → the same shape as x */
  forward(x: Tensor, positions: Tensor, name = ''): Tensor {
    const { headDim, nRot, pairing } = this.#config;
    const params = { headDim, nRot, neox: pairing === 'halves' ? 1 : 0 };
    return this.#graph.apply('rope', [x, positions, this.#angles], params, name);
  }
}

/** f32[nCtx, nRot]: for position p and pair i, cos and sin of p · freqScale · freqBase^(−2i / nRot). */
export function ropeAngles({ nRot, freqBase, freqScale }: RopeConfig, nCtx: number): Float32Array {
  const angles = new Float32Array(nCtx * nRot);
  for (let pair = 0; pair < nRot / 2; pair++) {
    const frequency = pow(freqBase, (-2 * pair) / nRot) * freqScale;
    for (let position = 0; position < nCtx; position++) {
      const at = position * nRot + 2 * pair;
      angles[at] = cos(position * frequency);
      angles[at + 1] = sin(position * frequency);
    }
  }
  return angles;
}
