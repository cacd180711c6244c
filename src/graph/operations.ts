// The operation table: everything that an executor, the planner, the lowering or autodiff needs to know about an
// operation stands here once. The families are tables of their own.

import { ATTENTION_OPERATIONS } from './operations-attention.ts';
import type { AttentionOp } from './operations-attention.ts';
import { EXPERT_OPERATIONS } from './operations-experts.ts';
import type { ExpertOp } from './operations-experts.ts';
import { LAYER_OPERATIONS } from './operations-layers.ts';
import type { LayerOp } from './operations-layers.ts';
import { MATMUL_OPERATIONS } from './operations-matmul.ts';
import type { MatmulOp } from './operations-matmul.ts';
import { TRAINING_OPERATIONS } from './operations-training.ts';
import type { TrainingOp } from './operations-training.ts';
import type { Operation, WriteMode } from './operation.ts';
import { sameAsFirst } from './operation.ts';

const leaf: Operation = {
  write: 'leaf',
  infer() {
    throw new Error('leaves carry their own shape');
  },
};

type BasicOp = 'weight' | 'constant' | 'input' | 'state' | 'view' | 'clear';

const BASIC_OPERATIONS: Readonly<Record<BasicOp, Operation>> = {
  weight: leaf,
  constant: leaf,
  input: leaf,
  state: leaf,

  /** A part of a flat state, as f32[rows, columns] or, with rows 0, f32[columns]. Params: offset in elements. */
  view: {
    write: 'view',
    infer: (_, { rows, columns }) => ({ shape: rows === 0 ? [columns!] : [rows!, columns!] }),
  },

  /** Zeroes a buffer: what the plan puts before an accumulating instruction. Params: usedBytes (see planProgram). */
  clear: { write: 'stateful', infer: sameAsFirst('clear', 1) },
};

export type OpName = BasicOp | LayerOp | MatmulOp | ExpertOp | AttentionOp | TrainingOp;

export const OPERATIONS: Readonly<Record<OpName, Operation>> = {
  ...BASIC_OPERATIONS,
  ...LAYER_OPERATIONS,
  ...MATMUL_OPERATIONS,
  ...EXPERT_OPERATIONS,
  ...ATTENTION_OPERATIONS,
  ...TRAINING_OPERATIONS,
};

/** The write mode of an operation; what the table does not declare accumulates, the safe reading. */
export const writeModeOf = (op: OpName): WriteMode => OPERATIONS[op]?.write ?? 'accumulate';
