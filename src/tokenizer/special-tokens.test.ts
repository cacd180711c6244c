// Cutting at special tokens against llama.cpp's rule spelled out: for each token, longest first, split what is left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SpecialTokens } from './special-tokens.ts';
import type { SpaceTakers } from './token-attributes.ts';
import { threadMs } from '../../test/thread-time.ts';

const NONE: SpaceTakers = { takesLeft: () => false, takesRight: () => false };

function splitOneAfterTheOther(text: string, tokens: readonly string[], takers = NONE): (string | number)[] {
  let parts: (string | number)[] = [text];
  const ids = [...tokens.keys()].sort((a, b) => tokens[b]!.length - tokens[a]!.length || a - b);
  for (const id of ids) {
    const token = tokens[id]!;
    const splitPart = (part: string): (string | number)[] => {
      const found = part.indexOf(token);
      if (found < 0) return [part];
      const [before, behind] = [part.slice(0, found), part.slice(found + token.length)];
      return [
        takers.takesLeft(token) ? before.trimEnd() : before,
        id,
        ...splitPart(takers.takesRight(token) ? behind.trimStart() : behind),
      ];
    };
    parts = parts.flatMap((part) => (typeof part === 'number' ? [part] : splitPart(part)));
  }
  return parts.filter((part) => part !== '');
}

test('overlapping special tokens resolve as if the text were split at each, longest first', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 });
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'd'), maxLength: 40 });
  fc.assert(
    fc.property(fc.uniqueArray(word, { maxLength: 12 }), text, (tokens, input) => {
      const special = new SpecialTokens(tokens, [...tokens.keys()]);
      assert.deepEqual(special.split(input), splitOneAfterTheOther(input, tokens));
    }),
    { seed: 3, numRuns: 2000 },
  );
});

test('tokens take the white space beside them, up to what another has taken', () => {
  const unit = fc.constantFrom('a', 'b', ' ', '\n');
  const word = fc.string({ unit, minLength: 1, maxLength: 4 });
  const text = fc.string({ unit, maxLength: 40 });
  const takers: SpaceTakers = {
    takesLeft: (token) => token.includes('a'),
    takesRight: (token) => token.length % 2 === 0,
  };
  fc.assert(
    fc.property(fc.uniqueArray(word, { maxLength: 8 }), text, (tokens, input) => {
      const special = new SpecialTokens(tokens, [...tokens.keys()], takers);
      assert.deepEqual(special.split(input), splitOneAfterTheOther(input, tokens, takers));
    }),
    { seed: 5, numRuns: 2000 },
  );
});

test('only the selected ids are looked for, and a token without text never matches', () => {
  const special = new SpecialTokens(['', '<a>', '<b>'], [0, 2]);
  assert.deepEqual(special.split('x<a><b>y'), ['x<a>', 2, 'y']);
});

test('of two tokens with the same text the lower id is found', () => {
  assert.deepEqual(new SpecialTokens(['<a>', '<a>'], [1, 0]).split('<a>'), [1]);
  assert.deepEqual(new SpecialTokens(['<a>', '<a>'], [0, 1]).split('<a>'), [0]);
});

test('an empty text has no parts', () => {
  assert.deepEqual(new SpecialTokens(['<a>'], [0]).split(''), []);
});

test('a million newlines are cut at tokens of 1 to 31 newlines without quadratic work', () => {
  const tokens = Array.from({ length: 31 }, (_, i) => '\n'.repeat(i + 1));
  const special = new SpecialTokens(tokens, [...tokens.keys()]);
  const start = threadMs();
  const parts = special.split('\n'.repeat(1_000_000));
  assert.ok(threadMs() - start < 5000);
  assert.equal(parts.length, Math.ceil(1_000_000 / 31));
  assert.equal(parts.at(-1), (1_000_000 % 31) - 1);
});

test('no token is read from shielded text, nor from it and what stands around it', () => {
  const MARK = '\ufdd0';
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 });
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'd'), maxLength: 8 });
  let nTokens = 0;
  fc.assert(
    fc.property(fc.uniqueArray(word, { maxLength: 8 }), text, text, text, (tokens, before, foreign, after) => {
      const special = new SpecialTokens(tokens, [...tokens.keys()]);
      const parts = special.split(before + special.shield(foreign, MARK) + after, MARK);
      let at = 0;
      for (const part of parts) {
        const length = typeof part === 'number' ? tokens[part]!.length : part.replaceAll(MARK, '').length;
        if (typeof part === 'number' && foreign !== '') {
          const isOutside = at + length <= before.length || at >= before.length + foreign.length;
          assert.ok(isOutside, `${tokens[part]} at ${at} of ${before}|${foreign}|${after}`);
          nTokens++;
        }
        at += length;
      }
      assert.equal(at, before.length + foreign.length + after.length);
    }),
    { seed: 5, numRuns: 5000 },
  );
  assert.ok(nTokens > 1000, `${nTokens}`);
});
