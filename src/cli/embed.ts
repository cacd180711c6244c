// smallmind embed: makes a vector of each text. For people it shows how alike the texts are, for programs the vectors,
// one JSON object a line, as they come.

import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { styleText } from 'node:util';
import type { Command } from 'commander';
import type { EmbedOptions, EmbeddingResult, ErrorCode, LoadOptions, Model } from '../index.ts';
import { resolveEmbedOptions, resolveLoadOptions } from '../options.ts';
import { readError } from './files.ts';
import { LOAD_FLAGS } from './flags.ts';
import { describeModel, openModel } from './open-model.ts';
import type { CommandContext } from './program.ts';
import { cut, formatColumns, formatCount, oneLine, widthOf } from './text.ts';
import { UsageError, addFlags, checkFlags, readFlags } from './usage.ts';
import type { Flag } from './usage.ts';

const EXAMPLES = `
Examples:
  smallmind embed model.gguf "The cat sleeps." "A cat is asleep." "Stocks fell."
  smallmind embed model.gguf --file sentences.txt
  smallmind embed model.gguf --json < sentences.txt > vectors.jsonl
  smallmind embed model.gguf "search_query: what is a cat?" --json | jq .embedding

Without --json it shows how alike the texts are: 1 for the same direction, 0 for nothing in common.
Some models want each text to begin with what it is for, such as "search_query: "; the model's page says so.`;

const EMBED_FLAGS: readonly Flag[] = [
  {
    flags: '--pooling <HOW>',
    name: 'pooling',
    help: 'what becomes of the vectors of tokens: mean, cls (the first one) or last (default: what the file says)',
    parse: (text) => text.toLowerCase(),
  },
  {
    flags: '--truncate',
    name: 'truncate',
    help: 'cut texts that the context does not hold (default: refuse them)',
    parse: (text) => text,
  },
  {
    flags: '--no-normalize',
    name: 'normalize',
    help: 'leave vectors as long as they are (default: of length 1)',
    parse: (text) => text,
  },
];

/** Texts that are handed to the model together. */
const GROUP_TEXTS = 64;
/** Up to so many texts are compared each with each in a table; of more, each with the one most like it. */
const TABLE_TEXTS_MAX = 10;
/** More would take long to compare, and nobody reads it. */
const COMPARED_TEXTS_MAX = 1000;

interface EmbedCommandOptions extends Record<string, unknown> {
  readonly json?: boolean;
  readonly file?: string;
}

export function defineEmbed(command: Command, context: CommandContext): void {
  command
    .argument('<model>', 'a model file in GGUF format, or its URL')
    .argument('[texts...]', 'the texts (default: the lines of --file, or of what is piped in)')
    .option('--file <FILE>', 'a file with a text on each line, ended by LF or CRLF')
    .option('--json', 'print one JSON object for each text: index, embedding, promptTokens, isTruncated')
    .addHelpText('after', EXAMPLES)
    .action((path: string, texts: string[], options: EmbedCommandOptions) => embed(path, texts, options, context));
  addFlags(command, 'Making vectors:', EMBED_FLAGS);
  addFlags(command, 'Running the model:', LOAD_FLAGS);
}

async function embed(path: string, texts: string[], options: EmbedCommandOptions, context: CommandContext) {
  const { signal } = context;
  const loadOptions = readFlags(options, LOAD_FLAGS) as LoadOptions;
  const embedOptions = readFlags(options, EMBED_FLAGS) as EmbedOptions;
  if (texts.length > 0 && options.file !== undefined) throw new UsageError('give texts or --file, not both');
  if (texts.length === 0 && options.file === undefined && process.stdin.isTTY) {
    throw new UsageError('no text given; write it behind the model, give --file, or pipe it in');
  }
  // Before the model is loaded, which may take long.
  checkFlags(LOAD_FLAGS, () => resolveLoadOptions(loadOptions));
  checkFlags(EMBED_FLAGS, () => resolveEmbedOptions(embedOptions));

  const startMs = performance.now();
  await using model = await openModel(path, loadOptions, signal);
  const loadMs = performance.now() - startMs;
  if (context.isVerbose()) process.stderr.write(`${describeModel(model, loadMs)}\n`);
  const output = options.json ? new JsonOutput() : new ComparisonOutput();
  const progress = new Progress(texts.length > 0 ? texts.length : undefined);
  try {
    for await (const group of groupsOf(texts.length > 0 ? [texts] : linesOf(options.file, signal))) {
      const result = await embedGroup(model, group, progress.nTexts, { ...embedOptions, signal });
      progress.erase();
      await output.add(group, result, progress.nTexts);
      progress.add(result);
    }
  } finally {
    progress.erase();
  }
  if (progress.nTexts === 0) throw new UsageError('there is no text in what was given');
  await output.end();
  signal.throwIfAborted();
  process.stderr.write(`${styleText('dim', progress.describe(model), { stream: process.stderr })}\n`);
}

