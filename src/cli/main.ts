// The command line: finds the command, and turns whatever goes wrong into one line and an exit code. Commands are in
// files of their own, which are loaded when they are asked for; they in turn load the engine when they need it.
// Exit codes: 0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 terminated.

import { createRequire } from 'node:module';
import { inspect, styleText } from 'node:util';
import { Command, CommanderError } from 'commander';
import { Interrupted, listenForInterruption } from './interruption.ts';
import { UsageError, isOptionError } from './usage.ts';

/** What a command is given besides its own arguments. */
export interface CommandContext {
  /** Aborts when the command has to come to its end; its reason is an `Interrupted`. */
  readonly signal: AbortSignal;
  readonly version: string;
  isVerbose(): boolean;
  /** Says on stderr what went wrong, for commands that go on. */
  report(error: unknown): void;
}

/** Adds arguments, options and action to a command. */
export type DefineCommand = (command: Command, context: CommandContext) => void;

const COMMANDS: Readonly<Record<string, { summary: string; load(): Promise<DefineCommand> }>> = {
  run: { summary: 'generate text with a model', load: async () => (await import('./run.ts')).defineRun },
  chat: { summary: 'talk with a model', load: async () => (await import('./chat.ts')).defineChat },
  inspect: {
    summary: 'show what a model file holds and needs',
    load: async () => (await import('./inspect.ts')).defineInspect,
  },
  train: {
    summary: 'train a model on text files',
    load: async () => (await import('./train.ts')).defineTrain,
  },
  export: {
    summary: 'write a trained model as a GGUF file',
    load: async () => (await import('./export.ts')).defineExport,
  },
  perplexity: {
    summary: 'measure how well a model predicts a text',
    load: async () => (await import('./perplexity.ts')).definePerplexity,
  },
  bench: {
    summary: 'measure how fast a model runs here',
    load: async () => (await import('./bench.ts')).defineBench,
  },
  doctor: {
    summary: 'show what this machine offers, and test it',
    load: async () => (await import('./doctor.ts')).defineDoctor,
  },
};

const EXAMPLES = `
Examples:
  smallmind run model.gguf -p "Once upon a time"
  smallmind chat model.gguf
  smallmind inspect model.gguf
  smallmind train --data stories.txt --out run
  smallmind export run -o model.gguf
  smallmind perplexity model.gguf text.txt
  smallmind bench model.gguf
  smallmind doctor`;

const { version } = createRequire(import.meta.url)('smallmind/package.json') as { version: string };
const program = new Command('smallmind');
const args = process.argv.slice(2);

try {
  await defineProgram(listenForInterruption(report));
  if (args.length === 0) program.help({ error: true });
  await program.parseAsync(args, { from: 'user' });
} catch (error) {
  process.exitCode = exitCodeOf(error);
  if (!isSaid(error)) report(error);
}

async function defineProgram(signal: AbortSignal): Promise<void> {
  program
    .description('Small language models: GGUF in, tokens out.')
    .version(version)
    .option('--verbose', 'say more on stderr: how the model runs, and the stack of errors')
    .option('--no-wide-vectors', 'leave V8 at 128-bit vectors (default: 256 where it knows how)')
    .hook('preAction', async () => {
      if (program.opts()['wideVectors'] === true) (await import('../index.ts')).enableWideVectors();
    })
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError() {} })
    .exitOverride()
    .addHelpText('after', EXAMPLES);
  const context: CommandContext = { signal, version, isVerbose: () => program.opts()['verbose'] === true, report };
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = program.command(name).description(summary);
    // Of the others their line in the help is all that is needed.
    if (args.includes(name)) (await load())(command, context);
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  return error instanceof UsageError || isOptionError(error) ? 2 : 1;
}

/** Whether the user has been told already: help and version are errors to commander. */
function isSaid(error: unknown): boolean {
  if (error instanceof Interrupted) return true;
  return error instanceof CommanderError && (error.exitCode === 0 || error.code === 'commander.help');
}

/** Writes one line on stderr, and with --verbose all that is known. */
function report(error: unknown): void {
  const name = styleText('red', 'smallmind:', { stream: process.stderr });
  process.stderr.write(`${name} ${messageOf(error)}\n`);
  if (program.opts()['verbose'] === true) process.stderr.write(`${inspect(error)}\n`);
}

function messageOf(error: unknown): string {
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: |\.$/g, '').replaceAll('\n', ' ');
    return `${message}; ${seeHelp()}`;
  }
  if (error instanceof UsageError) return `${error.message}; ${seeHelp()}`;
  if (!(error instanceof Error)) return String(error);
  // SmallMind's own errors have a code and say what to do; so do those of the operating system, in their way.
  const isKnown = 'code' in error && error.code !== 'INTERNAL';
  const message = error.message.replaceAll('\n', ' ');
  return isKnown ? message : `${message} (please report it, with what --verbose says)`;
}

function seeHelp(): string {
  const command = args.find((arg) => Object.hasOwn(COMMANDS, arg));
  return `see "smallmind ${command === undefined ? '' : `${command} `}--help"`;
}
