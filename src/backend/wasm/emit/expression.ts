// What kernels are written with: expressions, which are trees that write their instructions in stack order each time
// they are used, and the storage they read: locals and globals. Statements write into the function being built, the
// only state this file keeps. Knows no encoding.

import { assert } from '../../../base/errors.ts';
import type { OpcodeName, PointerType, Type, ValueType } from './opcodes.ts';

/** One written instruction. What its immediates are follows from the row of `name` in the instruction table. */
export interface Instruction {
  readonly name: OpcodeName;
  readonly immediates: readonly unknown[];
}

/** Where instructions go: the function being built. */
export interface Emitter {
  readonly pointer: PointerType;
  /** Expressions with an effect that were made and not written yet. */
  readonly pendingEffects: Map<Expr, string>;
  emit(name: OpcodeName, ...immediates: unknown[]): void;
  /** Writes a vector constant of 16 bytes. */
  emitConstant(bytes: Uint8Array): void;
}

/** An operand: an expression, or a literal of its type. There are no literals of v128. */
export type Arg<T extends Type> = Expr<T> | Literal<T>;
type Literal<T extends Type> = T extends 'v128' ? never : T extends 'i64' ? number | bigint : number;

let current: Emitter | undefined;

/** The function that statements are written into. */
export function currentFunction(where: string): Emitter {
  assert(current, `${where} outside of a function body`);
  return current;
}

/** Runs `body` with `emitter` as the function that statements are written into. */
export function buildInto<T>(emitter: Emitter, body: () => T): T {
  const outer = current;
  current = emitter;
  try {
    return body();
  } finally {
    current = outer;
  }
}

/** A value that is computed where it is used: using it twice writes its instructions twice. */
export class Expr<T extends Type = Type> {
  readonly type: T;
  readonly #write: (emitter: Emitter) => void;

  constructor(type: T, write: (emitter: Emitter) => void) {
    this.type = type;
    this.#write = write;
  }

  /** Writes the instructions that leave the value on the stack. */
  emit(emitter: Emitter): void {
    this.#write(emitter);
  }
}

/**
 * An expression that also changes something (a call, a tee, an atomic update). The function being built checks that it
 * is written exactly once, because a forgotten or doubled effect is always a bug of the kernel.
 */
export function effect<T extends Type>(where: string, type: T, write: (emitter: Emitter) => void): Expr<T> {
  const { pendingEffects } = currentFunction(where);
  const expr: Expr<T> = new Expr(type, (emitter) => {
    assert(pendingEffects.delete(expr), `${where} has an effect and is used twice; keep its value in a local`);
    write(emitter);
  });
  pendingEffects.set(expr, where);
  return expr;
}

export function lowerType(type: Type, pointer: PointerType): ValueType {
  return type === 'ptr' ? pointer : type;
}

/** Checks the type of `value` and turns a literal into a constant. `where` names the operation in the error. */
export function operand<T extends Type>(type: T, value: Arg<T>, where: string): Expr<T> {
  if (!(value instanceof Expr)) return constant(type, value, where);
  assert(value.type === type, `${where}: expected ${type}, got ${value.type}`);
  return value;
}

/** i32 and 32-bit ptr constants may be given as signed or unsigned; i64 and ptr ones as a safe integer or a bigint. */
function constant<T extends Type>(type: T, value: number | bigint, where: string): Expr<T> {
  const isLiteral = typeof value === 'number' || (typeof value === 'bigint' && type === 'i64');
  assert(isLiteral && type !== 'v128', `${where}: expected an expression of type ${type}, got ${String(value)}`);
  if (type === 'i32') assertRange(value, -(2 ** 31), 2 ** 32 - 1, where);
  if (type === 'ptr' || (type === 'i64' && typeof value === 'number')) {
    assertRange(value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, where);
  }
  if (type === 'i64') assertRange(value, -(2n ** 63n), 2n ** 64n - 1n, where);
  return new Expr(type, (emitter) => {
    const lowered = lowerType(type, emitter.pointer);
    if (type === 'ptr' && lowered === 'i32') assertRange(value, -(2 ** 31), 2 ** 32 - 1, where);
    emitter.emit(`${lowered as 'i32' | 'i64' | 'f32' | 'f64'}.const`, value);
  });
}

function assertRange(value: number | bigint, min: number | bigint, max: number | bigint, where: string): void {
  const isInteger = typeof value === 'bigint' || Number.isInteger(value);
  assert(isInteger && value >= min && value <= max, `${where}: expected an integer of ${min}..${max}, got ${value}`);
}

/** A parameter or local variable. It holds zero until set; a loop body that declares it does not reset it. */
export class Local<T extends Type = Type> extends Expr<T> {
  readonly name: string;
  readonly index: number;
  readonly #owner: Emitter;

  constructor(owner: Emitter, index: number, type: T, name: string) {
    super(type, (emitter) => {
      this.#assertOwner(emitter);
      emitter.emit('local.get', this);
    });
    this.#owner = owner;
    this.index = index;
    this.name = name;
  }

  #assertOwner(emitter: Emitter): void {
    assert(emitter === this.#owner, `local ${this.name} belongs to another function`);
  }

  /** Statement: assigns. */
  set(value: Arg<T>): void {
    const emitter = currentFunction(`${this.name}.set`);
    this.#assertOwner(emitter);
    operand(this.type, value, `${this.name}.set`).emit(emitter);
    emitter.emit('local.set', this);
  }

  /** Assigns, and is the assigned value. */
  tee(value: Arg<T>): Expr<T> {
    const where = `${this.name}.tee`;
    const source = operand(this.type, value, where);
    return effect(where, this.type, (emitter) => {
      this.#assertOwner(emitter);
      source.emit(emitter);
      emitter.emit('local.tee', this);
    });
  }
}

/** A variable of the module, one per instance: each thread that instantiates the module has its own. */
export class Global<T extends Type = Type> extends Expr<T> {
  readonly name: string;
  readonly index: number;

  constructor(index: number, type: T, name: string) {
    super(type, (emitter) => emitter.emit('global.get', this));
    this.index = index;
    this.name = name;
  }

  /** Statement: assigns. */
  set(value: Arg<T>): void {
    const emitter = currentFunction(`${this.name}.set`);
    operand(this.type, value, `${this.name}.set`).emit(emitter);
    emitter.emit('global.set', this);
  }
}
