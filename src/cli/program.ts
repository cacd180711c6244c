// The commands and flags of smallmind. Each command is in a file of its own, which is loaded when it is asked for; it
// in turn loads the engine when it needs it. The documentation is written from the same definitions.

import type { Command } from 'commander';

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
type DefineCommand = (command: Command, context: CommandContext) => void;

export const COMMANDS: Readonly<Record<string, { summary: string; load(): Promise<DefineCommand> }>> = {
  run: { summary: 'generate text with a model', load: async () => (await import('./run.ts')).defineRun },
  chat: { summary: 'talk with a model', load: async () => (await import('./chat.ts')).defineChat },
  embed: {
    summary: 'make vectors of texts, and compare them',
    load: async () => (await import('./embed.ts')).defineEmbed,
  },
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
  smallmind embed model.gguf "The cat sleeps." "A cat is asleep."
  smallmind inspect model.gguf
  smallmind train --data stories.txt --out run
  smallmind export run -o model.gguf
  smallmind perplexity model.gguf text.txt
  smallmind bench model.gguf
  smallmind doctor`;

/**
 * Adds options, help and commands to `program`.
 * @param isWanted  whether a command gets its arguments and options, besides its line in the help
 */
export async function defineProgram(
  program: Command,
  context: CommandContext,
  isWanted: (name: string) => boolean,
): Promise<void> {
  program
    .description('Small language models: GGUF in, tokens out.')
    .version(context.version)
    .option('--verbose', 'say more on stderr: how the model runs, and the stack of errors')
    .option('--no-wide-vectors', 'leave V8 at 128-bit vectors (default: 256 where it knows how)')
    .hook('preAction', async () => {
      if (program.opts()['wideVectors'] === true) (await import('../index.ts')).enableWideVectors();
    })
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError() {} })
    .exitOverride()
    .addHelpText('after', EXAMPLES);
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = program.command(name).description(summary);
    if (isWanted(name)) (await load())(command, context);
  }
}
