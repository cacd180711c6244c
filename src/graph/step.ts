// What a generation program and the engine agree on: the leaves that the engine fills before each step, and the bounds
// by which the program is built and its memory planned.

import type { Graph, RowCount, Tensor } from './tensor.ts';

/** What varies by step and is the same for all layers: the leaves that the engine fills. */
export interface StepInputs {
  /** i32[nTokens] token ids */
  readonly tokens: Tensor;
  /** i32[nTokens] position of each token in its sequence */
  readonly positions: Tensor;
  /** i32[nTokens] last position that each token attends to: its own, or that of its text's last token */
  readonly lastSeen: Tensor;
  /** i32[nTokens] sequence slot of each token */
  readonly sequences: Tensor;
  /** i32[nTokens] cache row that receives each token's key and value */
  readonly kvSlots: Tensor;
  /** i32[nSeqMax, nBlockPerSeq] cache blocks of each sequence slot */
  readonly blockTables: Tensor;
  /** i32[nOutputs] rows of the batch whose result is wanted */
  readonly outputRows: Tensor;
}

/** What a program gives for each wanted row: scores of the vocabulary, or what they are made of, f32[nEmbd]. */
export type OutputKind = 'logits' | 'hidden';

export const KV_DTYPES = ['F16', 'F32', 'Q8_0'] as const;
/** Types of the key-value cache. */
export type KvDtype = (typeof KV_DTYPES)[number];

/** Bounds by which a program is built and its memory planned. */
export interface ProgramLimits {
  readonly nTokensMax: number;
  readonly nOutputMax: number;
  readonly nSeqMax: number;
  /** Positions a sequence may have. */
  readonly nCtx: number;
  /** Blocks of the key-value cache, over all sequences. */
  readonly nKvBlock: number;
  readonly kvDtype: KvDtype;
}

/** Positions in a block of the key-value cache. */
export const KV_BLOCK_SIZE = 32;

export function stepInputs(graph: Graph, limits: ProgramLimits): StepInputs {
  const nTokens: RowCount = { name: 'nTokens', max: limits.nTokensMax };
  const nOutputs: RowCount = { name: 'nOutputs', max: limits.nOutputMax };
  const nBlockPerSeq = Math.ceil(limits.nCtx / KV_BLOCK_SIZE);
  return {
    tokens: graph.leaf('input', 'tokens', 'I32', [nTokens]),
    positions: graph.leaf('input', 'positions', 'I32', [nTokens]),
    lastSeen: graph.leaf('input', 'lastSeen', 'I32', [nTokens]),
    sequences: graph.leaf('input', 'sequences', 'I32', [nTokens]),
    kvSlots: graph.leaf('input', 'kvSlots', 'I32', [nTokens]),
    blockTables: graph.leaf('input', 'blockTables', 'I32', [limits.nSeqMax, nBlockPerSeq]),
    outputRows: graph.leaf('input', 'outputRows', 'I32', [nOutputs]),
  };
}
