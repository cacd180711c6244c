// The rules of DeepSeek's models: cuts in turn, each within the pieces of the one before. What no rule matches stays
// together.

import { CLASS, characterSet, classAt, endOfMembers, endOfRun, endOfUnits, LETTER } from './characters.ts';
import type { CharacterSet } from './characters.ts';
import { cutAt, cutInTurn, type Cut, type Match } from './cut.ts';
import { endOfWhiteSpace } from './words.ts';

/** The letters with case that Unicode had when the rules were made: those of `tokenizer.json`. */
const CASED =
  String.raw`A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373` +
  String.raw`\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f` +
  String.raw`\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77` +
  String.raw`\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d` +
  String.raw`\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb` +
  String.raw`\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128` +
  String.raw`\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4` +
  String.raw`\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf` +
  String.raw`\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\u{10400}-\u{1044f}\u{104b0}-\u{104d3}` +
  String.raw`\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}`;
const CASED_LETTERS = characterSet(new RegExp(`[${CASED}]`, 'u'));
/** With the ASCII letters, which the pattern's range from : to ~ has in it. */
const SIGNS = characterSet(/[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]/u);
const EAST_ASIAN = characterSet(/[\u0800-\u9fa5\uac00-\ud7ff]/u);
const HAN_AND_KANA = characterSet(/[\u4e00-\u9fa5\u3040-\u30ff]/u);

/** At most one character of white space, then what `endOf` finds there. */
function withSpace(endOf: Match): Match {
  return (text, start) => {
    const first = classAt(text, start) === CLASS.space ? start + 1 : start;
    const end = first < text.length ? endOf(text, first) : first;
    return end > first ? end : endOf(text, start);
  };
}

const runOf =
  (classes: number, max?: number): Match =>
  (text, start) =>
    endOfRun(text, start, classes, max);
const membersOf =
  (set: CharacterSet): Match =>
  (text, start) =>
    endOfMembers(text, start, set);
const lineEnd: Match = (text, start) => (text[start] === '\n' || text[start] === '\r' ? start + 1 : start);

/** White space at the end of the text is a piece. */
const cutTrailingSpace: Cut = (text, onPiece) => {
  let end = text.length;
  while (end > 0 && classAt(text, end - 1) === CLASS.space) end--;
  if (end > 0) onPiece(text.slice(0, end));
  if (end < text.length) onPiece(text.slice(end));
};

export const cutDeepseekLlm = cutInTurn(
  cutAt(lineEnd),
  cutAt(withSpace(membersOf(CASED_LETTERS))),
  cutAt(withSpace(membersOf(SIGNS))),
  cutTrailingSpace,
  cutAt(membersOf(EAST_ASIAN)),
  cutAt(runOf(CLASS.number)),
);

export const cutDeepseekCoder = cutInTurn(
  cutAt(lineEnd),
  cutAt(withSpace(runOf(LETTER))),
  cutAt(withSpace(runOf(CLASS.punctuation))),
  cutAt(membersOf(EAST_ASIAN)),
  cutAt(runOf(CLASS.number, 1)),
);

const PUNCTUATION_OR_SYMBOL = CLASS.punctuation | CLASS.symbol;
const ASCII_SIGN = characterSet(/[!-/:-@[-`{-~]/u);
const ASCII_LETTER = characterSet(/[A-Za-z]/u);

/**
 * The first that fits: a sign of ASCII with the ASCII letters behind it; letters and marks, with at most one character
 * before them that is neither letter, sign nor line end; signs, with at most one space U+0020 before and the line ends
 * behind them; white space up to its last line end, or without its last character if text follows.
 */
const deepseek3Word: Match = (text, start) => {
  if (endOfMembers(text, start, ASCII_SIGN, 1) > start) {
    const end = endOfMembers(text, start + 1, ASCII_LETTER);
    if (end > start + 1) return end;
  }
  const first = classAt(text, start);
  const prefixes = ~(LETTER | PUNCTUATION_OR_SYMBOL);
  const word = (first & prefixes) !== 0 && lineEnd(text, start) === start ? endOfRun(text, start, first, 1) : start;
  const endOfWord = endOfRun(text, word, LETTER | CLASS.mark);
  if (endOfWord > word) return endOfWord;
  if (first === CLASS.mark) return word;
  const signs = text[start] === ' ' ? start + 1 : start;
  const endOfSigns = endOfRun(text, signs, PUNCTUATION_OR_SYMBOL);
  if (endOfSigns > signs) return endOfUnits(text, endOfSigns, '\r\n');
  return first === CLASS.space ? endOfWhiteSpace(text, start) : start;
};

export const cutDeepseek3 = cutInTurn(
  cutAt(runOf(CLASS.number, 3)),
  cutAt(membersOf(HAN_AND_KANA)),
  cutAt(deepseek3Word),
);
