// Modules as a whole: memories of both widths, threads, imports, globals, data, constants, and the listing. Everything
// but the listing is instantiated and run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmFeatures } from './features.ts';
import { ModuleBuilder } from './module-builder.ts';
import type { PointerType } from './opcodes.ts';
import { f32, f32x4, i32, i64, memory, ptr, v128 } from './operations.ts';

type Run = (...args: (number | bigint)[]) => number | bigint;

function instantiate(module: ModuleBuilder, imports: WebAssembly.Imports = {}): Record<string, Run> {
  return new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()), imports).exports as Record<string, Run>;
}

/** A memory that the module imports. TypeScript does not know 64-bit ones yet. */
function makeMemory(pointer: PointerType, shared: boolean): WebAssembly.Memory {
  const pages = (count: number) => (pointer === 'i64' ? BigInt(count) : count);
  const descriptor = { initial: pages(1), maximum: pages(2), shared, address: pointer };
  return new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
}

const IMPORTED = { import: ['env', 'memory'], minPages: 1, maxPages: 2 } as const;

function buildDot(pointer: PointerType): ModuleBuilder {
  const module = new ModuleBuilder({ pointer, memory: IMPORTED });
  const type = { params: { x: 'ptr', y: 'ptr', n: 'i32' }, results: ['f32'], export: true } as const;
  module.func('dot', type, (f, { x, y, n }) => {
    const acc = f.localArray('v128', 'acc', 2);
    const end = f.let('end', ptr.add(x, ptr.shl(ptr.fromI32(n), 2)));
    f.doWhile(
      () => {
        acc.forEach((each, k) => each.set(f32x4.add(each, f32x4.mul(v128.load(x, 16 * k), v128.load(y, 16 * k)))));
        x.set(ptr.add(x, 32));
        y.set(ptr.add(y, 32));
      },
      ptr.lt_u(x, end),
    );
    const sum = f.let('sum', f32x4.add(acc[0]!, acc[1]!));
    return [0, 1, 2, 3].map((lane) => f32x4.extract_lane(sum, lane)).reduce((a, b) => f32.add(a, b));
  });
  return module;
}

for (const pointer of ['i32', 'i64'] as const) {
  const options = { skip: pointer === 'i64' && !wasmFeatures().memory64 };
  const address = (value: number) => (pointer === 'i64' ? BigInt(value) : value);

  test(`one kernel source runs with ${pointer} addresses`, options, () => {
    const linear = makeMemory(pointer, false);
    const { dot } = instantiate(buildDot(pointer), { env: { memory: linear } });
    const values = new Float32Array(linear.buffer);
    for (let i = 0; i < 16; i++) values[i] = i;
    values.fill(2, 64, 64 + 16);
    assert.equal(dot!(address(0), address(256), 16), 240);
  });

  test(`pointers have the width of ${pointer} addresses when loaded, stored, converted and offset`, options, () => {
    const linear = makeMemory(pointer, false);
    const module = new ModuleBuilder({ pointer, memory: IMPORTED });
    const start = module.global('ptr', 'start', 64);
    module.data(8, Uint8Array.of(16, 0, 0, 0, 0, 0, 0, 0));
    module.func('run', { params: { at: 'i32' }, results: ['i32'], export: true }, (f, { at }) => {
      const loaded = f.let('loaded', ptr.load(ptr.fromI32(at)));
      ptr.store(start, ptr.add(ptr.mul(loaded, 2), ptr.fromI32Signed(-1)), 8);
      start.set(ptr.add(start, 8));
      memory.fill(96, 0xab, 4);
      memory.copy(100, 96, 2);
      return ptr.toI32(ptr.load(start));
    });
    const { run } = instantiate(module, { env: { memory: linear } });
    assert.equal(run!(8), 31);
    const bytes = new Uint8Array(linear.buffer);
    assert.deepEqual([...bytes.subarray(72, 80)], [31, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual([...bytes.subarray(95, 103)], [0, 0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0]);
  });

  test(`atomics work on a shared memory with ${pointer} addresses, and a wait times out`, options, () => {
    const linear = makeMemory(pointer, true);
    const module = new ModuleBuilder({ pointer, memory: { ...IMPORTED, shared: true } });
    const int = { params: { at: 'ptr', value: 'i32' }, results: ['i32'], export: true } as const;
    module.func('add', int, (_, { at, value }) => i32.atomic_rmw_add(at, value, 4));
    module.func('swap', int, (_, { at, value }) => i32.atomic_rmw_cmpxchg(at, 5, value, 4));
    module.func('wait', int, (_, { at, value }) => memory.atomic_wait32(at, value, 1000n, 4));
    module.func('notify', int, (_, { at, value }) => memory.atomic_notify(at, value, 4));
    const { add, swap, wait, notify } = instantiate(module, { env: { memory: linear } });
    const at = address(16);
    assert.deepEqual([add!(at, 5), swap!(at, 9), swap!(at, 1)], [0, 5, 9]);
    assert.equal(new Int32Array(linear.buffer)[5], 9);
    assert.equal(wait!(at, 8), 1, 'not equal');
    assert.equal(wait!(at, 9), 2, 'timed out');
    assert.equal(notify!(at, 1), 0, 'nobody waits');
    assert.throws(() => add!(address(17), 1), WebAssembly.RuntimeError, 'unaligned');
  });
}

test('imported functions come first in the index space, whatever calls them', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const log = module.importFunc('env', 'log', { params: { x: 'f32' } });
  const half = module.func('half', { params: { x: 'f32' }, results: ['f32'] }, (_, { x }) => f32.mul(x, 0.5));
  module.func('run', { export: true }, (f) => f.exec(log, { x: f.call(half, { x: 3 }) }));
  const seen: number[] = [];
  instantiate(module, { env: { log: (x: number) => seen.push(x) } })['run']!();
  assert.deepEqual(seen, [1.5]);
  assert.throws(() => module.importFunc('env', 'late', {}), /after the first function/);
});

test('a memory of its own is exported, with its data; names are unique', () => {
  const module = new ModuleBuilder({ pointer: 'i32', memory: { export: 'memory', minPages: 1 } });
  module.data(3, Uint8Array.of(1, 2));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()));
  const linear = exports['memory'] as WebAssembly.Memory;
  assert.deepEqual([...new Uint8Array(linear.buffer, 2, 4)], [0, 1, 2, 0]);
  module.func('same', {}, () => {});
  assert.throws(() => module.func('same', {}, () => {}), /two things named same/);
});

