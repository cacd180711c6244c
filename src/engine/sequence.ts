// One running text: its tokens, how far they have been evaluated, and the cache blocks that hold its keys and values.

import type { Sampler } from '../sampler/sampler.ts';
import type { KvCache } from './kv-cache.ts';

export type FinishReason = 'stop' | 'length' | 'context' | 'abort';

/** What the engine is asked to run: token ids in, token ids out. */
export interface EngineRequest {
  /** The prompt, at least one token. */
  readonly tokens: ArrayLike<number>;
  /** Tokens to generate at most; 0 evaluates the prompt only. */
  readonly nGenerateMax: number;
  /** Chooses tokens; not needed when none are generated. */
  readonly sampler?: Sampler;
  /** Tokens that end the text; they are not reported. */
  readonly stopTokens?: ReadonlySet<number>;
  /** Called for each generated token, with the logits it was chosen from, valid during the call only. */
  readonly onToken?: (token: number, sequence: Sequence, logits: Float32Array) => void;
  /** Which prompt positions `onLogits` is called for. `all` evaluates the whole prompt, cached or not. */
  readonly wantsLogits?: 'all' | 'last';
  /** Receives logits; the view is only valid during the call. */
  readonly onLogits?: (position: number, logits: Float32Array) => void;
  /** Called once, when the sequence has ended and its blocks are given back. */
  readonly onFinish: (reason: FinishReason, sequence: Sequence) => void;
  /** Called instead when a step failed. */
  readonly onError: (error: unknown) => void;
}

export class Sequence {
  readonly request: EngineRequest;
  readonly nPrompt: number;
  readonly tokens: Int32Array;
  readonly blocks: Int32Array;
  /** Tokens known: the prompt and what was generated. */
  nTokens: number;
  /** Tokens whose keys and values are in the cache. */
  nPast = 0;
  /** Prompt tokens that were found in the cache. */
  nCached = 0;
  nBlocks = 0;
  /** Slot in the batch's block tables; -1 while waiting for one. */
  slot = -1;
  isAborted = false;
  /** When the first token was chosen, in milliseconds of performance.now(); 0 before. */
  firstTokenAtMs = 0;

  constructor(request: EngineRequest, nCtx: number, blockSize: number) {
    const { tokens } = request;
    this.request = request;
    this.nPrompt = tokens.length;
    this.nTokens = tokens.length;
    this.tokens = new Int32Array(Math.min(nCtx, tokens.length + request.nGenerateMax));
    this.tokens.set(tokens);
    this.blocks = new Int32Array(Math.ceil(this.tokens.length / blockSize));
  }

  get nGenerated(): number {
    return this.nTokens - this.nPrompt;
  }

  /** Takes over cached blocks; at least one token is left, since the last one's logits are wanted. */
  acquirePrefix(cache: KvCache): void {
    if (this.request.wantsLogits === 'all') return;
    this.nBlocks = cache.acquirePrefix(this.tokens, this.nPrompt - 1, this.blocks);
    this.nPast = this.nBlocks * cache.blockSize;
    this.nCached = this.nPast;
  }

  release(cache: KvCache): void {
    cache.release(this.tokens, this.nPast, this.blocks, this.nBlocks);
    this.nBlocks = 0;
  }
}
