// The contract between the engine and whatever computes. An executor owns the memory of one or more programs, numbered
// in the order of their graphs: whoever drives it writes inputs and row counts, calls `run`, and reads the outputs.
// Weights stay where the executor put them at creation.

import type { DType } from '../base/dtype.ts';
import { GgufError } from '../base/errors.ts';
import { CODECS } from '../quant/codecs.ts';

/** Weight types that every executor runs. */
export const RUNNABLE_DTYPES: readonly DType[] = Object.keys(CODECS) as DType[];

/** Where an executor gets the weights from, once, while it is created. */
export interface WeightSource {
  /**
   * Reads bytes of the named tensor, as the file stores them, from `offsetBytes` within it. A few reads may be under
   * way at the same time.
   */
  read(name: string, offsetBytes: number, target: Uint8Array): Promise<void>;
}

export interface Executor {
  /** For messages and `doctor`: `reference`, or the kernel set and thread count. */
  readonly description: string;
  /** Threads that compute. */
  readonly nThreads: number;
  /** Bytes the executor holds: weights, state, work areas. */
  readonly memoryBytes: number;
  /**
   * The memory of an input leaf, to be written before `run`. The view stays valid until `close`. Where programs have
   * inputs of one name and different lengths, each reads from the start of the longest.
   */
  input(name: string): Int32Array;
  /** One element: the present value of a dimension that varies by step. */
  rowCount(name: string): Int32Array;
  /** The memory of an F32 state leaf, which lasts over steps; it may be written between them. */
  state(name: string): Float32Array | Float64Array;
  /**
   * Executes one step of a program, the first by default. Blocks the calling thread; allocates nothing once warm (the
   * reference executor excepted).
   */
  run(program?: number): void;
  /** f32[rowsMax, columns] of output `index`: always the same view; rows beyond the row count are stale. */
  output(index: number, program?: number): Float32Array;
  close(): Promise<void>;
}

/** @throws {GgufError} GGUF_INVALID when a weight is NaN or infinite */
export function requireFinite(name: string, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) throw nonFiniteError(name);
}

export function nonFiniteError(tensor: string): GgufError {
  const message = `tensor "${tensor}" has a NaN or an infinity; the file is damaged, download or convert it again`;
  return new GgufError('GGUF_INVALID', message, { tensor });
}

/** Progress of loading: bytes done of all. */
export type LoadProgress = (doneBytes: number, totalBytes: number) => void;
