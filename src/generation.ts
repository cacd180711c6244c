// The public handle of a text being generated.

import type { GenerateResult } from './options.ts';

/** A text being generated. Pieces that nobody has read yet wait; leaving the loop early ends the generation. */
export class Generation implements AsyncIterable<string> {
  /** The whole text with counts and timings; rejects with the signal's reason when aborted. */
  readonly result: Promise<GenerateResult>;
  readonly #pieces: string[] = [];
  #abort: () => void = () => {};
  #isDone = false;
  #wake: () => void = () => {};

  /** @internal Use `model.generate`. */
  constructor(
    start: (onPiece: (text: string) => void) => { result: Promise<GenerateResult>; abort(): void },
    signal?: AbortSignal,
  ) {
    this.result = this.#run(start, signal);
    // Whoever reads the pieces gets the error, too; nobody awaiting `result` must not end the process.
    this.result.catch(() => {});
  }

  /** Ends the generation; `result` then holds what there is, with the finish reason `abort`. */
  stop(): void {
    this.#abort();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for (;;) {
        while (this.#pieces.length > 0) yield this.#pieces.shift()!;
        if (this.#isDone) break;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      await this.result;
    } finally {
      // Whoever leaves the loop finds the text ended.
      this.#abort();
      await this.result.catch(() => {});
    }
  }

  async #run(
    start: (onPiece: (text: string) => void) => { result: Promise<GenerateResult>; abort(): void },
    signal: AbortSignal | undefined,
  ): Promise<GenerateResult> {
    try {
      signal?.throwIfAborted();
      const run = start((text) => {
        this.#pieces.push(text);
        this.#wake();
      });
      this.#abort = () => run.abort();
      signal?.addEventListener('abort', this.#abort, { once: true });
      const result = await run.result;
      signal?.throwIfAborted();
      return result;
    } finally {
      signal?.removeEventListener('abort', this.#abort);
      this.#isDone = true;
      this.#wake();
    }
  }
}
