// The contract between the engine and whatever computes. An executor owns the memory of one program: the engine writes
// the inputs and row counts, calls `run`, and reads the outputs. Weights stay where the executor put them at creation.

/** Where an executor gets the weights from, once, while it is created. */
export interface WeightSource {
  /** Reads bytes of the named tensor, as the file stores them, from `offsetBytes` within it. */
  read(name: string, offsetBytes: number, target: Uint8Array): Promise<void>;
}

export interface Executor {
  /** For messages and `doctor`: `reference`, or the kernel set and thread count. */
  readonly description: string;
  /** Threads that compute. */
  readonly nThreads: number;
  /** Bytes the executor holds: weights, state, work areas. */
  readonly memoryBytes: number;
  /** The memory of an input leaf, to be written before `run`. The view stays valid until `close`. */
  input(name: string): Int32Array;
  /** One element: the present value of a dimension that varies by step. */
  rowCount(name: string): Int32Array;
  /** Executes one step. Blocks the calling thread; allocates nothing once warm (the reference executor excepted). */
  run(): void;
  /** f32[rowsMax, columns] of output `index`: always the same view; rows beyond the row count are stale. */
  output(index: number): Float32Array;
  close(): Promise<void>;
}

/** Progress of loading: bytes done of all. */
export type LoadProgress = (doneBytes: number, totalBytes: number) => void;
