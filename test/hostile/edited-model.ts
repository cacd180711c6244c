// Makes damaged and dishonest model files: a small, good one, read, changed in one place and written again, so that
// nothing else is wrong with it.

import { memorySource } from '../../src/base/byte-source.ts';
import { readGguf, readTensorBytes } from '../../src/gguf/reader.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { writeGguf } from '../../src/gguf/writer.ts';
import type { TensorData } from '../../src/gguf/writer.ts';
import { randomLlamaGguf } from '../random-model.ts';
import type { RandomLlamaOptions } from '../random-model.ts';

/** A file taken apart; changes to it are changes to what is written. */
export interface ModelContent {
  readonly metadata: Map<string, MetadataEntry>;
  readonly tensors: Map<string, TensorData>;
}

const GOOD: RandomLlamaOptions = {
  seed: 3,
  dtype: 'F32',
  nLayer: 2,
  nEmbd: 256,
  nHead: 4,
  nHeadKv: 2,
  nFf: 256,
  nVocab: 300,
  nCtx: 64,
  tied: false,
};

export function goodModel(options: Partial<RandomLlamaOptions> = {}): Uint8Array<ArrayBuffer> {
  return randomLlamaGguf({ ...GOOD, ...options });
}

/** The bytes of a good file after `edit`. */
export async function editedModel(
  edit: (content: ModelContent) => void,
  options: Partial<RandomLlamaOptions> = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const gguf = await readGguf(memorySource(goodModel(options)));
  const tensors = new Map<string, TensorData>();
  for (const info of gguf.tensors.values())
    tensors.set(info.name, { ...info, bytes: await readTensorBytes(gguf, info) });
  const content = { metadata: new Map(gguf.metadata.entries()), tensors };
  edit(content);
  return writeGguf({ metadata: content.metadata, tensors: [...content.tensors.values()] });
}

/** Replaces a tensor by zeros of another type or shape. */
export function setTensor(content: ModelContent, tensor: Omit<TensorData, 'bytes'>, sizeBytes: number): void {
  content.tensors.set(tensor.name, { ...tensor, bytes: new Uint8Array(sizeBytes) });
}

/** Overwrites bytes of a tensor, from its start. */
export function setBytes({ tensors }: ModelContent, name: string, offsetBytes: number, bytes: readonly number[]): void {
  tensors.get(name)!.bytes.set(bytes, offsetBytes);
}
