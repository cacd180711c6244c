// WordPiece ("bert" in GGUF): text is cut into words and signs, without case and accents, and a word into the longest
// tokens from the left. In GGUF a token that begins a word begins with U+2581, and the others have lost their ##. What
// was encoded does not come back: case, accents and the number of spaces are gone. Source: BERT's tokenization.py.

import { UnsupportedError } from '../../base/errors.ts';
import { mergeableTokens, SPACE, spellPiece } from '../spm.ts';
import type { TextCodec } from '../text-codec.ts';
import type { Vocabulary } from '../vocabulary.ts';
import { ROOT, Trie } from './trie.ts';

/**
 * The codec of one vocabulary, which lower-cases and strips accents unless the vocabulary says otherwise. A word that
 * tokens do not cover becomes one unknown token. Encoding takes O(n) for n characters and tokens of bounded length.
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for a vocabulary without an unknown token
 */
export function createWordPiece(vocabulary: Vocabulary, tokenTypes: ArrayLike<number>): TextCodec {
  const { tokens, unknownId, lowercase = true, stripAccents = lowercase } = vocabulary;
  if (unknownId === undefined) {
    throw new UnsupportedError('UNSUPPORTED_TOKENIZER', 'the vocabulary has no unknown token, which WordPiece needs');
  }
  const trie = new Trie(mergeableTokens(tokens, tokenTypes));
  const spread = createNormaliser(lowercase, stripAccents);

  const appendWord = (word: string, ids: number[]): void => {
    const nBefore = ids.length;
    for (let start = 0; start < word.length;) {
      let end = start;
      let id = -1;
      let node = ROOT;
      for (let at = start; at < word.length;) {
        node = trie.child(node, word.charCodeAt(at++));
        if (node < 0) break;
        if (trie.idAt(node) < 0) continue;
        id = trie.idAt(node);
        end = at;
      }
      if (id < 0) {
        ids.length = nBefore;
        ids.push(unknownId);
        return;
      }
      ids.push(id);
      start = end;
    }
  };

  return {
    stripsLeadingSpace: true,
    encode(text, ids) {
      for (const word of spread(text).split(' ')) if (word !== '') appendWord(SPACE + word, ids);
    },
    pieceBytes: (id) => spellPiece(tokens[id]!, tokenTypes[id]!),
  };
}

/**
 * Puts a space on both sides of what is a word by itself, turns white space into spaces and drops controls. Character
 * by character: the accents that normalisation would put in order go, and a long run of them would take it long.
 */
function createNormaliser(lowercase: boolean, stripAccents: boolean): (text: string) => string {
  const spreadChar = (char: string): string => {
    if (/\p{White_Space}/u.test(char)) return ' ';
    if (/[\p{C}\ufffd]/u.test(char)) return '';
    const written = lowercase ? char.toLowerCase() : char;
    return /[\p{P}$+<=>^`|~]/u.test(char) || isHan(char.codePointAt(0)!) ? ` ${written} ` : written;
  };
  const known = new Map<number, string>();
  const spreadCodePoint = (char: string): string => {
    const parts = stripAccents ? char.normalize('NFD').replace(/\p{Mn}/gu, '') : char;
    return Array.from(parts, spreadChar).join('');
  };
  return (text) => {
    let out = '';
    for (const char of text) {
      const codePoint = char.codePointAt(0)!;
      let spread = known.get(codePoint);
      if (spread === undefined) known.set(codePoint, (spread = spreadCodePoint(char)));
      out += spread;
    }
    return out;
  };
}

/** The blocks of Han characters, as BERT lists them. */
const HAN_BLOCKS: readonly (readonly [first: number, last: number])[] = [
  [0x4e00, 0x9fff],
  [0x3400, 0x4dbf],
  [0x20000, 0x2a6df],
  [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f],
  // BERT has U+2B820 here; Hugging Face's tokenizers and llama.cpp begin later.
  [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff],
  [0x2f800, 0x2fa1f],
];
const isHan = (codePoint: number): boolean =>
  HAN_BLOCKS.some(([first, last]) => codePoint >= first && codePoint <= last);
