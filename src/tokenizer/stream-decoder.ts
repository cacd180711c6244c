// Bytes of tokens in, text out, a token at a time: half a UTF-8 character is held back until the rest comes. Used for
// whole texts too, so that streaming and decoding at once cannot differ.

export interface StreamDecoder {
  /** The text that is certain after one more token; '' while a character is incomplete or the token has no text. */
  push(id: number): string;
  /** The rest: U+FFFD for a character that was never completed. Afterwards the decoder begins anew. */
  flush(): string;
}

/** What a token stands for. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** The same as text; `undefined` where it is not whole characters. */
  readonly text: string | undefined;
}

export function toPiece(bytes: Uint8Array): Piece {
  try {
    return { bytes, text: new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(bytes) };
  } catch {
    return { bytes, text: undefined };
  }
}

/**
 * @param pieceOf             of a token; empty for one that is not to be shown
 * @param stripsLeadingSpace  whether one space at the very beginning of the text is dropped
 */
export function createStreamDecoder(pieceOf: (id: number) => Piece, stripsLeadingSpace: boolean): StreamDecoder {
  // ignoreBOM keeps U+FEFF, which is a character like any other here.
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  let atBeginning = true;
  /** Bytes that may be missing of a character that has begun; with 0 there is none. */
  let nMissing = 0;

  const emit = (text: string): string => {
    if (!atBeginning || text === '') return text;
    atBeginning = false;
    return stripsLeadingSpace && text.startsWith(' ') ? text.slice(1) : text;
  };

  return {
    push(id) {
      const { bytes, text } = pieceOf(id);
      // The usual case makes no new string.
      if (text !== undefined && nMissing === 0) return emit(text);
      for (const byte of bytes) nMissing = countMissing(byte, nMissing);
      return emit(utf8.decode(bytes, { stream: true }));
    },
    flush() {
      const rest = emit(utf8.decode());
      nMissing = 0;
      atBeginning = true;
      return rest;
    },
  };
}

/** Bytes that may be missing of a UTF-8 character after `byte`, where `nMissing` were before it. */
function countMissing(byte: number, nMissing: number): number {
  if (byte < 0x80) return 0;
  if (byte < 0xc0) return Math.max(0, nMissing - 1);
  if (byte < 0xe0) return 1;
  return byte < 0xf0 ? 2 : 3;
}
