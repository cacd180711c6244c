// smallmind chat: a conversation with a model, at a terminal or through a pipe. Answers go to stdout and all else to
// stderr, so that either way stdout holds answers alone.

import { basename } from 'node:path';
import type { Command } from 'commander';
import type { ChatMessage, ChatOptions, GenerateOptions, LoadOptions, Model } from '../index.ts';
import { FALLBACK_NAMES, resolveChatOptions, resolveGenerateOptions, resolveLoadOptions } from '../options.ts';
import { ChatInput } from './chat-input.ts';
import { ChatSession, COMMAND_HELP, writeNote } from './chat-session.ts';
import { readText } from './files.ts';
import { END_FLAGS, LOAD_FLAGS, LOGIT_BIAS_FLAG, MAX_TOKENS_FLAG, SAMPLER_FLAGS } from './flags.ts';
import type { CommandContext } from './program.ts';
import { describeModel, openModel } from './open-model.ts';
import { formatCount, oneLine } from './text.ts';
import { addFlags, checkFlags, collectJson, isOptionError, readFlags, UsageError } from './usage.ts';
import type { Flag } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind chat model.gguf
  smallmind chat model.gguf --system "Answer in one sentence." --temp 0.2
  smallmind chat model.gguf --template chatml --ctx 2048
  smallmind chat model.gguf --template-option enable_thinking=false
  echo "Why is the sky blue?" | smallmind chat model.gguf --json

While it goes:
${COMMAND_HELP.replace(/^/gm, '  ')}

In a pipe each line is a message, and answers are all that stdout gets; the exit code is 1 if one of them failed.`;

const text = (flags: string, name: string, help: string): Flag => ({ flags, name, help, parse: (value) => value });

const CHAT_FLAGS: readonly Flag[] = [
  text('--system <TEXT>', 'system', "the system's words, before all others"),
  text('--template <NAME>', 'template', `${FALLBACK_NAMES.join(', ')}, or a Jinja file (default: the model's own)`),
  {
    flags: '--template-option <KEY=JSON>',
    name: 'templateOptions',
    help: 'a further variable of the template; may be repeated',
    parse: collectJson,
  },
  {
    flags: '--context-full <WHAT>',
    name: 'contextFull',
    help: 'forget the oldest messages, or stop (default: forget)',
    parse: (value) => value.toLowerCase(),
  },
];
const LENGTH_FLAGS = [MAX_TOKENS_FLAG, ...END_FLAGS];
const TOKEN_FLAGS = [...SAMPLER_FLAGS, LOGIT_BIAS_FLAG];
const GENERATE_FLAGS = [...LENGTH_FLAGS, ...TOKEN_FLAGS];

export function defineChat(command: Command, context: CommandContext): void {
  command
    .argument('<model>', 'a model file in GGUF format, made for conversations')
    .option('--json', 'print one JSON object an answer, on a line each')
    .addHelpText('after', EXAMPLES)
    .action((path: string, parsed: Record<string, unknown>) => chat(path, parsed, context));
  addFlags(command, 'Conversation:', CHAT_FLAGS);
  addFlags(command, 'Length of answers:', LENGTH_FLAGS);
  addFlags(command, 'Choosing the next token:', TOKEN_FLAGS);
  addFlags(command, 'Running the model:', LOAD_FLAGS);
}

async function chat(path: string, parsed: Record<string, unknown>, context: CommandContext): Promise<void> {
  const { signal } = context;
  const loadOptions = readFlags(parsed, LOAD_FLAGS) as LoadOptions;
  const generateOptions = readFlags(parsed, GENERATE_FLAGS) as GenerateOptions;
  const flags = readFlags(parsed, CHAT_FLAGS) as ChatOptions;
  const chatOptions = { ...flags, template: await readTemplate(flags.template) };
  // Before the model is loaded, which may take long.
  checkFlags(LOAD_FLAGS, () => resolveLoadOptions(loadOptions));
  checkFlags(GENERATE_FLAGS, () => resolveGenerateOptions(generateOptions));
  checkFlags(CHAT_FLAGS, () => resolveChatOptions(chatOptions));

  const startMs = performance.now();
  await using model = await openModel(path, loadOptions, signal);
  if (context.isVerbose()) process.stderr.write(`${describeModel(model, performance.now() - startMs)}\n`);
  await requireTemplate(model, chatOptions);
  signal.throwIfAborted();
  const session = new ChatSession(model, chatOptions, generateOptions, parsed['json'] === true);
  await converse(session, context, describeGreeting(model, path));
  signal.throwIfAborted();
}

async function converse(session: ChatSession, { signal, report }: CommandContext, greeting: string): Promise<void> {
  const isTerminal = process.stdin.isTTY && process.stderr.isTTY;
  const input = new ChatInput(process.stdin, process.stderr, isTerminal, () => session.stop());
  const end = (): void => {
    input.close();
    session.stop();
  };
  signal.addEventListener('abort', end, { once: true });
  try {
    if (isTerminal) writeNote(greeting);
    for (let isGoingOn = true; isGoingOn && !signal.aborted;) {
      const message = await input.next();
      if (message === undefined) break;
      try {
        isGoingOn = await session.handle(message);
      } catch (error) {
        report(error);
        // At a terminal somebody has read it.
        if (!isTerminal) process.exitCode = 1;
      }
    }
  } finally {
    input.close();
  }
}

/** The name of a family as it is, of anything else the file's content. */
async function readTemplate(template: string | undefined): Promise<string | undefined> {
  if (template === undefined || FALLBACK_NAMES.includes(template)) return template;
  try {
    return await readText(template);
  } catch (error) {
    const expected = `${FALLBACK_NAMES.join(', ')}, or a Jinja file`;
    throw new UsageError(`--template expected ${expected}: ${(error as Error).message}`, { cause: error });
  }
}

/** A template that is missing or does not work is said before the first message and not after it. */
async function requireTemplate(model: Model, { system, ...options }: ChatOptions): Promise<void> {
  const messages: ChatMessage[] = [{ role: 'user', content: 'Hello' }];
  if (system !== undefined) messages.unshift({ role: 'system', content: system });
  try {
    await model.applyChatTemplate(messages, options);
  } catch (error) {
    const isTemplate = error instanceof Error && 'code' in error && error.code === 'CHAT_TEMPLATE';
    if (!isTemplate && !isOptionError(error)) throw error;
    throw new UsageError(error.message.replace('"template"', '--template'), { cause: error });
  }
}

function describeGreeting({ info }: Model, path: string): string {
  const name = oneLine(info.name) || basename(path);
  return `${name} · ${formatCount(info.nCtx)} tokens of context · /help lists commands`;
}
