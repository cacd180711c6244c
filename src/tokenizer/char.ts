// A character tokenizer, for training on small texts: one token a character. It is byte-level BPE whose only merges put
// the UTF-8 bytes of each character together, so the one algorithm runs it, and a GGUF file with these tokens and
// merges works in SmallMind and llama.cpp as any "gpt2" vocabulary does.

import { OptionError } from '../base/errors.ts';
import { spellBytes } from './bpe.ts';
import { GPT2_PRE_TOKENIZER } from './pre/pre-tokenizers.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';
import { TOKEN_TYPE, type Vocabulary } from './vocabulary.ts';

export interface CharTokenizerOptions {
  /**
   * What encoding does with characters outside the alphabet. `refuse` (default): it throws an OptionError. `map`: there
   * is a token `<unk>` at the end of the vocabulary, which stands for a run of them. (llama.cpp leaves them out.)
   */
  unknown?: 'refuse' | 'map';
}

const END_OF_TEXT = '<|endoftext|>';
const UNKNOWN = '<unk>';

/** The tokenizer of `charVocabulary`, with the same arguments and errors. */
export function createCharTokenizer(text: string, options: CharTokenizerOptions = {}): Tokenizer {
  return createTokenizer(charVocabulary(text, options));
}

/**
 * A vocabulary of the characters (code points) of `text`: ids from 0 by code point, then `<|endoftext|>`, which is BOS
 * and EOS and never added by itself (without one, llama.cpp would end at the token with id 11), then `<unk>` if wanted.
 * @param text  the alphabet, or the whole text to train on
 * @throws {OptionError} for an empty text
 */
export function charVocabulary(text: string, { unknown = 'refuse' }: CharTokenizerOptions = {}): Vocabulary {
  const chars = Array.from(new Set(text.toWellFormed())).sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!);
  if (chars.length === 0) throw new OptionError('"text" expected the characters of a tokenizer, got an empty text');
  const utf8 = new TextEncoder();
  const merges = new Set<string>();
  const tokens = chars.map((char) => {
    const bytes = utf8.encode(char);
    for (let i = 1; i < bytes.length; i++) {
      merges.add(`${spellBytes(bytes.subarray(0, i))} ${spellBytes(bytes.subarray(i, i + 1))}`);
    }
    return spellBytes(bytes);
  });
  const tokenTypes: number[] = tokens.map(() => TOKEN_TYPE.normal);
  const add = (token: string, type: number): number => {
    tokenTypes.push(type);
    return tokens.push(token) - 1;
  };
  const endId = add(END_OF_TEXT, TOKEN_TYPE.control);
  const unknownId = unknown === 'map' ? add(UNKNOWN, TOKEN_TYPE.unknown) : undefined;
  return {
    model: 'gpt2',
    preTokenizer: GPT2_PRE_TOKENIZER,
    tokens,
    merges: [...merges],
    tokenTypes,
    bosId: endId,
    eosId: endId,
    unknownId,
    addBos: false,
    addEos: false,
    addSpacePrefix: false,
  };
}
