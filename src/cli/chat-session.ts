// A conversation under way: messages are sent and answers written, and words with a slash before them are commands.

import { homedir } from 'node:os';
import { styleText } from 'node:util';
import type { Chat, ChatMessage, ChatOptions, GenerateOptions, GenerateResult, Generation, Model } from '../index.ts';
import { readText, writeFileAtomic } from './files.ts';
import { describeRate, formatColumns, formatCount, withoutControls } from './text.ts';

interface SlashCommand {
  /** What is to follow its name. */
  readonly argument?: string;
  readonly isArgumentOptional?: boolean;
  readonly help: string;
  run(session: ChatSession, argument: string): Promise<void> | void;
}

const COMMANDS: Readonly<Record<string, SlashCommand>> = {
  system: {
    argument: 'TEXT',
    isArgumentOptional: true,
    help: "change the system's words; without TEXT there are none",
    run: (session, text) => session.setSystem(text),
  },
  regenerate: { help: 'take the last answer back and give another one', run: (session) => session.regenerate() },
  save: { argument: 'FILE', help: 'write the messages to a JSON file', run: (session, path) => session.save(path) },
  load: { argument: 'FILE', help: 'go on from such a file', run: (session, path) => session.load(path) },
  stats: { help: 'show tokens, speed and the use of the context', run: (session) => session.showStats() },
  clear: { help: "begin anew; the system's words stay", run: (session) => session.clear() },
  help: { help: 'show this', run: () => writeNote(COMMAND_HELP) },
  exit: { help: 'leave', run: (session) => session.exit() },
};

/** Also what the help of the command line shows. */
export const COMMAND_HELP = formatColumns([
  ...Object.entries(COMMANDS).map(([name, { help }]) => [usageOf(name), help]),
  ['\\', 'at the end of a line: the message goes on'],
  ['"""', 'on a line before and after a message of several lines'],
  ['Ctrl-C', 'stop the answer; what there is of it stays'],
]).join('\n');

function usageOf(name: string): string {
  const { argument, isArgumentOptional } = COMMANDS[name]!;
  if (argument === undefined) return `/${name}`;
  return `/${name} ${isArgumentOptional ? `[${argument}]` : argument}`;
}

const END_NOTES: Readonly<Partial<Record<GenerateResult['finishReason'], string>>> = {
  length: 'cut off at --max-tokens',
  context: 'cut off, the context is full: /clear begins anew, a larger --ctx holds more',
  time: 'cut off, the time of --max-time is over',
  abort: 'stopped',
};

/** Says something beside the conversation. */
export function writeNote(text: string): void {
  process.stderr.write(`${styleText('dim', text, { stream: process.stderr })}\n`);
}

export class ChatSession {
  readonly #model: Model;
  readonly #chatOptions: ChatOptions;
  readonly #generateOptions: GenerateOptions;
  readonly #isJson: boolean;
  #chat: Chat;
  #answer: Generation | undefined;
  #last: GenerateResult | undefined;
  #nTokens = 0;
  #isOver = false;

  constructor(model: Model, chatOptions: ChatOptions, generateOptions: GenerateOptions, isJson: boolean) {
    this.#model = model;
    this.#chatOptions = chatOptions;
    this.#generateOptions = generateOptions;
    this.#isJson = isJson;
    this.#chat = model.chat(chatOptions);
  }

  /**
   * Sends a message, or does what a command says.
   * @returns whether the conversation goes on
   * @throws what makes an answer fail, or a file; the conversation is as it was
   */
  async handle(message: string): Promise<boolean> {
    const [, name, argument = ''] = /^\/([\w-]+)(?:\s+([^]*))?$/.exec(message) ?? [];
    if (name === undefined) await this.#write(this.#chat.send(message, this.#generateOptions));
    else await this.#command(name, argument.trim());
    return !this.#isOver;
  }

  /** Ends the answer that is being written, if there is one. */
  stop(): void {
    this.#answer?.stop();
  }

