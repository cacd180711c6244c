// smallmind export: writes what a training run learnt as a GGUF file, tokenizer included.

import { basename } from 'node:path';
import type { Command } from 'commander';
import type { ExportType } from '../training.ts';
import { readBytes, writeFileAtomic } from './files.ts';
import type { CommandContext } from './program.ts';
import { findCheckpoint } from './run-folder.ts';
import { formatBytes, formatCount } from './text.ts';
import { UsageError } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind export run -o model.gguf
  smallmind export run -o model.gguf --type Q8_0 --name "My stories"
  smallmind export run/last.checkpoint -o last.gguf --type F32

Of a run's folder the best checkpoint is taken, by validation loss. SmallMind and llama.cpp run the file.`;

interface ExportFlags {
  readonly output?: string;
  readonly type: string;
  readonly name?: string;
  readonly json?: boolean;
}

export function defineExport(command: Command, { signal }: CommandContext): void {
  command
    .argument('<checkpoint>', 'a checkpoint, or the folder of a run')
    .option('-o, --output <FILE>', 'the GGUF file to write')
    .option('--type <TYPE>', 'of the matrices: F32, F16, Q8_0 or Q4_0', 'F16')
    .option('--name <TEXT>', 'the name in the file (default: that of the file)')
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: ExportFlags) => exportModel(path, flags, signal));
}

async function exportModel(path: string, flags: ExportFlags, signal: AbortSignal): Promise<void> {
  const { output } = flags;
  if (output === undefined) throw new UsageError('no file given to write; name one with -o');
  const { EXPORT_TYPES, decodeCheckpoint, exportGguf } = await import('../training.ts');
  const type = flags.type.toUpperCase() as ExportType;
  if (!EXPORT_TYPES.includes(type)) {
    throw new UsageError(`--type expected one of ${EXPORT_TYPES.join(', ')}, got "${flags.type}"`);
  }
  const source = findCheckpoint(path);
  const checkpoint = decodeCheckpoint(await readBytes(source), source);
  const name = flags.name ?? basename(output).replace(/\.gguf$/i, '');
  const { bytes, fallbacks, nParameters } = exportGguf(checkpoint, { type, name });
  signal.throwIfAborted();
  writeFileAtomic(output, bytes);
  const { step, bestValidationLoss, config } = checkpoint;
  if (flags.json) {
    const result = { output, checkpoint: source, step, type, sizeBytes: bytes.length, nParameters, fallbacks };
    process.stdout.write(`${JSON.stringify({ ...result, bestValidationLoss })}\n`);
    return;
  }
  const what = `${config.architecture}, ${formatCount(nParameters)} parameters, ${type}, ${formatBytes(bytes.length)}`;
  process.stdout.write(`${output}: ${what}, from step ${step} (${source})\n`);
  if (fallbacks.length > 0) {
    process.stderr.write(`F16 instead, since rows are no multiples of 32: ${fallbacks.join(', ')}\n`);
  }
}
