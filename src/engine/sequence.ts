// One running text: its tokens, how far they have been evaluated, and the cache blocks that hold its keys and values.

import type { OutputKind } from '../graph/step.ts';
import type { Sampler } from '../sampler/sampler.ts';
import type { KvCache } from './kv-cache.ts';

/** Why a text has ended. */
export type FinishReason = 'stop' | 'length' | 'context' | 'time' | 'abort';

/** What the engine is asked to run: token ids in, token ids out. */
export interface EngineRequest {
  /** The prompt, at least one token. */
  readonly tokens: ArrayLike<number>;
  /** Tokens to generate at most; 0 evaluates the prompt only, Infinity sets no limit. */
  readonly nGenerateMax: number;
  /** Chooses tokens; not needed when none are generated. */
  readonly sampler?: Sampler;
  /** Tokens that end the text; they are not reported. */
  readonly stopTokens?: ReadonlySet<number>;
  /** When to end with `time`, in milliseconds of performance.now(). Looked at between steps. */
  readonly deadlineMs?: number;
  /**
   * What follows when the context is full: `undefined` ends the text. A number shifts the context: of the tokens behind
   * the first `nKeep` the older half is dropped, and the rest is read again as a text of its own.
   */
  readonly nKeep?: number;
  /**
   * Called for each generated token, with the logits it was chosen from, valid during the call only.
   * @returns a reason to end the text with it
   */
  readonly onToken?: (token: number, sequence: Sequence, logits: Float32Array) => FinishReason | undefined;
  /** What is computed of it: hidden states are for texts that are only evaluated. Default `logits`. */
  readonly output?: OutputKind;
  /** Which prompt positions `onRow` is called for. `all` evaluates the whole prompt, cached or not. Default `last`. */
  readonly wantsRows?: 'all' | 'last';
  /** Receives the logits or the hidden state of a position; the view is only valid during the call. */
  readonly onRow?: (position: number, row: Float32Array) => void;
  /** Called once, when the sequence has ended and its blocks are given back. */
  readonly onFinish: (reason: FinishReason, sequence: Sequence) => void;
  /** Called instead when a step failed. */
  readonly onError: (error: unknown) => void;
}

export class Sequence {
  readonly request: EngineRequest;
  readonly nPrompt: number;
  /** What the context holds: the prompt and what was generated, less what was dropped. */
  readonly tokens: Int32Array;
  readonly blocks: Int32Array;
  nTokens: number;
  /** Tokens whose keys and values are in the cache, or will be when the present step has run. */
  nPast = 0;
  /** Those of the steps that have run. */
  nEvaluated = 0;
  /** Tokens to read before the next one can be chosen: the prompt, or what a shift has left. */
  nToRead = 0;
  /** Whether it has taken what the cache knows of these. */
  hasBegun = false;
  /** Prompt tokens that were found in the cache. */
  nCached = 0;
  nGenerated = 0;
  /** The token of `stopTokens` that ended the text. */
  stopToken: number | undefined;
  nBlocks = 0;
  /** Of these, those that others can find. */
  #nPublished = 0;
  /** Slot in the batch's block tables; -1 while waiting for one. */
  slot = -1;
  isAborted = false;
  /** When the first token was chosen, in milliseconds of performance.now(); 0 before. */
  firstTokenAtMs = 0;

  /** Whether what it leaves in the cache is right for any text that begins alike: not where later tokens count. */
  readonly #isShared: boolean;

  constructor(request: EngineRequest, nCtx: number, blockSize: number, isShared = true) {
    const { tokens } = request;
    this.#isShared = isShared;
    this.request = request;
    this.nPrompt = tokens.length;
    this.nTokens = tokens.length;
    this.tokens = new Int32Array(Math.min(nCtx, tokens.length + request.nGenerateMax));
    this.tokens.set(tokens);
    this.blocks = new Int32Array(Math.ceil(this.tokens.length / blockSize));
  }

  /** Why it is to end before its next step, if it is. */
  get earlyEnd(): FinishReason | undefined {
    if (this.isAborted) return 'abort';
    const { deadlineMs } = this.request;
    return deadlineMs !== undefined && performance.now() >= deadlineMs ? 'time' : undefined;
  }

  /** Whether it can use what others have left in the cache. */
  get #takesOver(): boolean {
    return this.#isShared && this.request.wantsRows !== 'all';
  }

  /** Begins to read: takes over cached blocks. At least one token is left, since the last one's logits are wanted. */
  begin(cache: KvCache): void {
    this.hasBegun = true;
    this.nToRead = this.nTokens;
    if (!this.#takesOver) return;
    this.nBlocks = cache.acquirePrefix(this.tokens, this.nTokens - 1, this.blocks);
    this.nPast = this.nBlocks * cache.blockSize;
    this.nEvaluated = this.nPast;
    this.#nPublished = this.nBlocks;
    if (this.nGenerated === 0) this.nCached = this.nPast;
  }

  /**
   * Whether `other`, which has begun, is still to evaluate blocks that this one could take over from it: then waiting
   * costs less than to evaluate them twice.
   */
  canAwait(other: Sequence, blockSize: number): boolean {
    if (!this.#takesOver || other.nEvaluated >= other.nToRead) return false;
    const nMax = Math.min(this.nTokens - 1, other.nToRead);
    let n = 0;
    while (n < nMax && this.tokens[n] === other.tokens[n]) n++;
    return n - (n % blockSize) > other.nEvaluated;
  }

  /** A step has run: others may find the full blocks of what is being read. Later ones are found after the end. */
  publish(cache: KvCache): void {
    this.nEvaluated = this.nPast;
    if (!this.#isShared) return;
    const nFull = Math.floor(Math.min(this.nPast, this.nToRead) / cache.blockSize);
    if (this.#nPublished >= nFull) return;
    const isFindable = cache.publish(this.tokens, this.blocks, this.#nPublished, nFull);
    // Where another sequence's blocks hold the same, its own stay unknown, and so does all that follows them.
    this.#nPublished = isFindable ? nFull : this.blocks.length;
  }

  /** Drops the older half of what stands behind the first `nKeep` tokens; the rest has to be read again. */
  shift(cache: KvCache, nKeep: number): void {
    this.release(cache);
    const nDropped = Math.floor((this.nTokens - nKeep) / 2);
    this.tokens.copyWithin(nKeep, nKeep + nDropped, this.nTokens);
    this.nTokens -= nDropped;
    this.nPast = 0;
    this.hasBegun = false;
  }

  release(cache: KvCache): void {
    cache.release(this.tokens, this.#isShared ? this.nPast : 0, this.blocks, this.nBlocks);
    this.nBlocks = 0;
  }
}
