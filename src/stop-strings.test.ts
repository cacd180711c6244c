// Stop strings: the text ends where the first of them is complete, however it is cut into pieces; nothing that may
// still become one is given out, and nothing else is held back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StopStrings } from './stop-strings.ts';
import { threadMs } from '../test/thread-time.ts';

interface Outcome {
  /** What came out for each piece, and at the end. */
  readonly given: readonly string[];
  readonly match: string | undefined;
}

function feed(strings: readonly string[], pieces: readonly string[]): Outcome {
  const stops = new StopStrings(strings);
  const given = pieces.map((piece) => stops.push(piece));
  return { given: [...given, stops.flush()], match: stops.match };
}

test('without strings every piece is given out as it comes', () => {
  assert.deepEqual(feed([], ['a', 'bc', '']), { given: ['a', 'bc', '', ''], match: undefined });
});

test('a string that comes in pieces ends the text, and no part of it is given out', () => {
  assert.deepEqual(feed(['STOP'], ['one S', 'T', 'O', 'P two', ' three']), {
    given: ['one ', '', '', '', '', ''],
    match: 'STOP',
  });
});

test('what was held back is given out as soon as it is no beginning, or at the end', () => {
  assert.deepEqual(feed(['STOP'], ['S', 'TA', 'STO']).given, ['', 'STA', '', 'STO']);
});

test('the longest beginning counts, also when it begins anew within itself', () => {
  assert.deepEqual(feed(['aab'], ['a', 'a', 'a', 'b']), { given: ['', '', 'a', '', ''], match: 'aab' });
  assert.deepEqual(feed(['abcab!'], ['abcabcab', '!']), { given: ['abc', '', ''], match: 'abcab!' });
});

test('of several strings the first to be complete ends the text; of two at once, the longer', () => {
  assert.deepEqual(feed(['abcd', 'bc'], ['xabcd']), { given: ['xa', ''], match: 'bc' });
  assert.deepEqual(feed(['d', 'bcd', 'cd'], ['abcd']), { given: ['a', ''], match: 'bcd' });
});

/** The definition: the earliest end, and of those that end there the longest. */
function expected(strings: readonly string[], text: string): { text: string; match: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const complete = strings.filter((string) => text.slice(0, end).endsWith(string));
    if (complete.length === 0) continue;
    const match = complete.sort((a, b) => b.length - a.length)[0]!;
    return { text: text.slice(0, end - match.length), match };
  }
  return { text, match: undefined };
}

/** How much of the end of `text` may be the beginning of one of them. */
function nOpen(strings: readonly string[], text: string): number {
  const beginnings = strings.flatMap((string) => Array.from({ length: string.length }, (_, i) => string.slice(0, i)));
  return Math.max(0, ...beginnings.filter((b) => text.endsWith(b)).map((b) => b.length));
}

test('whatever the strings and the pieces, the text is cut where the definition says, and no more is held back', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '\u{1f600}', '\u{1f601}'), minLength: 1, maxLength: 6 });
  const property = fc.property(
    fc.array(text, { maxLength: 4 }),
    fc.array(text, { maxLength: 12 }),
    (strings, pieces) => {
      const { given, match } = feed(strings, pieces);
      assert.deepEqual({ text: given.join(''), match }, expected(strings, pieces.join('')));
      for (const [i] of pieces.entries()) {
        const soFar = pieces.slice(0, i + 1).join('');
        if (expected(strings, soFar).match !== undefined) break;
        assert.ok(given[i]!.isWellFormed());
        assert.equal(given.slice(0, i + 1).join('').length, soFar.length - nOpen(strings, soFar));
      }
    },
  );
  fc.assert(property, { seed: 4, numRuns: 3000 });
});

test('a long string that nearly comes again and again costs linear time', () => {
  const startMs = threadMs();
  const stops = new StopStrings([`${'a'.repeat(10_000)}b`]);
  let length = 0;
  for (let i = 0; i < 100_000; i++) length += stops.push('aaaaa').length;
  assert.equal(length, 490_000);
  assert.ok(threadMs() - startMs < 5000, 'two minutes would be quadratic');
});
