// docs/cli.md, out of commander's own definitions of the commands: usage, arguments, flags by their groups, and what
// the help says after them. Examples become shell lines, which test/docs.test.ts runs.

import { Command } from 'commander';
import type { Option } from 'commander';
import { defineProgram } from '../../src/cli/program.ts';
import { table } from './marks.ts';

const INTRODUCTION = `The commands and all their flags; \`smallmind COMMAND --help\` shows the same. In a project that has SmallMind installed it is \`npx smallmind\`. A mistake is one line on stderr that says what to do, and \`--verbose\` adds what else is known.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | it failed: a damaged file, too little memory, something broken |
| 2 | a mistake on the command line |
| 130, 143 | ended by Ctrl-C, or by SIGTERM |

Ctrl-C ends a command in good order: \`run\` says how fast it was, \`train\` saves a checkpoint. A second one ends it at once.`;

export async function writeCli(): Promise<string> {
  const program = new Command('smallmind');
  const context = { signal: new AbortController().signal, version: '', isVerbose: () => false, report() {} };
  await defineProgram(program, context, () => true);
  const globals = program.options.filter(({ long }) => long !== '--version');
  const list = program.commands.map((command) => [`[${command.name()}](#${command.name()})`, command.description()]);
  return [
    '# Command line',
    '<!-- Written by npm run docs from the definitions in src/cli. -->',
    INTRODUCTION,
    table([['command', ''], ...list]),
    'Flags of all commands:',
    flagTable(globals),
    ...program.commands.flatMap(describeCommand),
  ].join('\n\n');
}

function describeCommand(command: Command): string[] {
  const { examples, notes } = readExtraHelp(command);
  const groups = Map.groupBy(command.options, ({ helpGroupHeading }) => helpGroupHeading ?? '');
  const defined = command.registeredArguments.map((each) => [
    `\`${each.required ? `<${each.name()}>` : `[${each.name()}]`}\``,
    inCell(each.description),
  ]);
  return [
    `## ${command.name()}`,
    `${sentence(command.description())}`,
    `\`\`\`\nsmallmind ${command.name()} ${command.usage()}\n\`\`\``,
    `\`\`\`sh\n${examples.map((line) => line.replace(/\bsmallmind /, 'npx smallmind ')).join('\n')}\n\`\`\``,
    ...(notes === '' ? [] : [notes]),
    ...(defined.length > 0 ? [table([['argument', ''], ...defined])] : []),
    ...[...groups].flatMap(([heading, options]) => [heading === '' ? '' : heading, flagTable(options)]),
  ].filter((part) => part !== '');
}

function flagTable(options: readonly Option[]): string {
  return table([
    ['flag', 'default', ''],
    ...options.map(({ flags, description, defaultValue }) => {
      const [, text, fallback = ''] = /^(.*?)(?: \(default: (.*)\))?$/.exec(description)!;
      const shown: unknown = defaultValue !== undefined && typeof defaultValue !== 'boolean' ? defaultValue : fallback;
      return [`\`${flags}\``, inCell(String(shown)), inCell(text!)];
    }),
  ]);
}

/** What `addHelpText` has put behind the help. */
function readExtraHelp(command: Command): { examples: string[]; notes: string } {
  let shown = '';
  command.configureOutput({ writeOut: (text) => (shown += text) });
  command.outputHelp();
  const [, block = '', notes = ''] = /\nExamples:\n((?: .*\n)+)([^]*)$/.exec(shown) ?? [];
  const examples = block
    .trimEnd()
    .split('\n')
    .map((line) => line.trim());
  if (block === '') throw new Error(`smallmind ${command.name()} --help has no examples`);
  // What is indented is a table in plain text.
  const parts = notes.trim().split(/((?:\n {2}.*)+)/);
  const written = parts.map((part, i) =>
    i % 2 === 0 ? inCell(part.trim().replaceAll('\n', ' ')) : `\`\`\`${part.replaceAll('\n  ', '\n')}\n\`\`\``,
  );
  return { examples, notes: written.join('\n\n') };
}

const sentence = (text: string): string => `${text[0]!.toUpperCase()}${text.slice(1)}.`;
const inCell = (text: string): string =>
  text
    .replaceAll('|', '\\|')
    .replace(/<\\\|endoftext\\\|>/g, '`<\\|endoftext\\|>`')
    .replaceAll('…', '…');
