// Instructions → bytes. Branch depths are found here, from the nesting of the written instructions, so that the builder
// can name its labels. Order and number of instructions stay as written.

import { assert } from '../../../base/errors.ts';
import type { ByteWriter } from './byte-writer.ts';
import type { Global, Instruction, Local } from './expression.ts';
import { lowerType } from './expression.ts';
import type { FuncRef, FuncType, FunctionBuilder, Label } from './function-builder.ts';
import type { ValueType } from './opcodes.ts';
import { opcodeRow } from './opcodes.ts';

export const VALUE_TYPE_CODES: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

const EMPTY_BLOCK = 0x40;

/** Writes one entry of the code section: size, locals, instructions. `typeIndex` gives the index of a function type. */
export function encodeFunction(
  writer: ByteWriter,
  func: FunctionBuilder,
  nParams: number,
  typeIndex: (type: FuncType) => number,
): void {
  const locals = func.locals.slice(nParams);
  writer.sized((body) => {
    body.vector(locals, (w, local) => w.byte(1, VALUE_TYPE_CODES[lowerType(local.type, func.pointer)]));
    encodeInstructions(body, func.instructions, typeIndex);
    body.byte(0x0b);
  });
}

/** Writes `instructions` without the final end. */
export function encodeInstructions(
  writer: ByteWriter,
  instructions: readonly Instruction[],
  typeIndex: (type: FuncType) => number,
): void {
  const open: Label[] = [];
  for (const instruction of instructions) {
    const { name, immediates } = instruction;
    const [code] = opcodeRow(name);
    if (code >= 0x1000) {
      writer.byte(code >> 12);
      writer.unsigned(code & 0xfff);
    } else {
      writer.byte(code);
    }
    if (name === 'block' || name === 'loop' || name === 'if') open.push(immediates[0] as Label);
    if (name === 'end') assert(open.pop(), 'end without a block');
    encodeImmediates(writer, instruction, open, typeIndex);
  }
  assert(open.length === 0, 'a block is not closed');
}

function encodeImmediates(
  writer: ByteWriter,
  { name, immediates }: Instruction,
  open: readonly Label[],
  typeIndex: (type: FuncType) => number,
): void {
  const [, , kind, size = 0] = opcodeRow(name);
  const [first, second] = immediates;
  switch (kind) {
    case undefined:
      return;
    case 'memory':
      return writeMemoryArgument(writer, size, first as number);
    case 'memoryLane':
      writeMemoryArgument(writer, size, second as number);
      return writer.byte(first as number);
    case 'lane':
      return writer.byte(first as number);
    case 'shuffle':
      return writer.append(first as readonly number[]);
    case 'const':
      return writeConstant(writer, name, first);
    case 'zeros':
      return writer.append(new Uint8Array(size));
    case 'block':
      return writer.byte(second === undefined ? EMPTY_BLOCK : VALUE_TYPE_CODES[second as ValueType]);
    case 'label': {
      const position = open.lastIndexOf(first as Label);
      assert(position >= 0, `${name} to a label that does not enclose it`);
      return writer.unsigned(open.length - 1 - position);
    }
    case 'type':
      writer.unsigned(typeIndex(first as FuncType));
      return writer.byte(0);
    case 'func':
    case 'local':
    case 'global':
      return writer.unsigned((first as FuncRef | Local | Global).index);
  }
}

/** The alignment hint is the size of the access: engines ignore it except for atomics, which need it exact. */
function writeMemoryArgument(writer: ByteWriter, sizeBytes: number, offset: number): void {
  writer.unsigned(31 - Math.clz32(sizeBytes));
  writer.unsigned(offset);
}

function writeConstant(writer: ByteWriter, name: string, value: unknown): void {
  if (name === 'i32.const') writer.signed(BigInt.asIntN(32, BigInt(value as number)));
  else if (name === 'i64.const') writer.signed(BigInt.asIntN(64, BigInt(value as number | bigint)));
  else if (name === 'f32.const') writer.f32(value as number);
  else if (name === 'f64.const') writer.f64(value as number);
  else writer.append(value as Uint8Array);
}
