// The value types of GGUF metadata: their numbers in the file, how a number of each is read and written, and the entry
// that a key has in memory. Reader and writer share this table. Source: the GGUF specification (ggml, docs/gguf.md).

/** The types in the order of their numbers: `VALUE_TYPES[n]` is the type that a file calls n. */
export const VALUE_TYPES = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
] as const;

/** GGUF's types of metadata values. */
export type ValueType = (typeof VALUE_TYPES)[number];
/** Those of numbers. */
export type NumberType = Exclude<ValueType, 'bool' | 'string' | 'array'>;

/** Numbers by index; a typed array when it was read from a file. */
export type NumberList = ArrayLike<number> & Iterable<number>;

/** What a key stands for. 64-bit numbers are bigint only where a number would not be exact. */
export type MetadataEntry =
  | { readonly type: NumberType; readonly value: number | bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | ArrayEntry;

/** An array with the type of its elements; arrays may hold arrays. */
export type ArrayEntry =
  | { readonly type: 'array'; readonly elementType: NumberType; readonly value: NumberList | BigIntList }
  | { readonly type: 'array'; readonly elementType: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly elementType: 'string'; readonly value: readonly string[] }
  | { readonly type: 'array'; readonly elementType: 'array'; readonly value: readonly ArrayEntry[] };

/** 64-bit integers by index, where any is beyond ±(2^53 - 1). */
export type BigIntList = ArrayLike<bigint> & Iterable<bigint>;

interface NumberFormat {
  readonly bytes: number;
  /** Reads the little-endian number at byte `at`. */
  read(view: DataView, at: number): number | bigint;
  write(view: DataView, at: number, value: number | bigint): void;
  /** Views bytes as a list. Hosts are little-endian, as WebAssembly is. */
  list(bytes: Uint8Array<ArrayBuffer>): NumberList | BigIntList;
}

export const NUMBER_FORMATS: Readonly<Record<NumberType, NumberFormat>> = {
  u8: {
    bytes: 1,
    read: (view, at) => view.getUint8(at),
    write: (view, at, value) => view.setUint8(at, Number(value)),
    list: (bytes) => bytes,
  },
  i8: {
    bytes: 1,
    read: (view, at) => view.getInt8(at),
    write: (view, at, value) => view.setInt8(at, Number(value)),
    list: (bytes) => new Int8Array(bytes.buffer),
  },
  u16: {
    bytes: 2,
    read: (view, at) => view.getUint16(at, true),
    write: (view, at, value) => view.setUint16(at, Number(value), true),
    list: (bytes) => new Uint16Array(bytes.buffer),
  },
  i16: {
    bytes: 2,
    read: (view, at) => view.getInt16(at, true),
    write: (view, at, value) => view.setInt16(at, Number(value), true),
    list: (bytes) => new Int16Array(bytes.buffer),
  },
  u32: {
    bytes: 4,
    read: (view, at) => view.getUint32(at, true),
    write: (view, at, value) => view.setUint32(at, Number(value), true),
    list: (bytes) => new Uint32Array(bytes.buffer),
  },
  i32: {
    bytes: 4,
    read: (view, at) => view.getInt32(at, true),
    write: (view, at, value) => view.setInt32(at, Number(value), true),
    list: (bytes) => new Int32Array(bytes.buffer),
  },
  f32: {
    bytes: 4,
    read: (view, at) => view.getFloat32(at, true),
    write: (view, at, value) => view.setFloat32(at, Number(value), true),
    list: (bytes) => new Float32Array(bytes.buffer),
  },
  u64: {
    bytes: 8,
    read: readU64,
    write: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
    list: (bytes) => numbersIfExact(new BigUint64Array(bytes.buffer)),
  },
  i64: {
    bytes: 8,
    read: (view, at) => numberIfExact(view.getBigInt64(at, true)),
    write: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
    list: (bytes) => numbersIfExact(new BigInt64Array(bytes.buffer)),
  },
  f64: {
    bytes: 8,
    read: (view, at) => view.getFloat64(at, true),
    write: (view, at, value) => view.setFloat64(at, Number(value), true),
    list: (bytes) => new Float64Array(bytes.buffer),
  },
};

/** Every string has a length of this type, so the common case makes no bigint. */
function readU64(view: DataView, at: number): number | bigint {
  const high = view.getUint32(at + 4, true);
  if (high < 2 ** 21) return high * 2 ** 32 + view.getUint32(at, true);
  return view.getBigUint64(at, true);
}

function numberIfExact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function numbersIfExact(values: BigUint64Array | BigInt64Array): NumberList | BigIntList {
  const numbers = Float64Array.from(values, Number);
  return numbers.every(Number.isSafeInteger) ? numbers : values;
}
