// The command line: runs the command that is asked for, and turns whatever goes wrong into one line and an exit code.
// Exit codes: 0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 terminated.

import { createRequire } from 'node:module';
import { inspect, styleText } from 'node:util';
import { Command, CommanderError } from 'commander';
import { Interrupted, listenForInterruption } from './interruption.ts';
import { COMMANDS, defineProgram } from './program.ts';
import { UsageError, isOptionError } from './usage.ts';

const { version } = createRequire(import.meta.url)('smallmind/package.json') as { version: string };
const program = new Command('smallmind');
const args = process.argv.slice(2);

try {
  const context = { signal: listenForInterruption(report), version, isVerbose, report };
  // Of the others their line in the help is all that is needed.
  await defineProgram(program, context, (name) => args.includes(name));
  if (args.length === 0) program.help({ error: true });
  await program.parseAsync(args, { from: 'user' });
} catch (error) {
  process.exitCode = exitCodeOf(error);
  if (!isSaid(error)) report(error);
}

function isVerbose(): boolean {
  return program.opts()['verbose'] === true;
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
  if (isVerbose()) process.stderr.write(`${inspect(error)}\n`);
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