test('constants keep their value through encoding', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const ints = [0, 63, 64, -64, -65, 2 ** 31 - 1, -(2 ** 31), 2 ** 32 - 1];
  const longs = [0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n - 1n];
  const floats = [0, -0, 0.1, Infinity, -Infinity, NaN, 1e-45];
  ints.forEach((value, i) => module.func(`int${i}`, { results: ['i32'], export: true }, () => value));
  longs.forEach((value, i) => module.func(`long${i}`, { results: ['i64'], export: true }, () => i64.const(value)));
  floats.forEach((value, i) => module.func(`float${i}`, { results: ['f32'], export: true }, () => value));
  const run = instantiate(module);
  assert.deepEqual(
    ints.map((_, i) => run[`int${i}`]!()),
    ints.map((value) => value | 0),
  );
  assert.deepEqual(
    longs.map((_, i) => run[`long${i}`]!()),
    longs.map((value) => BigInt.asIntN(64, value)),
  );
  assert.deepEqual(
    floats.map((_, i) => run[`float${i}`]!()),
    floats.map((value) => Math.fround(value)),
  );
});

test('the listing shows names, nesting, offsets and lanes, in the order of the source', () => {
  const module = new ModuleBuilder({ pointer: 'i64', memory: { ...IMPORTED, shared: true } });
  const type = { params: { at: 'ptr', n: 'i32' }, results: ['f32'], export: true } as const;
  const func = module.func('sum', type, (f, { at, n }) => {
    const acc = f.local('v128', 'acc', f32x4.const(0, 1, 0, 0));
    f.while(n, ({ break: exit }) => {
      acc.set(f32x4.add(acc, v128.load(at, 16)));
      f.if(
        i32.eq(n, 3),
        () => f.br(exit),
        () => n.set(i32.sub(n, 1)),
      );
    });
    return f32x4.extract_lane(acc, 3);
  });
  const expected = `
(func $sum (param $at i64) (param $n i32) (result f32)
  (local $acc v128)
  (local $constant v128)
  v128.const i32x4 0x00000000 0x3f800000 0x00000000 0x00000000
  local.set $constant
  local.get $constant
  local.set $acc
  block $block0
    loop $loop0
      local.get $n
      i32.eqz
      br_if $block0
      local.get $acc
      local.get $at
      v128.load offset=16
      f32x4.add
      local.set $acc
      local.get $n
      i32.const 3
      i32.eq
      if $if0
        br $block0
      else
        local.get $n
        i32.const 1
        i32.sub
        local.set $n
      end
      br $loop0
    end
  end
  local.get $acc
  f32x4.extract_lane 3
)`.trim();
  assert.equal(func.toText(), expected);
  const head = '(module\n  (import "env" "memory" (memory i64 1 2 shared))\n';
  const tail = '\n  (export "sum" (func $sum))\n)';
  assert.equal(module.toText(), `${head}${expected.replace(/^/gm, '  ')}${tail}`);
});