/** @throws {SmallMindError} that speaks of texts as they were given, and in terms of flags */
async function embedGroup(model: Model, group: Texts, nBefore: number, options: EmbedOptions) {
  try {
    return await model.embed(group, options);
  } catch (error) {
    const { SmallMindError } = await import('../index.ts');
    if (!(error instanceof SmallMindError)) throw error;
    const { text: index, promptTokens, nCtx, option } = error.details;
    if (option === 'pooling') {
      const message = error.message.replace('the option "pooling"', '--pooling');
      throw new SmallMindError(error.code, message, error.details, { cause: error });
    }
    if (typeof index !== 'number') throw error;
    const problems: Partial<Record<ErrorCode, string>> = {
      CONTEXT_FULL:
        `has ${promptTokens} tokens, the context holds ${nCtx}; ` +
        'shorten it, give a larger --ctx if the model has learned more, or cut it with --truncate',
      INVALID_OPTION: 'has no tokens, and this model puts none around it; leave it out',
      NUMERIC:
        "has a vector that is not finite; the file's weights are broken (get it again) or too large for this " +
        'arithmetic (try --activations f32 --kv-type f32)',
    };
    const text = `text ${nBefore + index + 1} ("${cut(oneLine(group[index]!), 30)}")`;
    throw new SmallMindError(error.code, `${text} ${problems[error.code]}`, error.details, { cause: error });
  }
}

type Texts = readonly string[];

async function* groupsOf(parts: Iterable<Texts> | AsyncIterable<Texts>): AsyncGenerator<Texts> {
  for await (const texts of parts) {
    for (let i = 0; i < texts.length; i += GROUP_TEXTS) yield texts.slice(i, i + GROUP_TEXTS);
  }
}

/**
 * The lines of a file, or of stdin, as they come: who writes one there and waits gets its vector.
 * @throws {FileError}, or the signal's reason
 */
