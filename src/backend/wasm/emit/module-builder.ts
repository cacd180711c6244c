// Builds a WebAssembly module: memory, imports, functions, one table, globals, data. One source serves 32-bit and
// 64-bit addresses: types and operations named `ptr` become the module's `pointer` type when instructions are written.

import { assert } from '../../../base/errors.ts';
import { ByteWriter } from './byte-writer.ts';
import { encodeFunction, encodeInstructions, VALUE_TYPE_CODES } from './encode.ts';
import type { Arg } from './expression.ts';
import { Global, lowerType, operand } from './expression.ts';
import { FunctionBuilder } from './function-builder.ts';
import type { BodyResult, FuncRef, FuncType, ParamLocals, Params, Results } from './function-builder.ts';
import { listFunction, listType } from './listing.ts';
import type { PointerType, Type } from './opcodes.ts';

export interface MemoryOptions {
  /** Module and name to import it by; without, the module has a memory of its own. */
  readonly import?: readonly [module: string, name: string];
  /** Name to export it by. */
  readonly export?: string;
  readonly shared?: boolean;
  /** Pages of 64 KiB. */
  readonly minPages: number;
  /** Required if shared. */
  readonly maxPages?: number;
}

export interface ModuleOptions {
  /** Width of addresses: 'i64' makes a 64-bit memory. */
  readonly pointer: PointerType;
  readonly memory?: MemoryOptions;
}

interface FuncOptions<P extends Params, R extends Results> {
  /** Types by name, in order; none if left out. */
  readonly params?: P;
  /** At most one; none if left out. */
  readonly results?: R;
  /** Exports the function by its name. */
  readonly export?: boolean;
}

interface GlobalEntry {
  readonly variable: Global;
  readonly value: Arg<Type>;
}

interface ImportEntry {
  readonly func: Func;
  readonly module: string;
}

class Func<P extends Params = Params, R extends Results = Results> implements FuncRef<P, R> {
  readonly name: string;
  readonly index: number;
  readonly params: P;
  readonly results: R;
  readonly isExported: boolean;
  body: FunctionBuilder<R> | undefined;

  constructor(name: string, index: number, options: FuncOptions<P, R>) {
    this.name = name;
    this.index = index;
    this.params = (options.params ?? {}) as P;
    this.results = (options.results ?? []) as R;
    this.isExported = options.export ?? false;
  }

  /** The body, which the module needs before it can be written. */
  finished(): FunctionBuilder {
    assert(this.body, `function ${this.name} is declared and not defined`);
    return this.body as unknown as FunctionBuilder;
  }

  toText(): string {
    return listFunction(this.name, this, this.finished());
  }
}

/** A function type by itself, for `callIndirect` and for kernels that share one. */
export function funcType<const P extends Params = Record<never, never>, const R extends Results = readonly []>(
  type: Pick<FuncOptions<P, R>, 'params' | 'results'>,
): FuncType<P, R> {
  return { params: (type.params ?? {}) as P, results: (type.results ?? []) as R };
}

export class ModuleBuilder {
  readonly pointer: PointerType;
  readonly #memory: MemoryOptions | undefined;
  readonly #imports: ImportEntry[] = [];
  readonly #funcs: Func[] = [];
  readonly #table: FuncRef[] = [];
  readonly #globals: GlobalEntry[] = [];
  readonly #data: { readonly address: number; readonly bytes: Uint8Array }[] = [];
  readonly #names = new Set<string>();
  /** Signature codes of function types, in the order of their indexes. */
  readonly #types: string[] = [];

  constructor(options: ModuleOptions) {
    const { pointer, memory } = options;
    assert(!memory?.shared || memory.maxPages !== undefined, 'a shared memory needs maxPages');
    this.pointer = pointer;
    this.#memory = memory;
  }

  get isMemoryShared(): boolean {
    return this.#memory?.shared ?? false;
  }

