// All kernels, by operation and operand types: the one place where an instruction meets its code.

import { UnsupportedError } from '../../../base/errors.ts';
import type { Instruction, Program } from '../../../graph/plan.ts';
import type { TensorDType } from '../../../graph/tensor.ts';
import { ATTENTION_KERNELS } from './attention/attention.ts';
import { CACHE_KERNELS } from './attention/kv-cache.ts';
import { ELEMENTWISE_KERNELS } from './elementwise.ts';
import { EXPERT_KERNELS } from './matmul/experts.ts';
import { GEMM_KERNELS } from './gemm.ts';
import { HEAD_KERNELS } from './heads.ts';
import { LOSS_KERNELS } from './training/loss.ts';
import { NORM_KERNELS } from './norms.ts';
import { OPTIMIZER_KERNELS } from './training/optimizer.ts';
import { kernelKey } from './kernel.ts';
import type { Kernel } from './kernel.ts';
import { MATMUL_KERNELS } from './matmul/matmul.ts';
import { ROW_KERNELS } from './rows.ts';

export const KERNELS: readonly Kernel[] = [
  ...ELEMENTWISE_KERNELS,
  ...ROW_KERNELS,
  ...MATMUL_KERNELS,
  ...EXPERT_KERNELS,
  ...ATTENTION_KERNELS,
  ...CACHE_KERNELS,
  ...GEMM_KERNELS,
  ...HEAD_KERNELS,
  ...NORM_KERNELS,
  ...LOSS_KERNELS,
  ...OPTIMIZER_KERNELS,
];

const BY_KEY = new Map(KERNELS.map((kernel) => [kernelKey(kernel.op, kernel.dtypes), kernel]));

/**
 * The kernel for an instruction.
 * @throws {UnsupportedError} UNSUPPORTED_DTYPE where there is none for these operand types
 */
export function kernelFor({ op, inputs }: Pick<Instruction, 'op' | 'inputs'>): Kernel {
  const dtypes = inputs.map((i) => i.tensor.dtype);
  const kernel = BY_KEY.get(kernelKey(op, selectingTypes(op, dtypes)));
  if (kernel) return kernel;
  const names = inputs.map((i) => `"${i.tensor.name}" ${i.tensor.dtype}`).join(', ');
  throw new UnsupportedError(
    'UNSUPPORTED_DTYPE',
    `no kernel for ${op}(${names}); requantise the model to Q8_0 or Q4_0`,
  );
}

/** The kernels that programs need, each once: their module holds no others. */
export function kernelsOf(programs: readonly Program[]): Kernel[] {
  return [...new Set(programs.flatMap((p) => p.instructions.map(kernelFor)))];
}

/** The operand types that an operation has several kernels for. */
function selectingTypes(op: Instruction['op'], dtypes: readonly TensorDType[]): readonly TensorDType[] {
  switch (op) {
    case 'matmul':
    case 'expertMatmul':
      // Which layout quantised activations have follows from the weights' type and the kernel set.
      return dtypes.slice(0, 2).map((dtype) => (dtype === 'Q8W' ? 'Q8A' : dtype));
    case 'embed':
    case 'kvWrite':
      return dtypes.slice(0, 1);
    case 'attention':
      return dtypes.slice(1, 2);
    default:
      return [];
  }
}
