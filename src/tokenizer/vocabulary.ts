// The plain description of a vocabulary that every tokenizer here is made from, its reading from GGUF metadata (the
// keys tokenizer.ggml.*, with llama.cpp's defaults) and its writing. Reading is the door: what comes out has been
// checked, and the algorithms trust it. Does not know the GGUF reader and writer, only the getters and an entry's form.

import { GgufError, OptionError } from '../base/errors.ts';
import { addsBosByDefault } from './pre/pre-tokenizers.ts';
import { END_OF_GENERATION_TEXTS, findEndsOfGeneration, findSpaceTakers } from './token-attributes.ts';
import type { SpaceTakers } from './token-attributes.ts';

/** What a token is, numbered as in `tokenizer.ggml.token_type` (and as in SentencePiece). */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Vocabulary {
  /** The algorithm, in GGUF's words: `llama` (SPM), `gpt2` (BPE), `bert` (WordPiece), `t5` (Unigram). */
  readonly model: string;
  /** Text of each token; the index is the id. SPM writes a space as U+2581. */
  readonly tokens: readonly string[];
  /** One a token, or absent (all equal); higher merges earlier. */
  readonly scores?: Float32Array | readonly number[];
  /** One of TOKEN_TYPE a token; absent means that nothing is known and the texts have to tell. */
  readonly tokenTypes?: Int32Array | readonly number[];
  /** BPE only: "left right", first learnt first, both sides in the writing of `tokens`. */
  readonly merges?: readonly string[];
  readonly bosId?: number;
  readonly eosId?: number;
  readonly eotId?: number;
  readonly unknownId?: number;
  /** Further ids that end a generation; EOS and EOT always do. */
  readonly endOfGenerationIds?: readonly number[];
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly addSpacePrefix: boolean;
  readonly preTokenizer?: string;
  /** Special tokens that take white space beside them. Told by a file's names, and not written. */
  readonly spaceTakers?: SpaceTakers;
  /** WordPiece only: whether case is dropped, by default so, and accents, by default as case is. */
  readonly lowercase?: boolean;
  readonly stripAccents?: boolean;
  /** Unigram only: whether runs of spaces count as one, and those at both ends as none. Default false. */
  readonly removeExtraWhitespaces?: boolean;
  /** Unigram only: SentencePiece's compiled normalisation rules; absent means none. */
  readonly precompiledCharsmap?: Uint8Array;
}

/** What `readVocabulary` needs. The getters throw when a value is missing (and has no fallback) or of another type. */
export interface MetadataReader {
  has(key: string): boolean;
  getString(key: string, fallback?: string): string;
  getNumber(key: string, fallback?: number): number;
  getBoolean(key: string, fallback?: boolean): boolean;
  getStrings(key: string): readonly string[];
  getNumbers(key: string): ArrayLike<number>;
}

/**
 * Longest token, in UTF-16 units. Real vocabularies stay below 300; matching costs up to this much per character of
 * text, so a hostile file must not choose it.
 */
export const TOKEN_LENGTH_MAX = 1024;

/**
 * UTF-16 units of all special tokens together. They are found by a tree of objects, some 200 bytes a unit; Gemma 3,
 * which has most of them, has 75,802 units.
 */
const SPECIAL_LENGTH_MAX = 1 << 19;

const BYTE_TOKEN = /^<0x([0-9a-f]{2})>$/i;

interface Defaults extends Pick<Vocabulary, 'bosId' | 'eosId' | 'unknownId' | 'addBos' | 'addEos' | 'addSpacePrefix'> {
  /** Names of BOS and EOS in keys, the first that a file has counts. Default `bos` and `eos`. */
  readonly bosNames?: readonly string[];
  readonly eosNames?: readonly string[];
  /** Whether BOS and EOS are added whatever a file says. Default false. */
  readonly alwaysAdds?: boolean;
}

/**
 * llama.cpp's defaults by tokenizer model; a default id that the vocabulary is too small for does not count. For gpt2
 * it takes 11 as BOS and EOS, which is right for Falcon only and elsewhere a comma: here there is none, and by default
 * a BOS that is not named is not added.
 */
