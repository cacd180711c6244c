// What an architecture file makes of a GGUF: hyper-parameters, and a graph built from the weights by name.

import { GgufError, OptionError, ShapeError, UnsupportedError } from '../base/errors.ts';
import type { Gguf, TensorInfo } from '../gguf/reader.ts';
import type { Graph, Tensor } from '../graph/tensor.ts';
import type { OutputKind, ProgramLimits } from '../graph/step.ts';
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
  /** A token attends to what is before it. Else it attends to all of its text, and the model makes embeddings only. */
  readonly isCausal: boolean;
}

/** A model that can be built into programs of different limits. */
export interface ModelDefinition {
  readonly hyperParameters: HyperParameters;
  /** The file, with its tensors by the names that the graph has for them. */
  readonly gguf: Gguf;
  /**
   * Builds the graph from tokens to its one output: logits f32[nOutputs, nVocab], the default, or the last hidden
   * states, f32[nOutputs, nEmbd].
   * @throws {UnsupportedError} UNSUPPORTED_FEATURE for logits of a model that is not causal
   */
  buildGraph(limits: ProgramLimits, output?: OutputKind): Graph;
}

/** What the programs of a model give. */
export const outputsOf = ({ isCausal }: HyperParameters): readonly OutputKind[] =>
  isCausal ? ['logits', 'hidden'] : ['hidden'];

/** @throws {UnsupportedError} for logits of a model that is not causal */
export function requireOutput(output: OutputKind, p: HyperParameters): void {
  if (outputsOf(p).includes(output)) return;
  throw new UnsupportedError(
    'UNSUPPORTED_FEATURE',
    `this model ("${p.architecture}") generates no text, since its tokens attend to what follows them; it is for ` +
      'embeddings: use model.embed(), or "smallmind embed"',
    { architecture: p.architecture },
  );
}

/** Reads what decides the graph, which may be in small tensors. The file's source is open until then. */
export type Architecture = (gguf: Gguf) => Promise<ModelDefinition>;

/** @throws {OptionError} for a context of more positions than the model has learned */
export function requireTrainedPositions(nCtx: number, { nCtxTrain }: HyperParameters): void {
  if (nCtx <= nCtxTrain) return;
  throw new OptionError(
    `"nCtx" expected at most ${nCtxTrain}, the positions that this model has learned, got ${nCtx}`,
    { option: 'nCtx', value: nCtx },
  );
}

/** Getters of checked numbers whose keys begin with the architecture's name; without a fallback a key must be there. */
export interface ParameterReader {
  /** A positive integer. */
  count(key: string, fallback?: number): number;
  /** An integer from 0 on. */
  natural(key: string, fallback?: number): number;
  /** A finite number from 1 on. */
  fromOne(key: string, fallback?: number): number;
  /** A finite number above 0. */
  positive(key: string, fallback?: number): number;
  /** A finite number from 0 on. */
  nonNegative(key: string, fallback?: number): number;
}

/** Its getters throw a GgufError GGUF_INVALID for a value out of range, GGUF_MISSING for none. */
export function parametersOf(gguf: Gguf, architecture: string): ParameterReader {
  const reader =
    (expected: string, fits: (value: number) => boolean) =>
    (name: string, fallback?: number): number => {
      const key = `${architecture}.${name}`;
      const value = gguf.metadata.getNumber(key, fallback);
      if (fits(value)) return value;
      throw new GgufError('GGUF_INVALID', `${gguf.source.name}: "${key}" expected ${expected}, got ${value}`);
    };
  return {
    count: reader('a positive integer', (n) => Number.isSafeInteger(n) && n > 0),
    natural: reader('an integer from 0 on', (n) => Number.isSafeInteger(n) && n >= 0),
    fromOne: reader('a number from 1 on', (x) => x >= 1 && x < Infinity),
    positive: reader('a positive number', (x) => x > 0 && x < Infinity),
    nonNegative: reader('a number from 0 on', (x) => x >= 0 && x < Infinity),
  };
}

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
  return graph.leaf('weight', name, tensorOf(gguf, name, shape).dtype, shape);
}

/**
 * The descriptor of a tensor that must have that shape.
 * @throws {GgufError} GGUF_MISSING, {ShapeError}
 */
export function tensorOf(gguf: Gguf, name: string, shape: readonly number[]): TensorInfo {
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
  return info;
}

/**
 * The file with some tensors as several: `attn_qkv` of every layer as `attn_q`, `attn_k` and `attn_v`, say, weights and
 * biases. Rows follow each other in the file, so that a part is a place like any other.
 * @param parts  rows of each part, in their order
 * @throws {ShapeError} when a tensor has more or fewer rows
 */
export function splitRows(gguf: Gguf, whole: string, parts: Readonly<Record<string, number>>): Gguf {
  const nRows = Object.values(parts).reduce((sum, n) => sum + n, 0);
  const tensors = new Map<string, TensorInfo>();
  for (const info of gguf.tensors.values()) {
    if (!info.name.includes(`.${whole}.`)) {
      tensors.set(info.name, info);
      continue;
    }
    tensorOf(gguf, info.name, [nRows, ...info.shape.slice(1)]);
    let { offsetBytes } = info;
    for (const [part, n] of Object.entries(parts)) {
      const name = info.name.replace(whole, part);
      const sizeBytes = (info.sizeBytes / nRows) * n;
      tensors.set(name, { ...info, name, shape: [n, ...info.shape.slice(1)], offsetBytes, sizeBytes });
      offsetBytes += sizeBytes;
    }
  }
  return { ...gguf, tensors };
}

/** The file with the first row of a matrix, if it has that, as a vector of the same name. */
export function firstRowOf(gguf: Gguf, name: string): Gguf {
  const info = gguf.tensors.get(name);
  if (info?.shape.length !== 2) return gguf;
  const [nRows, ...shape] = info.shape as [number, number];
  return { ...gguf, tensors: new Map(gguf.tensors).set(name, { ...info, shape, sizeBytes: info.sizeBytes / nRows }) };
}

/**
 * The file with some matrices of every layer, by the names of their parts, as vectors of all their elements.
 * @throws {ShapeError} when a matrix has another shape
 */
export function asVectors(
  gguf: Gguf,
  parts: Readonly<Record<string, readonly [nRows: number, nColumns: number]>>,
): Gguf {
  const tensors = new Map(gguf.tensors);
  for (const info of gguf.tensors.values()) {
    const shape = Object.entries(parts).find(([part]) => info.name.endsWith(`.${part}.weight`))?.[1];
    if (!shape) continue;
    tensorOf(gguf, info.name, shape);
    tensors.set(info.name, { ...info, shape: [shape[0] * shape[1]] });
  }
  return { ...gguf, tensors };
}

/** The file with some vectors of every layer, by the name of their part, as matrices of one row. */
export function asMatrices(gguf: Gguf, part: string): Gguf {
  const tensors = new Map(gguf.tensors);
  for (const info of gguf.tensors.values()) {
    const isVector = info.name.endsWith(`.${part}.weight`) && info.shape.length === 1;
    if (isVector) tensors.set(info.name, { ...info, shape: [1, ...info.shape] });
  }
  return { ...gguf, tensors };
}
