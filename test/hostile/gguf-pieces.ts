// Puts GGUF files together piece by piece, honest or not: the writer of `src/gguf` refuses to write most of what the
// reader has to refuse. Little-endian; numbers of 64 bits wrap, so that -1 is the largest.

export type Piece = Buffer;
export const u8 = (value: number): Piece => Buffer.of(value);
export const u64 = (value: number | bigint): Piece => {
  const piece = Buffer.alloc(8);
  piece.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return piece;
};
export const u32 = (value: number): Piece => u64(value).subarray(0, 4);
export const str = (text: string): Piece => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);
export const entry = (key: string, type: number, ...value: Piece[]): Piece =>
  Buffer.concat([str(key), u32(type), ...value]);
export const list = (elementType: number, length: number | bigint, ...elements: Piece[]): Piece =>
  Buffer.concat([u32(elementType), u64(length), ...elements]);
export const tensor = (name: string, ne: (number | bigint)[], type: number, offset: number | bigint): Piece =>
  Buffer.concat([str(name), u32(ne.length), ...ne.map(u64), u32(type), u64(offset)]);

/** Numbers of value types, and of dtypes. */
export const [BOOL, STRING, ARRAY] = [7, 8, 9] as const;
export const [F32, Q8_0] = [0, 8] as const;

interface Parts {
  version?: number;
  entries?: Piece[];
  tensors?: Piece[];
  nEntries?: number | bigint;
  nTensors?: number | bigint;
  dataBytes?: number;
  alignment?: number;
}

/** A file whose counts are true unless they are given; `dataBytes` zeros are its data. */
export function file(parts: Parts): Uint8Array<ArrayBuffer> {
  const { version = 3, entries = [], tensors = [], dataBytes = 0, alignment = 32 } = parts;
  const { nEntries = entries.length, nTensors = tensors.length } = parts;
  const head = [Buffer.from('GGUF'), u32(version), u64(nTensors), u64(nEntries), ...entries, ...tensors];
  const nBytes = head.reduce((sum, piece) => sum + piece.length, 0);
  const padding = (alignment - (nBytes % alignment)) % alignment;
  return Uint8Array.from(Buffer.concat([...head, Buffer.alloc(padding + dataBytes)]));
}
