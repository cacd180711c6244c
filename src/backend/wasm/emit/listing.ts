// Instructions → WebAssembly text, indented by block, with the names of locals: for review. It is the standard's own
// text format, so other tools can read it.

import type { Global, Instruction, Local } from './expression.ts';
import { lowerType } from './expression.ts';
import type { FuncRef, FuncType, FunctionBuilder, Label } from './function-builder.ts';
import type { PointerType, ValueType } from './opcodes.ts';
import { opcodeRow } from './opcodes.ts';

/** The listing of a function: a line an instruction. */
export function listFunction(name: string, type: FuncType, func: FunctionBuilder): string {
  const nParams = Object.keys(type.params).length;
  const locals = func.locals
    .slice(nParams)
    .map((local) => `  (local $${local.name} ${lowerType(local.type, func.pointer)})`);
  return [
    `(func $${name}${listType(type, func.pointer, true)}`,
    ...locals,
    ...listInstructions(func.instructions, func.pointer).map((line) => `  ${line}`),
    ')',
  ].join('\n');
}

/** ' (param i32) (result f32)', with the names of parameters if wanted. */
export function listType(type: FuncType, pointer: PointerType, withNames: boolean): string {
  const params = Object.entries(type.params).map(
    ([name, each]) => ` (param ${withNames ? `$${name} ` : ''}${lowerType(each, pointer)})`,
  );
  const results = type.results.map((each) => ` (result ${lowerType(each, pointer)})`);
  return [...params, ...results].join('');
}

function listInstructions(instructions: readonly Instruction[], pointer: PointerType): string[] {
  const names = new Map<Label, string>();
  const counts = { block: 0, loop: 0, if: 0 };
  let depth = 0;
  return instructions.map((instruction) => {
    const { name, immediates } = instruction;
    if (name === 'end' || name === 'else') depth--;
    const indent = '  '.repeat(depth);
    if (name === 'block' || name === 'loop' || name === 'if') {
      names.set(immediates[0] as Label, `$${name}${counts[name]++}`);
      depth++;
    }
    if (name === 'else') depth++;
    return indent + [name, ...listImmediates(instruction, names, pointer)].join(' ');
  });
}

function listImmediates(
  { name, immediates }: Instruction,
  names: ReadonlyMap<Label, string>,
  pointer: PointerType,
): string[] {
  const [first, second] = immediates;
  switch (opcodeRow(name)[2]) {
    case undefined:
    case 'zeros':
      return [];
    case 'memory':
      return listOffset(first as number);
    case 'memoryLane':
      return [...listOffset(second as number), String(first)];
    case 'lane':
      return [String(first)];
    case 'shuffle':
      return (first as readonly number[]).map(String);
    case 'const':
      return listConstant(first as number | bigint | Uint8Array);
    case 'block':
      return [names.get(first as Label)!, ...(second === undefined ? [] : [`(result ${second as ValueType})`])];
    case 'label':
      return [names.get(first as Label)!];
    case 'type':
      return [listType(first as FuncType, pointer, false).trim()].filter((text) => text !== '');
    case 'func':
    case 'local':
    case 'global':
      return [`$${(first as FuncRef | Local | Global).name}`];
  }
}

function listOffset(offset: number): string[] {
  return offset === 0 ? [] : [`offset=${offset}`];
}

function listConstant(value: number | bigint | Uint8Array): string[] {
  if (value instanceof Uint8Array) {
    const view = new DataView(value.buffer, value.byteOffset);
    const words = [0, 4, 8, 12].map((at) => `0x${view.getUint32(at, true).toString(16).padStart(8, '0')}`);
    return ['i32x4', ...words];
  }
  if (Object.is(value, -0)) return ['-0'];
  return [String(value).replace('Infinity', 'inf').replace('NaN', 'nan')];
}