const DEFAULTS: ReadonlyMap<string, Defaults> = new Map<string, Defaults>([
  ['llama', { bosId: 1, eosId: 2, unknownId: 0, addBos: true, addEos: false, addSpacePrefix: true }],
  [
    'bert',
    // [CLS] and [SEP] have the places of BOS and EOS. The key is spelled so.
    {
      bosId: 101,
      eosId: 102,
      unknownId: 100,
      addBos: true,
      addEos: true,
      addSpacePrefix: false,
      bosNames: ['cls', 'bos'],
      eosNames: ['seperator', 'eos'],
      alwaysAdds: true,
    },
  ],
  ['t5', { eosId: 1, unknownId: 2, addBos: false, addEos: true, addSpacePrefix: false }],
]);
const OTHER_DEFAULTS: Defaults = { addBos: false, addEos: false, addSpacePrefix: false };

/**
 * Reads the vocabulary of a model from its GGUF metadata.
 * @throws {GgufError} GGUF_INVALID when lists disagree in length, an id lies outside the vocabulary, a score is not a
 *   number (for Unigram a finite one), a merge has not two sides, or a token to be added is not named; GGUF_MISSING for
 *   BPE without merges; GGUF_LIMIT for a token longer than 1024 UTF-16 units, or special tokens of 2^19 together
 */
export function readVocabulary(metadata: MetadataReader): Vocabulary {
  const model = metadata.getString('tokenizer.ggml.model');
  const defaults = DEFAULTS.get(model) ?? OTHER_DEFAULTS;
  const tokens = readTokens(metadata);
  const nVocab = tokens.length;

  const readId = (names: readonly string[], fallback?: number): number | undefined => {
    const key = names.map((name) => `tokenizer.ggml.${name}_token_id`).find((each) => metadata.has(each));
    if (key === undefined) return fallback !== undefined && fallback < nVocab ? fallback : undefined;
    const id = metadata.getNumber(key);
    if (!Number.isInteger(id) || id < 0 || id >= nVocab) {
      throw invalid(key, `a token id from 0 to ${nVocab - 1}`, id);
    }
    return id;
  };

  const { bosNames = ['bos'], eosNames = ['eos'], alwaysAdds = false } = defaults;
  const bosId = readId(bosNames, defaults.bosId);
  const preTokenizer = metadata.has('tokenizer.ggml.pre') ? metadata.getString('tokenizer.ggml.pre') : undefined;
  const addsBos =
    defaults.addBos || (bosId !== undefined && preTokenizer !== undefined && addsBosByDefault(preTokenizer));
  const endOfGenerationIds = findEndsOfGeneration(tokens);
  const vocabulary: Vocabulary = {
    model,
    tokens,
    scores: readScores(metadata, nVocab, model),
    tokenTypes: readTokenTypes(metadata, nVocab, endOfGenerationIds),
    merges: readMerges(metadata, model),
    bosId,
    eosId: readId(eosNames, defaults.eosId),
    eotId: readId(['eot']),
    unknownId: readId(['unknown'], defaults.unknownId),
    endOfGenerationIds: [...endOfGenerationIds, ...[readId(['eom'])].filter((id) => id !== undefined)],
    addBos: alwaysAdds || metadata.getBoolean('tokenizer.ggml.add_bos_token', addsBos),
    addEos: alwaysAdds || metadata.getBoolean('tokenizer.ggml.add_eos_token', defaults.addEos),
    addSpacePrefix: metadata.getBoolean('tokenizer.ggml.add_space_prefix', defaults.addSpacePrefix),
    preTokenizer,
    spaceTakers: findSpaceTakers(metadata),
    ...readNormaliser(metadata),
  };
  requireFewSpecial(vocabulary);
  for (const [flag, id, name] of [
    [vocabulary.addBos, vocabulary.bosId, 'bos'],
    [vocabulary.addEos, vocabulary.eosId, 'eos'],
  ] as const) {
    if (flag && id === undefined)
      throw invalid(`tokenizer.ggml.${name}_token_id`, `an id, as it is to be added`, 'none');
  }
  return vocabulary;
}

function readTokens(metadata: MetadataReader): readonly string[] {
  const key = 'tokenizer.ggml.tokens';
  const tokens = metadata.getStrings(key);
  if (tokens.length === 0) throw invalid(key, 'at least one token', 'an empty list');
  const id = tokens.findIndex((text) => text.length > TOKEN_LENGTH_MAX);
  if (id >= 0) {
    const length = tokens[id]!.length;
    throw new GgufError(
      'GGUF_LIMIT',
      `"${key}" expected tokens of at most ${TOKEN_LENGTH_MAX} UTF-16 units, token ${id} has ${length}`,
      { field: key, index: id, value: length, limit: TOKEN_LENGTH_MAX },
    );
  }
  return tokens;
}

