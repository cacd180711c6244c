// Models and layers in eval mode as graphs, for the proofs: over a flat state of parameters that the test fills, with
// several lengths of input as several programs of one executor, which then share one arena.

import { WasmExecutor } from '../../src/backend/wasm/executor.ts';
import type { WasmOptions } from '../../src/backend/wasm/executor.ts';
import { Random } from '../../src/base/random.ts';
import { Graph } from '../../src/graph/tensor.ts';
import type { Tensor } from '../../src/graph/tensor.ts';
import type { Packed } from '../../src/nn/attention.ts';
import { DropoutRng } from '../../src/nn/dropout.ts';
import type { WeightScope } from '../../src/nn/module.ts';
import { TransformerModel, transformerConfig } from '../../src/nn/transformer.ts';
import type { TransformerConfig } from '../../src/nn/transformer.ts';
import { ParameterViews, initialize, layOutParameters } from '../../src/training/parameters.ts';
import type { ParameterLayout } from '../../src/training/parameters.ts';

const SIZES = { nVocab: 48, nCtx: 64, nEmbd: 32, nLayer: 2, nHead: 4, dropout: 0.1 };
export const CONFIGS = {
  gpt2: transformerConfig({ ...SIZES, architecture: 'gpt2' }),
  llama: transformerConfig({ ...SIZES, architecture: 'llama', nHeadKv: 2 }),
} as const;

/** Sequences of every batch. */
export const N_SEQ = 2;

export const NO_WEIGHTS = { read: () => Promise.reject(new Error('there are no weights')) };
export const OPTIONS: WasmOptions = { kernels: 'strict', nThreads: 1, activations: 'f32' };

/** Builds a layer or a model in `scope` and gives what it computes. */
export type Build = (scope: WeightScope, packed: Packed) => Tensor;

export interface Forwards {
  readonly graphs: readonly Graph[];
  readonly layout: ParameterLayout;
}

/** A graph for each number of positions, all over the same parameters; its output is what `build` gives. */
export function buildForwards(build: Build, lengths: readonly number[]): Forwards {
  const packedIn = (graph: Graph, nPositions: number): Packed => ({
    nSeq: N_SEQ,
    positions: graph.leaf('input', 'positions', 'I32', [N_SEQ * nPositions]),
  });
  const layout = layOutParameters((scope) => void build(scope, packedIn(scope.graph, lengths[0]!)));
  const graphs = lengths.map((nPositions) => {
    const graph = new Graph();
    graph.output(build(new ParameterViews(graph, layout, 'parameters').scope(), packedIn(graph, nPositions)));
    return graph;
  });
  return { graphs, layout };
}

/** The whole model in eval mode: token ids → logits. */
export const buildModel =
  (config: TransformerConfig): Build =>
  (scope, packed) => {
    const tokens = scope.graph.leaf('input', 'tokens', 'I32', packed.positions.shape);
    return new TransformerModel(scope, config, new DropoutRng(scope.graph)).eval().forward(tokens, packed);
  };

export async function createForwards(
  { graphs, layout }: Forwards,
  options: Partial<WasmOptions> = {},
): Promise<WasmExecutor> {
  const executor = await WasmExecutor.create(graphs, NO_WEIGHTS, { ...OPTIONS, ...options });
  const parameters = executor.state('parameters');
  initialize(layout, parameters, 42);
  // Larger than they begin, so that no difference is lost in a softmax that is all but even.
  for (let i = 0; i < parameters.length; i++) parameters[i]! *= 4;
  return executor;
}

/** Every sequence begins at position 0. Layers without positions have no such input. */
export function fillPositions(executor: WasmExecutor, nPositions: number): void {
  if (!executor.programs.some((p) => p.leaves.some((leaf) => leaf.name === 'positions'))) return;
  const positions = executor.input('positions');
  for (let i = 0; i < N_SEQ * nPositions; i++) positions[i] = i % nPositions;
}

/** Runs the model on the tokens of `seed`. @returns a copy of the logits */
export function runModel(executor: WasmExecutor, program: number, nPositions: number, seed: number): Float32Array {
  const tokens = executor.input('tokens');
  const random = new Random(seed);
  for (let i = 0; i < N_SEQ * nPositions; i++) tokens[i] = random.uint32() % SIZES.nVocab;
  fillPositions(executor, nPositions);
  executor.run(program);
  return executor.output(0, program).slice();
}
