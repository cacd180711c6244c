// Encoding: a program's instructions become fixed-size records in the model's memory, where the kernels read them.

import { SmallMindError, assert } from '../../base/errors.ts';
import type { Instruction, Program } from '../../graph/plan.ts';
import {
  BARRIER_OFFSET,
  COUNTER_SLOT,
  COUNTER_STRIDE_SLOT,
  INPUT_SLOT,
  OUT_SLOT,
  PARAM_SLOT,
  RECORD_BYTES,
  ROWS_SLOT,
  ROWS_VALUE_SLOT,
  SCRATCH_BYTES_SLOT,
  SCRATCH_SLOT,
  SHARED_SCRATCH_SLOT,
  SLOT_BYTES,
  setAddress,
} from './kernels/kernel.ts';
import type { Kernel, Routine } from './kernels/kernel.ts';
import { kernelFor } from './kernels/table.ts';
import { isPacked } from './load.ts';
import type { MemoryLayout } from './memory.ts';

/**
 * Writes all records to `layout.programAddresses`.
 * @param kernels  the module's function table
 */
export function encodePrograms(
  programs: readonly Program[],
  kernels: readonly Routine[],
  layout: MemoryLayout,
  memory: ArrayBufferLike,
): void {
  const view = new DataView(memory);
  programs.forEach(({ instructions }, n) => {
    instructions.forEach((instruction, i) => {
      const record = layout.programAddresses[n]! + i * RECORD_BYTES;
      const kernel = kernelFor(instruction);
      checkLayouts(instruction);
      view.setInt32(record, kernels.indexOf(kernel), true);
      encodeInstruction(instruction, kernel, layout, view, record);
      encodeThreadMemory(layout, i, view, record);
    });
  });
}

/** What threads have beside operands: scratch, and where they count the runs that they take of this instruction. */
export function encodeThreadMemory(layout: MemoryLayout, index: number, view: DataView, record: number): void {
  setAddress(view, record + COUNTER_SLOT * SLOT_BYTES, layout.countersAddress + 4 * index);
  view.setInt32(record + COUNTER_STRIDE_SLOT * SLOT_BYTES, layout.counterBytes, true);
  setAddress(view, record + SCRATCH_SLOT * SLOT_BYTES, layout.scratchAddress);
  setAddress(view, record + SHARED_SCRATCH_SLOT * SLOT_BYTES, layout.sharedScratchAddress);
  view.setInt32(record + SCRATCH_BYTES_SLOT * SLOT_BYTES, layout.scratchBytes, true);
}

/** Packed matrices are read by matmuls and embed only, and these read nothing else. */
function checkLayouts({ op, inputs }: Instruction): void {
  const packed = op === 'matmul' || op === 'expertMatmul' ? inputs[1] : op === 'embed' ? inputs[0] : undefined;
  for (const input of inputs) {
    assert(isPacked(input.tensor) === (input === packed), `${op} cannot read "${input.tensor.name}" as it is laid out`);
  }
}

function encodeInstruction(
  instruction: Instruction,
  kernel: Kernel,
  layout: MemoryLayout,
  view: DataView,
  record: number,
): void {
  const { out, inputs, rows, barrier } = instruction;
  const slot = (index: number): number => record + index * SLOT_BYTES;
  view.setInt32(record + BARRIER_OFFSET, barrier ? 1 : 0, true);
  if (typeof rows === 'number') view.setInt32(slot(ROWS_VALUE_SLOT), rows, true);
  setAddress(
    view,
    slot(ROWS_SLOT),
    typeof rows === 'number' ? slot(ROWS_VALUE_SLOT) : layout.rowCountAddress(rows.name),
  );
  setAddress(view, slot(OUT_SLOT), layout.addressOf(out));
  inputs.forEach((input, i) => setAddress(view, slot(INPUT_SLOT + i), layout.addressOf(input)));

  const values = kernel.values(instruction);
  Object.entries(kernel.params).forEach(([name, type], i) => {
    const value = values[name];
    if (value === undefined) throw new SmallMindError('INTERNAL', `${kernel.op}: parameter "${name}" has no value`);
    if (type === 'f32') view.setFloat32(slot(PARAM_SLOT + i), value, true);
    else view.setInt32(slot(PARAM_SLOT + i), value, true);
  });
}
