// Text ↔ token ids. `createTokenizer` picks the algorithm by the vocabulary's model and puts around it what all share:
// cutting out special tokens, BOS and EOS, and decoding that never shows half a character. Knows neither files nor
// models; the vocabulary comes from `vocabulary.ts`.

import { OptionError, UnsupportedError } from '../base/errors.ts';
import { createBpe } from './bpe.ts';
import { createUnigram } from './dictionary/unigram.ts';
import { createWordPiece } from './dictionary/wordpiece.ts';
import { SpecialTokens } from './special-tokens.ts';
import { createSpm } from './spm.ts';
import { createStreamDecoder, toPiece, type Piece, type StreamDecoder } from './stream-decoder.ts';
import type { TextCodec } from './text-codec.ts';
import { TOKEN_TYPE, tokenTypesOf, type Vocabulary } from './vocabulary.ts';

/** How text becomes tokens. */
export interface EncodeOptions {
  /** Whether BOS and EOS are added where the model wants them. Default true. */
  addSpecial?: boolean;
  /**
   * Whether control tokens spelled out in the text, like `</s>`, become those tokens, or stay text, which is what
   * foreign text needs. User-defined tokens are always recognised. Default false.
   */
  parseSpecial?: boolean;
}

export interface DecodeOptions {
  /** Whether control and unknown tokens are left out of the text. Default true. */
  skipSpecial?: boolean;
  /** Whether the tokens go on from earlier ones, so that a space at the beginning is text. Default false. */
  continuation?: boolean;
}

export interface Tokenizer {
  readonly nVocab: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly eotId: number | undefined;
  readonly unknownId: number | undefined;
  /** Whether `encode` puts BOS first (EOS last) unless told not to. */
  readonly addBos: boolean;
  readonly addEos: boolean;
  /** Ids of `text`, in O(n log n); lone surrogates count as U+FFFD. */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Foreign text to be put into a text for `encodeShielded`, where it stays text: no control token of the vocabulary is
   * read from it, nor from it and what stands around it. `mark` is one UTF-16 unit that the text does not contain.
   */
  shield(text: string, mark: string): string;
  /** Ids of a text whose control tokens are read as such, but for those in shielded parts; adds no BOS and no EOS. */
  encodeShielded(text: string, mark: string): number[];
  /**
   * Text of whole tokens; invalid UTF-8 becomes U+FFFD, as TextDecoder has it. The space that `encode` puts before the
   * text is dropped again, also behind a skipped BOS (there SentencePiece drops it and llama.cpp does not).
   */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** Decodes one token at a time; all pushes and the flush together give the same text as `decode`. */
  createDecoder(options?: DecodeOptions): StreamDecoder;
  /** The bytes that a token stands for (its name, for control tokens): read only, shared. */
  pieceBytes(id: number): Uint8Array;
  isControl(id: number): boolean;
  isEndOfGeneration(id: number): boolean;
}

type CodecFactory = (vocabulary: Vocabulary, tokenTypes: ArrayLike<number>) => TextCodec;

/** The algorithms, by `tokenizer.ggml.model`. */
const CODECS: ReadonlyMap<string, CodecFactory> = new Map([
  ['llama', createSpm],
  ['gpt2', createBpe],
  ['bert', createWordPiece],
  ['t5', createUnigram],
]);

/** What `createTokenizer` knows. */
export const TOKENIZER_MODELS: readonly string[] = [...CODECS.keys()];

/**
 * @param vocabulary  checked, as `readVocabulary` gives it
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for a model without an algorithm here
 */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { model, tokens, bosId, eosId, eotId, unknownId, addBos, addEos, endOfGenerationIds = [] } = vocabulary;
  const nVocab = tokens.length;
  const types = tokenTypesOf(vocabulary);
  const codec = findCodec(model)(vocabulary, types);
  const ends = new Set([eosId, eotId, ...endOfGenerationIds]);
  const pieces: (Piece | undefined)[] = Array.from({ length: nVocab });
  const nothing = toPiece(new Uint8Array(0));

  const idsOfTypes = (...wanted: number[]): number[] =>
    tokens.flatMap((_, id) => (wanted.includes(types[id]!) ? [id] : []));
  const find = (...wanted: number[]): SpecialTokens =>
    new SpecialTokens(tokens, idsOfTypes(...wanted), vocabulary.spaceTakers);
  const userDefined = find(TOKEN_TYPE.userDefined);
  const control = find(TOKEN_TYPE.control, TOKEN_TYPE.unknown);
  const special = find(TOKEN_TYPE.userDefined, TOKEN_TYPE.control, TOKEN_TYPE.unknown);
  const encodeParts = (parts: Iterable<string | number>, ids: number[]): void => {
    for (const part of parts) {
      if (typeof part === 'number') ids.push(part);
      else codec.encode(part, ids);
    }
  };

  const pieceOf = (id: number): Piece => {
    if (!Number.isInteger(id) || id < 0 || id >= nVocab) {
      throw new OptionError(`token id expected an integer from 0 to ${nVocab - 1}, got ${id}`, { id, nVocab });
    }
    return (pieces[id] ??= toPiece(codec.pieceBytes(id)));
  };
  const shownPieceOf = (id: number): Piece => {
    const piece = pieceOf(id);
    return types[id] === TOKEN_TYPE.control || types[id] === TOKEN_TYPE.unknown ? nothing : piece;
  };

  const tokenizer: Tokenizer = {
    nVocab,
    bosId,
    eosId,
    eotId,
    unknownId,
    addBos,
    addEos,
    encode(text, { addSpecial = true, parseSpecial = false } = {}) {
      const ids: number[] = [];
      if (addSpecial && addBos) ids.push(bosId!);
      encodeParts((parseSpecial ? special : userDefined).split(text.toWellFormed()), ids);
      if (addSpecial && addEos) ids.push(eosId!);
      return ids;
    },
    shield: (text, mark) => control.shield(text, mark),
    encodeShielded(text, mark) {
      const ids: number[] = [];
      for (const part of special.split(text.toWellFormed(), mark)) {
        if (typeof part === 'number') ids.push(part);
        else encodeParts(userDefined.split(part.replaceAll(mark, '')), ids);
      }
      return ids;
    },
    decode(ids, options) {
      const decoder = tokenizer.createDecoder(options);
      let text = '';
      for (const id of ids) text += decoder.push(id);
      return text + decoder.flush();
    },
    createDecoder({ skipSpecial = true, continuation = false } = {}) {
      return createStreamDecoder(skipSpecial ? shownPieceOf : pieceOf, codec.stripsLeadingSpace && !continuation);
    },
    pieceBytes: (id) => pieceOf(id).bytes,
    isControl: (id) => types[id] === TOKEN_TYPE.control,
    isEndOfGeneration: (id) => ends.has(id),
  };
  return tokenizer;
}

function findCodec(model: string): CodecFactory {
  const createCodec = CODECS.get(model);
  if (createCodec) return createCodec;
  const supported = TOKENIZER_MODELS.join(', ');
  throw new UnsupportedError(
    'UNSUPPORTED_TOKENIZER',
    `tokenizer "${model}" is not supported; supported: ${supported}`,
    { model, supported },
  );
}
