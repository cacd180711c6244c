// smallmind perplexity: how well a model predicts a text, per token and per byte.

import type { Command } from 'commander';
import type { EvaluationOptions, EvaluationResult } from '../eval.ts';
import { resolveLoadOptions } from '../options.ts';
import { readText } from './files.ts';
import { FIT_FLAG, LOAD_FLAGS } from './flags.ts';
import type { CommandContext } from './program.ts';
import { formatColumns, formatCount } from './text.ts';
import { addFlags, checkFlags, parseNumber, readFlags } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind perplexity model.gguf text.txt
  smallmind perplexity model.gguf text.txt --ctx 256 --activations f32 --kv-type f32
  smallmind perplexity model.gguf text.txt --json | jq .bitsPerByte

The text is cut into windows side by side, each from an empty context that begins with BOS, if the model has it so; all
tokens of a window count. (llama-perplexity counts the second half of each window, and so gives lower figures.)
Bits per byte compare models of different vocabularies; a character that the vocabulary does not have counts as its
UTF-8 bytes at 8 bits each, and so does a first token that has no BOS before it.`;

const FLAGS = LOAD_FLAGS.filter((flag) => flag !== FIT_FLAG).map((flag) =>
  flag.name === 'nCtx'
    ? { ...flag, help: 'tokens of a window (default: as trained, at most 512)', parse: parseNumber }
    : flag,
);

export function definePerplexity(command: Command, { signal }: CommandContext): void {
  command
    .argument('<model>', 'a model file in GGUF format, or its URL')
    .argument('<text>', 'a text file')
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(async (path: string, textPath: string, parsed: Record<string, unknown>) => {
      const options = readFlags(parsed, FLAGS) as Omit<EvaluationOptions, 'onProgress'>;
      checkFlags(FLAGS, () => resolveLoadOptions(options));
      const text = await readText(textPath);
      const { evaluatePerplexity } = await import('../eval.ts');
      const startMs = performance.now();
      try {
        const result = await evaluatePerplexity(path, text, { ...options, signal, onProgress: showProgress });
        eraseProgress();
        const seconds = (performance.now() - startMs) / 1000;
        process.stdout.write(
          `${parsed['json'] ? JSON.stringify({ ...result, seconds }) : describe(result, seconds)}\n`,
        );
      } catch (error) {
        eraseProgress();
        signal.throwIfAborted();
        throw error;
      }
    });
  addFlags(command, 'Running the model:', FLAGS);
}

function describe(result: EvaluationResult, seconds: number): string {
  const { perplexity, meanNll, bitsPerByte, nTokens, nPredicted, nBytes, nUnknownBytes, nCtx } = result;
  const unknown = nUnknownBytes > 0 ? `, ${formatCount(nUnknownBytes)} of them in characters it does not know` : '';
  return formatColumns([
    ['perplexity', `${perplexity.toFixed(4)} (${meanNll.toFixed(4)} nats a token)`],
    ['bits per byte', bitsPerByte.toFixed(4)],
    [
      'text',
      `${formatCount(nBytes)} bytes${unknown}; ${formatCount(nTokens)} tokens, ${formatCount(nPredicted)} predicted`,
    ],
    ['windows', `of ${formatCount(nCtx)} tokens`],
    ['time', `${seconds.toFixed(1)} s, ${formatCount(Math.round(nPredicted / seconds))} tokens/s`],
  ]).join('\n');
}

function showProgress(nDone: number, nTokens: number): void {
  if (!process.stderr.isTTY || nDone === 0) return;
  process.stderr.write(`\r${formatCount(nDone)} of ${formatCount(nTokens)} tokens\u001b[K`);
}

function eraseProgress(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
}
