// The tables of docs/formats.md, out of the registries that say what is supported.

import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { RUNNABLE_DTYPES } from '../../src/backend/executor.ts';
import { groupBlockBytes } from '../../src/backend/wasm/kernels/matmul/layout.ts';
import { BLOCK_FORMATS } from '../../src/base/dtype.ts';
import type { DType } from '../../src/base/dtype.ts';
import { GGUF_LIMITS } from '../../src/gguf/limits.ts';
import { ARCHITECTURES } from '../../src/models/registry.ts';
import { CODECS, QUANTIZED_FORMATS } from '../../src/quant/codecs.ts';
import { PRE_TOKENIZERS } from '../../src/tokenizer/pre/pre-tokenizers.ts';
import { TOKENIZER_MODELS } from '../../src/tokenizer/tokenizer.ts';
import { propertyComments } from './api.ts';
import { table } from './marks.ts';

const yes = (is: boolean): string => (is ? 'yes' : '');
const bits = (bytes: number, elements: number): string => String(Number(((8 * bytes) / elements).toFixed(3)));

function types(): string {
  const dtypes = Object.keys(BLOCK_FORMATS) as DType[];
  const rows = dtypes
    .toSorted((a, b) => Number(b in CODECS) - Number(a in CODECS))
    .map((dtype) => {
      const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
      const runs = RUNNABLE_DTYPES.includes(dtype);
      const inMemory = runs ? bits(groupBlockBytes(dtype) / 8, blockElements) : '';
      const codec = CODECS[dtype];
      return [
        dtype,
        blockElements === 1 ? '' : `${blockBytes} bytes for ${blockElements}`,
        bits(blockBytes, blockElements),
        structureOf(dtype),
        yes(codec !== undefined),
        inMemory,
        yes(codec?.encode !== undefined),
      ];
    });
  return table([['type', 'block', 'bits a value', 'a value is', 'decoded', 'runs, in bits', 'encoded'], ...rows]);
}

/** A quantised value in words. */
function structureOf(dtype: DType): string {
  const format = QUANTIZED_FORMATS.find((each) => each.dtype === dtype);
  if (format === undefined) return '';
  const { bits: width, levels, scaleColumns, hasMinima, shift } = format;
  const what = levels ? `one of ${levels.length} levels` : `${width} bits`;
  const scale = scaleColumns > 0 ? ` · a scale for each ${scaleColumns}` : '';
  const moved = hasMinima ? ' + a minimum' : shift === undefined ? '' : ` ± 1/${1 / shift} of it`;
  return `${what} · the block's scale${scale}${moved}`;
}

/** What architectures of a family are, the head of their file says. */
function architectures(): string {
  const names = Object.keys(ARCHITECTURES);
  const folder = fileURLToPath(new URL('../../src/models/', import.meta.url));
  const rows = globSync('*.ts', { cwd: folder }).flatMap((file) => {
    const text = readFileSync(folder + file, 'utf8');
    const defined = names.filter((name) => {
      const exported = name.replace(/[-_](.)/g, (_, letter: string) => letter.toUpperCase());
      return new RegExp(`^export (const|(async )?function) ${exported}\\b`, 'm').test(text);
    });
    const head = text
      .split('\n\n')[0]!
      .replace(/^\/\/ ?/gm, '')
      .replace(/\s+/g, ' ');
    return defined.length === 0 ? [] : [{ defined, head }];
  });
  const missing = names.filter((name) => !rows.some(({ defined }) => defined.includes(name)));
  if (missing.length > 0) throw new Error(`no file of src/models exports ${missing.join(', ')}`);
  rows.sort((a, b) => names.indexOf(a.defined[0]!) - names.indexOf(b.defined[0]!));
  const cells = rows.map(({ defined, head }) => [defined.map((name) => `\`${name}\``).join(', '), head]);
  return table([['`general.architecture`', 'what it is'], ...cells]);
}

const TOKENIZERS: Readonly<Record<string, string>> = {
  llama: 'SentencePiece-style BPE: merges by the scores of tokens, bytes for what is in none',
  gpt2: 'byte-level BPE: merges by their order in the file, within the pieces of a pre-tokenizer',
  bert: 'WordPiece: the longest tokens of each word from the left, without case and accents',
  t5: 'Unigram: the tokens with the best sum of scores, after normalisation by the rules of the file',
};

function tokenizers(): string {
  const rows = TOKENIZER_MODELS.map((name) => {
    const summary = TOKENIZERS[name];
    if (summary === undefined) throw new Error(`scripts/docs/tables.ts does not say what the tokenizer "${name}" is`);
    return [`\`${name}\``, summary];
  });
  return table([['`tokenizer.ggml.model`', 'what it is'], ...rows]);
}

/** Names that share their rules are a row. */
function preTokenizers(): string {
  const rules = Map.groupBy(PRE_TOKENIZERS, ([, each]) => each);
  const rows = [...rules].map(([{ ignoresMerges, addsBos }, members]) => [
    members.map(([name]) => `\`${name}\``).join(', '),
    yes(ignoresMerges),
    yes(addsBos),
  ]);
  return table([['names with the same rules', 'a whole word that is a token stays one', 'BOS by default'], ...rows]);
}

function limits(): string {
  const rows = propertyComments('src/gguf/limits.ts', 'GgufLimits').map(({ property, text }) => [
    `\`${property}\``,
    GGUF_LIMITS[property as keyof typeof GGUF_LIMITS].toLocaleString('en'),
    text,
  ]);
  return table([['limit', 'at most', 'of'], ...rows]);
}

export const TABLES: Readonly<Record<string, () => string>> = {
  types,
  architectures,
  tokenizers,
  preTokenizers,
  limits,
};
