// Learns a byte-level BPE vocabulary from text: counts the pieces that the pre-tokenizer cuts, then joins the most
// frequent pair of neighbours again and again. Counts are kept up to date where a merge changes them, so a merge costs
// what it touches. No randomness: the same text gives the same vocabulary. Source: Sennrich et al., arXiv:1508.07909.

import { OptionError } from '../base/errors.ts';
import { BYTE_CHARS, spellBytes } from './bpe.ts';
import { findPreTokenizer, GPT2_PRE_TOKENIZER } from './pre/pre-tokenizers.ts';
import { SpecialTokens } from './special-tokens.ts';
import { TOKEN_LENGTH_MAX, TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

export interface BpeTrainingOptions {
  /** Tokens wanted, the special ones and the 256 bytes included. There are fewer when the text runs out of pairs. */
  vocabSize: number;
  /** Pairs that occur less often are not merged. Default 2. */
  minFrequency?: number;
  /** Texts that become tokens of their own, first in the vocabulary; the training text is cut at them. Default none. */
  specialTokens?: readonly string[];
  /** As in `tokenizer.ggml.pre`. Default `gpt-2`. */
  preTokenizer?: string;
}

export interface TrainedBpe {
  /** Special tokens, then the bytes (visible characters first, as GPT-2 has them), then what was learnt. */
  readonly tokens: readonly string[];
  /** "left right", first learnt first. */
  readonly merges: readonly string[];
  readonly specialTokens: readonly string[];
  readonly preTokenizer: string;
}

/**
 * Of equally frequent pairs the one that is greater as bytes is merged first: the left token decides, then the right.
 * @param text  one text or several; nothing merges across the border of two
 * @throws {OptionError} for options out of range, a special token that is empty, given twice or a single character
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for a pre-tokenizer that is not known here
 */
export function trainBpe(text: string | Iterable<string>, options: BpeTrainingOptions): TrainedBpe {
  const { vocabSize, minFrequency = 2, specialTokens = [], preTokenizer = GPT2_PRE_TOKENIZER } = options;
  checkOptions(vocabSize, minFrequency, specialTokens);
  const pieces = countPieces(typeof text === 'string' ? [text] : text, specialTokens, preTokenizer);
  const learner = new MergeLearner(pieces, vocabSize);

  const byteOrder = Array.from(BYTE_CHARS.keys()).sort((a, b) => (BYTE_CHARS[a]! < BYTE_CHARS[b]! ? -1 : 1));
  const tokens = [...specialTokens, ...byteOrder.map((byte) => BYTE_CHARS[byte]!)];
  const merges: string[] = [];
  while (tokens.length < vocabSize) {
    const pair = learner.takeBest(minFrequency);
    if (!pair) break;
    const left = learner.spell(pair.left);
    const right = learner.spell(pair.right);
    merges.push(`${left} ${right}`);
    // A special token that is spelled in the same way keeps its place to itself.
    if (!specialTokens.includes(left + right)) tokens.push(left + right);
  }
  return { tokens, merges, specialTokens, preTokenizer };
}

function checkOptions(vocabSize: number, minFrequency: number, specialTokens: readonly string[]): void {
  const min = 256 + specialTokens.length;
  if (!Number.isInteger(vocabSize) || vocabSize < min || vocabSize > 2 ** 24) {
    throw new OptionError(
      `"vocabSize" expected an integer from ${min} (bytes and special tokens) to ${2 ** 24}, got ${vocabSize}`,
      { option: 'vocabSize' },
    );
  }
  if (!Number.isInteger(minFrequency) || minFrequency < 1) {
    throw new OptionError(`"minFrequency" expected an integer of at least 1, got ${minFrequency}`, {
      option: 'minFrequency',
    });
  }
  const bad = specialTokens.find((token, i) => specialTokens.indexOf(token) < i || Array.from(token).length < 2);
  if (bad !== undefined) {
    throw new OptionError(
      `"specialTokens" expected distinct texts of at least 2 characters, got ${JSON.stringify(bad)}`,
      {
        option: 'specialTokens',
      },
    );
  }
}

/** How often each piece occurs. */
function countPieces(texts: Iterable<string>, specialTokens: readonly string[], name: string): Map<string, number> {
  const { cut } = findPreTokenizer(name);
  const special = new SpecialTokens(specialTokens, [...specialTokens.keys()]);
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const part of special.split(text.toWellFormed())) {
      if (typeof part === 'number') continue;
      cut(part, (piece) => void counts.set(piece, (counts.get(piece) ?? 0) + 1));
    }
  }
  return counts;
}

interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Words that the pair is in, or was before another merge took it away; ascending. */
  readonly words: number[];
}

/** A place in the queue: what the pair's count was when it was put there. */
interface Candidate {
  readonly pair: Pair;
  readonly count: number;
}

/** The words of a text as rows of symbols, the counts of all neighbours, and the merging of the most frequent. */
class MergeLearner {
  /** What each symbol stands for, a character (U+0000 to U+00FF) a byte, so that comparing strings compares bytes. */
  readonly #bytes: string[] = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
  /** Each word's symbols, merged in place; a word grows shorter and its subarray with it. */
  readonly #words: Int32Array[] = [];
  readonly #counts: number[] = [];
  readonly #pairs = new Map<number, Pair>();
  readonly #stride: number;
  readonly #queue: CandidateQueue;

