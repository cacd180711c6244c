// Byte-level BPE ("gpt2" in GGUF): text is cut into pieces, the UTF-8 bytes of a piece merge in the order in which the
// merges were learnt, and what is left are its tokens. Any text can be encoded when every byte is a token. Ordinary
// text only: special tokens have been cut out before. Source: Sennrich et al., arXiv:1508.07909; bytes as in GPT-2.

import { OptionError } from '../base/errors.ts';
import { mergeSymbols, type MergeRules } from './merge.ts';
import { findPreTokenizer, GPT2_PRE_TOKENIZER } from './pre/pre-tokenizers.ts';
import type { TextCodec } from './text-codec.ts';
import { TOKEN_LENGTH_MAX, TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

/**
 * The character by which vocabularies write each byte: visible Latin-1 characters stand for themselves, the other bytes
 * in ascending order for U+0100 and up. The space becomes Ġ.
 */
export const BYTE_CHARS: readonly string[] = createByteChars();
const BYTE_OF_CHAR: ReadonlyMap<string, number> = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

function createByteChars(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isVisible = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(isVisible ? byte : next++);
  });
}

/** Bytes in the alphabet of vocabularies. */
export function spellBytes(bytes: Iterable<number>): string {
  return Array.from(bytes, (byte) => BYTE_CHARS[byte]!).join('');
}

/** Pieces longer than this rarely repeat; remembering them would cost more than merging them again. */
const KNOWN_PIECE_LENGTH_MAX = 64;
/** Bounds the memory for pieces that one text can claim. */
const KNOWN_PIECES_MAX = 2 ** 18;

/**
 * The codec of one vocabulary. Encoding takes O(n log n) for n bytes, whatever they are. A byte that is no token
 * becomes the unknown token, one for a run of them in a piece; without an unknown token encoding throws an OptionError,
 * where llama.cpp leaves the byte out. Without `preTokenizer` GPT-2's is used.
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for a pre-tokenizer that is not known here
 */
export function createBpe(vocabulary: Vocabulary, tokenTypes: ArrayLike<number>): TextCodec {
  const { tokens, unknownId } = vocabulary;
  const { cut, ignoresMerges } = findPreTokenizer(vocabulary.preTokenizer ?? GPT2_PRE_TOKENIZER);
  const { rules, idOf, textOf, idOfText } = createMergeTable(vocabulary, tokenTypes);
  const utf8 = new TextEncoder();

  /** A symbol that is no token ends as the tokens of its bytes. */
  const appendBytes = (text: string, ids: number[]): void => {
    for (const char of text) {
      const id = idOf(BYTE_OF_CHAR.get(char)!);
      if (id >= 0) ids.push(id);
      else if (unknownId === undefined) throw uncovered(BYTE_OF_CHAR.get(char)!);
      else if (ids.at(-1) !== unknownId) ids.push(unknownId);
    }
  };

  const encodePiece = (piece: string): number[] => {
    const bytes = utf8.encode(piece);
    const whole = ignoresMerges && bytes.length <= TOKEN_LENGTH_MAX ? idOfText(spellBytes(bytes)) : -1;
    if (whole >= 0) return [whole];
    const symbols = Int32Array.from(bytes);
    const count = mergeSymbols(symbols, rules);
    const ids: number[] = [];
    for (let i = 0; i < count; i++) {
      const id = idOf(symbols[i]!);
      if (id >= 0) ids.push(id);
      else appendBytes(textOf(symbols[i]!), ids);
    }
    return ids;
  };

  return {
    stripsLeadingSpace: false,
    encode(text, ids) {
      const known = new Map<string, number[]>();
      cut(text, (piece) => {
        let pieceIds = known.get(piece);
        if (!pieceIds) {
          pieceIds = encodePiece(piece);
          if (piece.length <= KNOWN_PIECE_LENGTH_MAX && known.size < KNOWN_PIECES_MAX) known.set(piece, pieceIds);
        }
        for (const id of pieceIds) ids.push(id);
      });
    },
    pieceBytes(id) {
      const text = tokens[id]!;
      return tokenTypes[id] === TOKEN_TYPE.normal || tokenTypes[id] === TOKEN_TYPE.unused
        ? bytesOf(text)
        : utf8.encode(text);
    },
  };
}

