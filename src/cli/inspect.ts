// smallmind inspect: what a model file holds and what it would need to run, without loading it.

import { styleText } from 'node:util';
import type { Command } from 'commander';
import type { LoadOptions, MemoryEstimate, MetadataField, MetadataValue, ModelFileInfo } from '../index.ts';
import { resolveLoadOptions } from '../options.ts';
import { CONTEXT_FLAG, FIT_FLAG, KV_TYPE_FLAG } from './flags.ts';
import type { CommandContext } from './program.ts';
import { cut, formatBytes, formatColumns, formatCount, oneLine, widthOf, wrap } from './text.ts';
import { addFlags, checkFlags, inFlags, readFlags } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind inspect model.gguf
  smallmind inspect model.gguf --ctx 2048 --kv-type q8_0
  smallmind inspect model.gguf --fit
  smallmind inspect model.gguf --memory
  smallmind inspect model.gguf --json | jq .memory`;

const MEMORY_FLAGS = [CONTEXT_FLAG, FIT_FLAG, KV_TYPE_FLAG];

export function defineInspect(command: Command, { signal }: CommandContext): void {
  command
    .argument('<model>', 'a model file in GGUF format, or its URL')
    .option('--json', 'print one JSON object, with all values in full')
    .option('--memory', 'only the memory needed, with contexts of several sizes and all types of the cache')
    .addHelpText('after', EXAMPLES)
    .action(async (path: string, parsed: Record<string, unknown>) => {
      const options = readFlags(parsed, MEMORY_FLAGS) as LoadOptions;
      checkFlags(MEMORY_FLAGS, () => resolveLoadOptions(options));
      const { inspectModel, estimateMemory } = await import('../index.ts');
      const tell = async <T>(look: Look<T>, format: (found: T) => string[]): Promise<void> => {
        const found = await look(path, { ...options, signal }).catch((error: unknown) => {
          throw inFlags(MEMORY_FLAGS, error);
        });
        signal.throwIfAborted();
        process.stdout.write(`${parsed['json'] ? JSON.stringify(found) : format(found).join('\n')}\n`);
      };
      await (parsed['memory'] ? tell(estimateMemory, describeEstimate) : tell(inspectModel, describe));
    });
  addFlags(command, 'Memory needed:', MEMORY_FLAGS);
}

type Look<T> = (path: string, options: LoadOptions) => Promise<T>;

/** Names of metadata and tensors longer than this are cut. */
const NAME_WIDTH_MAX = 40;

function describe(info: ModelFileInfo): string[] {
  const width = widthOf(process.stdout);
  const heading = (text: string): string => styleText('bold', text);
  return [
    ...describeSummary(info, width),
    '',
    heading(`Metadata: ${info.metadata.length} entries`),
    ...describeMetadata(info.metadata, width),
    '',
    heading(`Tensors: ${info.tensors.length}`),
    ...describeTensors(info),
  ];
}

function describeSummary(info: ModelFileInfo, width: number): string[] {
  const { memory, problem, nCtxTrain, nVocab } = info;
  const rows = [
    ['architecture', oneLine(info.architecture) || '(not said)'],
    ['name', oneLine(info.name) || '(none)'],
    ['parameters', formatCount(info.nParameters)],
    ['context', nCtxTrain > 0 ? `${formatCount(nCtxTrain)} tokens` : '(not said)'],
    ['vocabulary', nVocab > 0 ? `${formatCount(nVocab)} tokens` : '(none)'],
    ['file', `${formatBytes(info.sizeBytes)}, GGUF version ${info.ggufVersion}`],
  ];
  if (memory) {
    const { nCtx, totalBytes, weightsBytes, kvBytes, constantsBytes, workBytes } = memory;
    rows.push(
      ['memory needed', `${formatBytes(totalBytes)} with a context of ${formatCount(nCtx)} tokens:`],
      ['', `weights ${formatBytes(weightsBytes)}, key-value cache ${formatBytes(kvBytes)},`],
      ['', `tables ${formatBytes(constantsBytes)}, work areas ${formatBytes(workBytes)}`],
    );
  }
  const indent = 'memory needed'.length + 2;
  const reason = problem ? wrap(`no: ${oneLine(problem.message)}`, width - indent) : ['yes'];
  rows.push(...reason.map((line, i) => [i === 0 ? 'runs here' : '', line]));
  return formatColumns(rows.map(([key, value]) => [key!, cut(value!, width - indent)]));
}

function describeMetadata(fields: readonly MetadataField[], width: number): string[] {
  const names = fields.map(({ key }) => cut(oneLine(key), NAME_WIDTH_MAX));
  const valueWidth = width - 2 - Math.max(0, ...names.map((name) => name.length));
  return formatColumns(fields.map((field, i) => [names[i]!, describeValue(field.value, valueWidth)]));
}

/** A value in at most `width` characters; of an array the length and what fits. */
function describeValue(value: MetadataValue, width: number): string {
  if (!Array.isArray(value)) return cut(formatScalar(value), width);
  const first = (value as MetadataValue[]).slice(0, width).map((v) => (Array.isArray(v) ? '[…]' : formatScalar(v)));
  return cut(`[${value.length}] ${first.join(', ')}`, width);
}

/** Most fractions are float32, and have no more than seven digits to say. */
function formatScalar(value: MetadataValue): string {
  const isFraction = typeof value === 'number' && Number.isFinite(value) && !Number.isInteger(value);
  return isFraction ? String(Number(value.toPrecision(7))) : oneLine(String(value));
}

function describeTensors({ tensors }: ModelFileInfo): string[] {
  const rows = tensors.map(({ name, shape, dtype, sizeBytes }) => [
    cut(oneLine(name), NAME_WIDTH_MAX),
    shape.join(' × '),
    dtype,
    formatBytes(sizeBytes),
  ]);
  return formatColumns(rows, [3]);
}

function describeEstimate({ caches, nCtxTrain, nThreads, machineBytes, fittingBytes }: MemoryEstimate): string[] {
  const width = widthOf(process.stdout);
  const rows = caches.flatMap(({ kvType, contexts }) =>
    contexts.map(({ nCtx, weightsBytes, kvBytes, constantsBytes, workBytes, totalBytes, fits }) => [
      kvType,
      formatCount(nCtx),
      ...[weightsBytes, kvBytes, constantsBytes, workBytes, totalBytes].map(formatBytes),
      fits ? 'yes' : 'no',
    ]),
  );
  const head = ['cache', 'context', 'weights', 'key-value', 'tables', 'work areas', 'total', 'fits'];
  const [heading, ...table] = formatColumns([head, ...rows], [1, 2, 3, 4, 5, 6]);
  const largest = caches.flatMap(({ kvType, nCtxFit, problem }) => {
    const lines = wrap(oneLine(problem ?? describeFit(nCtxFit, nCtxTrain)), width - 'Q8_0'.length - 2);
    return lines.map((line, i) => [i === 0 ? kvType : '', line]);
  });
  const sizes = [
    ...(machineBytes === undefined ? [] : [['this machine', formatBytes(machineBytes)]]),
    ...(fittingBytes === undefined
      ? []
      : [['free for a model', `${formatBytes(fittingBytes)}, nine tenths of what is free`]]),
    ['threads', String(nThreads)],
  ];
  return [
    styleText('bold', heading!),
    ...table,
    '',
    styleText('bold', 'Largest context that fits'),
    ...formatColumns(largest),
    '',
    ...formatColumns(sizes),
  ];
}

function describeFit(nCtxFit: number, nCtxTrain: number): string {
  if (nCtxFit === 0) return 'none: the model takes more than is free';
  return `${formatCount(nCtxFit)} tokens${nCtxFit === nCtxTrain ? ', as trained' : ''}`;
}
