// What records of comparisons say of a model: of its file, read from its bytes and from the graph that becomes of it,
// and of how it ran.

import { memorySource } from '../src/base/byte-source.ts';
import { readGguf } from '../src/gguf/reader.ts';
import { outputsOf } from '../src/models/model.ts';
import { defineModel } from '../src/models/registry.ts';
import type { ModelRecord } from '../test/comparison-record.ts';

export interface DescribedFile {
  readonly architecture: string;
  /** Of the matrices that the graph reads, each once, in their order. */
  readonly dtypes: readonly string[];
  /** Positions that a layer sees, where it is not all. */
  readonly window?: number;
}

const LIMITS = { nTokensMax: 1, nOutputMax: 1, nSeqMax: 1, nKvBlock: 1, kvDtype: 'F32' } as const;

export async function describeFile(bytes: Uint8Array): Promise<DescribedFile> {
  const { hyperParameters, buildGraph } = await defineModel(await readGguf(memorySource(bytes)));
  const limits = { ...LIMITS, nCtx: hyperParameters.nCtxTrain };
  const { nodes } = buildGraph(limits, outputsOf(hyperParameters)[0]);
  const matrices = nodes.filter(({ op, shape }) => op === 'weight' && shape.length > 1);
  const windows = nodes.flatMap(({ op, params }) => (op === 'attention' && params['window'] ? [params['window']] : []));
  return {
    architecture: hyperParameters.architecture,
    dtypes: [...new Set(matrices.map(({ dtype }) => dtype))],
    window: windows[0],
  };
}

/** @param executors  as `ModelInfo` has them, e.g. `wasm relaxed (u8), 2 threads` */
export function describeRuns(executors: readonly string[]): Pick<ModelRecord, 'kernels' | 'threads'> {
  const kernels = executors.map((executor) => executor.split(' ')[1]!);
  const threads = executors.map((executor) => Number(/(\d+) threads?$/.exec(executor)![1]));
  return { kernels: [...new Set(kernels)].toSorted(), threads: [...new Set(threads)].toSorted() };
}
