// Control structures and calls, compiled and run; and the mistakes that the builder refuses: by the compiler where
// types can tell (@ts-expect-error), and always when the function is written.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Expr, Local } from './expression.ts';
import type { FunctionBuilder, Label } from './function-builder.ts';
import { funcType, ModuleBuilder } from './module-builder.ts';
import { f32, i16x8, i32, i64, i8x16, ptr, v128 } from './operations.ts';

type Run = (...args: (number | bigint)[]) => number | bigint;
const int = funcType({ params: { n: 'i32' }, results: ['i32'] });

function instantiate(module: ModuleBuilder): Record<string, Run> {
  return new WebAssembly.Instance(new WebAssembly.Module(module.toBytes())).exports as Record<string, Run>;
}

/** The compiled function of one i32. */
function compile(body: (f: FunctionBuilder<readonly ['i32']>, n: Local<'i32'>) => Expr<'i32'> | void): Run {
  const module = new ModuleBuilder({ pointer: 'i32' });
  module.func('run', { ...int, export: true }, (f, { n }) => body(f, n));
  return instantiate(module)['run']!;
}

/** A function that is written and never run. */
function write(body: (f: FunctionBuilder<readonly []>) => void): void {
  new ModuleBuilder({ pointer: 'i32' }).func('f', {}, body);
}

test('a recursive function computes factorials', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const factorial = module.declare('factorial', { params: { n: 'i64' }, results: ['i64'], export: true });
  module.define(factorial, (f, { n }) => {
    f.if(i64.le_s(n, 1), () => f.return(1));
    return i64.mul(n, f.call(factorial, { n: i64.sub(n, 1) }));
  });
  assert.equal(instantiate(module)['factorial']!(20n), 2432902008176640000n);
});

test('a while loop tests first, a doWhile loop runs at least once', () => {
  const count = (kind: 'while' | 'doWhile') =>
    compile((f, n) => {
      const runs = f.local('i32', 'runs');
      const body = () => {
        runs.set(i32.add(runs, 1));
        n.set(i32.sub(n, 1));
      };
      if (kind === 'while') f.while(i32.gt_s(n, 0), body);
      else f.doWhile(body, i32.gt_s(n, 0));
      return runs;
    });
  assert.deepEqual(
    [3, 1, 0].map((n) => count('while')(n)),
    [3, 1, 0],
  );
  assert.deepEqual(
    [3, 1, 0].map((n) => count('doWhile')(n)),
    [3, 1, 1],
  );
});

test('nested for loops visit every pair, the end exclusive, the comparison signed', () => {
  const run = compile((f, n) => {
    const [i, j, sum] = [f.local('i32', 'i'), f.local('i32', 'j'), f.local('i32', 'sum')];
    f.for(i, { from: -3, to: n, step: 2 }, () => {
      f.for(j, { from: 0, to: 3 }, () => sum.set(i32.add(sum, i32.mul(i, j))));
    });
    return sum;
  });
  assert.equal(run(4), (-3 - 1 + 1 + 3) * (0 + 1 + 2));
  assert.equal(run(-3), 0);
});

test('continue still steps, break leaves: in for, while and doWhile', () => {
  const sumOfOddsBelow = 8;
  const skipAndStop = (f: FunctionBuilder<readonly ['i32']>, i: Local<'i32'>, stop: Label, next: Label) => {
    f.brIf(stop, i32.ge_s(i, sumOfOddsBelow));
    f.brIf(next, i32.eqz(i32.and(i, 1)));
  };
  const sums = (['for', 'while', 'doWhile'] as const).map((kind) =>
    compile((f, n) => {
      const [i, sum] = [f.local('i32', 'i'), f.local('i32', 'sum')];
      const add = () => sum.set(i32.add(sum, i));
      if (kind === 'for') {
        f.for(i, { from: 0, to: n }, (labels) => {
          skipAndStop(f, i, labels.break, labels.continue);
          add();
        });
      } else {
        i.set(-1);
        const body = (labels: { break: Label; continue: Label }) => {
          i.set(i32.add(i, 1));
          skipAndStop(f, i, labels.break, labels.continue);
          add();
        };
        if (kind === 'while') f.while(i32.lt_s(i, n), body);
        else f.doWhile(body, i32.lt_s(i, n));
      }
      return sum;
    })(100),
  );
  assert.deepEqual(sums, [16, 16, 16]);
});

