// What the GGUF reader accepts at most. A file is input from a stranger: each limit is far above any real model and low
// enough that the worst file within all of them costs a bounded amount of memory and time. The file's own size is the
// other bound: no length is believed that the rest of the file could not hold.

/** What the reader accepts at most; a file beyond it is a `GgufError` GGUF_LIMIT. */
export interface GgufLimits {
  /** Metadata entries. Real files have 20 to 100. */
  readonly metadataCount: number;
  /** Tensors. The largest models have some thousands, with every expert stored apart some ten thousand. */
  readonly tensorCount: number;
  /** Files that a model is split over. Real ones have up to some hundred. */
  readonly splitCount: number;
  /** UTF-8 bytes of a metadata key: the limit of the specification. */
  readonly keyBytes: number;
  /** UTF-8 bytes of a tensor name. The specification says 64; image models in circulation go to 128. */
  readonly tensorNameBytes: number;
  /** UTF-8 bytes of a string value. The longest real ones are whole tokenizer.json files, up to 35 MB. */
  readonly stringBytes: number;
  /** Elements of one array. The largest real ones are merges of vocabularies with 262,144 tokens, about 600,000. */
  readonly arrayLength: number;
  /** Arrays inside arrays, the outermost counted. The specification allows any depth, known files use 1. */
  readonly arrayDepth: number;
  /** Arrays in a file, nested ones included: an empty array is 12 bytes in the file and some 200 in memory. */
  readonly arrayCount: number;
  /** Dimensions of a tensor: ggml has no more than 4. */
  readonly dimensions: number;
  /** Bytes from the start of the file to the end of the tensor descriptors. Real files need 1 to 50 MB. */
  readonly metadataBytes: number;
}

/** The limits by default, which no known file reaches. */
export const GGUF_LIMITS: GgufLimits = {
  metadataCount: 65_536,
  tensorCount: 65_536,
  splitCount: 1024,
  keyBytes: 65_535,
  tensorNameBytes: 128,
  stringBytes: 64 * 2 ** 20,
  arrayLength: 2 ** 22,
  arrayDepth: 4,
  arrayCount: 65_536,
  dimensions: 4,
  metadataBytes: 128 * 2 ** 20,
};
