// From texts to what a run trains on: the part for validation cut off, a vocabulary learnt from the rest, and both
// parts as token ids. The vocabulary never sees the validation part, but for the alphabet of a character tokenizer.

import { OptionError } from '../base/errors.ts';
import { trainBpe, vocabularyOfBpe } from '../tokenizer/bpe-trainer.ts';
import { charVocabulary } from '../tokenizer/char.ts';
import { createTokenizer } from '../tokenizer/tokenizer.ts';
import type { Vocabulary } from '../tokenizer/vocabulary.ts';
import { crc32 } from './checkpoint.ts';
import { encodeTexts } from './data.ts';
import type { NamedText } from './data.ts';
import type { ResolvedTrainingOptions } from './options.ts';

/** Ends a text. Data files spell it out between their texts; behind each file it is put anyway. */
export const END_OF_TEXT = '<|endoftext|>';

export interface Corpus {
  readonly vocabulary: Vocabulary;
  readonly train: Int32Array;
  /** Empty: no validation. */
  readonly validation: Int32Array;
  /** CRC-32 of both parts. */
  readonly checksum: number;
}

export interface CorpusParts {
  /** In place of the last part of the texts. */
  readonly validationTexts?: readonly NamedText[];
  /** In place of one learnt from the texts. */
  readonly vocabulary?: Vocabulary;
}

/** @throws {OptionError} for texts that are empty, or options that the tokenizer's training refuses */
export function prepareCorpus(
  texts: readonly NamedText[],
  options: ResolvedTrainingOptions,
  parts: CorpusParts = {},
): Corpus {
  const empty = [...texts, ...(parts.validationTexts ?? [])].find(({ text }) => text.trim() === '');
  if (empty) throw new OptionError(`${empty.name} is empty; give it text to train on`, { source: empty.name });
  if (texts.length === 0) throw new OptionError('there is no text to train on; name at least one file');
  const split = parts.validationTexts
    ? { train: texts, validation: parts.validationTexts }
    : splitTexts(texts, options.validationFraction);
  const vocabulary = parts.vocabulary ?? learnVocabulary(split.train, split.validation, options);
  const tokenizer = createTokenizer(vocabulary);
  const train = encodeTexts(tokenizer, split.train, { separatorId: tokenizer.eosId });
  const validation = split.validation.length > 0 ? encodeTexts(tokenizer, split.validation) : new Int32Array(0);
  return { vocabulary, train, validation, checksum: checksumOf(train, validation) };
}

function checksumOf(train: Int32Array, validation: Int32Array): number {
  const all = new Int32Array(train.length + validation.length);
  all.set(train);
  all.set(validation, train.length);
  return crc32(new Uint8Array(all.buffer));
}

function learnVocabulary(
  train: readonly NamedText[],
  validation: readonly NamedText[],
  { tokenizer, vocabSize }: ResolvedTrainingOptions,
): Vocabulary {
  if (tokenizer === 'char') {
    const all = [...train, ...validation].map(({ text }) => text.replaceAll(END_OF_TEXT, '')).join('');
    return charVocabulary(all, { unknown: 'map' });
  }
  const texts = train.map(({ text }) => text);
  const bpe = trainBpe(texts, { vocabSize, specialTokens: [END_OF_TEXT] });
  // Where the data has many texts, the model knows what follows this token: how a text begins.
  return vocabularyOfBpe(bpe, { addBos: texts.some((text) => text.includes(END_OF_TEXT)) });
}

/**
 * Cuts off the last `fraction` of all characters for validation: behind a line break, if there is one before the place.
 */
function splitTexts(
  texts: readonly NamedText[],
  fraction: number,
): { train: readonly NamedText[]; validation: readonly NamedText[] } {
  if (fraction === 0) return { train: texts, validation: [] };
  const nAll = texts.reduce((n, { text }) => n + text.length, 0);
  let nLeft = Math.floor(nAll * (1 - fraction));
  const train: NamedText[] = [];
  const validation: NamedText[] = [];
  for (const { name, text } of texts) {
    const at = nLeft >= text.length ? text.length : Math.max(0, text.lastIndexOf('\n', nLeft - 1) + 1 || nLeft);
    nLeft = Math.max(0, nLeft - text.length);
    if (at > 0) train.push({ name, text: text.slice(0, at) });
    if (at < text.length) validation.push({ name, text: text.slice(at) });
  }
  return { train, validation };
}
