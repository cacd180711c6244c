// SentencePiece BPE ("llama" in GGUF), the algorithm of llama.cpp's SPM tokenizer: characters merge into tokens, best
// score first; a character that no token covers becomes its UTF-8 bytes. Ordinary text only: special tokens have been
// cut out before, BOS and EOS are added after.

import { UnsupportedError } from '../base/errors.ts';
import { mergeSymbols, type MergeRules } from './merge.ts';
import type { TextCodec } from './text-codec.ts';
import { byteOf, TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

/** How SentencePiece writes a space inside tokens. */
export const SPACE = '\u2581';

/** Bounds the memory that pairs can claim, to some 10 MB. */
const KNOWN_PAIRS_MAX = 2 ** 18;

/**
 * The codec of one vocabulary. Encoding takes O(n log n) for n characters, whatever they are.
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER when neither byte tokens nor an unknown token can catch a character
 */
export function createSpm(vocabulary: Vocabulary, tokenTypes: ArrayLike<number>): TextCodec {
  const { tokens, addSpacePrefix } = vocabulary;
  const nVocab = tokens.length;
  const idOf = mergeableTokens(tokens, tokenTypes);
  const idOfChar = singleCharacters(idOf);
  const ranks = rankByScore(vocabulary);
  const appendUncovered = createFallback(vocabulary, tokenTypes);

  // A symbol is a token's id, or nVocab + code point for a character that is no token by itself.
  const textOf = (symbol: number): string =>
    symbol < nVocab ? tokens[symbol]! : String.fromCodePoint(symbol - nVocab);

  // Few distinct pairs make up most of a text; remembering them saves building and hashing their strings. They are kept
  // from one call to the next, because user-defined tokens like Gemma's line ends cut a text into thousands of parts.
  const known = new Map<number, number>();
  const stride = nVocab + 0x110000;
  const rules: MergeRules = {
    join(left, right) {
      const pair = left * stride + right;
      let symbol = known.get(pair);
      if (symbol === undefined) {
        symbol = idOf.get(textOf(left) + textOf(right)) ?? -1;
        if (known.size === KNOWN_PAIRS_MAX) known.clear();
        known.set(pair, symbol);
      }
      return symbol;
    },
    rankOf: (symbol) => ranks[symbol]!,
  };

  return {
    stripsLeadingSpace: addSpacePrefix,
    encode(text, ids) {
      const escaped = (addSpacePrefix ? ' ' + text : text).replaceAll(' ', SPACE);
      const symbols = new Int32Array(escaped.length);
      let n = 0;
      for (const char of escaped) {
        const codePoint = char.codePointAt(0)!;
        symbols[n++] = idOfChar.get(codePoint) ?? nVocab + codePoint;
      }
      const row = symbols.subarray(0, n);
      const count = mergeSymbols(row, rules);
      for (let i = 0; i < count; i++) {
        const symbol = row[i]!;
        if (symbol < nVocab) ids.push(symbol);
        else appendUncovered(symbol - nVocab, i > 0 && row[i - 1]! >= nVocab, ids);
      }
    },
    pieceBytes: (id) => spellPiece(tokens[id]!, tokenTypes[id]!),
  };
}

/** What a token of a vocabulary that writes spaces as U+2581 stands for. */
export function spellPiece(text: string, type: number): Uint8Array {
  if (type === TOKEN_TYPE.byte) {
    const byte = byteOf(text);
    if (byte !== undefined) return Uint8Array.of(byte);
  }
  const isLiteral = type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown || type === TOKEN_TYPE.userDefined;
  return new TextEncoder().encode(isLiteral ? text : text.replaceAll(SPACE, ' '));
}

/**
 * Ids by text of the tokens that ordinary text may become; of equal texts the lowest id. Without the control, unknown
 * and byte tokens: llama.cpp lets characters merge into those too, so that text could forge a special token.
 */
export function mergeableTokens(tokens: readonly string[], tokenTypes: ArrayLike<number>): Map<string, number> {
  const ids = new Map<string, number>();
  for (const [id, text] of tokens.entries()) {
    const type = tokenTypes[id];
    const isReserved = type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown || type === TOKEN_TYPE.byte;
    if (!isReserved && !ids.has(text)) ids.set(text, id);
  }
  return ids;
}

/** Ids by code point of the tokens that are a single character. */
function singleCharacters(idOf: ReadonlyMap<string, number>): Map<number, number> {
  const ids = new Map<number, number>();
  for (const [text, id] of idOf) {
    const codePoint = text.codePointAt(0);
    if (codePoint !== undefined && text.length === (codePoint > 0xffff ? 2 : 1)) ids.set(codePoint, id);
  }
  return ids;
}

/** Rank of each token: 0 for the highest score, equal for equal scores. Without scores all are equal. */
function rankByScore({ tokens, scores }: Vocabulary): Int32Array {
  const ranks = new Int32Array(tokens.length);
  if (!scores) return ranks;
  const bestFirst = Float64Array.from(new Set(scores)).sort().reverse();
  const rankOf = new Map<number, number>();
  for (const [rank, score] of bestFirst.entries()) rankOf.set(score, rank);
  for (let id = 0; id < ranks.length; id++) ranks[id] = rankOf.get(scores[id]!)!;
  return ranks;
}

type Fallback = (codePoint: number, afterUncovered: boolean, ids: number[]) => void;

/**
 * What becomes of a character that no token covers: its bytes if the vocabulary has all 256 of them, otherwise the
 * unknown token, one for a whole run of such characters (as SentencePiece does; llama.cpp fails there).
 */
export function createFallback({ tokens, unknownId }: Vocabulary, tokenTypes: ArrayLike<number>): Fallback {
  const byteIds: number[] = [];
  for (const [id, text] of tokens.entries()) {
    const byte = tokenTypes[id] === TOKEN_TYPE.byte ? byteOf(text) : undefined;
    if (byte !== undefined) byteIds[byte] ??= id;
  }
  if (Object.keys(byteIds).length === 256) {
    const utf8 = new TextEncoder();
    return (codePoint, _afterUncovered, ids) => {
      for (const byte of utf8.encode(String.fromCodePoint(codePoint))) ids.push(byteIds[byte]!);
    };
  }
  if (unknownId === undefined) {
    throw new UnsupportedError(
      'UNSUPPORTED_TOKENIZER',
      'the vocabulary has neither the byte tokens <0x00> to <0xFF> nor an unknown token; it needs one of them',
    );
  }
  return (_codePoint, afterUncovered, ids) => {
    if (!afterUncovered) ids.push(unknownId);
  };
}
