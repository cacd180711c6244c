// Cuts a text at the special tokens that are spelled out in it, before any algorithm sees the rest. Overlaps resolve
// as in llama.cpp: the longest token anywhere in the text goes first, then the lowest id, then the leftmost place.
// (Length in UTF-16 units; llama.cpp counts UTF-8 bytes and leaves the order of equally long tokens open.)
// A token may take the white space beside it, as far as nothing else has its place there.

import { MinHeap } from './min-heap.ts';
import type { SpaceTakers } from './token-attributes.ts';

interface Special {
  readonly id: number;
  readonly text: string;
  /** Place in the order of precedence; 0 goes first. */
  readonly order: number;
  /** The longest other special token that this one begins with. */
  readonly shorter: Special | undefined;
}

const NO_SPACE_TAKERS: SpaceTakers = { takesLeft: () => false, takesRight: () => false };

const isSpace = (unit: string | undefined): boolean => unit !== undefined && /^[ \t-\r]$/.test(unit);

/** A tree over UTF-16 units; `special` is the token that ends at the node. */
interface TrieNode {
  readonly children: Map<number, TrieNode>;
  special: Special | undefined;
}

/** Finds special tokens in text; made once a vocabulary and selection of ids. Ids without text never match. */
export class SpecialTokens {
  readonly #byOrder: Special[] = [];
  readonly #root: TrieNode = { children: new Map(), special: undefined };
  readonly #takers: SpaceTakers;

  /** @param tokens  all texts of the vocabulary; `ids` selects those to look for */
  constructor(tokens: readonly string[], ids: readonly number[], takers = NO_SPACE_TAKERS) {
    this.#takers = takers;
    const texts = new Map<string, number>();
    for (const id of ids) {
      const text = tokens[id]!;
      if (text !== '' && !texts.has(text)) texts.set(text, id);
    }
    const shortestFirst = [...texts].sort(([a, aId], [b, bId]) => a.length - b.length || bId - aId);
    // Shortest first, so that the tokens which a token begins with are in the tree when it comes.
    for (const [i, [text, id]] of shortestFirst.entries()) this.#add(text, id, texts.size - 1 - i);
  }

  /**
   * Cuts `text` into what is ordinary (strings, never empty) and the ids of special tokens, in order.
   * O(n) for n UTF-16 units and tokens of bounded length, plus O(m log m) for m places where one could be.
   * @param mark  a character, in no token, behind which none begins: see `shield`
   */
  split(text: string, mark?: string): (string | number)[] {
    const candidates = this.#findLongest(text).filter(({ start }) => mark === undefined || text[start - 1] !== mark);
    if (candidates.length === 0) return text === '' ? [] : [text];
    const parts: (string | number)[] = [];
    let last = 0;
    for (const { start, end, special } of this.#resolve(text, candidates)) {
      if (start > last) parts.push(text.slice(last, start));
      parts.push(special.id);
      last = end;
    }
    if (last < text.length) parts.push(text.slice(last));
    return parts;
  }

  /**
   * Foreign text that is to stay text, whatever stands before and behind it: with `mark` before each place where a
   * token begins, or would if the text went on, and at the start where it could end or be part of one begun before it.
   */
  shield(text: string, mark: string): string {
    let shielded = '';
    let end = 0;
    for (let start = 0; start < text.length; start++) {
      if (!this.#begins(text, start) && !(start === 0 && this.#ends(text))) continue;
      shielded += text.slice(end, start) + mark;
      end = start;
    }
    return shielded + text.slice(end);
  }

  /** Whether a token begins at `start`, or one that is longer than the text. */
  #begins(text: string, start: number): boolean {
    let node: TrieNode | undefined = this.#root;
    for (let i = start; i < text.length; i++) {
      node = node.children.get(text.charCodeAt(i));
      if (!node || node.special) return node !== undefined;
    }
    return true;
  }

  /** Whether the text begins with what a token ends with, or lies within one. */
  #ends(text: string): boolean {
    return this.#byOrder.some(({ text: token }) => {
      for (let i = 1; i < token.length; i++) {
        if (text.startsWith(token.slice(i)) || token.startsWith(text, i)) return true;
      }
      return false;
    });
  }

  #add(text: string, id: number, order: number): void {
    let node = this.#root;
    let shorter: Special | undefined;
    for (let i = 0; i < text.length; i++) {
      shorter = node.special ?? shorter;
      const unit = text.charCodeAt(i);
      let child = node.children.get(unit);
      if (!child) node.children.set(unit, (child = { children: new Map(), special: undefined }));
      node = child;
    }
    node.special = { id, text, order, shorter };
    this.#byOrder[order] = node.special;
  }

  /** Every place where a special token begins, with the longest one there. */
  #findLongest(text: string): Match[] {
    const matches: Match[] = [];
    if (this.#root.children.size === 0) return matches;
    for (let start = 0; start < text.length; start++) {
      let special: Special | undefined;
      let node = this.#root.children.get(text.charCodeAt(start));
      for (let i = start + 1; node; i++) {
        special = node.special ?? special;
        node = i < text.length ? node.children.get(text.charCodeAt(i)) : undefined;
      }
      if (special) matches.push({ start, special });
    }
    return matches;
  }

  /** The places that stand after each, best first, took its own; one that no longer fits makes way for a shorter. */
  #resolve(text: string, candidates: readonly Match[]): Place[] {
    const { length } = text;
    const taken = new Uint8Array(length);
    const queue = new MinHeap(candidates.length);
    for (const { start, special } of candidates) queue.push(special.order * length + start);
    const places: Place[] = [];
    while (queue.size > 0) {
      const key = queue.pop();
      const start = key % length;
      if (taken[start]) continue;
      const special = this.#byOrder[(key - start) / length]!;
      // What is taken is at least as long, or beside what is, so it cannot lie inside: looking at both ends is enough.
      let fitting: Special | undefined = special;
      while (fitting && taken[start + fitting.text.length - 1]) fitting = fitting.shorter;
      if (fitting === special) {
        const place = this.#placeOf(text, start, special, taken);
        taken.fill(1, place.start, place.end);
        places.push(place);
      } else if (fitting) {
        queue.push(fitting.order * length + start);
      }
    }
    return places.sort((a, b) => a.start - b.start);
  }

  /** With the white space that the token takes. */
  #placeOf(text: string, at: number, special: Special, taken: Uint8Array): Place {
    let [start, end] = [at, at + special.text.length];
    if (this.#takers.takesLeft(special.text)) while (!taken[start - 1] && isSpace(text[start - 1])) start--;
    if (this.#takers.takesRight(special.text)) while (!taken[end] && isSpace(text[end])) end++;
    return { start, end, special };
  }
}

interface Match {
  readonly start: number;
  readonly special: Special;
}

/** What of the text becomes the token. */
interface Place extends Match {
  readonly end: number;
}
