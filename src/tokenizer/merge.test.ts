// Merging against the definition of it: look at all neighbours, join the best pair, begin again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { mergeSymbols, type MergeRules } from './merge.ts';
import { MinHeap } from './min-heap.ts';

test('the heap gives back its keys in ascending order, equal ones as often as they went in', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 200 }), (keys) => {
      const heap = new MinHeap(keys.length);
      for (const key of keys) heap.push(key);
      const popped: number[] = [];
      while (heap.size > 0) popped.push(heap.pop());
      assert.deepEqual(
        popped,
        keys.toSorted((a, b) => a - b),
      );
    }),
    { seed: 1 },
  );
});

function mergeByDefinition(symbols: readonly number[], rules: MergeRules): number[] {
  const row = [...symbols];
  for (;;) {
    let best = -1;
    let bestSymbol = -1;
    for (let i = 0; i + 1 < row.length; i++) {
      const symbol = rules.join(row[i]!, row[i + 1]!);
      if (symbol >= 0 && (best < 0 || rules.rankOf(symbol) < rules.rankOf(bestSymbol))) {
        best = i;
        bestSymbol = symbol;
      }
    }
    if (best < 0) return row;
    row.splice(best, 2, bestSymbol);
  }
}

/** Rules over texts of a and b: symbol i stands for texts[i]; ranks repeat, so that ties happen. */
const textRules = fc
  .uniqueArray(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 2, maxLength: 4 }), { maxLength: 25 })
  .chain((longer) => {
    const texts = ['a', 'b', ...longer];
    const rank = fc.integer({ min: 0, max: 12 });
    return fc.array(rank, { minLength: texts.length, maxLength: texts.length }).map((ranks): MergeRules => ({
      join: (left, right) => texts.indexOf(texts[left]! + texts[right]!),
      rankOf: (symbol) => ranks[symbol]!,
    }));
  });

test('merging with a queue gives what joining the best pair again and again gives', () => {
  fc.assert(
    fc.property(textRules, fc.array(fc.constantFrom(0, 1), { maxLength: 40 }), (rules, symbols) => {
      const row = Int32Array.from(symbols);
      const count = mergeSymbols(row, rules);
      assert.deepEqual([...row.subarray(0, count)], mergeByDefinition(symbols, rules));
    }),
    { seed: 2, numRuns: 1000 },
  );
});
