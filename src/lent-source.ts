// A ByteSource that lives with the caller and is read in the engine's worker: each read, and the opening of what lies
// beside it, is a question to the caller and an answer. Both ends are here; neither knows how messages travel.

import type { ByteSource } from './base/byte-source.ts';
import { fromErrorRecord, toErrorRecord } from './base/errors.ts';
import type { ErrorRecord } from './base/errors.ts';

/** A source as the worker hears of it; `source` numbers those of one load. */
export interface LentSource {
  readonly source: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly hasSiblings: boolean;
}

export type SourceQuestion =
  | { readonly type: 'read'; readonly source: number; readonly offsetBytes: number; readonly lengthBytes: number }
  | { readonly type: 'open'; readonly source: number; readonly name: string };

export type SourceAnswer =
  | { readonly bytes: Uint8Array }
  | { readonly opened: LentSource }
  | { readonly error: ErrorRecord };

/** The caller's end: the sources of one load. */
export class SourceLender {
  readonly first: LentSource;
  readonly #sources: ByteSource[] = [];
  #isClosed = false;

  constructor(source: ByteSource) {
    this.first = this.#lend(source);
  }

  async answer(question: SourceQuestion): Promise<SourceAnswer> {
    try {
      const source = this.#sources[question.source]!;
      if (question.type === 'open') return { opened: this.#lend(await source.openSibling!(question.name)) };
      const bytes = new Uint8Array(question.lengthBytes);
      await source.read(question.offsetBytes, bytes);
      return { bytes };
    } catch (error) {
      return { error: toErrorRecord(error) };
    }
  }

  /** Closes all of them; one that opens only now, too. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#sources.map((source) => source.close()));
  }

  #lend(source: ByteSource): LentSource {
    if (this.#isClosed) void source.close();
    const number = this.#sources.push(source) - 1;
    const { name, sizeBytes } = source;
    return { source: number, name, sizeBytes, hasSiblings: source.openSibling !== undefined };
  }
}

/** The worker's end. What the lender has opened it also closes, once the load has ended. */
export function borrowSource(lent: LentSource, ask: (question: SourceQuestion) => Promise<SourceAnswer>): ByteSource {
  const { source, name, sizeBytes } = lent;
  const askFor = async (question: SourceQuestion): Promise<Exclude<SourceAnswer, { error: ErrorRecord }>> => {
    const answer = await ask(question);
    if ('error' in answer) throw fromErrorRecord(answer.error);
    return answer;
  };
  const openSibling = async (sibling: string): Promise<ByteSource> => {
    const answer = await askFor({ type: 'open', source, name: sibling });
    return borrowSource((answer as { opened: LentSource }).opened, ask);
  };
  return {
    name,
    sizeBytes,
    async read(offsetBytes, target) {
      const answer = await askFor({ type: 'read', source, offsetBytes, lengthBytes: target.length });
      target.set((answer as { bytes: Uint8Array }).bytes);
    },
    ...(lent.hasSiblings ? { openSibling } : {}),
    async close() {},
  };
}
