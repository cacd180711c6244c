// A conversation with a model: its history, and answers that stream. What does not fit into the context any more is
// forgotten by whole messages; what was kept is found in the cache.

import type { ChatMessage } from './chat/messages.ts';
import { requireMessages } from './chat/messages.ts';
import type { ChatPrompt } from './chat/prompt.ts';
import { OptionError, SmallMindError } from './base/errors.ts';
import type { HostedRun, ModelHost } from './local-model.ts';
import { Generation } from './generation.ts';
import { requireNoFunctions, resolveChatOptions, resolveGenerateOptions } from './options.ts';
import type { ChatOptions, GenerateOptions, GenerateResult, ResolvedGenerateOptions } from './options.ts';

/** Of the context, what is left free for an answer whose length is not given. */
const ANSWER_SHARE = 1 / 4;

/** A conversation; made by `model.chat()`. */
export class Chat {
  readonly #host: ModelHost;
  readonly #options: ChatOptions;
  readonly #messages: ChatMessage[];
  /** Messages behind the system's that prompts leave out. */
  #nForgotten = 0;
  #isAnswering = false;

  /** @internal Use `model.chat`. */
  constructor(host: ModelHost, options: ChatOptions) {
    this.#host = host;
    this.#options = resolveChatOptions(options);
    const { system, messages = [] } = options;
    this.#messages = system === undefined ? [...messages] : [{ role: 'system', content: system }, ...messages];
  }

  /** The history, oldest first, the system's words included. A copy. */
  get messages(): readonly ChatMessage[] {
    return [...this.#messages];
  }

  /** Of these, messages that the next answer is not told any more. */
  get forgotten(): number {
    return this.#nForgotten;
  }

  /**
   * Asks, and streams the answer; both join the history when the answer ends, even by `stop()`, and not when it fails.
   * @param message  the user's words, or a message: a tool's result, say
   * @throws {OptionError} INVALID_OPTION at the call, also while an answer is under way; from the answer
   *   {SmallMindError} CHAT_TEMPLATE, and CONTEXT_FULL when the message alone does not fit
   */
  send(message: string | ChatMessage, options: GenerateOptions = {}): Generation {
    const asked: ChatMessage = typeof message === 'string' ? { role: 'user', content: message } : message;
    requireMessages([asked]);
    return this.#answer([...this.#messages, asked], options);
  }

  /** Takes the last answer back and gives another one. @throws {OptionError} where there is none; as `send` */
  regenerate(options: GenerateOptions = {}): Generation {
    if (this.#messages.at(-1)?.role !== 'assistant') {
      throw new OptionError('there is no answer to give again; send a message first');
    }
    return this.#answer(this.#messages.slice(0, -1), options);
  }

  #answer(asked: readonly ChatMessage[], options: GenerateOptions): Generation {
    if (this.#isAnswering) throw new OptionError('an answer is under way; await its result, or stop it');
    const resolved = resolveGenerateOptions(options);
    if (this.#host.thread === 'worker') requireNoFunctions(resolved);
    this.#isAnswering = true;
    const { signal } = options;
    return new Generation((onPiece) => this.#start(asked, resolved, onPiece, signal), signal);
  }

  /** The prompt is made elsewhere, so that the run begins later than it can be stopped. */
  #start(
    asked: readonly ChatMessage[],
    options: ResolvedGenerateOptions,
    onPiece: (text: string) => void,
    signal: AbortSignal | undefined,
  ): HostedRun {
    let isAborted = false;
    let run: HostedRun | undefined;
    const answer = async (): Promise<GenerateResult> => {
      try {
        const { tokens } = await this.#fit(asked, options.maxTokens);
        run = this.#host.generate(tokens, options, onPiece);
        if (isAborted) run.abort();
        const result = await run.result;
        signal?.throwIfAborted();
        this.#messages.splice(0, Infinity, ...asked, { role: 'assistant', content: result.text });
        return result;
      } finally {
        this.#isAnswering = false;
      }
    };
    const abort = (): void => {
      isAborted = true;
      run?.abort();
    };
    return { result: answer(), abort };
  }

  /** The prompt with as much of the history as fits; once it does not, it has room for half of the context again. */
  async #fit(asked: readonly ChatMessage[], maxTokens: number | undefined): Promise<ChatPrompt> {
    const { nCtx } = this.#host.info;
    const nAnswer = Math.min(maxTokens ?? Infinity, Math.ceil(nCtx * ANSWER_SHARE));
    const nSystem = asked[0]!.role === 'system' ? 1 : 0;
    this.#nForgotten = Math.min(this.#nForgotten, asked.length - nSystem - 1);
    let prompt = await this.#prompt(asked, nSystem);
    for (let nMax = nCtx - nAnswer; prompt.tokens.length > nMax; prompt = await this.#prompt(asked, nSystem)) {
      const nNext = nextUserMessage(asked, nSystem + this.#nForgotten + 1) - nSystem;
      if (this.#options.contextFull === 'stop' || nNext >= asked.length - nSystem) {
        if (prompt.tokens.length < nCtx) return prompt;
        throw new SmallMindError(
          'CONTEXT_FULL',
          `the conversation takes ${prompt.tokens.length} tokens and the context holds ${nCtx}: send less at once, ` +
            'begin a new chat, or load the model with a larger context',
          { nPrompt: prompt.tokens.length, nCtx },
        );
      }
      this.#nForgotten = nNext;
      nMax = Math.floor(nCtx / 2);
    }
    return prompt;
  }

  #prompt(asked: readonly ChatMessage[], nSystem: number): Promise<ChatPrompt> {
    const { tools, template, templateOptions } = this.#options;
    const messages = [...asked.slice(0, nSystem), ...asked.slice(nSystem + this.#nForgotten)];
    return this.#host.prompt({ messages, tools, template, templateOptions, addGenerationPrompt: true });
  }
}

/** Exchanges are forgotten whole: an answer does not outlive its question. */
function nextUserMessage(messages: readonly ChatMessage[], from: number): number {
  const next = messages.findIndex((message, i) => i >= from && message.role === 'user');
  return next < 0 ? messages.length : next;
}
