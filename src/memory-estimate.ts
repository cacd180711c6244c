// The memory that a model would need here, from its file's head alone and planned as loading plans it: part by part,
// for contexts of several sizes and each type of the key-value cache, and the largest context that fits.

import { platform } from '#platform';
import { distinctLeaves, leafBytes } from './backend/wasm/memory.ts';
import { kernelsOf } from './backend/wasm/kernels/table.ts';
import { SmallMindError } from './base/errors.ts';
import { buildPrograms, contextMax, fittingBytes, largestContext, planLoading } from './context-size.ts';
import { KV_DTYPES } from './graph/step.ts';
import type { KvDtype, ProgramLimits } from './graph/step.ts';
import type { Graph, Tensor } from './graph/tensor.ts';
import { readGguf } from './gguf/reader.ts';
import { prepareModel } from './local-model.ts';
import type { ModelDefinition } from './models/model.ts';
import { resolveLoadOptions } from './options.ts';
import type { LoadOptions, ModelSource, ResolvedLoadOptions } from './options.ts';
import { openHere } from './source.ts';

/** The memory that the WebAssembly executor would hold; the four parts make the total. */
export interface MemoryNeeds {
  /** Context in tokens that this is for, prompt and answer together. */
  readonly nCtx: number;
  /** As they are packed for the kernels. */
  readonly weightsBytes: number;
  /** The key-value cache. */
  readonly kvBytes: number;
  /** Constants: tables that are computed once. */
  readonly constantsBytes: number;
  /** Inputs, intermediate results, and what the threads need. */
  readonly workBytes: number;
  readonly totalBytes: number;
}

/** What a model needs with one size of the context. */
export interface ContextEstimate extends MemoryNeeds {
  /** Whether it would fit into the memory that is free now. */
  readonly fits: boolean;
}

/** What a model needs with one type of the key-value cache. */
export interface CacheEstimate {
  readonly kvType: KvDtype;
  /** From the smallest to the largest; none where `problem` says why the model does not run with this type. */
  readonly contexts: readonly ContextEstimate[];
  /** The largest context, up to what the model was trained for, that would fit; 0 where none does. */
  readonly nCtxFit: number;
  readonly problem?: string;
}

/** What a model would need, and what there is. */
export interface MemoryEstimate {
  /** Path, URL, name of the File, `blob` or `memory`. */
  readonly source: string;
  /** Context that the model was trained for, in tokens. */
  readonly nCtxTrain: number;
  /** Threads that would compute. */
  readonly nThreads: number;
  /** Memory of this machine, or of its container. A model that needs more is refused. Absent where unknown. */
  readonly machineBytes?: number;
  /** What a model may take to fit: nine tenths of the memory that is free now. Absent where unknown. */
  readonly fittingBytes?: number;
  /** One for each type of the key-value cache, or the one that was asked for. */
  readonly caches: readonly CacheEstimate[];
}

/** Contexts that are told beside the one that a model was trained for, in tokens. */
const CONTEXTS = [2048, 8192, 32768];

/**
 * The memory that a model would need here, with contexts of 2048, 8192 and 32768 tokens and of what it was trained for
 * (at most 1048576), and with each type of the key-value cache. No weight is read and no memory taken.
 * @param options  those that the model would be loaded with; a number as `nCtx` leaves that context only, `fit` the
 *   largest that fits, and `kvType` that type
 * @throws {GgufError}, {UnsupportedError}, {ShapeError} for a file that cannot run here, {SmallMindError}
 *   FILE_NOT_FOUND, FILE_UNREADABLE, {OptionError} for a bad option, and for more context than the model has positions
 * @example
 * import { estimateMemory } from 'smallmind';
 *
 * const { caches } = await estimateMemory('MODEL.gguf');
 * for (const { kvType, nCtxFit } of caches) console.log(`${kvType}: a context of up to ${nCtxFit} tokens fits`);
 */
export async function estimateMemory(source: ModelSource, options: LoadOptions = {}): Promise<MemoryEstimate> {
  const { nCtx, ...resolved } = resolveLoadOptions(options);
  let opened = await openHere(source, options.signal);
  try {
    const gguf = await readGguf(opened);
    opened = gguf.source;
    const { definition, nThreads } = await prepareModel(gguf, { ...resolved, nCtx: undefined });
    const { nCtxTrain } = definition.hyperParameters;
    const nCtxMax = contextMax(definition);
    const all = [...CONTEXTS.filter((size) => size < nCtxMax), nCtxMax];
    const sizesFor = (nCtxFit: number): readonly number[] =>
      nCtx === undefined ? all : nCtx !== 'fit' ? [nCtx] : nCtxFit > 0 ? [nCtxFit] : [];
    const kvTypes = options.kvType === undefined ? KV_DTYPES : [options.kvType];
    const machineBytes = platform.memoryBytes();
    const limitBytes = fittingBytes();
    const loading = { ...resolved, nCtx: undefined, threads: nThreads };
    return {
      source: opened.name,
      nCtxTrain,
      nThreads,
      ...(machineBytes !== undefined && { machineBytes }),
      ...(limitBytes < Infinity && { fittingBytes: limitBytes }),
      caches: kvTypes.map((kvType) => estimateCache(definition, { ...loading, kvType }, sizesFor, limitBytes)),
    };
  } finally {
    await opened.close();
  }
}

function estimateCache(
  definition: ModelDefinition,
  options: ResolvedLoadOptions & { readonly threads: number },
  sizesFor: (nCtxFit: number) => readonly number[],
  limitBytes: number,
): CacheEstimate {
  const { kvType } = options;
  try {
    const nCtxFit = largestContext(definition, options, limitBytes) ?? 0;
    const contexts = sizesFor(nCtxFit).map((nCtx) => {
      const { graphs, limits } = buildPrograms(definition, options, nCtx);
      const { error, ...needs } = memoryNeeds(graphs, limits, options, options.threads);
      return { ...needs, fits: !error && needs.totalBytes <= limitBytes };
    });
    return { kvType, contexts, nCtxFit };
  } catch (error) {
    // An option that no model like this takes is no matter of the type.
    const isOfType = error instanceof SmallMindError && error.code !== 'INTERNAL' && error.code !== 'INVALID_OPTION';
    if (!isOfType) throw error;
    return { kvType, contexts: [], nCtxFit: 0, problem: error.message };
  }
}

/**
 * What loading a model's graphs would take. `error` where that is more than WebAssembly has.
 * @throws {UnsupportedError} as loading
 */
export function memoryNeeds(
  graphs: readonly Graph[],
  { nCtx }: ProgramLimits,
  options: ResolvedLoadOptions,
  nThreads: number,
): MemoryNeeds & { readonly error?: SmallMindError } {
  const { programs, sizeBytes: totalBytes, error } = planLoading(graphs, options, nThreads);
  kernelsOf(programs);
  const bytesOf = (op: Tensor['op']): number =>
    distinctLeaves(programs).reduce((sum, leaf) => sum + (leaf.op === op ? leafBytes(leaf) : 0), 0);
  const [weightsBytes, kvBytes, constantsBytes] = [bytesOf('weight'), bytesOf('state'), bytesOf('constant')];
  const workBytes = totalBytes - weightsBytes - kvBytes - constantsBytes;
  return { nCtx, weightsBytes, kvBytes, constantsBytes, workBytes, totalBytes, ...(error && { error }) };
}
