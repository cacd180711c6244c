// The one table of tensor element types: ggml's type number, elements and bytes of a block. The GGUF reader sizes
// tensors with it, `quant/` decodes by it and the kernels repack by it; nothing else repeats these numbers.
// Source: ggml's type traits (ggml.h / ggml-common.h), as described by the GGUF specification.

export interface BlockFormat {
  /** ggml's number of the type, as it stands in a GGUF tensor descriptor. */
  readonly ggmlType: number;
  /** Elements a block holds; a row is a whole number of blocks. */
  readonly blockElements: number;
  readonly blockBytes: number;
}

const format = (ggmlType: number, blockElements: number, blockBytes: number): BlockFormat => ({
  ggmlType,
  blockElements,
  blockBytes,
});

export const BLOCK_FORMATS = {
  F32: format(0, 1, 4),
  F16: format(1, 1, 2),
  Q4_0: format(2, 32, 18),
  Q4_1: format(3, 32, 20),
  Q5_0: format(6, 32, 22),
  Q5_1: format(7, 32, 24),
  Q8_0: format(8, 32, 34),
  Q8_1: format(9, 32, 36),
  Q2_K: format(10, 256, 84),
  Q3_K: format(11, 256, 110),
  Q4_K: format(12, 256, 144),
  Q5_K: format(13, 256, 176),
  Q6_K: format(14, 256, 210),
  Q8_K: format(15, 256, 292),
  IQ2_XXS: format(16, 256, 66),
  IQ2_XS: format(17, 256, 74),
  IQ3_XXS: format(18, 256, 98),
  IQ1_S: format(19, 256, 50),
  IQ4_NL: format(20, 32, 18),
  IQ3_S: format(21, 256, 110),
  IQ2_S: format(22, 256, 82),
  IQ4_XS: format(23, 256, 136),
  I8: format(24, 1, 1),
  I16: format(25, 1, 2),
  I32: format(26, 1, 4),
  I64: format(27, 1, 8),
  F64: format(28, 1, 8),
  IQ1_M: format(29, 256, 56),
  BF16: format(30, 1, 2),
  TQ1_0: format(34, 256, 54),
  TQ2_0: format(35, 256, 66),
  MXFP4: format(39, 32, 17),
} as const satisfies Record<string, BlockFormat>;

/** Types of tensor elements, by ggml's names. */
export type DType = keyof typeof BLOCK_FORMATS;

const BY_GGML_TYPE = new Map(Object.entries(BLOCK_FORMATS).map(([name, f]) => [f.ggmlType, name as DType]));

/** The dtype of a ggml type number, or `undefined` for a number that ggml does not define (or has removed). */
export function dtypeOfGgmlType(ggmlType: number): DType | undefined {
  return BY_GGML_TYPE.get(ggmlType);
}

/** Bytes of a row of `elements` values; `elements` must be a multiple of the block's. */
export function rowBytes(dtype: DType, elements: number): number {
  const { blockElements, blockBytes } = BLOCK_FORMATS[dtype];
  return (elements / blockElements) * blockBytes;
}
