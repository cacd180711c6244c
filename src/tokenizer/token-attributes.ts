// What a file does not say of its special tokens and llama.cpp knows by their texts, or by the name of the model: which
// end a generation, and which take the white space beside them.

import type { MetadataReader } from './vocabulary.ts';

/** Texts of tokens that end a turn or a generation. They are control tokens even where the file calls them normal. */
export const END_OF_GENERATION_TEXTS: ReadonlySet<string> = new Set([
  '</s>',
  '<eos>',
  '[EOS]',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<｜end▁of▁sentence｜>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|im_end|>',
  '<|end|>',
  '<end_of_turn>',
  '<turn|>',
  '<end_of_utterance>',
  '<EOT>',
  '_<EOT>',
  '[EOT]',
  '[e~[',
  '<|return|>',
  '<|call|>',
  '<|calls|>',
  '<|flush|>',
  '<|tool_response>',
  // Padding, and where the next file or repository begins, for models that fill gaps in code.
  '<|fim_pad|>',
  '<fim-pad>',
  '<fim_pad>',
  '<PAD>',
  '[PAD]',
  '<|fim_repo|>',
  '<|repo_name|>',
  '<fim-repo>',
  '<REPO>',
  '<reponame>',
  '<|file_sep|>',
]);

/** Where all of `beside` are in a vocabulary, an answer has several parts, and `text` ends only one of them. */
const NO_END_BESIDE: readonly { readonly text: string; readonly beside: readonly string[] }[] = [
  { text: '<|end|>', beside: ['<|return|>', '<|call|>'] },
  { text: '<|end|>', beside: ['<|flush|>', '<|calls|>'] },
  { text: '</s>', beside: ['<|tool_response>'] },
];

/** The ids of tokens that end a generation by their text. */
export function findEndsOfGeneration(tokens: readonly string[]): number[] {
  const known = tokens.flatMap((text, id) => (END_OF_GENERATION_TEXTS.has(text) ? [id] : []));
  const texts = new Set(known.map((id) => tokens[id]!));
  const isEnd = (text: string): boolean =>
    !NO_END_BESIDE.some((rule) => rule.text === text && rule.beside.every((other) => texts.has(other)));
  return known.filter((id) => isEnd(tokens[id]!));
}

/** Where special tokens take white space; the first rule whose key has one of the words, in any case, is the one. */
interface SpaceRule {
  readonly key: string;
  readonly words: readonly string[];
  /** Texts of tokens that take what is before them. */
  readonly left?: readonly string[];
  /** Tokens that take what is behind them: all special ones but these. */
  readonly rightExcept?: readonly string[];
}

const SPACE_RULES: readonly SpaceRule[] = [
  { key: 'tokenizer.ggml.pre', words: ['jina-v2-de', 'jina-v2-es', 'jina-v2-code'], left: ['<mask>'] },
  { key: 'general.architecture', words: ['nomic-bert-moe', 'jina-bert-v3'], left: ['<mask>'] },
  { key: 'general.name', words: ['phi-3', 'phi3'], rightExcept: ['<unk>', '<s>', '<|endoftext|>'] },
  { key: 'general.name', words: ['modern-bert'], left: ['[MASK]'] },
];

/** Texts of special tokens that take the white space before them, and behind them. */
export interface SpaceTakers {
  takesLeft(text: string): boolean;
  takesRight(text: string): boolean;
}

/** Those of a file, or undefined where it has none. */
export function findSpaceTakers(metadata: MetadataReader): SpaceTakers | undefined {
  const rule = SPACE_RULES.find(({ key, words }) => {
    const name = metadata.getString(key, '').toLowerCase();
    return words.some((word) => name.includes(word));
  });
  return (
    rule && {
      takesLeft: (text) => rule.left?.includes(text) ?? false,
      takesRight: (text) => rule.rightExcept !== undefined && !rule.rightExcept.includes(text),
    }
  );
}
