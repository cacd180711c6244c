// One function for every instruction, grouped as the instruction names are: `i32.add(a, b)`, `v128.load(address)`.
// They are made from the instruction table, types included. The rule for arguments: operands first, in stack order,
// then immediates: (…operands, lane), (…operands, offset = 0), (…operands, lane, offset = 0). What has a result is an
// expression; what has none (stores) is a statement of the function being built. Dots after the first become
// underscores: i32.atomic.rmw.add is `i32.atomic_rmw_add`. `ptr` has the same, at the width of the module's addresses.

import { assert } from '../../../base/errors.ts';
import { currentFunction, effect, Expr, operand } from './expression.ts';
import type { Arg, Emitter } from './expression.ts';
import { OPCODES, opcodeRow, parseSignature } from './opcodes.ts';
import type { OpcodeName, OpcodeRow, OpcodeTable, PointerType, Type } from './opcodes.ts';

type Words<S extends string> = S extends `${infer First} ${infer Rest}` ? [First, ...Words<Rest>] : [S];
type OperandTypes<S extends string> = S extends `->${string}`
  ? []
  : S extends `${infer Left} ->${string}`
    ? Words<Left>
    : never;
type ResultType<S extends string> = S extends `${string}-> ${infer Right extends Type}` ? Right : undefined;
type Operands<T> = { [K in keyof T]: T[K] extends Type ? Arg<T[K]> : never };
type Immediates<Kind> = Kind extends 'memory'
  ? [offset?: number]
  : Kind extends 'memoryLane'
    ? [lane: number, offset?: number]
    : Kind extends 'lane'
      ? [lane: number]
      : Kind extends 'shuffle'
        ? [lanes: readonly number[]]
        : [];
type Arguments<Row extends OpcodeRow> = [...Operands<OperandTypes<Row[1]>>, ...Immediates<Row[2]>];
type Result<Row extends OpcodeRow> = ResultType<Row[1]> extends infer R extends Type ? Expr<R> : void;
type Operation<Row extends OpcodeRow> = (...args: Arguments<Row>) => Result<Row>;

type Underscored<S extends string> = S extends `${infer A}.${infer B}` ? `${A}_${Underscored<B>}` : S;
type Group<G extends string> = {
  readonly [
    Name in OpcodeName as Name extends `${G}.${infer Rest}` ? (Rest extends 'const' ? never : Underscored<Rest>) : never
  ]: Operation<OpcodeTable[Name]>;
};

/** Makes the function of one instruction. `nameFor` gives its name at a pointer width. */
function makeOperation(label: string, row: OpcodeRow, nameFor: (pointer: PointerType) => OpcodeName) {
  const { operands: types, result } = parseSignature(row[1]);
  const hasEffect = /rmw|wait|notify|grow/.test(label);
  return (...args: unknown[]): unknown => {
    assert(args.length >= types.length, `${label}: expected ${types.length} operands, got ${args.length}`);
    const operands = types.map((type, i) => operand(type as Type, args[i] as Arg<Type>, label));
    const immediates = checkImmediates(label, row, args.slice(types.length));
    const write = (emitter: Emitter) => {
      for (const each of operands) each.emit(emitter);
      emitter.emit(nameFor(emitter.pointer), ...immediates);
    };
    if (result === undefined) return write(currentFunction(label));
    return hasEffect ? effect(label, result as Type, write) : new Expr(result as Type, write);
  };
}

/** The immediates that the caller gave, checked, in the order of the encoding. */
function checkImmediates(label: string, row: OpcodeRow, given: readonly unknown[]): readonly unknown[] {
  const [, , kind, size = 0] = row;
  const [first, second] = given;
  const nMax = { memory: 1, memoryLane: 2, lane: 1, shuffle: 1 }[kind as string] ?? 0;
  assert(given.length <= nMax, `${label}: ${given.length - nMax} arguments too many`);
  if (kind === 'memory') return [checkInteger(`${label} offset`, first ?? 0, Number.MAX_SAFE_INTEGER)];
  if (kind === 'lane') return [checkInteger(`${label} lane`, first, size - 1)];
  if (kind === 'memoryLane') {
    const offset = checkInteger(`${label} offset`, second ?? 0, Number.MAX_SAFE_INTEGER);
    return [checkInteger(`${label} lane`, first, 16 / size - 1), offset];
  }
  if (kind === 'shuffle') {
    assert(Array.isArray(first) && first.length === 16, `${label}: expected 16 lanes`);
    return [first.map((lane) => checkInteger(`${label} lane`, lane, 31))];
  }
  return [];
}

function checkInteger(label: string, value: unknown, max: number): number {
  const isInside = typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max;
  assert(isInside, `${label}: expected an integer of 0..${max}, got ${String(value)}`);
  return value;
}

function makeGroup<G extends string>(group: G): Group<G> {
  const names = Object.keys(OPCODES) as OpcodeName[];
  const operations = names
    .filter((name) => name.startsWith(`${group}.`) && !name.endsWith('.const'))
    .map((name) => {
      const method = name.slice(group.length + 1).replaceAll('.', '_');
      return [method, makeOperation(name, opcodeRow(name), () => name)];
    });
  return Object.fromEntries(operations) as Group<G>;
}

const makeConst =
  <T extends 'i32' | 'i64' | 'f32' | 'f64' | 'ptr'>(type: T) =>
  (value: T extends 'i64' ? number | bigint : number): Expr<T> =>
    operand(type, value as Arg<T>, `${type}.const`);

