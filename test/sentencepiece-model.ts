// Reads a SentencePiece model (a protobuf message) as the vocabulary that llama.cpp's converter makes of it, for tests
// of Unigram: SentencePiece publishes small models, GGUF files with that tokenizer are large.

import { TOKEN_TYPE, type Vocabulary } from '../src/tokenizer/vocabulary.ts';

type Field = readonly [number: number, value: number | Uint8Array];

/** The fields of a message; of numbers those of 32 bits, as bit patterns, and small varints. */
function* fieldsOf(message: Uint8Array): Generator<Field> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;
  const readVarint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const key = readVarint();
    const wire = key & 7;
    if (wire === 0) yield [key >> 3, readVarint()];
    else if (wire === 2) {
      const length = readVarint();
      yield [key >> 3, message.subarray(at, (at += length))];
    } else if (wire === 5) {
      yield [key >> 3, view.getFloat32(at, true)];
      at += 4;
    } else throw new Error(`wire type ${wire} of protobuf is not read here`);
  }
}

/** Of a Unigram model: pieces with scores and types, and the rules of normalisation. */
export function readSentencePiece(model: Uint8Array): Vocabulary {
  const tokens: string[] = [];
  const scores: number[] = [];
  const tokenTypes: number[] = [];
  const normaliser = new Map<number, number | Uint8Array>();
  for (const [number, value] of fieldsOf(model)) {
    if (number === 1) {
      const piece = new Map(fieldsOf(value as Uint8Array));
      tokens.push(new TextDecoder().decode(piece.get(1) as Uint8Array));
      scores.push((piece.get(2) as number | undefined) ?? 0);
      tokenTypes.push((piece.get(3) as number | undefined) ?? TOKEN_TYPE.normal);
    }
    if (number === 3) for (const [key, each] of fieldsOf(value as Uint8Array)) normaliser.set(key, each);
  }
  return {
    model: 't5',
    tokens,
    scores,
    tokenTypes,
    bosId: tokens.indexOf('<s>'),
    eosId: tokens.indexOf('</s>'),
    unknownId: tokens.indexOf('<unk>'),
    addBos: false,
    addEos: true,
    addSpacePrefix: normaliser.get(3) !== 0,
    removeExtraWhitespaces: normaliser.get(4) !== 0,
    precompiledCharsmap: normaliser.get(2) as Uint8Array | undefined,
  };
}