function uncovered(byte: number): OptionError {
  const name = byte < 0x80 ? JSON.stringify(String.fromCharCode(byte)) : `the byte 0x${byte.toString(16)} of UTF-8`;
  return new OptionError(
    `the text contains ${name}, which the vocabulary has no token for; leave such characters out, ` +
      'or use a vocabulary with an unknown token',
    { byte },
  );
}

/** The bytes that a token's text writes; a character outside the alphabet, which some files have, is UTF-8. */
function bytesOf(text: string): Uint8Array {
  const utf8 = new TextEncoder();
  return Uint8Array.from(Array.from(text).flatMap((char) => BYTE_OF_CHAR.get(char) ?? Array.from(utf8.encode(char))));
}

interface MergeTable {
  readonly rules: MergeRules;
  /** The token that a symbol is, or -1. */
  idOf(symbol: number): number;
  /** What a symbol writes, in BYTE_CHARS. */
  textOf(symbol: number): string;
  /** The token of that text, or -1. */
  idOfText(text: string): number;
}

/** A symbol is a byte, or 256 + the place in the list of the merge that made it. */
const FIRST_MERGED = 256;

/**
 * Two merges can make the same text, so pairs are looked up by the number of their texts: the id of a token, or a
 * number from nVocab up for a text that is none.
 */
function createMergeTable(vocabulary: Vocabulary, tokenTypes: ArrayLike<number>): MergeTable {
  const { tokens, merges = [] } = vocabulary;
  const nVocab = tokens.length;
  const texts = [...tokens];
  const numberOf = ordinaryTokens(tokens, tokenTypes);
  const numberText = (text: string): number => {
    let number = numberOf.get(text);
    if (number === undefined) numberOf.set(text, (number = texts.push(text) - 1));
    return number;
  };

  const numbers = new Int32Array(FIRST_MERGED + merges.length);
  for (const [byte, char] of BYTE_CHARS.entries()) numbers[byte] = numberText(char);
  const pairs: { left: number; right: number }[] = [];
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = splitMerge(merge);
    pairs.push({ left: numberText(left), right: numberText(right) });
    numbers[FIRST_MERGED + rank] = numberText(left + right);
  }
  const asId = (number: number): number => (number < nVocab ? number : -1);
  const stride = texts.length;
  const symbolOf = new Map<number, number>();
  for (const [rank, { left, right }] of pairs.entries()) {
    const pair = left * stride + right;
    if (!symbolOf.has(pair)) symbolOf.set(pair, FIRST_MERGED + rank);
  }
  return {
    rules: {
      join: (left, right) => symbolOf.get(numbers[left]! * stride + numbers[right]!) ?? -1,
      rankOf: (symbol) => symbol - FIRST_MERGED,
    },
    idOf: (symbol) => asId(numbers[symbol]!),
    textOf: (symbol) => texts[numbers[symbol]!]!,
    idOfText: (text) => asId(numberOf.get(text) ?? nVocab),
  };
}

/** Both sides of a merge, which are divided by its first space behind the first character (as llama.cpp has it). */
function splitMerge(merge: string): [string, string] {
  const space = merge.indexOf(' ', 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

/**
 * Ids by text of the tokens that ordinary text may become; of equal texts the lowest id. Without control and unknown
 * tokens: llama.cpp lets bytes merge into those too, so that text could forge a special token.
 */
function ordinaryTokens(tokens: readonly string[], tokenTypes: ArrayLike<number>): Map<string, number> {
  const ids = new Map<string, number>();
  for (const [id, text] of tokens.entries()) {
    const isReserved = tokenTypes[id] === TOKEN_TYPE.control || tokenTypes[id] === TOKEN_TYPE.unknown;
    if (!isReserved && !ids.has(text)) ids.set(text, id);
  }
  return ids;
}