  constructor(pieces: ReadonlyMap<string, number>, vocabSize: number) {
    // No more symbols than bytes and learnt tokens.
    this.#stride = vocabSize + 256;
    this.#queue = new CandidateQueue(this.#bytes);
    const utf8 = new TextEncoder();
    for (const [piece, count] of pieces) {
      const symbols = Int32Array.from(utf8.encode(piece));
      const word = this.#words.push(symbols) - 1;
      this.#counts.push(count);
      for (let i = 0; i + 1 < symbols.length; i++) this.#change(symbols[i]!, symbols[i + 1]!, count, word);
    }
    for (const pair of this.#pairs.values()) this.#queue.push({ pair, count: pair.count });
  }

  /** Merges the most frequent pair everywhere and returns it; undefined when none occurs `minFrequency` times. */
  takeBest(minFrequency: number): Pair | undefined {
    for (;;) {
      const best = this.#queue.pop();
      if (!best || best.count < minFrequency) return undefined;
      const { pair, count } = best;
      // A pair is queued when it is new, and its count only falls from then on: what comes out has it or had more.
      if (pair.count < count) {
        if (pair.count > 0) this.#queue.push({ pair, count: pair.count });
      } else if (this.#bytes[pair.left]!.length + this.#bytes[pair.right]!.length <= TOKEN_LENGTH_MAX) {
        this.#merge(pair);
        return pair;
      }
    }
  }

  /** The symbol in the alphabet that vocabularies are written in. */
  spell(symbol: number): string {
    return spellBytes(Array.from(this.#bytes[symbol]!, (char) => char.charCodeAt(0)));
  }

  /** No other merge makes the same token: what becomes a token merged the same way wherever it stands. */
  #merge(pair: Pair): void {
    const merged = this.#bytes.push(this.#bytes[pair.left]! + this.#bytes[pair.right]!) - 1;
    const made = new Set<Pair>();
    for (const word of pair.words) this.#mergeWord(word, pair, merged, made);
    for (const each of made) this.#queue.push({ pair: each, count: each.count });
  }

  /** Merges from left to right, keeping all counts exact after every single merge. */
  #mergeWord(word: number, { left, right }: Pair, merged: number, made: Set<Pair>): void {
    const symbols = this.#words[word]!;
    const count = this.#counts[word]!;
    let n = 0;
    for (let i = 0; i < symbols.length; i++) {
      if (symbols[i] !== left || symbols[i + 1] !== right) {
        symbols[n++] = symbols[i]!;
        continue;
      }
      this.#change(left, right, -count, word);
      if (n > 0) {
        this.#change(symbols[n - 1]!, left, -count, word);
        made.add(this.#change(symbols[n - 1]!, merged, count, word));
      }
      if (i + 2 < symbols.length) {
        this.#change(right, symbols[i + 2]!, -count, word);
        made.add(this.#change(merged, symbols[i + 2]!, count, word));
      }
      symbols[n++] = merged;
      i++;
    }
    this.#words[word] = symbols.subarray(0, n);
  }

  #change(left: number, right: number, change: number, word: number): Pair {
    const key = left * this.#stride + right;
    let pair = this.#pairs.get(key);
    if (!pair) this.#pairs.set(key, (pair = { left, right, count: 0, words: [] }));
    pair.count += change;
    if (change > 0 && pair.words.at(-1) !== word) pair.words.push(word);
    return pair;
  }
}

/** A binary heap that gives the highest count first; of equals the greater left, then right, as bytes. */
class CandidateQueue {
  readonly #heap: Candidate[] = [];
  readonly #bytes: readonly string[];

  constructor(bytes: readonly string[]) {
    this.#bytes = bytes;
  }

  push(candidate: Candidate): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(candidate);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#goesBefore(candidate, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = candidate;
  }

  pop(): Candidate | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (!last || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#goesBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!this.#goesBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }

  #goesBefore(a: Candidate, b: Candidate): boolean {
    if (a.count !== b.count) return a.count > b.count;
    if (a.pair.left !== b.pair.left) return this.#bytes[a.pair.left]! > this.#bytes[b.pair.left]!;
    return this.#bytes[a.pair.right]! > this.#bytes[b.pair.right]!;
  }
}

export interface BpeVocabularyOptions {
  /** The special token that is BOS and EOS, as GPT-2's end of text is. Default the first, or none without any. */
  endOfText?: string;
  /** Whether encoding puts `endOfText` first. Default false. */
  addBos?: boolean;
}

/**
 * What `createTokenizer` and `vocabularyEntries` take.
 * @throws {OptionError} for an end of text that is no special token, or `addBos` without one
 */
export function vocabularyOfBpe(bpe: TrainedBpe, options: BpeVocabularyOptions = {}): Vocabulary {
  const { tokens, merges, specialTokens, preTokenizer } = bpe;
  const { endOfText = specialTokens[0], addBos = false } = options;
  const id = endOfText === undefined ? undefined : specialTokens.indexOf(endOfText);
  if (id === -1 || (addBos && id === undefined)) {
    throw new OptionError(
      `"endOfText" expected one of the special tokens (${specialTokens.join(', ') || 'there are none'}), ` +
        `got ${endOfText ?? 'none'}; give it to the training as well`,
      { option: 'endOfText' },
    );
  }
  return {
    model: 'gpt2',
    preTokenizer,
    tokens,
    merges,
    tokenTypes: tokens.map((_, i) => (i < specialTokens.length ? TOKEN_TYPE.control : TOKEN_TYPE.normal)),
    bosId: id,
    eosId: id,
    addBos,
    addEos: false,
    addSpacePrefix: false,
  };
}
