// The instruction table, from which encoding, listing, the typed functions of operations.ts and a test are derived:
//   name       as in the WebAssembly text format
//   code       one byte, or 0xPP_CCC: prefix byte PP, then CCC as LEB128
//   signature  'operands -> result'; 'ptr' is i32 or i64 by the module, 'any' is decided where it is used
//   immediate  what follows the code in the instruction stream; nothing if left out
//   size       bytes of a memory access, number of lanes, or number of zero bytes

import { CORE_OPCODES } from './opcodes-core.ts';
import { SIMD_OPCODES } from './opcodes-simd.ts';

export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';
/** The module's choice of address width. */
export type PointerType = 'i32' | 'i64';
/** What a builder's local, parameter or expression can be; 'ptr' becomes the module's pointer type when emitted. */
export type Type = ValueType | 'ptr';

export type ImmediateKind =
  | 'memory' // alignment, offset
  | 'memoryLane' // alignment, offset, lane
  | 'lane'
  | 'shuffle' // 16 lanes of 32
  | 'const'
  | 'zeros' // reserved bytes: memory indexes and the ordering of a fence
  | 'block' // result type
  | 'label'
  | 'func'
  | 'type' // function type, table
  | 'local'
  | 'global';

export type OpcodeRow = readonly [code: number, signature: string, immediate?: ImmediateKind, size?: number];

export const OPCODES = { ...CORE_OPCODES, ...SIMD_OPCODES };

export type OpcodeTable = typeof OPCODES;
export type OpcodeName = keyof OpcodeTable;

/** The row of `name`, without its literal types. */
export function opcodeRow(name: OpcodeName): OpcodeRow {
  return OPCODES[name];
}

/** The operands and the result of a signature such as 'ptr i32 -> i32'; either side may be empty. */
export function parseSignature(signature: string): { operands: readonly string[]; result: string | undefined } {
  const [left = '', right = ''] = signature.split('->').map((side) => side.trim());
  return { operands: left === '' ? [] : left.split(' '), result: right === '' ? undefined : right };
}
