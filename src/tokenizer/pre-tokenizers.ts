// Where byte-level BPE may merge: a pre-tokenizer cuts text into pieces (a word with the space before it, a number, …)
// and merges never cross their borders. One scanner a rule set, in a table by the name that GGUF gives it. Written by
// hand and not as a regular expression, because engines keep a stack for one: a run of 20 MB would overflow it.

import { UnsupportedError } from '../base/errors.ts';

/** The end of the piece that begins at `start`, in UTF-16 units; `text` is well-formed and `start < text.length`. */
export type PreTokenizer = (text: string, start: number) => number;

/** The name in `tokenizer.ggml.pre` of the rules that GPT-2 was trained with, and that we train with. */
export const GPT2_PRE_TOKENIZER = 'gpt-2';

const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([[GPT2_PRE_TOKENIZER, endOfGpt2Piece]]);

/**
 * @param name  as in `tokenizer.ggml.pre`
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for rules that are not known here
 */
export function findPreTokenizer(name: string): PreTokenizer {
  const preTokenizer = PRE_TOKENIZERS.get(name);
  if (preTokenizer) return preTokenizer;
  const supported = [...PRE_TOKENIZERS.keys()].join(', ');
  throw new UnsupportedError(
    'UNSUPPORTED_TOKENIZER',
    `pre-tokenizer "${name}" is not supported; supported: ${supported}`,
    { preTokenizer: name, supported },
  );
}

/** What GPT-2's rules tell apart. */
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

/** The end of the run of characters of `wanted` class that begins at `start`. */
function endOfRun(text: string, start: number, wanted: number): number {
  let at = start;
  while (at < text.length) {
    const codePoint = text.codePointAt(at)!;
    if (classOf(codePoint) !== wanted) break;
    at += codePoint > 0xffff ? 2 : 1;
  }
  return at;
}

/**
 * GPT-2's rules, the first that fits: an English contraction; a run of letters, of numbers, or of other characters,
 * each with at most one space U+0020 before it; a run of white space, without its last character if text follows.
 * @see OpenAI's gpt-2 repository, encoder.py: the pattern that this scans for
 */
function endOfGpt2Piece(text: string, start: number): number {
  const contraction = contractionLength(text, start);
  if (contraction > 0) return start + contraction;
  const first = text.charCodeAt(start) === 0x20 && start + 1 < text.length ? start + 1 : start;
  const firstClass = classOf(text.codePointAt(first)!);
  if (firstClass !== CLASS.space) return endOfRun(text, first, firstClass);
  const end = endOfRun(text, start, CLASS.space);
  return end === text.length || end === start + 1 ? end : end - 1;
}

/** Length of 's, 't, 'm, 'd, 're, 've or 'll at `start`, else 0. Lower case only, as GPT-2 was trained. */
function contractionLength(text: string, start: number): number {
  if (text.charCodeAt(start) !== 0x27) return 0;
  if ('stmd'.includes(text[start + 1] ?? '?')) return 2;
  return ['re', 've', 'll'].includes(text.slice(start + 1, start + 3)) ? 3 : 0;
}