test('a branch leaves several blocks at once, and starts an outer loop again', () => {
  const run = compile((f, n) => {
    const turns = f.local('i32', 'turns');
    f.block((outer) => {
      f.loop((again) => {
        turns.set(i32.add(turns, 1));
        f.block(() => {
          f.if(i32.ge_s(turns, n), () => f.br(outer));
          f.br(again);
        });
      });
    });
    return turns;
  });
  assert.equal(run(5), 5);
});

test('if takes one side, as a statement and as a value', () => {
  const sign = compile((f, n) => {
    const result = f.local('i32', 'result', 7);
    f.if(
      i32.lt_s(n, 0),
      () => result.set(-1),
      () => f.if(i32.gt_s(n, 0), () => result.set(1)),
    );
    return result;
  });
  assert.deepEqual(
    [-5, 5, 0].map((n) => sign(n)),
    [-1, 1, 7],
  );
  const collatz = compile((f, n) =>
    f.ifValue(
      'i32',
      i32.and(n, 1),
      () => i32.add(i32.mul(n, 3), 1),
      () => i32.shr_u(n, 1),
    ),
  );
  assert.deepEqual(
    [7, 10].map((n) => collatz(n)),
    [22, 5],
  );
});

test('an indirect call runs the chosen entry of the table and traps on another type', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const double = module.func('double', int, (_, { n }) => i32.mul(n, 2));
  const square = module.func('square', int, (_, { n }) => i32.mul(n, n));
  const other = module.func('other', {}, () => {});
  assert.equal(module.table([double, square]), 0);
  assert.equal(module.table([other]), 2);
  const type = { params: { which: 'i32', n: 'i32' }, results: ['i32'] } as const;
  module.func('apply', { ...type, export: true }, (f, { which, n }) => f.callIndirect(int, which, { n }));
  module.func('run', { params: { which: 'i32' }, export: true }, (f, { which }) => {
    f.execIndirect(funcType({}), which, {});
  });
  const { apply, run } = instantiate(module);
  assert.equal(apply!(0, 9), 18);
  assert.equal(apply!(1, 9), 81);
  assert.equal(run!(2), undefined);
  assert.throws(() => apply!(2, 9), WebAssembly.RuntimeError);
  assert.throws(() => run!(0), WebAssembly.RuntimeError);
});

test('unreachable traps, and ends a function whose every path has returned', () => {
  const run = compile((f, n) => {
    f.if(i32.eqz(n), () => f.return(1));
    f.unreachable();
  });
  assert.equal(run(0), 1);
  assert.throws(() => run(1), WebAssembly.RuntimeError);
});

test('arguments are passed by name, in the order of the declaration', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const minus = module.func('minus', { params: { a: 'i32', b: 'i32' }, results: ['i32'] }, (_, { a, b }) =>
    i32.sub(a, b),
  );
  module.func('run', { ...int, export: true }, (f, { n }) => f.call(minus, { b: n, a: 10 }));
  assert.equal(instantiate(module)['run']!(3), 7);
});

test('an expression is written again at each use and reads its locals there', () => {
  const run = compile((f, n) => {
    const twice = i32.mul(n, 2);
    const before = f.let('before', twice);
    n.set(100);
    return i32.add(before, twice);
  });
  assert.equal(run(1), 202);
});

