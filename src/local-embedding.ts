// Embeddings made in this thread: texts become tokens, their last hidden states one vector a text. As many texts are
// under way as the engine runs at a time; what waits is token ids, and a text that is done is its vector.

import { requireIds } from './engine/engine.ts';
import type { Engine } from './engine/engine.ts';
import type { EngineRequest, Sequence } from './engine/sequence.ts';
import { OptionError, SmallMindError } from './base/errors.ts';
import type { EmbeddingResult, Embedding, Pooling, ResolvedEmbedOptions } from './options.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

/** A text, or the token ids of one. */
export type EmbeddingInput = string | readonly number[];

/** What embeddings need of the model. */
export interface EmbeddingModel {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly nEmbd: number;
  /** Starts a sequence and sees to it that the engine runs. */
  start(request: EngineRequest): Sequence;
  /** Lets the event loop have a turn. @throws {SmallMindError} MODEL_CLOSED when that closed the model */
  pause(): Promise<void>;
}

/** Texts between which the event loop has a turn while they become tokens. */
const TOKENIZE_TEXTS = 64;

interface Tokens {
  readonly ids: readonly number[];
  readonly isTruncated: boolean;
}

export class LocalEmbedding {
  readonly result: Promise<EmbeddingResult>;
  readonly #model: EmbeddingModel;
  readonly #options: ResolvedEmbedOptions;
  readonly #pooling: Pooling;
  readonly #running = new Set<Sequence>();
  readonly #texts: Tokens[] = [];
  readonly #data: Embedding[] = [];
  #nStarted = 0;
  #nDone = 0;
  #failure: unknown;
  #settle: () => void = () => {};

  constructor(
    model: EmbeddingModel,
    inputs: readonly EmbeddingInput[],
    options: ResolvedEmbedOptions,
    pooling: Pooling,
  ) {
    this.#model = model;
    this.#options = options;
    this.#pooling = pooling;
    this.result = this.#run(inputs);
    // Whoever waits gets the rejection; nobody waiting must not end the process.
    this.result.catch(() => {});
  }

  /** Ends it before the next step; `result` then rejects. */
  abort(): void {
    this.#fail(new SmallMindError('MODEL_CLOSED', 'the embedding was aborted'));
  }

  async #run(inputs: readonly EmbeddingInput[]): Promise<EmbeddingResult> {
    for (const [index, input] of inputs.entries()) {
      if (index % TOKENIZE_TEXTS === 0) await this.#model.pause();
      if (this.#failure !== undefined) throw this.#failure;
      this.#texts.push(this.#tokensOf(input, index));
    }
    await new Promise<void>((resolve) => {
      this.#settle = resolve;
      const { nSeqMax } = this.#model.engine.limits;
      for (let i = 0; i < nSeqMax; i++) this.#startNext();
      if (inputs.length === 0) resolve();
    });
    if (this.#failure !== undefined) throw this.#failure;
    const promptTokens = this.#data.reduce((sum, { promptTokens: n }) => sum + n, 0);
    return { data: this.#data, usage: { promptTokens, totalTokens: promptTokens }, pooling: this.#pooling };
  }

  /** @throws {SmallMindError} CONTEXT_FULL, {OptionError} for a text without tokens, or ids that there are not */
  #tokensOf(input: EmbeddingInput, index: number): Tokens {
    const { engine, tokenizer } = this.#model;
    const { nCtx } = engine.limits;
    const ids = typeof input === 'string' ? tokenizer.encode(input, this.#options) : input;
    if (typeof input !== 'string') requireIds(ids, engine.nVocab, `"texts[${index}]": `);
    if (ids.length === 0) throw new OptionError(`"texts[${index}]" is empty: it has no tokens`, { text: index });
    if (ids.length <= nCtx) return { ids, isTruncated: false };
    if (this.#options.truncate) return { ids: truncate(ids, nCtx, tokenizer), isTruncated: true };
    throw new SmallMindError(
      'CONTEXT_FULL',
      `"texts[${index}]" has ${ids.length} tokens, the context holds ${nCtx}; ` +
        'shorten the text, load with a larger context, or let it be cut with "truncate"',
      { text: index, promptTokens: ids.length, nCtx },
    );
  }

  /** Starts the next text, if there is one: also from a handler of the engine, so that the next step has it. */
  #startNext(): void {
    const index = this.#nStarted;
    const text = this.#texts[index];
    if (text === undefined || this.#failure !== undefined) return;
    this.#nStarted++;
    const pool = new Pool(this.#pooling, this.#model.nEmbd);
    try {
      const sequence = this.#model.start({
        tokens: text.ids,
        nGenerateMax: 0,
        output: 'hidden',
        wantsRows: this.#pooling === 'last' ? 'last' : 'all',
        onRow: (position, row) => pool.add(position, row),
        onFinish: (reason, ended) => {
          this.#running.delete(ended);
          if (reason === 'length') this.#finish(index, pool);
        },
        onError: (error) => this.#fail(error),
      });
      this.#running.add(sequence);
    } catch (error) {
      this.#fail(error);
    }
  }

  #finish(index: number, pool: Pool): void {
    try {
      const { ids, isTruncated } = this.#texts[index]!;
      const embedding = pool.vector(this.#options.normalize, index);
      this.#data[index] = { index, embedding, promptTokens: ids.length, isTruncated };
      this.#nDone++;
    } catch (error) {
      this.#fail(error);
    }
    this.#startNext();
    if (this.#nDone === this.#texts.length) this.#settle();
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const sequence of this.#running) this.#model.engine.abort(sequence);
    this.#settle();
  }
}

/** The first tokens, with the end that the vocabulary puts behind a text. */
function truncate(ids: readonly number[], nCtx: number, { addEos, eosId }: Tokenizer): number[] {
  const cut = ids.slice(0, nCtx);
  if (addEos && ids.at(-1) === eosId && nCtx > 1) cut[nCtx - 1] = eosId!;
  return cut;
}

/** One vector out of those of a text's tokens. Sums are in f64, in the order of positions. */
class Pool {
  readonly #pooling: Pooling;
  readonly #sums: Float64Array;
  #nAdded = 0;

  constructor(pooling: Pooling, nEmbd: number) {
    this.#pooling = pooling;
    this.#sums = new Float64Array(nEmbd);
  }

  add(position: number, row: Float32Array): void {
    if (this.#pooling === 'cls' && position > 0) return;
    this.#nAdded++;
    for (let i = 0; i < row.length; i++) this.#sums[i]! += row[i]!;
  }

  /** @throws {SmallMindError} NUMERIC that names the text */
  vector(isNormalised: boolean, text: number): Float32Array {
    const mean = this.#sums.map((sum) => sum / this.#nAdded);
    const length = Math.sqrt(mean.reduce((sum, x) => sum + x * x, 0));
    if (!Number.isFinite(length)) {
      throw new SmallMindError(
        'NUMERIC',
        `the vector of "texts[${text}]" is not finite; the file's weights are broken (get it again) or too large for ` +
          "this arithmetic (load with activations: 'f32' and kvType: 'F32')",
        { text },
      );
    }
    return Float32Array.from(isNormalised && length > 0 ? mean.map((x) => x / length) : mean);
  }
}
