// The seam between the tokenizer and its algorithms: one file an algorithm, which turns ordinary text into ids and ids
// into bytes. Special tokens, BOS and EOS, options, and UTF-8 across token borders are the same for all and live in
// `tokenizer.ts`.

export interface TextCodec {
  /** Whether decoding drops one space at the very beginning, because encoding put one there. */
  readonly stripsLeadingSpace: boolean;
  /**
   * Appends the ids of `text` to `ids`. The text is well-formed and not empty, and reaches from the beginning of the
   * input or a special token to the next special token or the end.
   */
  encode(text: string, ids: number[]): void;
  /** The bytes that the token stands for; not necessarily whole UTF-8 characters. `id` is in range. */
  pieceBytes(id: number): Uint8Array;
}
