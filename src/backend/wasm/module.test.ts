// The module: every kernel of every variant is valid WebAssembly, can be printed for review, and uses no instruction
// that its set forbids.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kernelKey } from './kernels/kernel.ts';
import type { KernelVariant } from './kernels/kernel.ts';
import { KERNELS } from './kernels/table.ts';
import { buildModule } from './module.ts';

const VARIANTS: readonly KernelVariant[] = [
  { set: 'relaxed', dot: 'u8', fma: true, wide: false },
  { set: 'relaxed', dot: 'i7', fma: true, wide: false },
  { set: 'simd', dot: 'i16', fma: false, wide: false },
  { set: 'strict', dot: 'i16', fma: false, wide: false },
];

for (const variant of VARIANTS) {
  for (const shared of [false, true]) {
    const name = `${variant.set} (${variant.dot})${shared ? ', shared memory' : ''}`;

    test(`${name}: all kernels make one valid module`, () => {
      for (const pointer of ['i32', 'i64'] as const) {
        const bytes = buildModule({ kernels: KERNELS, variant, pointer, shared }).toBytes();
        assert.ok(WebAssembly.validate(bytes), pointer);
      }
    });

    test(`${name}: every kernel prints itself, and no instruction that its set forbids`, () => {
      const text = buildModule({ kernels: KERNELS, variant, shared }).toText();
      const heads = [...text.matchAll(/^ *\(func \$(\S+) (.*)$/gm)];
      for (const { op, dtypes } of KERNELS) {
        const key = kernelKey(op, dtypes);
        const own = heads.filter((head) => head[1] === key);
        assert.equal(own.length, 1, key);
        assert.match(own[0]![2]!, /\(param \$rec i32\) \(param \$thread i32\) \(param \$nThreads i32\)/);
      }
      const open = [...text.matchAll(/\(/g)].length;
      assert.equal([...text.matchAll(/\)/g)].length, open, 'parentheses match');
      assert.equal(text.includes('relaxed_'), variant.set === 'relaxed');
      assert.equal(text.includes('atomic'), shared);
    });
  }
}

test('an i7 module gives the unsigned operand no more than seven bits: Q8_0 weights go without it', () => {
  const kernels = KERNELS.filter((k) => k.op === 'matmul' && k.dtypes[1] === 'Q8_0' && k.dtypes[0] === 'Q8A');
  const textOf = (dot: 'u8' | 'i7'): string =>
    buildModule({ kernels, variant: { set: 'relaxed', dot, fma: true, wide: false }, shared: false }).toText();
  assert.ok(textOf('u8').includes('relaxed_dot'));
  assert.ok(!textOf('i7').includes('relaxed_dot'));
});

test('the same variant gives the same bytes', () => {
  const build = (): Uint8Array => buildModule({ kernels: KERNELS, variant: VARIANTS[0]!, shared: true }).toBytes();
  assert.deepEqual(build(), build());
});
