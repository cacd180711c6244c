// Stop strings: text goes in piece by piece, and comes out up to where the first of them is complete, without it. What
// may be the beginning of one is held back until it is known. All strings are followed at once, one code unit at a time
// (Knuth, Morris and Pratt 1977), so that the time is linear and the boundaries of pieces mean nothing.

export class StopStrings {
  readonly #strings: readonly string[];
  readonly #fallbacks: readonly Int32Array[];
  /** Of each string: how many of its code units the text so far ends with, at most. */
  readonly #nMatched: Int32Array;
  #held = '';
  #match: string | undefined;

  /** @param strings  none empty, all well-formed: then no piece ends within a character */
  constructor(strings: readonly string[]) {
    this.#strings = strings;
    this.#fallbacks = strings.map(computeFallbacks);
    this.#nMatched = new Int32Array(strings.length);
  }

  /** The string that has ended the text; of several that end at the same place, the longest. */
  get match(): string | undefined {
    return this.#match;
  }

  /** The text that is certain after one more piece; '' after a match. */
  push(piece: string): string {
    if (this.#strings.length === 0) return piece;
    if (this.#match !== undefined) return '';
    const text = this.#held + piece;
    for (let i = 0; i < piece.length; i++) {
      this.#match = this.#follow(piece.charCodeAt(i));
      if (this.#match === undefined) continue;
      const end = this.#held.length + i + 1;
      this.#held = '';
      return text.slice(0, end - this.#match.length);
    }
    const nCertain = text.length - Math.max(...this.#nMatched);
    this.#held = text.slice(nCertain);
    return text.slice(0, nCertain);
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    this.#nMatched.fill(0);
    return rest;
  }

  /** Takes every string one code unit further. @returns the longest that it completes */
  #follow(unit: number): string | undefined {
    let match: string | undefined;
    for (const [i, string] of this.#strings.entries()) {
      let n = this.#nMatched[i]!;
      while (n > 0 && string.charCodeAt(n) !== unit) n = this.#fallbacks[i]![n - 1]!;
      if (string.charCodeAt(n) === unit) n++;
      this.#nMatched[i] = n;
      if (n === string.length && n > (match?.length ?? 0)) match = string;
    }
    return match;
  }
}

/** For each beginning of `string`: the length of its longest proper beginning that it also ends with. */
function computeFallbacks(string: string): Int32Array {
  const fallbacks = new Int32Array(string.length);
  for (let i = 1, n = 0; i < string.length; i++) {
    while (n > 0 && string[i] !== string[n]) n = fallbacks[n - 1]!;
    if (string[i] === string[n]) n++;
    fallbacks[i] = n;
  }
  return fallbacks;
}