function requireFewSpecial(vocabulary: Vocabulary): void {
  const types = tokenTypesOf(vocabulary);
  const isSpecial = (type: number): boolean =>
    type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown || type === TOKEN_TYPE.userDefined;
  const length = vocabulary.tokens.reduce((sum, text, id) => sum + (isSpecial(types[id]!) ? text.length : 0), 0);
  if (length <= SPECIAL_LENGTH_MAX) return;
  throw new GgufError(
    'GGUF_LIMIT',
    `"tokenizer.ggml.tokens" expected special tokens of at most ${SPECIAL_LENGTH_MAX} UTF-16 units together, got ${length}`,
    { field: 'tokenizer.ggml.tokens', value: length, limit: SPECIAL_LENGTH_MAX },
  );
}

/** Unigram adds them up; elsewhere they are an order only, in which infinity has its place. */
function readScores(metadata: MetadataReader, nVocab: number, model: string): Float32Array | undefined {
  const key = 'tokenizer.ggml.scores';
  if (!metadata.has(key)) return undefined;
  const scores = Float32Array.from(metadata.getNumbers(key));
  if (scores.length !== nVocab) throw invalid(key, `${nVocab} values, one a token`, scores.length);
  const isBad = model === 't5' ? (score: number) => !Number.isFinite(score) : Number.isNaN;
  const id = scores.findIndex(isBad);
  if (id >= 0) throw invalid(key, model === 't5' ? 'finite numbers' : 'numbers', `${scores[id]} for token ${id}`);
  return scores;
}

function readTokenTypes(
  metadata: MetadataReader,
  nVocab: number,
  endOfGenerationIds: readonly number[],
): Int32Array | undefined {
  const key = 'tokenizer.ggml.token_type';
  if (!metadata.has(key)) return undefined;
  const types = Int32Array.from(metadata.getNumbers(key));
  if (types.length !== nVocab) throw invalid(key, `${nVocab} values, one a token`, types.length);
  for (const id of endOfGenerationIds) types[id] = TOKEN_TYPE.control;
  return types;
}

