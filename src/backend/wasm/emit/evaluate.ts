// Runs a few instructions at once, in a module of their own: for tests, and for probes that ask what a relaxed
// instruction computes on this machine.

import type { Expr } from './expression.ts';
import { ModuleBuilder } from './module-builder.ts';
import { f32, f64, i32, i64, ptr, v128 } from './operations.ts';

/**
 * Runs `body`, the statements of one function, on a 64 KiB memory that starts with `input`.
 * @returns a copy of the memory afterwards
 */
export function runOnce(body: () => void, input: Uint8Array = new Uint8Array()): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ pointer: 'i32', memory: { export: 'memory', minPages: 1 } });
  module.data(0, input);
  module.func('run', { export: true }, body);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()));
  (exports['run'] as () => void)();
  return new Uint8Array((exports['memory'] as WebAssembly.Memory).buffer.slice(0));
}

const STORES = {
  i32: i32.store,
  i64: i64.store,
  f32: f32.store,
  f64: f64.store,
  v128: v128.store,
  ptr: ptr.store,
} as Readonly<Record<Expr['type'], (address: number, value: Expr) => void>>;

/** The value of an expression: its bytes in a buffer of 16. It may read `input`, from address 0. */
export function evaluate(makeExpr: () => Expr, input?: Uint8Array): Uint8Array<ArrayBuffer> {
  const address = 32768;
  const run = () => {
    const value = makeExpr();
    STORES[value.type](address, value);
  };
  return runOnce(run, input).slice(address, address + 16);
}
