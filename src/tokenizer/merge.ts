// Merging of neighbours by rank: the heart of every BPE-like tokenizer. In: a row of symbols (small integers) and the
// rule that says what two of them make together. Out: the row when no rule applies any more. Knows no text.

import { MinHeap } from './min-heap.ts';

export interface MergeRules {
  /** The symbol that `left` followed by `right` becomes, or -1. */
  join(left: number, right: number): number;
  /** When a join that makes `symbol` happens: lower ranks first, equal ranks from left to right. Integer, 0..2^21. */
  rankOf(symbol: number): number;
}

/**
 * Merges `symbols` in place, best pair first, until no neighbours join. O(n log n) for n symbols (n < 2^31).
 * @returns how many symbols are left; they stand at the front of `symbols`
 */
export function mergeSymbols(symbols: Int32Array, rules: MergeRules): number {
  const n = symbols.length;
  const previous = new Int32Array(n);
  const next = new Int32Array(n);
  /** What symbol i and the one after it would become, or -1; -1 also for a symbol that was merged away. */
  const joined = new Int32Array(n);
  // Every merge takes one entry and offers two, so the queue never holds more than twice the symbols.
  const queue = new MinHeap(2 * n);

  const offer = (i: number): void => {
    const right = next[i]!;
    const symbol = right < n ? rules.join(symbols[i]!, symbols[right]!) : -1;
    joined[i] = symbol;
    if (symbol >= 0) queue.push(rules.rankOf(symbol) * n + i);
  };

  for (let i = 0; i < n; i++) {
    previous[i] = i - 1;
    next[i] = i + 1;
  }
  for (let i = 0; i < n; i++) offer(i);

  while (queue.size > 0) {
    const key = queue.pop();
    const i = key % n;
    const symbol = joined[i]!;
    // An entry goes stale when either neighbour has changed since. One that matches again is as good as new.
    if (symbol < 0 || rules.rankOf(symbol) * n + i !== key) continue;
    const right = next[i]!;
    const after = next[right]!;
    symbols[i] = symbol;
    joined[right] = -1;
    next[i] = after;
    if (after < n) previous[after] = i;
    if (i > 0) offer(previous[i]!);
    offer(i);
  }

  let count = 0;
  for (let i = 0; i < n; i = next[i]!) symbols[count++] = symbols[i]!;
  return count;
}
