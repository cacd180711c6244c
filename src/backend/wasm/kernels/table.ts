// All kernels, by operation and operand types: the one place where an instruction meets its code.

import type { Instruction } from '../../../graph/plan.ts';
import type { TensorDType } from '../../../graph/tensor.ts';
import { ATTENTION_KERNELS } from './attention.ts';
import { ELEMENTWISE_KERNELS } from './elementwise.ts';
import { kernelKey } from './kernel.ts';
import type { Kernel } from './kernel.ts';
import { MATMUL_KERNELS } from './matmul.ts';
import { ROW_KERNELS } from './rows.ts';

export const KERNELS: readonly Kernel[] = [
  ...ELEMENTWISE_KERNELS,
  ...ROW_KERNELS,
  ...MATMUL_KERNELS,
  ...ATTENTION_KERNELS,
];

const INDEX_BY_KEY = new Map(KERNELS.map((kernel, index) => [kernelKey(kernel.op, kernel.dtypes), index]));

/** Index in `KERNELS` of the kernel for an instruction, or `undefined` where there is none for these types. */
export function kernelIndex({ op, inputs }: Instruction): number | undefined {
  const dtypes = inputs.map((i) => i.tensor.dtype);
  return INDEX_BY_KEY.get(kernelKey(op, selectingTypes(op, dtypes)));
}

/** The operand types that an operation has several kernels for. */
function selectingTypes(op: Instruction['op'], dtypes: readonly TensorDType[]): readonly TensorDType[] {
  switch (op) {
    case 'matmul':
      return dtypes.slice(0, 2);
    case 'embed':
    case 'kvWrite':
      return dtypes.slice(0, 1);
    case 'attention':
      return dtypes.slice(1, 2);
    default:
      return [];
  }
}
