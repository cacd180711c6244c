// smallmind run: loads a model and writes what it has to say after a prompt, as it comes, or all at once as JSON.

import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import type { Command } from 'commander';
import type { GenerateOptions, GenerateResult, Generation, LoadOptions } from '../index.ts';
import { resolveGenerateOptions, resolveLoadOptions } from '../options.ts';
import { storiesModel } from '../stories.ts';
import { LENGTH_FLAGS, LOAD_FLAGS, LOGIT_BIAS_FLAG, SAMPLER_FLAGS } from './flags.ts';
import { Interrupted } from './interruption.ts';
import { describeModel, openModel } from './open-model.ts';
import type { CommandContext } from './program.ts';
import { describeRate } from './text.ts';
import { UsageError, addFlags, checkFlags, readFlags } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind run -p "Once upon a time"
  smallmind run model.gguf -p "Once upon a time"
  smallmind run model.gguf -p "Once upon a time" --temp 0 -n 100
  smallmind run model.gguf --seed 42 --json < prompt.txt
  echo "The cat" | smallmind run model.gguf --top-k 20 --repeat-penalty 1.1
  smallmind run model.gguf -p "Q: How are you? A:" --stop "Q:" --max-time 5000
  smallmind run model.gguf -p "Once upon a time" -n 100000 --context-full shift
  smallmind run model.gguf -p "The" --logit-bias 262=5 --logit-bias 13=-Infinity

The prompt is written first, then what the model adds; with --json "text" is only what it adds.`;

const TOKEN_FLAGS = [...SAMPLER_FLAGS, LOGIT_BIAS_FLAG];
const GENERATE_FLAGS = [...LENGTH_FLAGS, ...TOKEN_FLAGS];

interface RunOptions extends Record<string, unknown> {
  readonly prompt?: string;
  readonly json?: boolean;
}

export function defineRun(command: Command, context: CommandContext): void {
  command
    .argument(
      '[model]',
      'a model file in GGUF format, or its URL (default: the little storyteller that comes with SmallMind)',
    )
    .option('-p, --prompt <TEXT>', 'the beginning of the text (default: what is piped in)')
    .option('--json', 'print one JSON object at the end')
    .addHelpText('after', EXAMPLES)
    .action((path: string | undefined, options: RunOptions) => run(path, options, context));
  addFlags(command, 'Length:', LENGTH_FLAGS);
  addFlags(command, 'Choosing the next token:', TOKEN_FLAGS);
  addFlags(command, 'Running the model:', LOAD_FLAGS);
}

async function run(path = fileURLToPath(storiesModel), options: RunOptions, context: CommandContext): Promise<void> {
  const { signal } = context;
  const loadOptions = readFlags(options, LOAD_FLAGS) as LoadOptions;
  const generateOptions = readFlags(options, GENERATE_FLAGS) as GenerateOptions;
  if (options.prompt === undefined && process.stdin.isTTY) {
    throw new UsageError('no prompt given; use -p "Once upon a time", or pipe it in');
  }
  if (generateOptions.logprobs !== undefined && !options.json) throw new UsageError('--logprobs needs --json');
  // Before the model is loaded, which may take long.
  checkFlags(LOAD_FLAGS, () => resolveLoadOptions(loadOptions));
  checkFlags(GENERATE_FLAGS, () => resolveGenerateOptions(generateOptions));

  const startMs = performance.now();
  await using model = await openModel(path, loadOptions, signal);
  const loadMs = performance.now() - startMs;
  if (context.isVerbose()) process.stderr.write(`${describeModel(model, loadMs)}\n`);
  const prompt = options.prompt ?? (await readStdin(signal));
  signal.throwIfAborted();
  const generation = model.generate(prompt, generateOptions);
  signal.addEventListener('abort', () => generation.stop(), { once: true });
  if (options.json) printJson(await generation.result, loadMs);
  else await printText(prompt, generation, signal);
  signal.throwIfAborted();
}

/** All of stdin as text, without the line break that ends it. */
async function readStdin(signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  signal.addEventListener('abort', () => process.stdin.destroy(signal.reason as Error), { once: true });
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) text += chunk as string;
  return text.replace(/\r?\n$/, '');
}

/** Streams prompt and text to stdout, then says on stderr how fast it was. */
async function printText(prompt: string, generation: Generation, signal: AbortSignal): Promise<void> {
  // With the first piece, so that a prompt that is refused leaves stdout empty.
  let pending = prompt;
  for await (const piece of generation) {
    process.stdout.write(pending + piece);
    pending = '';
  }
  const result = await generation.result;
  if (signal.reason instanceof Interrupted && signal.reason.isOutputGone) return;
  // A short text may be all that a full disk refuses, which is known only after the write.
  const error = await new Promise((resolve) => process.stdout.write(`${pending}\n`, resolve));
  if (error) return;
  process.stderr.write(`${styleText('dim', describeResult(result), { stream: process.stderr })}\n`);
}

function describeResult({ promptTokens, tokens, timings, seed, finishReason }: GenerateResult): string {
  const parts = [
    describeRate('prompt token', promptTokens, timings.promptTokensPerSecond),
    describeRate('token', tokens.length, timings.decodeTokensPerSecond),
    `seed ${seed}`,
  ];
  if (finishReason === 'context') parts.push('the context is full: give a larger --ctx, or --context-full shift');
  if (finishReason === 'time') parts.push('the time of --max-time is over');
  return parts.join(' · ');
}

function printJson(result: GenerateResult, loadMs: number): void {
  const { cachedTokens: _, timings, ...rest } = result;
  const output = { ...rest, timings: { loadMs, ...timings } };
  process.stdout.write(`${JSON.stringify(output)}\n`);
}
