// What pre-tokenizers tell apart: the class of each character, by Unicode's general category and White_Space, and runs
// of characters of some classes. Positions are in UTF-16 units of well-formed text.

/** Classes as bits, so that a set of classes is a number. Every character is of exactly one. */
export const CLASS = {
  /** Lu, Lt */
  upper: 1,
  /** Ll */
  lower: 2,
  /** Lm, Lo */
  caseless: 4,
  /** M */
  mark: 8,
  /** N */
  number: 16,
  /** White_Space, and not `\s`, which has U+FEFF instead of U+0085 */
  space: 32,
  /** P */
  punctuation: 64,
  /** S */
  symbol: 128,
  /** The rest: controls, what is not assigned */
  other: 256,
} as const;

export const LETTER = CLASS.upper | CLASS.lower | CLASS.caseless;
/** What is neither white space, letter nor number. */
export const SIGN = CLASS.mark | CLASS.punctuation | CLASS.symbol | CLASS.other;

const PATTERNS: readonly [number, RegExp][] = [
  [CLASS.space, /\p{White_Space}/u],
  [CLASS.lower, /\p{Ll}/u],
  [CLASS.upper, /\p{Lu}|\p{Lt}/u],
  [CLASS.caseless, /\p{L}/u],
  [CLASS.mark, /\p{M}/u],
  [CLASS.number, /\p{N}/u],
  [CLASS.punctuation, /\p{P}/u],
  [CLASS.symbol, /\p{S}/u],
];

/** By code point, looked up in the engine's Unicode tables when it is first met; 0 before. */
const classes = new Uint16Array(0x110000);

export function classOf(codePoint: number): number {
  return classes[codePoint] || (classes[codePoint] = lookUpClass(String.fromCodePoint(codePoint)));
}

function lookUpClass(char: string): number {
  return PATTERNS.find(([, pattern]) => pattern.test(char))?.[0] ?? CLASS.other;
}

/** Class of the character at `at`; 0 at the end of the text. */
export const classAt = (text: string, at: number): number => (at < text.length ? classOf(text.codePointAt(at)!) : 0);

/** Where the character at `at` ends. */
export const afterCharacter = (text: string, at: number): number => at + (text.codePointAt(at)! > 0xffff ? 2 : 1);

/** The end of the run of characters of `wanted` classes, at most `max` of them, that begins at `start`. */
export function endOfRun(text: string, start: number, wanted: number, max = Infinity): number {
  let at = start;
  for (let n = 0; n < max && at < text.length; n++) {
    const codePoint = text.codePointAt(at)!;
    if ((classOf(codePoint) & wanted) === 0) break;
    at += codePoint > 0xffff ? 2 : 1;
  }
  return at;
}

/** Whether the character at `at` is a line feed or a carriage return; not so at the end of the text. */
export function isLineEnd(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  return unit === 0x0a || unit === 0x0d;
}

/** The end of the run of units among `units` (below U+10000) that begins at `start`. */
export function endOfUnits(text: string, start: number, units: string): number {
  let at = start;
  while (at < text.length && units.includes(text[at]!)) at++;
  return at;
}

/** A set of code points, such as a pattern writes between brackets. */
export interface CharacterSet {
  has(codePoint: number): boolean;
}

/** @param pattern  matches one character, with the flag u; asked once a code point that occurs */
export function characterSet(pattern: RegExp): CharacterSet {
  const known = new Map<number, boolean>();
  return {
    has(codePoint) {
      let isMember = known.get(codePoint);
      if (isMember === undefined) known.set(codePoint, (isMember = pattern.test(String.fromCodePoint(codePoint))));
      return isMember;
    },
  };
}

/** The end of the run of members of `set` that begins at `start`, at most `max` of them. */
export function endOfMembers(text: string, start: number, set: CharacterSet, max = Infinity): number {
  let at = start;
  for (let n = 0; n < max && at < text.length; n++) {
    const codePoint = text.codePointAt(at)!;
    if (!set.has(codePoint)) break;
    at += codePoint > 0xffff ? 2 : 1;
  }
  return at;
}
