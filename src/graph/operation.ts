// What an operation is: how shape and dtype follow from the operands, how its kernel writes, and how the loss's
// derivative passes through it. The operations themselves stand in the tables that operations.ts puts together.

import { ShapeError, assert } from '../base/errors.ts';
import type { Graph, Shape, Tensor, TensorDType } from './tensor.ts';
import { columnsOf, rowsOf } from './tensor.ts';

/**
 * How an operation writes its result:
 * - `store`: every element exactly once, from operands elsewhere: nothing needs clearing.
 * - `inPlace`: as `store`, element by element or row by row, so the result may take the memory of operand 0.
 * - `accumulate`: adds into its result, which is cleared first.
 * - `accumulateKeep`: adds into operand 0, which lasts over steps (gradients); never cleared by the plan.
 * - `stateful`: changes operand 0, which lasts over steps; the result is that same memory.
 * - `view`: no instruction: the result is a part of operand 0's memory.
 * - `leaf`: no instruction and no operands.
 * An operation without a declared mode is treated as `accumulate`.
 */
export type WriteMode = 'store' | 'inPlace' | 'accumulate' | 'accumulateKeep' | 'stateful' | 'view' | 'leaf';

export type OpParams = Readonly<Record<string, number>>;

export interface Inferred {
  readonly shape: Shape;
  readonly dtype?: TensorDType;
}

export interface Operation {
  readonly write?: WriteMode;
  /** Threads may work on it together in memory that the next such operation uses again, which must wait for it. */
  readonly sharesScratch?: boolean;
  infer(inputs: readonly Tensor[], params: OpParams): Inferred;
  /**
   * Appends what computes the derivatives of the loss by the operands, given that by the result.
   * @returns one a operand; undefined where there is none (ids, positions) or none is wanted
   */
  gradient?(graph: Graph, node: Tensor, dOut: Tensor): readonly (Tensor | undefined)[];
}

const describe = (t: Tensor): string =>
  `${t.dtype.toLowerCase()}[${t.shape.map((d) => (typeof d === 'number' ? d : d.name)).join(', ')}]`;

/** @throws {ShapeError} naming operation, operands and the rule that does not hold */
export function expect(condition: boolean, op: string, inputs: readonly Tensor[], rule: string): asserts condition {
  if (condition) return;
  throw new ShapeError(`${op}(${inputs.map((t) => `"${t.name}" ${describe(t)}`).join(', ')}): ${rule}`);
}

export function operands<N extends number>(
  inputs: readonly Tensor[],
  n: N,
  op: string,
): readonly Tensor[] & { length: N } {
  assert(inputs.length === n, `${op} takes ${n} operands, got ${inputs.length}`);
  return inputs as readonly Tensor[] & { length: N };
}

/** The result has operand 0's shape. */
export const sameAsFirst = (op: string, n: number): Operation['infer'] => {
  return (inputs) => ({ shape: operands(inputs, n, op)[0]!.shape });
};

/** Two operands of equal columns; the second has as many rows or is a single row. */
export function inferElementwise(op: string): Operation['infer'] {
  return (inputs) => {
    const [a, b] = operands(inputs, 2, op) as [Tensor, Tensor];
    const isRow = b.shape.length === 1;
    expect(columnsOf(a) === columnsOf(b), op, inputs, 'columns must be equal');
    expect(isRow || rowsOf(a) === rowsOf(b), op, inputs, 'rows must be equal, or the second be one row');
    return { shape: a.shape };
  };
}