test('refuses mixed types, at compile time and at run time', () => {
  write((f) => {
    // @ts-expect-error f32 where i32 is expected
    assert.throws(() => i32.add(f32.const(1), 1), /i32.add: expected i32, got f32/);
    // @ts-expect-error there are no literals of v128
    assert.throws(() => v128.not(1), /v128.not: expected an expression of type v128/);
    // @ts-expect-error an index is not an address
    assert.throws(() => i32.load(i32.const(4)), /i32.load: expected ptr, got i32/);
    // @ts-expect-error i64 literal for an i32
    assert.throws(() => i32.add(1n, 1), /i32.add: expected an expression/);
    // @ts-expect-error value of another type
    assert.throws(() => f.local('f32', 'x').set(i32.const(1)), /x.set: expected f32, got i32/);
    // @ts-expect-error condition of another type
    assert.throws(() => f.if(ptr.const(1), () => {}), /if: expected i32, got ptr/);
    // @ts-expect-error an operand is missing
    assert.throws(() => i32.add(1), /expected 2 operands, got 1/);
    // @ts-expect-error an operand too many
    assert.throws(() => i32.add(1, 2, 3), /1 arguments too many/);
  });
});

test('refuses immediates out of range', () => {
  write(() => {
    const x = v128.zero();
    assert.throws(() => v128.load8_lane(0, x, 16), /lane: expected an integer of 0..15, got 16/);
    assert.throws(() => i8x16.extract_lane_s(x, 16), /lane: expected an integer of 0..15, got 16/);
    assert.throws(() => i16x8.replace_lane(x, 1, 8), /lane: expected an integer of 0..7, got 8/);
    assert.throws(() => i8x16.shuffle(x, x, Array<number>(16).fill(32)), /lane: expected an integer of 0..31/);
    assert.throws(() => v128.load64_lane(0, x, 2), /0..1, got 2/);
    assert.throws(() => v128.load(0, -16), /offset: expected/);
    assert.throws(() => i32.const(2 ** 32), /expected an integer/);
    assert.throws(() => i32.const(1.5), /expected an integer/);
    assert.throws(() => i64.const(2n ** 64n), /expected an integer/);
    assert.throws(() => v128.const([1, 2, 3]), /16 bytes/);
  });
});

test('refuses locals of another function, statements outside of one, and calls with wrong arguments', () => {
  const module = new ModuleBuilder({ pointer: 'i32' });
  let stray: Local<'i32'> | undefined;
  const callee = module.func('callee', int, (_, { n }) => {
    stray = n;
    return n;
  });
  assert.throws(() => module.func('reads', int, () => stray), /local n belongs to another function/);
  assert.throws(() => module.func('writes', {}, () => stray!.set(1)), /local n belongs to another function/);
  assert.throws(() => i32.store(0, 1), /i32.store outside of a function body/);
  // @ts-expect-error the argument is missing
  assert.throws(() => module.func('missing', int, (f) => f.call(callee, {})), /argument n is missing/);
  // @ts-expect-error no such parameter
  assert.throws(() => module.func('extra', int, (f) => f.call(callee, { n: 1, m: 2 })), /no parameter m/);
});

test('refuses an effect that is forgotten or written twice', () => {
  assert.throws(() => write(() => void i32.atomic_rmw_add(0, 1)), /i32.atomic.rmw.add was made and never used/);
  assert.throws(
    () =>
      write((f) => {
        const old = i32.atomic_rmw_add(0, 1);
        f.drop(i32.add(old, old));
      }),
    /has an effect and is used twice/,
  );
});

test('refuses branches to closed blocks and functions that end without their value', () => {
  write((f) => {
    let closed: Label | undefined;
    f.block((label) => (closed = label));
    assert.throws(() => f.br(closed!), /closed already/);
  });
  assert.throws(() => compile(() => {}), /ends with a value/);
  const module = new ModuleBuilder({ pointer: 'i32' });
  module.declare('open', {});
  assert.throws(() => module.toBytes(), /declared and not defined/);
});
