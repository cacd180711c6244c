// One text being generated in this thread: makes the engine's tokens into text, log-probabilities and a result, and
// says where a stop string ends it.

import type { FinishReason, Sequence } from './engine/sequence.ts';
import type { ChosenLogprob, GenerateResult, ResolvedGenerateOptions } from './options.ts';
import { changeLogits } from './sampler/logit-changes.ts';
import { Sampler, buildChain } from './sampler/sampler.ts';
import { StopStrings } from './stop-strings.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

export class LocalRun {
  readonly result: Promise<GenerateResult>;
  readonly sampler: Sampler;
  readonly startMs = performance.now();
  readonly #tokenizer: Tokenizer;
  readonly #decoder: ReturnType<Tokenizer['createDecoder']>;
  readonly #stops: StopStrings;
  readonly #onPiece: (text: string) => void;
  readonly #nLogprobs: number | undefined;
  readonly #logprobs: ChosenLogprob[] = [];
  readonly #isContinuation: boolean;
  /** Generated so far, with room for a full context; only a text that outlives its context needs more. */
  #tokens: Int32Array;
  #nTokens = 0;
  /** Code units of text handed out. */
  #nText = 0;
  #resolve!: (result: GenerateResult) => void;
  reject!: (error: unknown) => void;

  /** @throws {OptionError} for biased or banned tokens that the vocabulary does not have */
  constructor(
    tokenizer: Tokenizer,
    nCtx: number,
    prompt: readonly number[],
    options: ResolvedGenerateOptions,
    onPiece: (text: string) => void,
  ) {
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.reject = reject;
    });
    // Whoever waits gets the rejection; nobody waiting must not end the process.
    this.result.catch(() => {});
    const { nVocab } = tokenizer;
    const chain = [...changeLogits(options.logitChanges, nVocab), ...buildChain(options.sampler, nVocab)];
    this.sampler = new Sampler(options.sampler, nVocab, chain);
    this.#tokenizer = tokenizer;
    // After nothing but BOS the text begins here: the space that a vocabulary puts in front of a text is dropped.
    this.#isContinuation = prompt.some((id) => !tokenizer.isControl(id));
    this.#decoder = tokenizer.createDecoder({ continuation: this.#isContinuation });
    this.#stops = new StopStrings(options.stop);
    this.#onPiece = onPiece;
    this.#nLogprobs = options.logprobs;
    this.#tokens = new Int32Array(Math.min(nCtx, options.maxTokens ?? nCtx));
  }

  /** Takes a token. @returns `stop` when a stop string is complete */
  onToken(token: number, logits: Float32Array): FinishReason | undefined {
    if (this.#nTokens === this.#tokens.length) this.#tokens = doubled(this.#tokens);
    this.#tokens[this.#nTokens++] = token;
    if (this.#nLogprobs !== undefined) this.#logprobs.push(this.#logprobsOf(logits, this.#nLogprobs));
    return this.#addText(this.#decoder.push(token));
  }

  onFinish(reason: FinishReason, sequence: Sequence): void {
    const finishReason = this.#addText(this.#decoder.flush()) ?? reason;
    this.#emit(this.#stops.flush());
    const endMs = performance.now();
    const firstMs = sequence.firstTokenAtMs || endMs;
    const promptMs = firstMs - this.startMs;
    const decodeMs = endMs - firstMs;
    const perSecond = (n: number, ms: number): number => (ms > 0 ? (1000 * n) / ms : 0);
    const tokens = Array.from(this.#tokens.subarray(0, this.#nTokens));
    // Decoded again at the end, so that a step need not lengthen a string.
    const text = this.#tokenizer.decode(tokens, { continuation: this.#isContinuation }).slice(0, this.#nText);
    this.#resolve({
      text,
      tokens,
      promptTokens: sequence.nPrompt,
      cachedTokens: sequence.nCached,
      finishReason,
      ...(finishReason === 'stop' ? { stoppedBy: this.#stops.match ?? sequence.stopToken } : {}),
      seed: this.sampler.seed,
      timings: {
        promptMs,
        promptTokensPerSecond: perSecond(sequence.nPrompt - sequence.nCached, promptMs),
        decodeMs,
        decodeTokensPerSecond: perSecond(Math.max(0, this.#nTokens - 1), decodeMs),
      },
      ...(this.#nLogprobs === undefined ? {} : { logprobs: this.#logprobs }),
    });
  }

  /** Hands out what is certain. @returns `stop` when a stop string is complete */
  #addText(text: string): FinishReason | undefined {
    this.#emit(this.#stops.push(text));
    return this.#stops.match === undefined ? undefined : 'stop';
  }

  #emit(text: string): void {
    if (text === '') return;
    this.#nText += text.length;
    this.#onPiece(text);
  }

  #logprobsOf(logits: Float32Array, topN: number): ChosenLogprob {
    const textOf = (token: number): string => new TextDecoder().decode(this.#tokenizer.pieceBytes(token));
    const withText = (t: { token: number; logprob: number }) => ({ ...t, text: textOf(t.token) });
    const { chosen, top } = this.sampler.logprobs(logits, topN);
    return { ...withText(chosen), top: top.map(withText) };
  }
}

function doubled(tokens: Int32Array): Int32Array {
  const longer = new Int32Array(2 * tokens.length);
  longer.set(tokens);
  return longer;
}
