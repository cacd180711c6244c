// SentencePiece's compiled normalisation rules ("precompiled_charsmap"): byte sequences and what they become, as a
// double array in which the longest rule that fits is found byte by byte. Mostly NFKC with changes, compiled so that
// the same text gives the same tokens for ever.
//
// A word of the array: bits 0-7 the byte that leads here, 8 whether a rule ends here, 9 whether the offset counts 256,
// 10-30 the offset of the children, 31 set in the word that holds where the rule's replacement begins instead.
// Source: Yata et al., "A compact static double-array keeping character codes", 2007; the layout is Darts-clone's.

import { GgufError } from '../../base/errors.ts';

/** Rules are some characters long; a damaged array could lead around in a circle. */
const RULE_LENGTH_MAX = 256;

/** Bytes that a rule may write; Unicode's longest writes 33. Without a limit a short text could become a huge one. */
const REPLACEMENT_BYTES_MAX = 1024;

/**
 * What the rules make of a text; each character that none fits stays.
 * @param charsmap  u32 size of the array in bytes, the array of u32, the replacements, each ended by a zero
 * @throws {GgufError} GGUF_INVALID for sizes that do not fit, GGUF_LIMIT for a replacement of more than 1024 bytes
 */
export function createCharsmap(charsmap: Uint8Array): (text: string) => string {
  const view = new DataView(charsmap.buffer, charsmap.byteOffset, charsmap.byteLength);
  const sizeBytes = charsmap.length >= 4 ? view.getUint32(0, true) : 0;
  if (sizeBytes === 0 || sizeBytes % 4 !== 0 || 4 + sizeBytes >= charsmap.length || charsmap.at(-1) !== 0) {
    throw new GgufError(
      'GGUF_INVALID',
      `"tokenizer.ggml.precompiled_charsmap" expected the size of an array, the array and texts that end with zero, ` +
        `got ${charsmap.length} bytes with an array of ${sizeBytes}; the file is damaged or was converted wrongly`,
      { field: 'tokenizer.ggml.precompiled_charsmap', value: sizeBytes },
    );
  }
  const words = Uint32Array.from({ length: sizeBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const replacements = charsmap.subarray(4 + sizeBytes);
  requireShort(replacements);
  const offsetOf = (word: number): number => ((word & 0x7fffffff) >>> 10) << ((word & 0x200) >>> 6);

  /** Where the replacement of the longest rule that fits at `start` begins, and how many bytes the rule takes. */
  const findRule = (bytes: Uint8Array, start: number): { replacement: number; length: number } | undefined => {
    let found: { replacement: number; length: number } | undefined;
    let node = offsetOf(words[0]!);
    const end = Math.min(bytes.length, start + RULE_LENGTH_MAX);
    for (let at = start; at < end && bytes[at] !== 0; at++) {
      node ^= bytes[at]!;
      const word = words[node];
      if (word === undefined || (word & 0x800000ff) !== bytes[at]) break;
      node ^= offsetOf(word);
      if ((word & 0x100) === 0) continue;
      const replacement = (words[node] ?? 0) & 0x7fffffff;
      if (replacement < replacements.length) found = { replacement, length: at + 1 - start };
    }
    return found;
  };

  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  const replacementAt = (start: number): string =>
    utf8.decode(replacements.subarray(start, replacements.indexOf(0, start)));
  return (text) => {
    const bytes = new TextEncoder().encode(text);
    let out = '';
    let kept = 0;
    let at = 0;
    while (at < bytes.length) {
      const rule = findRule(bytes, at);
      if (rule) {
        out += utf8.decode(bytes.subarray(kept, at)) + replacementAt(rule.replacement);
        kept = at += rule.length;
      } else {
        at++;
        while (at < bytes.length && (bytes[at]! & 0xc0) === 0x80) at++;
      }
    }
    return out + utf8.decode(bytes.subarray(kept));
  };
}

function requireShort(replacements: Uint8Array): void {
  for (let start = 0; start < replacements.length;) {
    const end = replacements.indexOf(0, start);
    if (end - start > REPLACEMENT_BYTES_MAX) {
      throw new GgufError(
        'GGUF_LIMIT',
        `"tokenizer.ggml.precompiled_charsmap" expected replacements of at most ${REPLACEMENT_BYTES_MAX} bytes, ` +
          `got one of ${end - start}`,
        { field: 'tokenizer.ggml.precompiled_charsmap', value: end - start, limit: REPLACEMENT_BYTES_MAX },
      );
    }
    start = end + 1;
  }
}
