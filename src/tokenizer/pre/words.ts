// The rules by which most pre-tokenizers cut: GPT-2's, and Llama 3's with what later models changed in them. Each is a
// match that fits anywhere, written by hand and not as a regular expression, because engines keep a stack for one: a
// run of 20 MB would overflow it.

import {
  afterCharacter,
  CLASS,
  classAt,
  classOf,
  endOfRun,
  endOfUnits,
  isLineEnd,
  LETTER,
  SIGN,
} from './characters.ts';
import type { Match } from './cut.ts';

/**
 * The end of a run of white space from `start` to `end`: it leaves its last character to the text that follows, unless
 * that is all there is.
 */
function endOfSpace(text: string, start: number, end: number): number {
  return end === text.length || end === start + 1 ? end : end - 1;
}

/**
 * GPT-2's rules, the first that fits: an English contraction; a run of letters, of numbers, or of other characters,
 * each with at most one space U+0020 before it; a run of white space, without its last character if text follows.
 * @see OpenAI's gpt-2 repository, encoder.py: the pattern that this scans for
 */
export const gpt2Word: Match = (text, start) => {
  const contraction = endOfContraction(text, start, false);
  if (contraction > start) return contraction;
  const first = text.charCodeAt(start) === 0x20 && start + 1 < text.length ? start + 1 : start;
  const firstClass = classAt(text, first);
  if (firstClass === CLASS.space) return endOfSpace(text, start, endOfRun(text, start, CLASS.space));
  const run = (firstClass & LETTER) !== 0 ? LETTER : (firstClass & SIGN) !== 0 ? SIGN : CLASS.number;
  return endOfRun(text, first, run);
};

/** How a model's rules differ from Llama 3's. */
export interface WordRules {
  /** Numbers in a piece. */
  readonly nDigitsMax: number;
  /** What a word can be; the first that fits with the character before it, or without. */
  readonly words: readonly Match[];
  /** The classes that runs of signs are made of. */
  readonly sign: number;
  /** Where English contractions stand: pieces by themselves, at the end of words, or nowhere. */
  readonly contraction: 'piece' | 'suffix' | 'none';
  /** The units that may follow a run of signs within its piece. */
  readonly afterSigns: string;
}

const LLAMA3_RULES: WordRules = {
  nDigitsMax: 3,
  words: [(text, start) => endOfRun(text, start, LETTER)],
  sign: SIGN,
  contraction: 'piece',
  afterSigns: '\r\n',
};

/**
 * Llama 3's rules, the first that fits: an English contraction in whatever case; a word, with at most one character
 * before it that is neither letter, number nor line end; at most `nDigitsMax` numbers; a run of other characters with
 * at most one space U+0020 before it, and with the line ends after it; white space up to its last line end; a run of
 * white space, without its last character if text follows.
 * @see the pre_tokenizer in Llama 3's tokenizer.json: the pattern that this scans for
 */
export function wordsBy(changes: Partial<WordRules>): Match {
  const { nDigitsMax, words, sign, contraction, afterSigns } = { ...LLAMA3_RULES, ...changes };
  const endOfAnyWord = (text: string, start: number): number => {
    for (const word of words) {
      const end = endOfWordWithPrefix(text, start, word);
      if (end > start) return contraction === 'suffix' ? endOfContraction(text, end, true) : end;
    }
    return start;
  };
  return (text, start) => {
    if (contraction === 'piece') {
      const end = endOfContraction(text, start, true);
      if (end > start) return end;
    }
    const firstClass = classOf(text.codePointAt(start)!);
    if (firstClass === CLASS.number) return endOfRun(text, start, CLASS.number, nDigitsMax);
    const endOfWord = endOfAnyWord(text, start);
    if (endOfWord > start) return endOfWord;
    const signs = text.charCodeAt(start) === 0x20 ? start + 1 : start;
    const endOfSigns = endOfRun(text, signs, sign);
    if (endOfSigns > signs) return endOfUnits(text, endOfSigns, afterSigns);
    return firstClass === CLASS.space ? endOfWhiteSpace(text, start) : start;
  };
}

/** A word with one character before it, if that can be, and otherwise without. */
function endOfWordWithPrefix(text: string, start: number, word: Match): number {
  const isPrefix = (classAt(text, start) & (LETTER | CLASS.number)) === 0 && !isLineEnd(text, start);
  const second = afterCharacter(text, start);
  if (isPrefix && second < text.length) {
    const end = word(text, second);
    if (end > second) return end;
  }
  return word(text, start);
}

/** The end of a piece of white space: its last line end, or all but its last character if text follows. */
export function endOfWhiteSpace(text: string, start: number): number {
  const endOfSpaces = endOfRun(text, start, CLASS.space);
  let end = endOfSpaces;
  while (end > start && !isLineEnd(text, end - 1)) end--;
  return end > start ? end : endOfSpace(text, start, endOfSpaces);
}

const UPPER_CASE = CLASS.upper | CLASS.caseless | CLASS.mark;
const LOWER_CASE = CLASS.lower | CLASS.caseless | CLASS.mark;

/** Capitals, then lower case, which there must be. Letters without case and marks count as both. */
const endOfCapitalised: Match = (text, start) => {
  const endOfUpper = endOfRun(text, start, UPPER_CASE);
  const end = endOfRun(text, endOfUpper, LOWER_CASE);
  if (end > endOfUpper) return end;
  // The last character that counts as both is the lower case, and what follows it is left.
  let last = endOfUpper;
  while (last > start) {
    const before = last - (last - 2 >= start && text.codePointAt(last - 2)! > 0xffff ? 2 : 1);
    if ((classAt(text, before) & LOWER_CASE) !== 0) break;
    last = before;
  }
  return last;
};

/** Words that end before their next capital, of lower case or of capitals alone. */
export const CASED_WORDS: readonly Match[] = [endOfCapitalised, (text, start) => endOfRun(text, start, UPPER_CASE)];

/** The end of 's, 't, 'm, 'd, 're, 've or 'll at `start`, else `start`. */
function endOfContraction(text: string, start: number, inAnyCase: boolean): number {
  if (text.charCodeAt(start) !== 0x27) return start;
  const after = text.slice(start + 1, start + 3);
  const letters = inAnyCase ? after.toLowerCase() : after;
  if ('stmd'.includes(letters[0] ?? '?')) return start + 2;
  return ['re', 've', 'll'].includes(letters) ? start + 3 : start;
}
