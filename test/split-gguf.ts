// Splits GGUF files as llama.cpp's gguf-split does, and puts the parts into a folder that is only in memory.

import { memorySource } from '../src/base/byte-source.ts';
import type { ByteSource } from '../src/base/byte-source.ts';
import { SmallMindError } from '../src/base/errors.ts';
import { readGguf, readTensorBytes } from '../src/gguf/reader.ts';
import type { MetadataEntry } from '../src/gguf/value-types.ts';
import { writeGguf } from '../src/gguf/writer.ts';
import type { TensorData } from '../src/gguf/writer.ts';

/** What is written of one part; changes to it are changes to the file. */
export interface PartContent {
  readonly metadata: Map<string, MetadataEntry>;
  readonly tensors: TensorData[];
}

/** `model-00001-of-00003.gguf`, of parts that count from 0. */
export function partName(index: number, nParts: number): string {
  const digits = (n: number): string => String(n).padStart(5, '0');
  return `model-${digits(index + 1)}-of-${digits(nParts)}.gguf`;
}

/**
 * The parts of a file by name: metadata in the first, tensors dealt out in their order, as evenly as they go.
 * @param edit  changes a part before it is written
 */
export async function splitGguf(
  bytes: Uint8Array,
  nParts: number,
  edit: (content: PartContent, index: number) => void = () => {},
): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const gguf = await readGguf(memorySource(bytes));
  const infos = [...gguf.tensors.values()];
  const parts = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let i = 0; i < nParts; i++) {
    const own = infos.slice(Math.floor((i * infos.length) / nParts), Math.floor(((i + 1) * infos.length) / nParts));
    const tensors = await Promise.all(own.map(async (info) => ({ ...info, bytes: await readTensorBytes(gguf, info) })));
    const metadata = new Map<string, MetadataEntry>(i === 0 ? gguf.metadata.entries() : []);
    metadata.set('split.no', { type: 'u16', value: i });
    metadata.set('split.count', { type: 'u16', value: nParts });
    metadata.set('split.tensors.count', { type: 'i32', value: infos.length });
    const content: PartContent = { metadata, tensors };
    edit(content, i);
    parts.set(partName(i, nParts), writeGguf(content));
  }
  return parts;
}

/** Opens files that lie beside each other; counts those that are open. */
export class MemoryFolder {
  nOpen = 0;
  readonly #files: ReadonlyMap<string, Uint8Array>;

  constructor(files: ReadonlyMap<string, Uint8Array>) {
    this.#files = files;
  }

  async open(name: string): Promise<ByteSource> {
    const bytes = this.#files.get(name);
    if (!bytes) throw new SmallMindError('FILE_NOT_FOUND', `${name}: no such file`);
    this.nOpen++;
    return {
      ...memorySource(bytes, name),
      openSibling: (sibling) => this.open(sibling),
      close: async () => void this.nOpen--,
    };
  }
}
