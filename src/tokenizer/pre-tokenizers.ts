// Where byte-level BPE may merge: a pre-tokenizer cuts text into pieces (a word with the space before it, a number, …)
// and merges never cross their borders. One scanner a rule set, in a table by the name that GGUF gives it. Written by
// hand and not as a regular expression, because engines keep a stack for one: a run of 20 MB would overflow it.

import { UnsupportedError } from '../base/errors.ts';

export interface PreTokenizer {
  /** The end of the piece that begins at `start`, in UTF-16 units; `text` is well-formed and `start < text.length`. */
  endOfPiece(text: string, start: number): number;
  /** Whether a piece that is a token becomes that token, whatever merges would make of it. */
  readonly ignoresMerges: boolean;
  /** Whether BOS is added where a file does not say. */
  readonly addsBos: boolean;
}

/** The name in `tokenizer.ggml.pre` of the rules that GPT-2 was trained with, and that we train with. */
export const GPT2_PRE_TOKENIZER = 'gpt-2';

const GPT2: PreTokenizer = {
  endOfPiece: (text, start) => endOfGpt2Piece(text, start, false),
  ignoresMerges: false,
  addsBos: false,
};
/** Numbers are digits by themselves, here and in Qwen2's. */
const SMOLLM: PreTokenizer = { ...GPT2, endOfPiece: (text, start) => endOfGpt2Piece(text, start, true) };
const LLAMA3: PreTokenizer = {
  endOfPiece: (text, start) => endOfLlama3Piece(text, start, 3),
  ignoresMerges: true,
  addsBos: true,
};
const QWEN2: PreTokenizer = {
  endOfPiece: (text, start) => endOfLlama3Piece(text, start, 1),
  ignoresMerges: false,
  addsBos: false,
};

/** By the names in `tokenizer.ggml.pre` that llama.cpp maps to them. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ...named(GPT2, [GPT2_PRE_TOKENIZER, 'phi-2', 'mpt', 'olmo', 'jais', 'exaone4', 'gigachat', 'mellum', 'a.x-4.0']),
  ...named(SMOLLM, ['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b']),
  ...named(LLAMA3, ['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2']),
  ...named(QWEN2, ['qwen2', 'deepseek-r1-qwen', 'kormo', 'megrez', 'stablelm2', 'hunyuan']),
]);

/** What `findPreTokenizer` knows. */
export const PRE_TOKENIZER_NAMES: readonly string[] = [...PRE_TOKENIZERS.keys()];

function named(rules: PreTokenizer, names: readonly string[]): [string, PreTokenizer][] {
  return names.map((name) => [name, rules]);
}

/**
 * @param name  as in `tokenizer.ggml.pre`
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for rules that are not known here
 */
export function findPreTokenizer(name: string): PreTokenizer {
  const preTokenizer = PRE_TOKENIZERS.get(name);
  if (preTokenizer) return preTokenizer;
  const supported = PRE_TOKENIZER_NAMES.join(', ');
  throw new UnsupportedError(
    'UNSUPPORTED_TOKENIZER',
    `pre-tokenizer "${name}" is not supported; supported: ${supported}`,
    { preTokenizer: name, supported },
  );
}

/** Whether rules of that name add BOS where a file does not say; not so for rules that are not known here. */
export const addsBosByDefault = (name: string): boolean => PRE_TOKENIZERS.get(name)?.addsBos ?? false;

/** What the rules tell apart. */
const CLASS = { unseen: 0, letter: 1, number: 2, space: 3, other: 4 } as const;

/**
 * Class of each code point, looked up in the engine's Unicode tables when it is first met. White_Space and not `\s`,
 * which has U+FEFF instead of U+0085.
 */
const classes = new Uint8Array(0x110000);

function classOf(codePoint: number): number {
  return classes[codePoint] || (classes[codePoint] = lookUpClass(String.fromCodePoint(codePoint)));
}

