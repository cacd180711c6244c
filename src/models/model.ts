// What an architecture file makes of a GGUF: hyper-parameters, and a graph built from the weights by name.

import type { Gguf } from '../gguf/reader.ts';
import { GgufError, ShapeError } from '../base/errors.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';
import type { ProgramLimits } from '../graph/step.ts';
import type { WeightScope } from '../nn/module.ts';

/** Counts that the engine and the user need to know; the rest stays in the architecture's file. */
export interface HyperParameters {
  readonly architecture: string;
  readonly nVocab: number;
  readonly nEmbd: number;
  readonly nLayer: number;
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly headDim: number;
  readonly nFf: number;
  /** Positions that the model was trained for. */
  readonly nCtxTrain: number;
}

/** A model that can be built into programs of different limits. */
export interface ModelDefinition {
  readonly hyperParameters: HyperParameters;
  /** Builds the graph from tokens to logits f32[nOutputs, nVocab], its one output. */
  buildGraph(limits: ProgramLimits): Graph;
}

export type Architecture = (gguf: Gguf) => ModelDefinition;

/** The weights of a file as a scope; every use is checked against the file's tensors. */
export function weightsOf(gguf: Gguf, graph: Graph, prefix = ''): WeightScope {
  return {
    graph,
    weight: (name, shape) => weightOf(gguf, graph, prefix + name, shape),
    has: (name) => gguf.tensors.has(prefix + name),
    scope: (inner) => weightsOf(gguf, graph, `${prefix}${inner}.`),
  };
}

function weightOf(gguf: Gguf, graph: Graph, name: string, shape: readonly number[]): Tensor {
  const info = gguf.tensors.get(name);
  if (!info) {
    throw new GgufError('GGUF_MISSING', `${gguf.source.name}: tensor "${name}" is missing; the file is incomplete`, {
      tensor: name,
    });
  }
  if (info.shape.length !== shape.length || info.shape.some((n, i) => n !== shape[i])) {
    throw new ShapeError(
      `${gguf.source.name}: tensor "${name}" expected shape [${shape.join(', ')}], got [${info.shape.join(', ')}]; ` +
        'the metadata and the tensors of this file do not belong together',
      { tensor: name },
    );
  }
  return graph.leaf('weight', name, info.dtype, shape);
}