  async #command(name: string, argument: string): Promise<void> {
    if (!Object.hasOwn(COMMANDS, name)) throw new CommandError(`there is no command /${name}; /help lists them`);
    const { argument: expected, isArgumentOptional = false, run } = COMMANDS[name]!;
    const isMissing = expected !== undefined && !isArgumentOptional && argument === '';
    const isTooMuch = expected === undefined && argument !== '';
    if (isMissing || isTooMuch) throw new CommandError(`expected ${usageOf(name)}; /help says more`);
    await run(this, argument);
  }

  setSystem(text: string): void {
    const messages = this.#chat.messages.filter(({ role }) => role !== 'system');
    this.#begin(text === '' ? messages : [{ role: 'system', content: text }, ...messages]);
  }

  clear(): void {
    this.#begin(this.#chat.messages.filter(({ role }) => role === 'system'));
  }

  exit(): void {
    this.#isOver = true;
  }

  async regenerate(): Promise<void> {
    // The seed that was given would give the same answer.
    const seed = this.#last === undefined ? this.#generateOptions.seed : (this.#last.seed + 1) % 2 ** 32;
    await this.#write(this.#chat.regenerate({ ...this.#generateOptions, seed }));
  }

  save(path: string): void {
    const { messages } = this.#chat;
    writeFileAtomic(inHome(path), `${JSON.stringify(messages, null, 2)}\n`);
    writeNote(`${describeMessages(messages)} written to ${path}`);
  }

  async load(path: string): Promise<void> {
    const text = await readText(inHome(path));
    try {
      this.#begin(JSON.parse(text) as ChatMessage[]);
    } catch (error) {
      throw new CommandError(`${path} is no JSON file of messages: ${(error as Error).message}`, { cause: error });
    }
    writeNote(`${describeMessages(this.#chat.messages)} read from ${path}`);
  }

  showStats(): void {
    const { messages, forgotten } = this.#chat;
    const rows = [['messages', `${messages.length}, ${forgotten} of them forgotten`]];
    if (this.#last) {
      const { promptTokens, cachedTokens, tokens, timings } = this.#last;
      const prompt = describeRate('token', promptTokens - cachedTokens, timings.promptTokensPerSecond);
      const { nCtx } = this.#model.info;
      const nUsed = promptTokens + tokens.length;
      rows.unshift(
        ['last answer', describeRate('token', tokens.length, timings.decodeTokensPerSecond)],
        ['its prompt', `${prompt}; ${formatCount(cachedTokens)} more found in the cache`],
        ['context', `${formatCount(nUsed)} of ${formatCount(nCtx)} tokens, ${Math.round((100 * nUsed) / nCtx)} %`],
      );
    }
    rows.push(['all answers', `${formatCount(this.#nTokens)} tokens`]);
    writeNote(formatColumns(rows).join('\n'));
  }

  #begin(messages: readonly ChatMessage[]): void {
    this.#chat = this.#model.chat({ ...this.#chatOptions, system: undefined, messages });
    this.#last = undefined;
  }

  async #write(answer: Generation): Promise<void> {
    const nForgotten = this.#chat.forgotten;
    this.#answer = answer;
    const result = await (this.#isJson ? answer.result : stream(answer));
    const { forgotten } = this.#chat;
    this.#last = result;
    this.#nTokens += result.tokens.length;
    if (this.#isJson) process.stdout.write(`${JSON.stringify({ ...result, forgotten })}\n`);
    if (forgotten > nForgotten) writeNote(`(the context is full: the oldest ${forgotten} messages are forgotten)`);
    const note = END_NOTES[result.finishReason];
    if (note !== undefined) writeNote(`(${note})`);
  }
}

/** A mistake in what follows a slash. */
class CommandError extends Error {
  readonly code = 'COMMAND';
}

/** Writes an answer as it comes, on lines of its own. */
async function stream(answer: Generation): Promise<GenerateResult> {
  let isBegun = false;
  try {
    for await (const piece of answer) {
      process.stdout.write(process.stdout.isTTY ? withoutControls(piece) : piece);
      isBegun = true;
    }
    const result = await answer.result;
    isBegun = true;
    return result;
  } finally {
    if (isBegun) process.stdout.write('\n');
  }
}

const describeMessages = ({ length }: readonly unknown[]): string => `${length} message${length === 1 ? '' : 's'}`;

/** Outside of a shell nobody else knows what the tilde is. */
const inHome = (path: string): string => path.replace(/^~(?=\/)/, homedir());
