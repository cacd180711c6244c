// Checkpoints of small models with random parameters, as training would have left them, and their logits in exact
// arithmetic from the training graph: what exported files are judged by, in SmallMind and in llama.cpp.

import assert from 'node:assert/strict';
import { ReferenceExecutor } from '../src/backend/reference/executor.ts';
import { Random } from '../src/base/random.ts';
import { Graph } from '../src/graph/tensor.ts';
import { DropoutRng } from '../src/nn/dropout.ts';
import { TransformerModel } from '../src/nn/transformer.ts';
import type { TransformerConfig } from '../src/nn/transformer.ts';
import type { Checkpoint } from '../src/training/checkpoint.ts';
import { prepareCorpus } from '../src/training/corpus.ts';
import { DataLoader } from '../src/training/data.ts';
import { modelConfigOf, resolveTrainingOptions } from '../src/training/options.ts';
import type { TrainingOptions } from '../src/training/options.ts';
import { ParameterViews, layOutParameters } from '../src/training/parameters.ts';
import type { ParameterLayout } from '../src/training/parameters.ts';

const TEXT = 'The cat sat on the mat. The dog ran to the cat, and the cat ran to the tree.\n'.repeat(20);

export function layoutOf(config: TransformerConfig): ParameterLayout {
  return layOutParameters((scope) => void new TransformerModel(scope, config, new DropoutRng(scope.graph)));
}

/**
 * Activations keep their size through the matrices; norms and biases are not what they begin with, so that each shows.
 */
export function randomCheckpoint(options: TrainingOptions): Checkpoint {
  const resolved = resolveTrainingOptions(options);
  const { vocabulary, train, checksum } = prepareCorpus([{ name: 'text', text: TEXT }], resolved);
  const config = modelConfigOf(resolved, vocabulary.tokens.length);
  const layout = layoutOf(config);
  const parameters = new Float32Array(layout.size);
  layout.parameters.forEach(({ name, shape, offset, size }, stream) => {
    const [mean, deviation] = shape.length > 1 ? [0, 1 / Math.sqrt(shape[1]!)] : [name.endsWith('.bias') ? 0 : 1, 0.2];
    new Random(resolved.seed, stream).fillNormal(parameters.subarray(offset, offset + size), mean, deviation);
  });
  return {
    options: resolved,
    config,
    vocabulary,
    step: 7,
    bestValidationLoss: 1.5,
    loader: new DataLoader(train, { nSeq: 1, nCtx: 4, seed: 1 }).state,
    dataChecksum: checksum,
    arrays: { parameters, moment1: parameters.map((p) => p / 2), moment2: parameters.map((p) => p * p) },
  };
}

/** Logits of the training graph in eval mode, in float64: f32[tokens.length, nVocab]. */
export async function exactLogits(
  { config, arrays }: Pick<Checkpoint, 'config' | 'arrays'>,
  tokens: readonly number[],
): Promise<Float32Array> {
  const graph = new Graph();
  const views = new ParameterViews(graph, layoutOf(config), 'parameters');
  const model = new TransformerModel(views.scope(), config, new DropoutRng(graph)).eval();
  const input = (name: string) => graph.leaf('input', name, 'I32', [tokens.length]);
  graph.output(model.forward(input('tokens'), { nSeq: 1, positions: input('positions') }));
  const executor = await ReferenceExecutor.create(graph, { read: async () => assert.fail('there are no weights') });
  executor.state('parameters').set(arrays.parameters);
  executor.input('tokens').set(tokens);
  executor.input('positions').set(tokens.map((_, i) => i));
  executor.run();
  return executor.output(0);
}
