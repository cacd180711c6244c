// Bookkeeping of the paged key-value cache: fixed-size blocks with reference counts, shared between sequences whose
// texts begin alike. A block is written once, position by position, by the sequence that allocated it; a full block
// never changes again. Blocks of finished sequences stay findable until their memory is needed, oldest first.
// Within a text, later blocks count as older: what is dropped is never what others are found through.

import { SmallMindError, assert } from '../base/errors.ts';

export class KvCache {
  readonly nBlock: number;
  readonly blockSize: number;
  readonly #refCounts: Int32Array;
  readonly #free: Int32Array;
  #nFree: number;
  /** Whether a block is found by what it holds. */
  readonly #isFindable: Uint8Array;
  /**
   * Blocks by what they hold: `${block before, or -1} ${tokens}`. One that is dropped keeps its entry until it gets
   * another key, because a map that shrinks allocates, and that would be in the middle of a step.
   */
  readonly #byKey = new Map<string, number>();
  /** The last key of each block. */
  readonly #keys: (string | undefined)[];
  /** Findable blocks in the order of last use: a ring that begins and ends at index `nBlock`. */
  readonly #newer: Int32Array;
  readonly #older: Int32Array;

  constructor(nBlock: number, blockSize: number) {
    this.nBlock = nBlock;
    this.blockSize = blockSize;
    this.#refCounts = new Int32Array(nBlock);
    this.#free = Int32Array.from({ length: nBlock }, (_, i) => nBlock - 1 - i);
    this.#nFree = nBlock;
    this.#isFindable = new Uint8Array(nBlock);
    this.#keys = Array.from({ length: nBlock });
    this.#newer = new Int32Array(nBlock + 1).fill(nBlock);
    this.#older = new Int32Array(nBlock + 1).fill(nBlock);
  }

  /** Blocks that no sequence holds, findable ones included. */
  get nAvailable(): number {
    let n = 0;
    for (const count of this.#refCounts) if (count === 0) n++;
    return n;
  }

  /** A block to write into, held once by the caller. Allocates nothing on the heap. */
  allocate(): number {
    if (this.#nFree === 0) this.#evictOldest();
    const block = this.#free[--this.#nFree]!;
    this.#refCounts[block] = 1;
    return block;
  }

  /**
   * Takes hold of the blocks that hold the beginning of `tokens`.
   * @param blocks  receives their numbers
   * @returns how many blocks match; each must be released as if allocated
   */
  acquirePrefix(tokens: ArrayLike<number>, nTokens: number, blocks: Int32Array): number {
    const nFull = Math.floor(nTokens / this.blockSize);
    let n = 0;
    for (let before = -1; n < nFull; n++) {
      const block = this.#find(this.#keyOf(tokens, n, before));
      if (block === undefined) break;
      this.#refCounts[block]!++;
      blocks[n] = block;
      before = block;
    }
    for (let i = n - 1; i >= 0; i--) this.#touch(blocks[i]!);
    return n;
  }

  /**
   * Makes blocks findable while their sequence still holds them.
   * @param nPublished  blocks of the text that are findable already
   * @param nFull       how many hold evaluated tokens in full
   * @returns whether all `nFull` are findable now; not, where other blocks are found in their place
   */
  publish(tokens: ArrayLike<number>, blocks: Int32Array, nPublished: number, nFull: number): boolean {
    return this.#rememberAll(tokens, blocks, nPublished, nFull) === nFull;
  }

  /** Nothing is found any more, until it is evaluated again. */
  forgetAll(): void {
    for (let block = 0; block < this.nBlock; block++) {
      if (!this.#isFindable[block]) continue;
      this.#unlink(block);
      this.#isFindable[block] = 0;
      if (this.#refCounts[block] === 0) this.#free[this.#nFree++] = block;
    }
  }

  /** Gives back the blocks of a sequence; those that hold `nTokens` evaluated tokens in full stay findable. */
  release(tokens: ArrayLike<number>, nTokens: number, blocks: Int32Array, nBlocks: number): void {
    const nFull = Math.min(nBlocks, Math.floor(nTokens / this.blockSize));
    this.#rememberAll(tokens, blocks, 0, nFull);
    for (let i = nBlocks - 1; i >= 0; i--) {
      const block = blocks[i]!;
      if (this.#isFindable[block]) this.#touch(block);
      assert(this.#refCounts[block]! > 0, `key-value block ${block} released twice`);
      this.#refCounts[block]!--;
      if (this.#refCounts[block] === 0 && !this.#isFindable[block]) this.#free[this.#nFree++] = block;
    }
  }

  /** Makes blocks `from` to `to` findable, as far as they can be. @returns how many are, from the first on */
  #rememberAll(tokens: ArrayLike<number>, blocks: Int32Array, from: number, to: number): number {
    // Only what is found itself may lead to others: the number of a block that is not may come to mean another text.
    if (from > 0 && !this.#isFindable[blocks[from - 1]!]) return 0;
    let n = from;
    for (let before = from > 0 ? blocks[from - 1]! : -1; n < to; before = blocks[n++]!) {
      if (!this.#remember(blocks[n]!, this.#keyOf(tokens, n, before))) break;
    }
    return n;
  }

  #keyOf(tokens: ArrayLike<number>, index: number, before: number): string {
    let key = `${before}`;
    for (let i = index * this.blockSize; i < (index + 1) * this.blockSize; i++) key += ` ${tokens[i]}`;
    return key;
  }

  #find(key: string): number | undefined {
    const block = this.#byKey.get(key);
    return block !== undefined && this.#isFindable[block] ? block : undefined;
  }

  /** @returns whether `block` itself is the findable one; another block may hold the same content already */
  #remember(block: number, key: string): boolean {
    const known = this.#find(key);
    if (known !== undefined) return known === block;
    const lastKey = this.#keys[block];
    if (lastKey !== undefined && this.#byKey.get(lastKey) === block) this.#byKey.delete(lastKey);
    this.#byKey.set(key, block);
    this.#keys[block] = key;
    this.#isFindable[block] = 1;
    // A ring of its own, for `touch` to take it out of.
    this.#newer[block] = block;
    this.#older[block] = block;
    return true;
  }

  /** Makes a findable block the newest. */
  #touch(block: number): void {
    this.#unlink(block);
    const end = this.nBlock;
    const newest = this.#older[end]!;
    this.#newer[newest] = block;
    this.#older[block] = newest;
    this.#newer[block] = end;
    this.#older[end] = block;
  }

  #unlink(block: number): void {
    const newer = this.#newer[block]!;
    const older = this.#older[block]!;
    this.#older[newer] = older;
    this.#newer[older] = newer;
  }

  /**
   * Frees the findable block that was used longest ago. None is found through it: those are older, and whoever holds
   * one of them holds this one, too.
   */
  #evictOldest(): void {
    const end = this.nBlock;
    let block = this.#newer[end]!;
    while (block !== end && this.#refCounts[block] !== 0) block = this.#newer[block]!;
    if (block === end) {
      throw new SmallMindError('CONTEXT_FULL', 'the key-value cache is full; load the model with a larger context');
    }
    this.#unlink(block);
    this.#isFindable[block] = 0;
    this.#free[this.#nFree++] = block;
  }
}