function lookUpClass(char: string): number {
  if (/\p{L}/u.test(char)) return CLASS.letter;
  if (/\p{N}/u.test(char)) return CLASS.number;
  return /\p{White_Space}/u.test(char) ? CLASS.space : CLASS.other;
}

/** Class of the character at `at`; `unseen` at the end of the text. */
const classAt = (text: string, at: number): number =>
  at < text.length ? classOf(text.codePointAt(at)!) : CLASS.unseen;

/** The end of the run of characters of `wanted` class, at most `max` of them, that begins at `start`. */
function endOfRun(text: string, start: number, wanted: number, max = Infinity): number {
  let at = start;
  for (let n = 0; n < max && at < text.length; n++) {
    const codePoint = text.codePointAt(at)!;
    if (classOf(codePoint) !== wanted) break;
    at += codePoint > 0xffff ? 2 : 1;
  }
  return at;
}

/** Whether the unit at `at` is a line feed or a carriage return. */
function isLineEnd(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  return unit === 0x0a || unit === 0x0d;
}

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
 * @param cutsDigits  every number is a piece, and what is before one ends there as at the end of the text
 * @see OpenAI's gpt-2 repository, encoder.py: the pattern that this scans for
 */
function endOfGpt2Piece(text: string, start: number, cutsDigits: boolean): number {
  const contraction = contractionLength(text, start, false);
  if (contraction > 0) return start + contraction;
  const isCut = (at: number): boolean => cutsDigits && classAt(text, at) === CLASS.number;
  const hasSpace = text.charCodeAt(start) === 0x20 && start + 1 < text.length && !isCut(start + 1);
  const first = hasSpace ? start + 1 : start;
  const firstClass = classAt(text, first);
  if (firstClass !== CLASS.space) return endOfRun(text, first, firstClass, isCut(first) ? 1 : Infinity);
  const end = endOfRun(text, start, CLASS.space);
  return isCut(end) ? end : endOfSpace(text, start, end);
}

/**
 * Llama 3's rules, the first that fits: an English contraction in whatever case; a run of letters, with at most one
 * character before it that is neither number nor line end; at most `nDigitsMax` numbers; a run of other characters with
 * at most one space U+0020 before it, and with the line ends after it; white space up to its last line end; a run of
 * white space, without its last character if text follows.
 * @see the pre_tokenizer in Llama 3's tokenizer.json: the pattern that this scans for
 */
function endOfLlama3Piece(text: string, start: number, nDigitsMax: number): number {
  const contraction = contractionLength(text, start, true);
  if (contraction > 0) return start + contraction;
  const codePoint = text.codePointAt(start)!;
  const firstClass = classOf(codePoint);
  if (firstClass === CLASS.letter) return endOfRun(text, start, CLASS.letter);
  if (firstClass === CLASS.number) return endOfRun(text, start, CLASS.number, nDigitsMax);
  const second = start + (codePoint > 0xffff ? 2 : 1);
  const secondClass = classAt(text, second);
  if (secondClass === CLASS.letter && !isLineEnd(text, start)) return endOfRun(text, second, CLASS.letter);
  if (firstClass === CLASS.other || (codePoint === 0x20 && secondClass === CLASS.other)) {
    let end = endOfRun(text, firstClass === CLASS.other ? start : second, CLASS.other);
    while (end < text.length && isLineEnd(text, end)) end++;
    return end;
  }
  const endOfSpaces = endOfRun(text, start, CLASS.space);
  let end = endOfSpaces;
  while (end > start && !isLineEnd(text, end - 1)) end--;
  return end > start ? end : endOfSpace(text, start, endOfSpaces);
}

/** Length of 's, 't, 'm, 'd, 're, 've or 'll at `start`, else 0. */
function contractionLength(text: string, start: number, inAnyCase: boolean): number {
  if (text.charCodeAt(start) !== 0x27) return 0;
  const after = text.slice(start + 1, start + 3);
  const letters = inAnyCase ? after.toLowerCase() : after;
  if ('stmd'.includes(letters[0] ?? '?')) return 2;
  return ['re', 've', 'll'].includes(letters) ? 3 : 0;
}
