// Bookkeeping of the paged key-value cache: fixed-size blocks with reference counts, shared between sequences whose
// texts begin alike. A block is written once, position by position, by the sequence that allocated it; a full block
// never changes again. Blocks of finished sequences stay findable until their memory is needed.

import { SmallMindError, assert } from '../base/errors.ts';

/** A full block that can be found by what it holds. */
interface CachedBlock {
  readonly block: number;
  readonly key: string;
}

export class KvCache {
  readonly nBlock: number;
  readonly blockSize: number;
  readonly #refCounts: Int32Array;
  readonly #free: Int32Array;
  #nFree: number;
  /** By content: `${block before, or -1} ${tokens}`; insertion order is the order of last use. */
  readonly #byKey = new Map<string, CachedBlock>();
  readonly #cachedAs: (CachedBlock | undefined)[];

  constructor(nBlock: number, blockSize: number) {
    this.nBlock = nBlock;
    this.blockSize = blockSize;
    this.#refCounts = new Int32Array(nBlock);
    this.#free = Int32Array.from({ length: nBlock }, (_, i) => nBlock - 1 - i);
    this.#nFree = nBlock;
    this.#cachedAs = Array.from({ length: nBlock });
  }

  /** Blocks that no sequence holds, cached ones included. */
  get nAvailable(): number {
    let n = 0;
    for (const count of this.#refCounts) if (count === 0) n++;
    return n;
  }

  /** A block to write into, held once by the caller. Allocates nothing on the heap unless it evicts a cached block. */
  allocate(): number {
    if (this.#nFree === 0) this.#evictOldest();
    const block = this.#free[--this.#nFree]!;
    this.#refCounts[block] = 1;
    return block;
  }

  /**
   * Takes hold of the cached blocks that hold the beginning of `tokens`.
   * @param blocks  receives their numbers
   * @returns how many blocks match; each must be released as if allocated
   */
  acquirePrefix(tokens: ArrayLike<number>, nTokens: number, blocks: Int32Array): number {
    const nFull = Math.floor(nTokens / this.blockSize);
    let before = -1;
    for (let i = 0; i < nFull; i++) {
      const cached = this.#byKey.get(this.#keyOf(tokens, i, before));
      if (!cached) return i;
      this.#touch(cached);
      this.#refCounts[cached.block]!++;
      blocks[i] = cached.block;
      before = cached.block;
    }
    return nFull;
  }

  /** Gives back the blocks of a sequence; those that hold `nTokens` evaluated tokens in full stay findable. */
  release(tokens: ArrayLike<number>, nTokens: number, blocks: Int32Array, nBlocks: number): void {
    const nFull = Math.min(nBlocks, Math.floor(nTokens / this.blockSize));
    let before = -1;
    let findable = true;
    for (let i = 0; i < nBlocks; i++) {
      const block = blocks[i]!;
      if (i < nFull && findable) {
        findable = this.#remember(block, this.#keyOf(tokens, i, before));
        before = block;
      }
      assert(this.#refCounts[block]! > 0, `key-value block ${block} released twice`);
      this.#refCounts[block]!--;
      if (this.#refCounts[block] === 0 && !this.#cachedAs[block]) this.#free[this.#nFree++] = block;
    }
  }

  #keyOf(tokens: ArrayLike<number>, index: number, before: number): string {
    let key = `${before}`;
    for (let i = index * this.blockSize; i < (index + 1) * this.blockSize; i++) key += ` ${tokens[i]}`;
    return key;
  }

  /** @returns whether `block` itself is the findable one; another block may hold the same content already */
  #remember(block: number, key: string): boolean {
    const known = this.#byKey.get(key);
    if (known) {
      this.#touch(known);
      return known.block === block;
    }
    const cached = { block, key };
    this.#byKey.set(key, cached);
    this.#cachedAs[block] = cached;
    return true;
  }

  #touch(cached: CachedBlock): void {
    this.#byKey.delete(cached.key);
    this.#byKey.set(cached.key, cached);
  }

  /** Frees the cached block that was used longest ago, and what can only be found through it. */
  #evictOldest(): void {
    for (const cached of this.#byKey.values()) {
      if (this.#refCounts[cached.block] !== 0) continue;
      this.#forget(cached);
      return;
    }
    throw new SmallMindError('CONTEXT_FULL', 'the key-value cache is full; load the model with a larger context');
  }

  /** A block that is used again must not be reached through the keys of its old content. */
  #forget(cached: CachedBlock): void {
    this.#byKey.delete(cached.key);
    this.#cachedAs[cached.block] = undefined;
    if (this.#refCounts[cached.block] === 0) this.#free[this.#nFree++] = cached.block;
    const prefix = `${cached.block} `;
    for (const next of this.#byKey.values()) if (next.key.startsWith(prefix)) this.#forget(next);
  }
}