async function* linesOf(path: string | undefined, signal: AbortSignal): AsyncGenerator<Texts> {
  const input: Readable = path === undefined ? process.stdin : createReadStream(path);
  const abort = (): void => void input.destroy(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  const utf8 = new TextDecoder();
  let rest = '';
  try {
    for await (const bytes of input) {
      const lines = utf8.decode(bytes as Uint8Array, { stream: true }).split('\n');
      lines[0] = rest + lines[0]!;
      rest = lines.pop()!;
      yield lines.map(withoutReturn);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw readError(path ?? 'stdin', error);
  } finally {
    signal.removeEventListener('abort', abort);
  }
  rest += utf8.decode();
  if (rest !== '') yield [withoutReturn(rest)];
}

/** Lines end with LF or CRLF and nothing else, as programs count them that read what is printed beside the texts. */
const withoutReturn = (line: string): string => (line.endsWith('\r') ? line.slice(0, -1) : line);

/** What becomes of the vectors. */
interface Output {
  /** @param nBefore  texts of earlier groups */
  add(texts: Texts, result: EmbeddingResult, nBefore: number): Promise<void>;
  end(): Promise<void>;
}

/** Resolves when it is written, so that a slow reader holds the model up and not the memory. */
function write(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}

/** In as many digits as give the same f32 again. */
const shorten = (x: number): number => Number(x.toPrecision(9));

class JsonOutput implements Output {
  async add(_: Texts, { data }: EmbeddingResult, nBefore: number): Promise<void> {
    const lines = data.map(({ index, embedding, ...rest }) =>
      JSON.stringify({ index: nBefore + index, embedding: Array.from(embedding, shorten), ...rest }),
    );
    await write(`${lines.join('\n')}\n`);
  }

  async end(): Promise<void> {}
}

class ComparisonOutput implements Output {
  readonly #texts: string[] = [];
  readonly #vectors: Float32Array[] = [];

  async add(texts: Texts, { data }: EmbeddingResult): Promise<void> {
    this.#texts.push(...texts);
    this.#vectors.push(...data.map(({ embedding }) => embedding));
    if (this.#texts.length <= COMPARED_TEXTS_MAX) return;
    throw new UsageError(`more than ${formatCount(COMPARED_TEXTS_MAX)} texts are not compared; use --json for vectors`);
  }

  async end(): Promise<void> {
    const { cosineSimilarity } = await import('../index.ts');
    const vectors = this.#vectors;
    if (vectors.length === 1) return write(`${describeVector(vectors[0]!)}\n`);
    const similarities = (i: number): number[] => vectors.map((other) => cosineSimilarity(vectors[i]!, other));
    const isTable = vectors.length <= TABLE_TEXTS_MAX;
    const rows = vectors.map((_, i): string[] => {
      const all = similarities(i);
      const text = oneLine(this.#texts[i]!);
      if (isTable) return [String(i + 1), ...all.map(formatSimilarity), text];
      const nearest = all.reduce((best, s, j) => (j !== i && (best < 0 || s > all[best]!) ? j : best), -1);
      return [String(i + 1), formatSimilarity(all[nearest]!), String(nearest + 1), text];
    });
    const head = isTable ? ['', ...vectors.map((_, i) => String(i + 1)), 'text'] : ['', 'most like', '', 'text'];
    const right = head.map((_, i) => i).slice(0, -1);
    const width = widthOf(process.stdout);
    await write(
      `${formatColumns([head, ...rows], right)
        .map((line) => cut(line, width))
        .join('\n')}\n`,
    );
  }
}

const formatSimilarity = (similarity: number): string => similarity.toFixed(2);

/** Values of a vector that are shown. */
const N_SHOWN = 6;

function describeVector(vector: Float32Array): string {
  const shown = Array.from(vector.subarray(0, N_SHOWN), (x) => x.toFixed(4)).join(', ');
  return `[${shown}${vector.length > N_SHOWN ? ', …' : ''}]`;
}

const countOf = (n: number, unit: string): string => `${formatCount(n)} ${unit}${n === 1 ? '' : 's'}`;

/** What has been done, on a terminal in a line that is rewritten. */
class Progress {
  readonly #nTextsAll: number | undefined;
  readonly #startMs = performance.now();
  nTexts = 0;
  #nTokens = 0;
  #last: EmbeddingResult | undefined;

  constructor(nTextsAll: number | undefined) {
    this.#nTextsAll = nTextsAll;
  }

  add(result: EmbeddingResult): void {
    this.#last = result;
    this.nTexts += result.data.length;
    this.#nTokens += result.usage.promptTokens;
    if (!process.stderr.isTTY || this.nTexts === this.#nTextsAll) return;
    const all = this.#nTextsAll === undefined ? '' : ` of ${formatCount(this.#nTextsAll)}`;
    process.stderr.write(`\r${formatCount(this.nTexts)}${all} texts\u001b[K`);
  }

  erase(): void {
    if (process.stderr.isTTY && this.nTexts > 0) process.stderr.write('\r\u001b[K');
  }

  describe({ info }: Model): string {
    const seconds = (performance.now() - this.#startMs) / 1000;
    const counts = `${countOf(this.nTexts, 'text')}, ${countOf(this.#nTokens, 'token')}`;
    return `${counts}, ${info.nEmbd} values each, pooling ${this.#last!.pooling} · ${seconds.toFixed(1)} s`;
  }
}
