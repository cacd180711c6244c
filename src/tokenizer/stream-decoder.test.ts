// The stream decoder against TextDecoder on the whole.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createStreamDecoder, toPiece } from './stream-decoder.ts';

/** Bytes as they come from models: mostly UTF-8, sometimes cut or wrong. */
const pieces = fc.array(
  fc.oneof(
    fc.string({ unit: 'binary', maxLength: 4 }).map((text) => new TextEncoder().encode(text)),
    fc
      .string({ unit: 'binary', minLength: 1, maxLength: 2 })
      .map((text) => new TextEncoder().encode(text).slice(0, -1)),
    fc.uint8Array({ maxLength: 4 }),
    fc.constantFrom([0x20], [0xef, 0xbb, 0xbf], [0xed, 0xa0], [0xf4, 0x90], []).map((bytes) => Uint8Array.from(bytes)),
  ),
  { maxLength: 20 },
);

test('any bytes, split anywhere, decode to what TextDecoder makes of the whole', () => {
  fc.assert(
    fc.property(pieces, fc.boolean(), (parts, stripsLeadingSpace) => {
      const decoder = createStreamDecoder((i) => toPiece(parts[i]!), stripsLeadingSpace);
      const texts = [...parts.keys()].map((i) => decoder.push(i));
      const whole = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
      const expected = stripsLeadingSpace ? whole.replace(/^ /, '') : whole;
      assert.equal(texts.join('') + decoder.flush(), expected);
    }),
    { seed: 4, numRuns: 3000 },
  );
});

test('a character comes out when its last byte does, and an unfinished one becomes U+FFFD at the end', () => {
  const bytes = [0xf0, 0x9f, 0x99, 0x82, 0xf0, 0x9f];
  const decoder = createStreamDecoder((i) => toPiece(Uint8Array.of(bytes[i]!)), false);
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5].map((i) => decoder.push(i)),
    ['', '', '', '🙂', '', ''],
  );
  assert.equal(decoder.flush(), '\ufffd');
});

test('after a flush the decoder begins anew', () => {
  const decoder = createStreamDecoder(() => toPiece(Uint8Array.of(0x20, 0x61)), true);
  assert.deepEqual([decoder.push(0), decoder.push(0), decoder.flush()], ['a', ' a', '']);
  assert.deepEqual([decoder.push(0), decoder.push(0), decoder.flush()], ['a', ' a', '']);
});