/** What a file says about the normalisation of text; what it does not say is absent. */
function readNormaliser(metadata: MetadataReader): Partial<Vocabulary> {
  const read = <T>(name: string, get: (key: string) => T): T | undefined => {
    const key = `tokenizer.ggml.${name}`;
    return metadata.has(key) ? get(key) : undefined;
  };
  const getBoolean = (key: string): boolean => metadata.getBoolean(key);
  const found: Partial<Vocabulary> = {
    lowercase: read('normalizer.lowercase', getBoolean),
    stripAccents: read('normalizer.strip_accents', getBoolean),
    removeExtraWhitespaces: read('remove_extra_whitespaces', getBoolean),
    precompiledCharsmap: read('precompiled_charsmap', (key) => Uint8Array.from(metadata.getNumbers(key))),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

/** BPE cannot do without merges, so for it the getter refuses a file that has none. */
function readMerges(metadata: MetadataReader, model: string): readonly string[] | undefined {
  const key = 'tokenizer.ggml.merges';
  if (model !== 'gpt2' && !metadata.has(key)) return undefined;
  const merges = metadata.getStrings(key);
  const index = merges.findIndex((merge) => {
    const space = merge.indexOf(' ', 1);
    return space < 0 || space === merge.length - 1;
  });
  if (index >= 0) throw invalid(key, 'two parts with a space between in each', JSON.stringify(merges[index]));
  return merges;
}

function invalid(field: string, expected: string, value: string | number): GgufError {
  return new GgufError(
    'GGUF_INVALID',
    `"${field}" expected ${expected}, got ${value}; the file is damaged or was converted wrongly`,
    { field, value },
  );
}

/**
 * The type of each token. Where the file does not say, the ids and texts must: BOS, EOS, EOT and other ends are
 * control tokens, `<0x0A>` is a byte, everything else is normal.
 */
export function tokenTypesOf(vocabulary: Vocabulary): ArrayLike<number> {
  const { tokens, tokenTypes, bosId, eosId, eotId, unknownId, endOfGenerationIds = [] } = vocabulary;
  if (tokenTypes) return tokenTypes;
  const types = Int32Array.from(tokens, (text) => (BYTE_TOKEN.test(text) ? TOKEN_TYPE.byte : TOKEN_TYPE.normal));
  if (unknownId !== undefined) types[unknownId] = TOKEN_TYPE.unknown;
  for (const id of [bosId, eosId, eotId, ...endOfGenerationIds]) {
    if (id !== undefined) types[id] = TOKEN_TYPE.control;
  }
  return types;
}

/** The value of a byte token like `<0x0A>`, or undefined for any other text. */
export function byteOf(text: string): number | undefined {
  const match = BYTE_TOKEN.exec(text);
  return match ? Number.parseInt(match[1]!, 16) : undefined;
}

/** A metadata entry as the GGUF writer takes it. */
export type VocabularyEntry =
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'u32'; readonly value: number }
  | { readonly type: 'array'; readonly elementType: 'string'; readonly value: readonly string[] }
  | { readonly type: 'array'; readonly elementType: 'u8'; readonly value: Uint8Array }
  | { readonly type: 'array'; readonly elementType: 'f32'; readonly value: Float32Array }
  | { readonly type: 'array'; readonly elementType: 'i32'; readonly value: Int32Array };

/**
 * The metadata that `readVocabulary` makes the same vocabulary of (types that it leaves open are written as they are
 * understood), and that llama.cpp reads.
 * @throws {OptionError} for more than one end of generation that is neither EOS, EOT nor known by its text
 */
export function vocabularyEntries(vocabulary: Vocabulary): [key: string, entry: VocabularyEntry][] {
  const { model, tokens, scores, merges, bosId, eosId, eotId, unknownId, endOfGenerationIds = [] } = vocabulary;
  const isSaid = (id: number): boolean => id === eosId || id === eotId || END_OF_GENERATION_TEXTS.has(tokens[id]!);
  const otherEnds = endOfGenerationIds.filter((id) => !isSaid(id));
  if (otherEnds.length > 1) {
    throw new OptionError(`"endOfGenerationIds" expected at most one that is not EOS or EOT, got ${otherEnds}`);
  }
  const { bosNames = ['bos'], eosNames = ['eos'] } = DEFAULTS.get(model) ?? OTHER_DEFAULTS;
  const ids: [names: readonly string[], id: number | undefined][] = [
    [bosNames, bosId],
    [eosNames, eosId],
    [['eot'], eotId],
    [['eom'], otherEnds[0]],
    [['unknown'], unknownId],
  ];
  const boolean = (value: boolean | undefined): VocabularyEntry | undefined =>
    value === undefined ? undefined : { type: 'bool', value };
  const { precompiledCharsmap } = vocabulary;
  const entries: Record<string, VocabularyEntry | undefined> = {
    model: { type: 'string', value: model },
    pre: vocabulary.preTokenizer === undefined ? undefined : { type: 'string', value: vocabulary.preTokenizer },
    tokens: { type: 'array', elementType: 'string', value: tokens },
    scores: scores && { type: 'array', elementType: 'f32', value: Float32Array.from(scores) },
    token_type: { type: 'array', elementType: 'i32', value: Int32Array.from(tokenTypesOf(vocabulary)) },
    merges: merges && { type: 'array', elementType: 'string', value: merges },
    add_bos_token: boolean(vocabulary.addBos),
    add_eos_token: boolean(vocabulary.addEos),
    add_space_prefix: boolean(vocabulary.addSpacePrefix),
    'normalizer.lowercase': boolean(vocabulary.lowercase),
    'normalizer.strip_accents': boolean(vocabulary.stripAccents),
    remove_extra_whitespaces: boolean(vocabulary.removeExtraWhitespaces),
    precompiled_charsmap: precompiledCharsmap && { type: 'array', elementType: 'u8', value: precompiledCharsmap },
  };
  for (const [names, id] of ids) {
    for (const name of names) if (id !== undefined) entries[`${name}_token_id`] = { type: 'u32', value: id };
  }
  return Object.entries(entries).flatMap(([key, entry]) => (entry ? [[`tokenizer.ggml.${key}`, entry]] : []));
}
