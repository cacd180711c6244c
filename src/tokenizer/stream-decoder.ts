// Bytes of tokens in, text out, a token at a time: half a UTF-8 character is held back until the rest comes. Used for
// whole texts too, so that streaming and decoding at once cannot differ.

export interface StreamDecoder {
  /** The text that is certain after one more token; '' while a character is incomplete or the token has no text. */
  push(id: number): string;
  /** The rest: U+FFFD for a character that was never completed. Afterwards the decoder begins anew. */
  flush(): string;
}

/**
 * @param pieceOf             bytes of a token; empty for one that is not to be shown
 * @param stripsLeadingSpace  whether one space at the very beginning of the text is dropped
 */
export function createStreamDecoder(pieceOf: (id: number) => Uint8Array, stripsLeadingSpace: boolean): StreamDecoder {
  // ignoreBOM keeps U+FEFF, which is a character like any other here.
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  let atBeginning = true;

  const emit = (text: string): string => {
    if (!atBeginning || text === '') return text;
    atBeginning = false;
    return stripsLeadingSpace && text.startsWith(' ') ? text.slice(1) : text;
  };

  return {
    push: (id) => emit(utf8.decode(pieceOf(id), { stream: true })),
    flush() {
      const rest = emit(utf8.decode());
      atBeginning = true;
      return rest;
    },
  };
}
