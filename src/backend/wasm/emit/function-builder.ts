// Builds one function: locals, structured control, calls. Instructions are kept exactly in the order in which
// statements were made; the engines keep that order too, so the source decides the machine's schedule. Vector constants
// are the exception: they are made at the start of the function.

import { assert } from '../../../base/errors.ts';
import { buildInto, effect, Local, lowerType, operand } from './expression.ts';
import type { Arg, Emitter, Expr, Instruction } from './expression.ts';
import type { OpcodeName, PointerType, Type } from './opcodes.ts';
import { i32, ptr } from './operations.ts';

/** Names and types of parameters, in order. */
export type Params = Readonly<Record<string, Type>>;
export type Results = readonly [] | readonly [Type];

export interface FuncType<P extends Params = Params, R extends Results = Results> {
  readonly params: P;
  readonly results: R;
}

/** A function that can be called, whether its body exists yet or not. */
export interface FuncRef<P extends Params = Params, R extends Results = Results> extends FuncType<P, R> {
  readonly name: string;
  readonly index: number;
  /** The listing of its body. */
  toText(): string;
}

/** Arguments by the name of the parameter. They are evaluated in the order of the declaration. */
export type CallArgs<P extends Params> = { readonly [K in keyof P]: Arg<P[K]> };
export type ParamLocals<P extends Params> = { readonly [K in keyof P]: Local<P[K]> };
type ReturnArgs<R extends Results> = R extends readonly [infer T extends Type] ? [value: Arg<T>] : [];
/** What the body of a function may give back: the value of the function, or nothing if it returned already. */
export type BodyResult<R extends Results> = R extends readonly [infer T extends Type] ? Arg<T> | void : void;

/** The target of a branch: to the end of a block, or to the start of a loop. */
export class Label {
  isOpen = true;
  isUsed = false;
}

/** Where a loop body can go: out of the loop, or on to the next iteration. */
export interface LoopLabels {
  readonly break: Label;
  readonly continue: Label;
}

export interface LoopRange<T extends Type> {
  readonly from: Arg<T>;
  /** Exclusive. Evaluated before each iteration. */
  readonly to: Arg<T>;
  /** Positive; 1 if left out. */
  readonly step?: Arg<T>;
}

export class FunctionBuilder<R extends Results = Results> implements Emitter {
  readonly pointer: PointerType;
  readonly results: R;
  /** Parameters first. */
  readonly locals: Local[] = [];
  readonly instructions: Instruction[] = [];
  readonly pendingEffects = new Map<Expr, string>();
  readonly #localNames = new Set<string>();
  /** Locals of vector constants by their bytes. */
  readonly #constants = new Map<string, Local<'v128'>>();
  readonly #prologue: Instruction[] = [];

  constructor(pointer: PointerType, results: R) {
    this.pointer = pointer;
    this.results = results;
  }

  emit(name: OpcodeName, ...immediates: unknown[]): void {
    this.instructions.push({ name, immediates });
  }

  /**
   * Vector constants live in locals that are set once: V8 would build each one anew in every turn of a loop, three
   * instructions through a general register, where a spilled local costs a load. Zero is one instruction anywhere.
   */
  emitConstant(bytes: Uint8Array): void {
    if (bytes.every((byte) => byte === 0)) return this.emit('v128.const', bytes);
    const key = bytes.join();
    let local = this.#constants.get(key);
    if (!local) {
      local = this.local('v128', 'constant');
      this.#constants.set(key, local);
      this.#prologue.push({ name: 'v128.const', immediates: [bytes] }, { name: 'local.set', immediates: [local] });
    }
    this.emit('local.get', local);
  }

