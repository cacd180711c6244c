// Every row of the instruction table, validated by the engine in a tiny function of its own: code, operand types,
// result type and immediates have to be right together. That a code means what its name says: operations.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Expr } from './expression.ts';
import type { FunctionBuilder } from './function-builder.ts';
import { funcType, ModuleBuilder } from './module-builder.ts';
import { OPCODES, opcodeRow, parseSignature } from './opcodes.ts';
import type { OpcodeName, PointerType, Type } from './opcodes.ts';
import { f32, select, v128 } from './operations.ts';

const NAMES = Object.keys(OPCODES) as OpcodeName[];
type Body = (f: FunctionBuilder<readonly []>, module: ModuleBuilder) => void;

/** Instructions whose operands or immediates belong to the function or module around them. */
const IN_CONTEXT: Partial<Record<OpcodeName, Body>> = {
  block: (f) => f.block((label) => f.br(label)),
  loop: (f) => f.loop(() => f.return()),
  if: (f) => f.if(1, () => {}),
  else: (f) =>
    f.drop(
      f.ifValue(
        'v128',
        1,
        () => v128.zero(),
        () => v128.zero(),
      ),
    ),
  end: (f) => f.block(() => {}),
  br: (f) => f.block((label) => f.br(label)),
  br_if: (f) => f.block((label) => f.brIf(label, 1)),
  call: (f, module) => {
    const callee = module.func('callee', { params: { x: 'f32' }, results: ['i64'] }, () => 1n);
    f.drop(f.call(callee, { x: 1 }));
  },
  call_indirect: (f) => f.drop(f.callIndirect(funcType({ params: { x: 'ptr' }, results: ['f64'] }), 0, { x: 1 })),
  drop: (f) => f.drop(f32.const(1)),
  select: (f) => f.drop(select(v128.zero(), v128.zero(), 1)),
  'local.get': (f) => f.drop(f.local('v128', 'x')),
  'local.set': (f) => f.local('i64', 'x').set(1n),
  'local.tee': (f) => f.drop(f.local('f64', 'x').tee(1)),
  'global.get': (f, module) => f.drop(module.global('ptr', 'g')),
  'global.set': (_, module) => module.global('f32', 'g', 1.5).set(2),
};

/** Constant operands, the instruction, and a local of the result's type to take what it leaves. */
function plainBody(name: OpcodeName): Body {
  const [, signature, kind, size = 0] = opcodeRow(name);
  const { operands, result } = parseSignature(signature);
  const immediates: Record<string, unknown[]> = {
    memory: [8],
    memoryLane: [16 / size - 1, 8],
    lane: [size - 1],
    shuffle: [Array.from({ length: 16 }, (_, i) => 31 - i)],
    const: [name === 'v128.const' ? new Uint8Array(16) : 1],
  };
  return (f) => {
    for (const type of operands) {
      const value: Expr = type === 'v128' ? v128.zero() : f.local(type as Type, 'operand');
      value.emit(f);
    }
    f.emit(name, ...(immediates[kind as string] ?? []));
    if (result !== undefined) f.emit('local.set', f.local(result as Type, 'result'));
  };
}

function buildModule(pointer: PointerType, name: OpcodeName): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ pointer, memory: { minPages: 1, maxPages: 1, shared: true } });
  const body = IN_CONTEXT[name] ?? plainBody(name);
  const self = module.func('probe', {}, (f) => body(f, module));
  if (name === 'call_indirect') module.table([self]);
  return module.toBytes();
}

for (const pointer of ['i32', 'i64'] as const) {
  test(`the engine accepts every instruction of the table, with ${pointer} addresses`, () => {
    const refused = NAMES.filter((name) => !WebAssembly.validate(buildModule(pointer, name)));
    assert.deepEqual(refused, []);
    assert.ok(NAMES.length > 450);
  });
}

test('no two instructions share a code', () => {
  const codes = NAMES.map((name) => opcodeRow(name)[0]);
  assert.equal(new Set(codes).size, codes.length);
});
