// Ways to cut text into pieces that lose nothing: find matches and keep what lies between, and one cut within the
// pieces of another. What a pre-tokenizer is made of.

/** Hands on the pieces of `text` in order; none is empty, and together they are the text. */
export type Cut = (text: string, onPiece: (piece: string) => void) => void;

/**
 * The end of the match that begins at `start`, or `start` where none does. Positions in UTF-16 units; the text is
 * well-formed and `start < text.length`. It may look at a bounded number of characters beyond what it matches, or the
 * cut is no longer linear.
 */
export type Match = (text: string, start: number) => number;

/** Every match is a piece, and so is every run of characters between matches. */
export function cutAt(match: Match): Cut {
  return (text, onPiece) => {
    let gap = 0;
    let at = 0;
    while (at < text.length) {
      const end = match(text, at);
      if (end === at) {
        at += text.codePointAt(at)! > 0xffff ? 2 : 1;
        continue;
      }
      if (gap < at) onPiece(text.slice(gap, at));
      onPiece(text.slice(at, end));
      gap = at = end;
    }
    if (gap < text.length) onPiece(text.slice(gap));
  };
}

/** Each cut within the pieces of the one before, whose borders it takes for the ends of the text. */
export function cutInTurn(...cuts: readonly [Cut, ...Cut[]]): Cut {
  return cuts.reduceRight((rest, cut) => (text, onPiece) => cut(text, (piece) => rest(piece, onPiece)));
}
