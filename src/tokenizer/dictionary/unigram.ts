// Unigram ("t5" in GGUF): of all ways to cut the normalised text into tokens, the one with the highest sum of scores,
// which are logarithms of probabilities. A character that no token covers becomes its bytes or the unknown token.
// Source: Kudo, arXiv:1804.10959.

import { createFallback, mergeableTokens, SPACE, spellPiece } from '../spm.ts';
import type { TextCodec } from '../text-codec.ts';
import { TOKEN_TYPE, type Vocabulary } from '../vocabulary.ts';
import { createCharsmap } from './charsmap.ts';
import { ROOT, Trie } from './trie.ts';

/** How far below the least likely token a character stands that no token covers, as in SentencePiece. */
const UNCOVERED_PENALTY = 10;

/**
 * The codec of one vocabulary. Encoding takes O(n) for n characters and tokens of bounded length. What was encoded
 * comes back as far as the normalisation leaves it.
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER when neither byte tokens nor an unknown token can catch a character
 * @throws {GgufError} GGUF_INVALID for damaged rules of normalisation
 */
export function createUnigram(vocabulary: Vocabulary, tokenTypes: ArrayLike<number>): TextCodec {
  const { tokens, addSpacePrefix, removeExtraWhitespaces = false, precompiledCharsmap } = vocabulary;
  const trie = new Trie(mergeableTokens(tokens, tokenTypes));
  const { scores, uncoveredScore } = scoresOf(vocabulary, tokenTypes);
  const appendUncovered = createFallback(vocabulary, tokenTypes);
  const applyRules = precompiledCharsmap ? createCharsmap(precompiledCharsmap) : String;

  /** With U+2581 for spaces: one before each word, or one before the text where the others stay as they are. */
  const normalise = (text: string): string => {
    const plain = applyRules(text);
    if (removeExtraWhitespaces)
      return plain
        .split(/ +/)
        .map((word) => (word === '' ? '' : SPACE + word))
        .join('');
    return (addSpacePrefix ? plain.replace(/[^ ]/, ' $&') : plain).replaceAll(' ', SPACE);
  };

  return {
    stripsLeadingSpace: addSpacePrefix || removeExtraWhitespaces,
    encode(text, ids) {
      const normalised = normalise(text);
      const path = findBestPath(normalised, trie, scores, uncoveredScore);
      let afterUncovered = false;
      for (const { start, id } of path) {
        if (id >= 0) ids.push(id);
        else appendUncovered(normalised.codePointAt(start)!, afterUncovered, ids);
        afterUncovered = id < 0;
      }
    },
    pieceBytes: (id) => spellPiece(tokens[id]!, tokenTypes[id]!),
  };
}

interface Step {
  readonly start: number;
  /** -1 for a character that no token covers. */
  readonly id: number;
}

/** The tokens with the best sum of scores; of equally good ones, those that begin earlier and so are longer. */
function findBestPath(text: string, trie: Trie, scores: Float64Array, uncoveredScore: number): Step[] {
  const best = new Float64Array(text.length + 1).fill(-Infinity);
  const starts = new Int32Array(text.length + 1);
  const ids = new Int32Array(text.length + 1);
  best[0] = 0;
  const offer = (start: number, end: number, id: number, score: number): void => {
    if (best[start]! + score <= best[end]!) return;
    best[end] = best[start]! + score;
    starts[end] = start;
    ids[end] = id;
  };
  for (let start = 0, next = 0; start < text.length; start = next) {
    next = start + (text.codePointAt(start)! > 0xffff ? 2 : 1);
    let covered = false;
    let node = trie.child(ROOT, text.charCodeAt(start));
    for (let end = start + 1; node >= 0; end++) {
      const id = trie.idAt(node);
      if (id >= 0) {
        offer(start, end, id, scores[id]!);
        covered ||= end === next;
      }
      node = end < text.length ? trie.child(node, text.charCodeAt(end)) : -1;
    }
    if (!covered) offer(start, next, -1, uncoveredScore);
  }
  const path: Step[] = [];
  for (let end = text.length; end > 0; end = starts[end]!) path.push({ start: starts[end]!, id: ids[end]! });
  return path.reverse();
}

/** Scores of all tokens, where user-defined ones cost nothing, and of a character that none covers. */
function scoresOf({ tokens, scores }: Vocabulary, tokenTypes: ArrayLike<number>) {
  const all = Float64Array.from(tokens, (_, id) =>
    tokenTypes[id] === TOKEN_TYPE.userDefined ? 0 : (scores?.[id] ?? 0),
  );
  const least = all.reduce((min, score, id) => (tokenTypes[id] === TOKEN_TYPE.normal ? Math.min(min, score) : min), 0);
  return { scores: all, uncoveredScore: Math.fround(least - UNCOVERED_PENALTY) };
}