  /** Imports a function. All imports come before the first function. */
  importFunc<const P extends Params = Record<never, never>, const R extends Results = readonly []>(
    module: string,
    name: string,
    type: FuncOptions<P, R>,
  ): FuncRef<P, R> {
    assert(this.#funcs.length === 0, `import ${name} after the first function`);
    const func = new Func(this.#claim(name), this.#imports.length, type);
    this.#imports.push({ func: func as unknown as Func, module });
    return func;
  }

  /** A function whose body follows by `define`: for recursion and calls forward. */
  declare<const P extends Params = Record<never, never>, const R extends Results = readonly []>(
    name: string,
    type: FuncOptions<P, R>,
  ): FuncRef<P, R> {
    const func = new Func(this.#claim(name), this.#imports.length + this.#funcs.length, type);
    this.#funcs.push(func as unknown as Func);
    return func;
  }

  /** Writes the body of a declared function. */
  define<P extends Params, R extends Results>(
    ref: FuncRef<P, R>,
    body: (f: FunctionBuilder<R>, params: ParamLocals<P>) => BodyResult<R>,
  ): void {
    assert(ref instanceof Func && this.#funcs.includes(ref) && !ref.body, `define ${ref.name}: not declared, or twice`);
    const f = new FunctionBuilder(this.pointer, ref.results);
    const params = Object.entries<Type>(ref.params).map(([name, type]) => [name, f.local(type, name)]);
    f.build(() => body(f, Object.fromEntries(params) as ParamLocals<P>) as Arg<Type> | void);
    ref.body = f as unknown as FunctionBuilder;
  }

  /** Declares and defines a function. The body gives its value, or ends by f.return(…). */
  func<const P extends Params = Record<never, never>, const R extends Results = readonly []>(
    name: string,
    type: FuncOptions<P, R>,
    body: (f: FunctionBuilder<R>, params: ParamLocals<P>) => BodyResult<R>,
  ): FuncRef<P, R> {
    const ref = this.declare(name, type);
    this.define(ref, body);
    return ref;
  }

  /** Appends functions to the table of `callIndirect`. @returns the index of the first */
  table(refs: readonly FuncRef[]): number {
    return this.#table.push(...refs) - refs.length;
  }

  /** A mutable variable of the instance; v128 is not supported. */
  global<T extends Exclude<Type, 'v128'>>(type: T, name: string, value: number | bigint = 0): Global<T> {
    const variable = new Global(this.#globals.length, type, this.#claim(name));
    this.#globals.push({ variable: variable as unknown as Global, value: value as number });
    return variable;
  }

  /** Copies `bytes` to `address` at every instantiation: in a shared memory that is once a thread. */
  data(address: number, bytes: Uint8Array): void {
    this.#data.push({ address, bytes });
  }

  /** The module in the binary format. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const { code, globals, data } = this.#encodeBodies();
    const importTypes = this.#imports.map(({ func }) => this.#typeIndex(func));
    const funcTypes = this.#funcs.map((func) => this.#typeIndex(func));
    const memory = this.#memory;
    const exported = this.#funcs.filter((func) => func.isExported);
    const module = new ByteWriter();
    const section = (id: number, isNeeded: boolean, write: (w: ByteWriter) => void) => {
      if (isNeeded) module.section(id, write);
    };
    module.byte(0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
    section(1, this.#types.length > 0, (w) => w.vector(this.#types, (_, type) => w.append(JSON.parse(type))));
    section(2, this.#imports.length > 0 || memory?.import !== undefined, (w) => this.#writeImports(w, importTypes));
    section(3, funcTypes.length > 0, (w) => w.vector(funcTypes, (_, index) => w.unsigned(index)));
    section(4, this.#table.length > 0, (w) => {
      w.byte(1, 0x70, 0x01);
      w.unsigned(this.#table.length);
      w.unsigned(this.#table.length);
    });
    section(5, memory !== undefined && !memory.import, (w) => {
      w.byte(1);
      this.#writeLimits(w, memory!);
    });
    section(6, this.#globals.length > 0, (w) => w.append(globals.bytes));
    section(7, exported.length > 0 || memory?.export !== undefined, (w) => {
      w.unsigned(exported.length + (memory?.export === undefined ? 0 : 1));
      for (const func of exported) writeExport(w, func.name, 0, func.index);
      if (memory?.export !== undefined) writeExport(w, memory.export, 2, 0);
    });
    section(9, this.#table.length > 0, (w) => {
      w.byte(1, 0, 0x41, 0, 0x0b);
      w.vector(this.#table, (_, ref) => w.unsigned(ref.index));
    });
    section(10, this.#funcs.length > 0, (w) => w.append(code.bytes));
    section(11, this.#data.length > 0, (w) => w.append(data.bytes));
    module.section(0, (w) => this.#writeNames(w));
    return Uint8Array.from(module.bytes);
  }

  /** The module as text. */
  toText(): string {
    const { pointer } = this;
    const lines = this.#imports.map(
      ({ func, module }) => `(import "${module}" "${func.name}" (func $${func.name}${listType(func, pointer, true)}))`,
    );
    if (this.#memory) lines.push(listMemory(this.#memory, pointer));
    if (this.#table.length > 0) {
      lines.push(`(table ${this.#table.length} ${this.#table.length} funcref)`);
      lines.push(`(elem (i32.const 0)${this.#table.map((ref) => ` $${ref.name}`).join('')})`);
    }
    for (const { variable, value } of this.#globals) {
      const type = lowerType(variable.type, pointer);
      lines.push(`(global $${variable.name} (mut ${type}) (${type}.const ${String(value)}))`);
    }
    lines.push(...this.#funcs.map((func) => func.toText()));
    const exported = this.#funcs.filter((func) => func.isExported);
    lines.push(...exported.map(({ name }) => `(export "${name}" (func $${name}))`));
    for (const { address, bytes } of this.#data) lines.push(`;; data: ${bytes.length} bytes at ${address}`);
    return ['(module', ...lines.map((line) => line.replace(/^/gm, '  ')), ')'].join('\n');
  }

  #claim(name: string): string {
    assert(/^[\w.]+$/.test(name), `"${name}" is not a name`);
    assert(!this.#names.has(name), `the module has two things named ${name}`);
    this.#names.add(name);
    return name;
  }

  /** What refers to function types, and so has to be encoded before the list of types is. */
  #encodeBodies(): { code: ByteWriter; globals: ByteWriter; data: ByteWriter } {
    const typeIndex = (type: FuncType) => this.#typeIndex(type);
    const [code, globals, data] = [new ByteWriter(), new ByteWriter(), new ByteWriter()];
    const constant = (w: ByteWriter, type: Type, value: Arg<Type>) => {
      const f = new FunctionBuilder(this.pointer, [type]);
      f.build(() => value);
      encodeInstructions(w, f.instructions, typeIndex);
      w.byte(0x0b);
    };
    code.vector(this.#funcs, (w, func) =>
      encodeFunction(w, func.finished(), Object.keys(func.params).length, typeIndex),
    );
    globals.vector(this.#globals, (w, { variable, value }) => {
      w.byte(VALUE_TYPE_CODES[lowerType(variable.type, this.pointer)], 1);
      constant(w, variable.type, operand(variable.type, value, variable.name));
    });
    data.vector(this.#data, (w, { address, bytes }) => {
      w.byte(0);
      constant(w, 'ptr', address);
      w.unsigned(bytes.length);
      w.append(bytes);
    });
    return { code, globals, data };
  }

  /** The index of a function type; equal types share one. */
  #typeIndex(type: FuncType): number {
    const codes = (types: readonly Type[]) => types.map((each) => VALUE_TYPE_CODES[lowerType(each, this.pointer)]);
    const writer = new ByteWriter();
    writer.byte(0x60);
    writer.vector(codes(Object.values(type.params)), (w, code) => w.byte(code));
    writer.vector(codes(type.results), (w, code) => w.byte(code));
    const key = JSON.stringify(writer.bytes);
    const index = this.#types.indexOf(key);
    return index >= 0 ? index : this.#types.push(key) - 1;
  }

  #writeImports(writer: ByteWriter, types: readonly number[]): void {
    const memory = this.#memory;
    writer.unsigned(this.#imports.length + (memory?.import ? 1 : 0));
    this.#imports.forEach(({ func, module }, i) => {
      writer.string(module);
      writer.string(func.name);
      writer.byte(0);
      writer.unsigned(types[i]!);
    });
    if (memory?.import) {
      writer.string(memory.import[0]);
      writer.string(memory.import[1]);
      writer.byte(2);
      this.#writeLimits(writer, memory);
    }
  }

  /** Flags: 1 has a maximum, 2 is shared, 4 has 64-bit addresses. */
  #writeLimits(writer: ByteWriter, { minPages, maxPages, shared }: MemoryOptions): void {
    writer.byte((maxPages === undefined ? 0 : 1) | (shared ? 2 : 0) | (this.pointer === 'i64' ? 4 : 0));
    writer.unsigned(minPages);
    if (maxPages !== undefined) writer.unsigned(maxPages);
  }

  /** The name section, by which profilers and stack traces call the functions. */
  #writeNames(writer: ByteWriter): void {
    const funcs = [...this.#imports.map(({ func }) => func), ...this.#funcs];
    writer.string('name');
    writer.section(1, (names) =>
      names.vector(funcs, (w, func) => {
        w.unsigned(func.index);
        w.string(func.name);
      }),
    );
  }
}

function writeExport(writer: ByteWriter, name: string, kind: number, index: number): void {
  writer.string(name);
  writer.byte(kind);
  writer.unsigned(index);
}

function listMemory(memory: MemoryOptions, pointer: PointerType): string {
  const { minPages, maxPages, shared } = memory;
  const width = pointer === 'i64' ? 'i64 ' : '';
  const limits = `${width}${minPages}${maxPages === undefined ? '' : ` ${maxPages}`}${shared ? ' shared' : ''}`;
  const exported = memory.export === undefined ? '' : `(export "${memory.export}") `;
  const [module, name] = memory.import ?? [];
  return module === undefined
    ? `(memory ${exported}${limits})`
    : `(import "${module}" "${name}" (memory ${exported}${limits}))`;
}
