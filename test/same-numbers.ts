// Equality of many numbers, told by the first that differs: node's own deepEqual works out a whole difference, which
// for arrays of some thousands takes minutes and gigabytes.

import assert from 'node:assert/strict';

export type Numbers = ArrayLike<number> | readonly Numbers[];

/** @throws {AssertionError} unless both have the same numbers (NaN is NaN, and 0 is not −0) in the same nesting */
export function assertSameNumbers(actual: Numbers, expected: Numbers, where = ''): void {
  assert.equal(actual.length, expected.length, `${where}: different lengths`);
  for (let i = 0; i < expected.length; i++) {
    const [got, wanted] = [actual[i]!, expected[i]!];
    if (typeof got !== 'number' && typeof wanted !== 'number') assertSameNumbers(got, wanted, `${where}[${i}]`);
    else if (!Object.is(got, wanted)) assert.fail(`${where}[${i}] expected ${String(wanted)}, got ${String(got)}`);
  }
}