  /** A new local. With `value` it is set here; without it holds zero at the start of the function. */
  local<T extends Type>(type: T, name: string, value?: Arg<T>): Local<T> {
    let unique = name;
    for (let n = 1; this.#localNames.has(unique); n++) unique = `${name}_${n}`;
    this.#localNames.add(unique);
    const local = new Local(this, this.locals.length, type, unique);
    this.locals.push(local);
    if (value !== undefined) local.set(value);
    return local;
  }

  /** `count` locals name0, name1 …: the registers of a tile. */
  localArray<T extends Type>(type: T, name: string, count: number): Local<T>[] {
    return Array.from({ length: count }, (_, i) => this.local(type, name + i));
  }

  /** A new local that holds `value`. */
  let<T extends Type>(name: string, value: Expr<T>): Local<T> {
    return this.local(value.type, name, value as Arg<T>);
  }

  // Structured control.

  /** Runs once; a branch to the label leaves it. */
  block(body: (label: Label) => void): void {
    this.#frame('block', body);
  }

  /** Runs once; a branch to the label starts it again. */
  loop(body: (label: Label) => void): void {
    this.#frame('loop', body);
  }

  /** Tests before each iteration. */
  while(condition: Arg<'i32'>, body: (labels: LoopLabels) => void): void {
    this.block((exit) => {
      this.loop((again) => {
        this.brIf(exit, i32.eqz(condition));
        body({ break: exit, continue: again });
        this.br(again);
      });
    });
  }

  /** Tests after each iteration: one branch an iteration, so the form for inner loops known to run at least once. */
  doWhile(body: (labels: LoopLabels) => void, condition: Arg<'i32'>): void {
    this.#blockIfUsed((exit) => {
      this.loop((again) => {
        this.#blockIfUsed((next) => body({ break: exit, continue: next }));
        this.brIf(again, condition);
      });
    });
  }

  /** i = from; while (i < to) { body; i += step }. The comparison is signed for i32 and unsigned for ptr. */
  for<T extends 'i32' | 'ptr'>(i: Local<T>, range: LoopRange<T>, body: (labels: LoopLabels) => void): void {
    const { from, to, step = 1 as Arg<T> } = range;
    const isPointer = i.type === 'ptr';
    const counter = i as Local;
    i.set(from);
    this.block((exit) => {
      this.loop((again) => {
        const isDone = isPointer
          ? ptr.ge_u(counter as Local<'ptr'>, to as Arg<'ptr'>)
          : i32.ge_s(counter as Local<'i32'>, to as Arg<'i32'>);
        this.brIf(exit, isDone);
        this.#blockIfUsed((next) => body({ break: exit, continue: next }));
        const next = isPointer
          ? ptr.add(counter as Local<'ptr'>, step as Arg<'ptr'>)
          : i32.add(counter as Local<'i32'>, step as Arg<'i32'>);
        counter.set(next);
        this.br(again);
      });
    });
  }

  if(condition: Arg<'i32'>, then: () => void, otherwise?: () => void): void {
    operand('i32', condition, 'if').emit(this);
    const label = new Label();
    this.emit('if', label);
    then();
    if (otherwise) {
      this.emit('else');
      otherwise();
    }
    this.#close(label);
  }

  /** condition ? then() : otherwise(); only one side is evaluated, and it may contain statements. */
  ifValue<T extends Type>(type: T, condition: Arg<'i32'>, then: () => Arg<T>, otherwise: () => Arg<T>): Expr<T> {
    const test = operand('i32', condition, 'if');
    return effect('ifValue', type, () => {
      test.emit(this);
      const label = new Label();
      this.emit('if', label, lowerType(type, this.pointer));
      operand(type, then(), 'ifValue').emit(this);
      this.emit('else');
      operand(type, otherwise(), 'ifValue').emit(this);
      this.#close(label);
    });
  }

  br(label: Label): void {
    this.#use(label);
    this.emit('br', label);
  }

  brIf(label: Label, condition: Arg<'i32'>): void {
    this.#use(label);
    operand('i32', condition, 'brIf').emit(this);
    this.emit('br_if', label);
  }

  /** Leaves the function. */
  return(...value: ReturnArgs<R>): void {
    const [type] = this.results;
    assert(value.length === this.results.length, `return: expected ${this.results.length} values, got ${value.length}`);
    if (type !== undefined) operand(type, value[0] as Arg<Type>, 'return').emit(this);
    this.emit('return');
  }

  /** Traps. Also ends a function whose every path has returned already. */
  unreachable(): void {
    this.emit('unreachable');
  }

  // Calls.

  /** The value of a call. */
  call<P extends Params, T extends Type>(func: FuncRef<P, readonly [T]>, args: CallArgs<P>): Expr<T> {
    const operands = orderArgs(func, args, func.name);
    return effect(`call ${func.name}`, func.results[0], () => this.#emitCall(func, operands));
  }

  /** Statement: calls a function that has no result. */
  exec<P extends Params>(func: FuncRef<P, readonly []>, args: CallArgs<P>): void {
    assert(func.results.length === 0, `exec ${func.name}: it has a result; use drop(call(…))`);
    this.#emitCall(func, orderArgs(func, args, func.name));
  }

  /** The value of a call of entry `index` of the module's table; traps unless that function has this very type. */
  callIndirect<P extends Params, T extends Type>(
    type: FuncType<P, readonly [T]>,
    index: Arg<'i32'>,
    args: CallArgs<P>,
  ): Expr<T> {
    const operands = [...orderArgs(type, args, 'callIndirect'), operand('i32', index, 'callIndirect')];
    return effect('callIndirect', type.results[0], () => this.#emitCallIndirect(type, operands));
  }

  /** Statement: as `callIndirect`, for functions that have no result. */
  execIndirect<P extends Params>(type: FuncType<P, readonly []>, index: Arg<'i32'>, args: CallArgs<P>): void {
    assert(type.results.length === 0, 'execIndirect: the type has a result; use drop(callIndirect(…))');
    this.#emitCallIndirect(type, [...orderArgs(type, args, 'execIndirect'), operand('i32', index, 'execIndirect')]);
  }

  /** Statement: evaluates and forgets the value. */
  drop(value: Expr): void {
    value.emit(this);
    this.emit('drop');
  }

  /** Runs the body and checks that the function ended properly. For the module builder. */
  build(body: () => Arg<Type> | void): void {
    buildInto(this, () => {
      const value = body();
      const [type] = this.results;
      if (value === undefined) {
        const last = this.instructions.at(-1)?.name ?? '';
        const isOver = ['return', 'unreachable', 'br'].includes(last);
        assert(type === undefined || isOver, 'a function with a result ends with a value, return or unreachable');
      } else {
        assert(type !== undefined, 'a function without a result must not give a value');
        operand(type, value, 'result').emit(this);
      }
    });
    this.instructions.unshift(...this.#prologue);
    const [forgotten] = this.pendingEffects.values();
    assert(forgotten === undefined, `${forgotten} was made and never used; drop it if only the effect counts`);
  }

  #frame(kind: 'block' | 'loop', body: (label: Label) => void): void {
    const label = new Label();
    this.emit(kind, label);
    body(label);
    this.#close(label);
  }

  /** A block that is left out of the function when nothing branches to its label. */
  #blockIfUsed(body: (label: Label) => void): void {
    const label = new Label();
    const start = this.instructions.length;
    body(label);
    if (label.isUsed) {
      this.instructions.splice(start, 0, { name: 'block', immediates: [label] });
      this.emit('end');
    }
    label.isOpen = false;
  }

  #close(label: Label): void {
    this.emit('end');
    label.isOpen = false;
  }

  #use(label: Label): void {
    assert(label.isOpen, 'branch to a block that is closed already');
    label.isUsed = true;
  }

  #emitCall(func: FuncRef, operands: readonly Expr[]): void {
    for (const each of operands) each.emit(this);
    this.emit('call', func);
  }

  #emitCallIndirect(type: FuncType, operands: readonly Expr[]): void {
    for (const each of operands) each.emit(this);
    this.emit('call_indirect', type);
  }
}

/** Arguments in the order of the parameters, checked. */
function orderArgs(type: FuncType, args: Readonly<Record<string, Arg<Type>>>, where: string): Expr[] {
  const names = Object.keys(type.params);
  const unknown = Object.keys(args).find((name) => !names.includes(name));
  assert(unknown === undefined, `${where} has no parameter ${unknown}`);
  return names.map((name) => {
    const value = args[name];
    assert(value !== undefined, `${where}: argument ${name} is missing`);
    return operand(type.params[name]!, value, `${where} ${name}`);
  });
}
