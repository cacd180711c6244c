// Where byte-level BPE may merge: a pre-tokenizer cuts text into pieces (a word with the space before it, a number, …)
// and merges never cross their borders. This is the table of them, by the names that GGUF gives; the rules are in the
// other files of this folder.

import { UnsupportedError } from '../../base/errors.ts';
import { CLASS, characterSet, classOf, endOfMembers, endOfRun, LETTER, SIGN } from './characters.ts';
import { cutAt, cutInTurn, type Cut, type Match } from './cut.ts';
import { cutDeepseek3, cutDeepseekCoder, cutDeepseekLlm } from './deepseek.ts';
import { CASED_WORDS, gpt2Word, wordsBy } from './words.ts';

export interface PreTokenizer {
  /** Cuts well-formed text, in O(n). */
  readonly cut: Cut;
  /** Whether a piece that is a token becomes that token, whatever merges would make of it. */
  readonly ignoresMerges: boolean;
  /** Whether BOS is added where a file does not say. */
  readonly addsBos: boolean;
}

/** The name in `tokenizer.ggml.pre` of the rules that GPT-2 was trained with, and that we train with. */
export const GPT2_PRE_TOKENIZER = 'gpt-2';

const numbers =
  (max?: number): Match =>
  (text, start) =>
    endOfRun(text, start, CLASS.number, max);
const cutGpt2 = cutAt(gpt2Word);

/** By threes from the left, of ASCII digits only; fewer stay with what is around them. */
const DIGITS = characterSet(/[0-9]/u);
const cutThreeDigits = cutAt((text, start) => {
  const end = endOfMembers(text, start, DIGITS, 3);
  return end === start + 3 ? end : start;
});

/** Runs of punctuation, and of some symbols of ASCII. */
const cutSigns = (symbols: string): Cut =>
  cutAt((text, start) => {
    let end = start;
    while (end < text.length) {
      const codePoint = text.codePointAt(end)!;
      if (classOf(codePoint) !== CLASS.punctuation && !symbols.includes(String.fromCodePoint(codePoint))) break;
      end += codePoint > 0xffff ? 2 : 1;
    }
    return end;
  });

/** What ends a sentence or a clause, in several scripts, and white space; the rest runs on. */
const BLOOM_WORD = characterSet(/[^(\p{White_Space}|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]/u);
const cutBloom = cutAt((text, start) => {
  const first = text[start] === ' ' ? start + 1 : start;
  const end = endOfMembers(text, first, BLOOM_WORD);
  return end > first ? end : start;
});

const CASED = { words: CASED_WORDS, afterSigns: '\r\n/' } as const;
const qwen2 = cutAt(wordsBy({ nDigitsMax: 1 }));
const qwen35 = cutAt(
  wordsBy({
    nDigitsMax: 1,
    words: [(text, start) => endOfRun(text, start, LETTER | CLASS.mark)],
    sign: SIGN & ~CLASS.mark,
  }),
);

/**
 * By the names in `tokenizer.ggml.pre` that llama.cpp maps to the same rules. Where llama.cpp only comes near the
 * pattern of a model (`tekken`, `gpt-4o`: it takes letters outside ASCII for both upper and lower case and marks for
 * signs), it is the model's that counts here.
 */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ...rules(cutGpt2, [GPT2_PRE_TOKENIZER, 'phi-2', 'mpt', 'olmo', 'jais', 'exaone4', 'gigachat', 'mellum', 'a.x-4.0']),
  ...rules(cutGpt2, ['trillion', 'granite-docling', 'jina-es', 'jina-de', 'jina-v2-es', 'jina-v2-de', 'roberta-bpe']),
  ...rules(cutGpt2, ['jina-v1-en', 'jina-v2-code']),
  ...rules(cutInTurn(cutAt(numbers(1)), cutGpt2), [
    'smollm',
    'starcoder',
    'refact',
    'command-r',
    'codeshell',
    'exaone',
    'minerva-7b',
    'mellum2',
  ]),
  ...rules(
    cutAt(wordsBy({})),
    ['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2', 'jina-v5-nano'],
    { ignoresMerges: true, addsBos: true },
  ),
  ...rules(cutAt(wordsBy({})), ['dbrx', 'smaug-bpe', 'glm4', 'chatglm-bpe']),
  ...rules(qwen2, ['qwen2', 'deepseek-r1-qwen', 'kormo', 'megrez', 'f2llmv2', 'stablelm2', 'hunyuan', 'solar-open']),
  ...rules(qwen2, ['grok-2', 'bailingmoe', 'bailingmoe2', 'llada-moe']),
  ...rules(qwen35, ['qwen35']),
  ...rules(cutAt(wordsBy({ nDigitsMax: 1, afterSigns: '' })), ['seed-coder']),
  ...rules(cutInTurn(cutAt(numbers(3)), cutAt(wordsBy({}))), ['minicpm5'], { ignoresMerges: true, addsBos: false }),
  ...rules(cutAt(wordsBy({ ...CASED, contraction: 'none', nDigitsMax: 1 })), ['tekken'], {
    ignoresMerges: true,
    addsBos: true,
  }),
  ...rules(cutAt(wordsBy({ ...CASED, contraction: 'suffix' })), [
    'gpt-4o',
    'llama4',
    'kanana2',
    'talkie',
    'minimax-m2',
  ]),
  ...rules(cutDeepseekLlm, ['deepseek-llm']),
  ...rules(cutDeepseekCoder, ['deepseek-coder']),
  ...rules(cutDeepseek3, ['deepseek-v3', 'hunyuan-dense', 'joyai-llm']),
  ...rules(cutInTurn(cutSigns('$+<=>^~|`'), cutGpt2, cutThreeDigits), ['falcon']),
  ...rules(cutInTurn(cutSigns('$+<=>^~|'), cutGpt2, cutAt(numbers()), cutThreeDigits), ['default']),
  ...rules(cutBloom, ['bloom', 'poro-chat', 'gpt3-finnish']),
  ...rules(cutInTurn(cutBloom, cutAt(numbers(1))), ['viking']),
]);

function rules(
  cut: Cut,
  names: readonly string[],
  flags: Omit<PreTokenizer, 'cut'> = { ignoresMerges: false, addsBos: false },
): [string, PreTokenizer][] {
  const preTokenizer = { cut, ...flags };
  return names.map((name) => [name, preTokenizer]);
}

/**
 * @param name  as in `tokenizer.ggml.pre`
 * @throws {UnsupportedError} UNSUPPORTED_TOKENIZER for rules that are not known here
 */
export function findPreTokenizer(name: string): PreTokenizer {
  const preTokenizer = PRE_TOKENIZERS.get(name);
  if (preTokenizer) return preTokenizer;
  const supported = [...PRE_TOKENIZERS.keys()].join(', ');
  throw new UnsupportedError(
    'UNSUPPORTED_TOKENIZER',
    `pre-tokenizer "${name}" is not supported; supported: ${supported}`,
    { preTokenizer: name, supported },
  );
}

/** Whether rules of that name add BOS where a file does not say; not so for rules that are not known here. */
export const addsBosByDefault = (name: string): boolean => PRE_TOKENIZERS.get(name)?.addsBos ?? false;
