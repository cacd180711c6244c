// Random-weight files of the architectures that are encoders (src/models/encoder.ts), with a small WordPiece
// vocabulary. llama.cpp loads them too. What a file of each has stands here as data, apart from the code that reads it.

import { writeGguf } from '../src/gguf/writer.ts';
import type { MetadataEntry } from '../src/gguf/value-types.ts';
import type { Vocabulary } from '../src/tokenizer/vocabulary.ts';
import type { DecoderShape } from './random-decoder.ts';
import { f32, generalEntries, randomTensorsOf, u32, vocabularyOf } from './random-model.ts';
import type { Entries } from './random-model.ts';

export interface EncoderShape extends Omit<DecoderShape, 'nHeadKv' | 'headDim' | 'usesAllExperts'> {
  /** `<architecture>.pooling_type`. By default the file has none. */
  readonly poolingType?: number;
  /** What `<architecture>.attention.causal` says. Default false. */
  readonly isCausal?: boolean;
}

export interface EncoderKind {
  readonly architecture: 'bert' | 'nomic-bert' | 'jina-bert-v3';
  readonly hasPositions?: boolean;
  readonly hasBiases?: boolean;
  readonly isQkvFused?: boolean;
  readonly isGated?: boolean;
}

export const ENCODER_KINDS: Readonly<Record<string, EncoderKind>> = {
  bert: { architecture: 'bert', hasPositions: true, hasBiases: true },
  'nomic-bert': { architecture: 'nomic-bert', isQkvFused: true, isGated: true },
  'jina-bert-v3': { architecture: 'jina-bert-v3', isQkvFused: true, hasBiases: true },
};

/** Where the vocabulary has its control tokens. */
export const [UNK, CLS, SEP] = [1, 2, 3];

/** `[PAD]` and so on, letters and digits that begin a word and that go on, then words of two letters. */
function wordPieces(nVocab: number): Vocabulary {
  const tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '\u2581.', '\u2581,', '\u2581?'];
  const letters = [...'abcdefghijklmnopqrstuvwxyz0123456789'];
  tokens.push(...letters.map((letter) => `\u2581${letter}`), ...letters);
  for (let i = 0; tokens.length < nVocab; i++) tokens.push(`\u2581${letters[i % 26]}${letters[Math.floor(i / 26)]}`);
  return {
    model: 'bert',
    tokens,
    tokenTypes: tokens.map((text) => (text.startsWith('[') ? 3 : 1)),
    bosId: CLS,
    eosId: SEP,
    unknownId: UNK,
    addBos: true,
    addEos: true,
    addSpacePrefix: false,
  };
}

/** The bytes of a file. */
export function randomEncoderGguf(kind: EncoderKind, shape: EncoderShape): Uint8Array<ArrayBuffer> {
  return writeGguf({ metadata: metadataOf(kind, shape), tensors: tensorsOf(kind, shape) });
}

function metadataOf({ architecture, hasPositions }: EncoderKind, shape: EncoderShape): Entries {
  const { nEmbd, nHead, nVocab, poolingType, isCausal = false } = shape;
  const own: Record<string, MetadataEntry> = {
    block_count: u32(shape.nLayer),
    context_length: u32(shape.nCtx),
    embedding_length: u32(nEmbd),
    feed_forward_length: u32(shape.nFf),
    'attention.head_count': u32(nHead),
    'attention.layer_norm_epsilon': f32(1e-12),
    'attention.causal': { type: 'bool', value: isCausal },
    ...(poolingType !== undefined && { pooling_type: u32(poolingType) }),
    ...(!hasPositions && { 'rope.freq_base': f32(1000) }),
  };
  return [
    ...generalEntries(architecture, shape),
    ...Object.entries(own).map(([key, entry]): Entries[number] => [`${architecture}.${key}`, entry]),
    ['tokenizer.ggml.token_type_count', u32(2)],
    ...vocabularyOf({ nVocab, vocabulary: wordPieces(nVocab) }),
  ];
}

function tensorsOf({ hasPositions, hasBiases, isQkvFused, isGated }: EncoderKind, shape: EncoderShape) {
  const { nLayer, nEmbd, nFf, nVocab, nCtx } = shape;
  const { tensors, matrix, vector } = randomTensorsOf(shape);
  const norm = (name: string): void => {
    vector(`${name}.weight`, nEmbd, 1);
    vector(`${name}.bias`, nEmbd, 0);
  };
  const linear = (name: string, nOut: number, nIn: number): void => {
    matrix(name, nOut, nIn);
    if (hasBiases) vector(`${name}.bias`, nOut, 0);
  };
  matrix('token_embd', nVocab, nEmbd);
  matrix('token_types', 2, nEmbd, 'F32');
  if (hasPositions) matrix('position_embd', nCtx, nEmbd, 'F32');
  norm('token_embd_norm');
  for (let layer = 0; layer < nLayer; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}`;
    if (isQkvFused) linear(name('attn_qkv'), 3 * nEmbd, nEmbd);
    else for (const part of ['attn_q', 'attn_k', 'attn_v']) linear(name(part), nEmbd, nEmbd);
    linear(name('attn_output'), nEmbd, nEmbd);
    norm(name('attn_output_norm'));
    if (isGated) linear(name('ffn_gate'), nFf, nEmbd);
    linear(name('ffn_up'), nFf, nEmbd);
    linear(name('ffn_down'), nEmbd, nFf);
    norm(name('layer_output_norm'));
  }
  return tensors;
}