/** A v128 constant of exactly 16 bytes. */
function v128Const(bytes: ArrayLike<number>): Expr<'v128'> {
  assert(bytes.length === 16, `v128.const: expected 16 bytes, got ${bytes.length}`);
  const copy = Uint8Array.from(bytes);
  return new Expr('v128', (emitter) => emitter.emitConstant(copy));
}

/** Lane constants: as many lanes as the shape has. Values wrap as a DataView's setters do. */
function makeLanesConst(
  nLanes: number,
  setter: 'setInt8' | 'setInt16' | 'setInt32' | 'setFloat32' | 'setFloat64',
): (...lanes: readonly number[]) => Expr<'v128'> {
  return (...lanes) => {
    assert(lanes.length === nLanes, `v128 constant: expected ${nLanes} lanes, got ${lanes.length}`);
    const view = new DataView(new ArrayBuffer(16));
    lanes.forEach((value, i) => view[setter]((i * 16) / nLanes, value, true));
    return v128Const(new Uint8Array(view.buffer));
  };
}

export const i32 = { ...makeGroup('i32'), const: makeConst('i32') };
export const i64 = { ...makeGroup('i64'), const: makeConst('i64') };
export const f32 = { ...makeGroup('f32'), const: makeConst('f32') };
export const f64 = { ...makeGroup('f64'), const: makeConst('f64') };
export const memory = makeGroup('memory');
export const atomic = makeGroup('atomic');
export const v128 = { ...makeGroup('v128'), const: v128Const, zero: () => v128Const(new Uint8Array(16)) };
export const i8x16 = { ...makeGroup('i8x16'), const: makeLanesConst(16, 'setInt8') };
export const i16x8 = { ...makeGroup('i16x8'), const: makeLanesConst(8, 'setInt16') };
export const i32x4 = { ...makeGroup('i32x4'), const: makeLanesConst(4, 'setInt32') };
export const i64x2 = makeGroup('i64x2');
export const f32x4 = { ...makeGroup('f32x4'), const: makeLanesConst(4, 'setFloat32') };
export const f64x2 = { ...makeGroup('f64x2'), const: makeLanesConst(2, 'setFloat64') };

/** `condition` ≠ 0 ? `ifTrue` : `ifFalse`; both are evaluated. */
export function select<T extends Type>(ifTrue: Expr<T>, ifFalse: Expr<T>, condition: Arg<'i32'>): Expr<T> {
  assert(ifTrue.type === ifFalse.type, `select: ${ifTrue.type} and ${ifFalse.type} differ`);
  const test = operand('i32', condition, 'select');
  return new Expr(ifTrue.type, (emitter) => {
    for (const each of [ifTrue, ifFalse, test]) each.emit(emitter);
    emitter.emit('select');
  });
}

const POINTER_OPERATIONS = {
  add: [0, 'ptr ptr -> ptr'],
  sub: [0, 'ptr ptr -> ptr'],
  mul: [0, 'ptr ptr -> ptr'],
  div_u: [0, 'ptr ptr -> ptr'],
  rem_u: [0, 'ptr ptr -> ptr'],
  and: [0, 'ptr ptr -> ptr'],
  or: [0, 'ptr ptr -> ptr'],
  shl: [0, 'ptr ptr -> ptr'],
  shr_u: [0, 'ptr ptr -> ptr'],
  eqz: [0, 'ptr -> i32'],
  eq: [0, 'ptr ptr -> i32'],
  ne: [0, 'ptr ptr -> i32'],
  lt_u: [0, 'ptr ptr -> i32'],
  gt_u: [0, 'ptr ptr -> i32'],
  le_u: [0, 'ptr ptr -> i32'],
  ge_u: [0, 'ptr ptr -> i32'],
  load: [0, 'ptr -> ptr', 'memory'],
  store: [0, 'ptr ptr ->', 'memory'],
} as const satisfies Readonly<Record<string, OpcodeRow>>;

type PointerGroup = {
  readonly [Name in keyof typeof POINTER_OPERATIONS]: Operation<(typeof POINTER_OPERATIONS)[Name]>;
};

const pointerGroup = Object.fromEntries(
  Object.entries(POINTER_OPERATIONS).map(([method, row]) => [
    method,
    makeOperation(`ptr.${method}`, row, (pointer) => `${pointer}.${method as keyof PointerGroup}`),
  ]),
) as PointerGroup;

/** A conversion that writes an instruction only where addresses have 64 bits. */
function makeConversion<From extends Type, To extends Type>(from: From, to: To, name: OpcodeName) {
  return (value: Arg<From>): Expr<To> => {
    const source = operand(from, value, name);
    return new Expr(to, (emitter) => {
      source.emit(emitter);
      if (emitter.pointer === 'i64') emitter.emit(name);
    });
  };
}

export const ptr = {
  ...pointerGroup,
  const: makeConst('ptr'),
  /** Zero-extends an unsigned i32. */
  fromI32: makeConversion('i32', 'ptr', 'i64.extend_i32_u'),
  /** Sign-extends an i32: for differences such as negative strides. */
  fromI32Signed: makeConversion('i32', 'ptr', 'i64.extend_i32_s'),
  /** The low 32 bits. */
  toI32: makeConversion('ptr', 'i32', 'i32.wrap_i64'),
};
