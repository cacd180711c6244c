// How much memory a context takes, and the largest that fits: planned as loading plans it, down to the byte.

import { platform } from '#platform';
import { planForWasm } from './backend/wasm/executor.ts';
import { layOutMemory } from './backend/wasm/memory.ts';
import { chooseVariant } from './backend/wasm/probe.ts';
import { SmallMindError, fromErrorRecord, toErrorRecord } from './base/errors.ts';
import type { Program } from './graph/plan.ts';
import { KV_BLOCK_SIZE } from './graph/step.ts';
import type { OutputKind, ProgramLimits } from './graph/step.ts';
import type { Graph } from './graph/tensor.ts';
import type { ProgramOutput } from './engine/engine.ts';
import { outputsOf } from './models/model.ts';
import type { HyperParameters, ModelDefinition } from './models/model.ts';
import { N_CTX_MAX } from './options.ts';
import type { ResolvedLoadOptions } from './options.ts';

/** Logits are kept for at most so many bytes of rows a step; long vocabularies get fewer rows. */
const LOGITS_BYTES_MAX = 16 << 20;
/** Of the free memory, what a model may take that is to fit: the rest is the program's own and everybody else's. */
const FREE_SHARE = 0.9;

/** Texts that are evaluated beside each other where each has to be evaluated whole. */
const WHOLE_TEXTS_MIN = 32;

/** The programs of a model for one context. */
export interface ProgramSet {
  /** Of the first program. */
  readonly limits: ProgramLimits;
  readonly graphs: readonly Graph[];
  /** What each of them gives. */
  readonly outputs: readonly ProgramOutput[];
}

/** Builds what a context of `nCtx` tokens is planned for. @throws what building a graph throws */
export function buildPrograms(definition: ModelDefinition, options: ResolvedLoadOptions, nCtx: number): ProgramSet {
  const p = definition.hyperParameters;
  const kinds = outputsOf(p);
  const limits = kinds.map((kind) => limitsFor(p, kind, options, nCtx));
  return {
    limits: limits[0]!,
    graphs: kinds.map((kind, i) => definition.buildGraph(limits[i]!, kind)),
    outputs: kinds.map((kind, i) => ({
      kind,
      nRowsMax: limits[i]!.nOutputMax,
      columns: kind === 'logits' ? p.nVocab : p.nEmbd,
    })),
  };
}

function limitsFor(
  { nVocab, isCausal }: HyperParameters,
  kind: OutputKind,
  { parallel, prefillChunk, kvType }: ResolvedLoadOptions,
  nCtx: number,
): ProgramLimits {
  const nSeqMax = isCausal ? parallel : Math.max(parallel, WHOLE_TEXTS_MIN);
  const nTokensMax = Math.min(nCtx * nSeqMax, Math.max(prefillChunk, isCausal ? parallel : nCtx));
  const nRowsMax = kind === 'logits' ? Math.max(1, Math.floor(LOGITS_BYTES_MAX / (4 * nVocab))) : Infinity;
  const nBlockPerSeq = Math.ceil(nCtx / KV_BLOCK_SIZE);
  return {
    nTokensMax,
    nOutputMax: Math.max(parallel, Math.min(nTokensMax, nRowsMax)),
    nSeqMax,
    nCtx,
    // Whole texts have no past: what a step can hold, each in blocks of its own.
    nKvBlock: isCausal ? parallel * nBlockPerSeq : Math.floor(nTokensMax / KV_BLOCK_SIZE) + nSeqMax,
    kvDtype: kvType,
  };
}

/** The programs that loading would make, and their memory; `error` where that is more than WebAssembly has. */
interface LoadingPlan {
  readonly programs: readonly Program[];
  readonly sizeBytes: number;
  readonly error?: SmallMindError;
}

/** @throws {UnsupportedError} as loading, but for too much memory */
export function planLoading(graphs: readonly Graph[], options: ResolvedLoadOptions, nThreads: number): LoadingPlan {
  const variant = chooseVariant(options.kernels === 'reference' ? 'auto' : options.kernels);
  const programs = graphs.map((graph) => planForWasm(graph, options, variant));
  try {
    return { programs, sizeBytes: layOutMemory(programs, nThreads).sizeBytes };
  } catch (error) {
    if (!(error instanceof SmallMindError)) throw error;
    const { neededBytes: sizeBytes } = error.details;
    if (typeof sizeBytes !== 'number') throw error;
    return { programs, sizeBytes, error };
  }
}

/** What a model may take to fit into what is free now. Infinity where that is unknown. */
export function fittingBytes(): number {
  return Math.floor(FREE_SHARE * (platform.freeMemoryBytes() ?? Infinity));
}

/** The context that the options ask for, in tokens. @throws {SmallMindError} OUT_OF_MEMORY where none fits */
export function contextSizeOf(definition: ModelDefinition, options: ResolvedLoadOptions): number {
  const { nCtxTrain } = definition.hyperParameters;
  if (options.nCtx !== 'fit') return options.nCtx ?? Math.min(nCtxTrain, 4096);
  const freeBytes = fittingBytes();
  const nCtx = largestContext(definition, options, freeBytes);
  if (nCtx !== undefined) return nCtx;
  throw new SmallMindError(
    'OUT_OF_MEMORY',
    `not even a context of ${KV_BLOCK_SIZE} tokens fits into ${(freeBytes / 2 ** 20).toFixed(0)} MiB of free memory; ` +
      'close other programs, or use a smaller quantisation or a smaller model',
    { limitBytes: freeBytes },
  );
}

/** Tokens of the largest context that is ever chosen for a model. */
export const contextMax = ({ hyperParameters }: ModelDefinition): number =>
  Math.min(hyperParameters.nCtxTrain, N_CTX_MAX);

/** The largest context up to what the model was trained for that takes no more than `limitBytes`, if one does. */
export function largestContext(
  definition: ModelDefinition,
  options: ResolvedLoadOptions,
  limitBytes: number,
): number | undefined {
  const nCtxMax = contextMax(definition);
  const fits = (nCtx: number): boolean => neededBytes(definition, options, nCtx) <= limitBytes;
  if (fits(nCtxMax)) return nCtxMax;
  // In blocks, of which the cache holds whole ones only: `low` fits, `high` does not.
  let [low, high] = [0, Math.ceil(nCtxMax / KV_BLOCK_SIZE)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle * KV_BLOCK_SIZE)) low = middle;
    else high = middle;
  }
  return low === 0 ? undefined : low * KV_BLOCK_SIZE;
}

/** Infinity for what no memory of WebAssembly can hold. */
function neededBytes(definition: ModelDefinition, options: ResolvedLoadOptions, nCtx: number): number {
  const { graphs } = buildPrograms(definition, options, nCtx);
  const { sizeBytes, error } = planLoading(graphs, options, options.threads ?? 1);
  return error ? Infinity : sizeBytes;
}

/**
 * An error of loading, with the context that would fit where one would.
 * @param error  what loading has thrown
 */
export function withFittingContext(error: unknown, definition: ModelDefinition, options: ResolvedLoadOptions): unknown {
  if (!(error instanceof SmallMindError)) return error;
  const { neededBytes: needed, limitBytes } = error.details;
  if (typeof needed !== 'number' || typeof limitBytes !== 'number') return error;
  const nCtx = largestContext(definition, options, limitBytes);
  if (nCtx === undefined) return error;
  const message = `${error.message}. The largest context that fits is ${nCtx} tokens`;
  return fromErrorRecord({ ...toErrorRecord(error), message, details: { ...error.details, nCtx } });
}
