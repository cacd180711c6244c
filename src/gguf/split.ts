// Models that are split over several files, as llama.cpp's gguf-split does it: NAME-00001-of-00003.gguf has the
// metadata, every file has some of the tensors, and split.no, split.count, split.tensors.count say how they belong
// together. Read, they are one file: their bytes follow each other, and a tensor's place counts from the start of the
// first.

import { truncatedError } from '../base/byte-source.ts';
import type { ByteSource } from '../base/byte-source.ts';
import { GgufError, SmallMindError, UnsupportedError } from '../base/errors.ts';
import type { GgufLimits } from './limits.ts';
import { quote } from './metadata.ts';
import type { Gguf } from './reader.ts';
import type { TensorInfo } from './tensor-reader.ts';

const NUMBER_KEY = 'split.no';
const COUNT_KEY = 'split.count';
const TENSORS_KEY = 'split.tensors.count';

/** What remains of a part once it has been read. */
type Part = Pick<Gguf, 'source' | 'tensors'>;

/**
 * All parts of the model that `first` begins, as one file; `first` itself when it is not split. The source of the
 * result closes them all.
 * @param readHead  reads the head of another part
 * @throws {GgufError} for parts that are missing or do not belong together, after closing all but the first
 * @throws {UnsupportedError} for a source that cannot open what lies beside it
 */
export async function joinParts(
  first: Gguf,
  limits: GgufLimits,
  readHead: (source: ByteSource) => Promise<Gguf>,
): Promise<Gguf> {
  if (first.metadata.getNumber(COUNT_KEY, 1) === 1) return first;
  const { nParts, nTensors } = requireFirst(first, limits);
  const parts: Part[] = [first];
  const opened: ByteSource[] = [];
  try {
    while (parts.length < nParts) {
      const source = await openPart(first.source, parts.length, nParts);
      opened.push(source);
      const { metadata, tensors } = await readHead(source);
      const [number, count] = [metadata.getNumber(NUMBER_KEY), metadata.getNumber(COUNT_KEY)];
      if (number !== parts.length || count !== nParts) {
        const expected = `expected part ${parts.length + 1} of ${nParts}; download or split the model again`;
        throw invalid(source, NUMBER_KEY, `says that this is part ${number + 1} of ${count}, ${expected}`);
      }
      parts.push({ source, tensors });
    }
    const tensors = joinTensors(parts);
    if (tensors.size !== nTensors) {
      const advice = 'they are not of one model, download or split it again';
      throw invalid(first.source, TENSORS_KEY, `says ${nTensors}, but the parts have ${tensors.size}; ${advice}`);
    }
    return { ...first, tensors, source: joinSources(parts.map(({ source }) => source)) };
  } catch (error) {
    await Promise.all(opened.map((source) => source.close()));
    throw error;
  }
}

/** That a part is the first. @returns what it says of all */
function requireFirst({ metadata, source }: Gguf, limits: GgufLimits): { nParts: number; nTensors: number } {
  const countOf = (key: string, limit: 'splitCount' | 'tensorCount'): number => {
    const count = metadata.getNumber(key);
    if (!Number.isInteger(count) || count < 1) throw invalid(source, key, `expected a count from 1 on, got ${count}`);
    if (count <= limits[limit]) return count;
    const message = `${source.name}: "${key}" says ${count}, above the limit ${limit} of ${limits[limit]}`;
    const details = { source: source.name, field: key, value: count, limit: limits[limit] };
    throw new GgufError('GGUF_LIMIT', `${message}; the file is most likely damaged`, details);
  };
  const nParts = countOf(COUNT_KEY, 'splitCount');
  const number = metadata.getNumber(NUMBER_KEY);
  if (number === 0) return { nParts, nTensors: countOf(TENSORS_KEY, 'tensorCount') };
  const problem = `says that this is part ${number + 1} of ${nParts}; give the first, which ends in ${ending(0, nParts)}`;
  throw invalid(source, NUMBER_KEY, problem);
}

/** How the name of a part ends, or its URL before a query. */
function ending(index: number, nParts: number): string {
  const digits = (n: number): string => String(n).padStart(5, '0');
  return `-${digits(index + 1)}-of-${digits(nParts)}.gguf`;
}

async function openPart(first: ByteSource, index: number, nParts: number): Promise<ByteSource> {
  const what = `part ${index + 1} of ${nParts}`;
  if (!first.openSibling) {
    const problem = `the model is split over ${nParts} files, and ${what} cannot be found from here`;
    const advice = 'give the path or URL of the first, with the others beside it, or a ByteSource with openSibling';
    const details = { source: first.name, field: COUNT_KEY, value: nParts };
    throw new UnsupportedError('UNSUPPORTED_FEATURE', `${first.name}: ${problem}; ${advice}`, details);
  }
  const at = first.name.lastIndexOf(ending(0, nParts));
  if (at < 0) {
    const problem = `says ${nParts}, expected a file whose name ends in ${ending(0, nParts)}; rename it and the others`;
    throw invalid(first, COUNT_KEY, problem);
  }
  const rest = first.name.slice(at + ending(0, nParts).length);
  const name = first.name.slice(0, at) + ending(index, nParts) + rest;
  try {
    return await first.openSibling(name);
  } catch (cause) {
    if (!(cause instanceof SmallMindError) || cause.code !== 'FILE_NOT_FOUND') throw cause;
    const message = `${name}: ${what} of the model is missing; put it beside the first`;
    throw new GgufError('GGUF_MISSING', message, { source: name, field: COUNT_KEY, value: nParts }, { cause });
  }
}

function joinTensors(parts: readonly Part[]): Map<string, TensorInfo> {
  const joined = new Map<string, TensorInfo>();
  let startBytes = 0;
  for (const { tensors, source } of parts) {
    for (const info of tensors.values()) {
      if (joined.has(info.name))
        throw invalid(source, `tensor ${info.name}`, 'is in an earlier part, too; split again');
      joined.set(info.name, { ...info, offsetBytes: startBytes + info.offsetBytes });
    }
    startBytes += source.sizeBytes;
  }
  return joined;
}

/** Sources as one, whose bytes follow each other. */
function joinSources(sources: readonly ByteSource[]): ByteSource {
  const joined: ByteSource = {
    name: sources[0]!.name,
    sizeBytes: sources.reduce((sum, source) => sum + source.sizeBytes, 0),
    async read(offsetBytes, target) {
      const endBytes = offsetBytes + target.length;
      if (endBytes > joined.sizeBytes) throw truncatedError(joined, 'a read', endBytes);
      let startBytes = 0;
      for (const source of sources) {
        const from = Math.max(offsetBytes, startBytes);
        const to = Math.min(endBytes, startBytes + source.sizeBytes);
        if (from < to) await source.read(from - startBytes, target.subarray(from - offsetBytes, to - offsetBytes));
        startBytes += source.sizeBytes;
      }
    },
    async close() {
      await Promise.all(sources.map((source) => source.close()));
    },
  };
  return joined;
}

function invalid({ name }: ByteSource, field: string, problem: string): GgufError {
  return new GgufError('GGUF_INVALID', `${name}: ${quote(field)} ${problem}`, { source: name, field });
}
