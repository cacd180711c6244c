// Element-by-element kernels: add, mul, scale, softcap, silu, gelu and silu(a)·b. The second operand may be a single
// row. Threads share the columns, in runs of 16, so that one long row (decoding) is shared as well as many.

import { SWIGLU_OAI } from '../../../graph/operations-experts.ts';
import { columnsOf } from '../../../graph/tensor.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FunctionBuilder } from '../emit/function-builder.ts';
import { f32x4, i32, ptr, v128 } from '../emit/operations.ts';
import { geluInto, geluSigmoidInto, siluInto, sigmoidInto, softcapInto, splatF32 } from './floats.ts';
import { addressAt } from './kernel.ts';
import type { Kernel, KernelBody } from './kernel.ts';
import { quantizeBlocks, quantizing } from './rows.ts';

/** Sets `target` from the operands' vectors. `b` is undefined for functions of one operand. */
type ElementFunction = (f: FunctionBuilder, target: Local<'v128'>, a: Local<'v128'>, b: Expr<'v128'>) => void;

const siluMul: ElementFunction = (f, target, a, b) => {
  siluInto(f, target, a);
  target.set(f32x4.mul(target, b));
};

const swigluOai: ElementFunction = (f, target, a, b) => {
  const limit = splatF32(SWIGLU_OAI.limit);
  const gate = f.let('gate', f32x4.min(a, limit));
  const up = f.let('up', f32x4.max(f32x4.min(b, limit), splatF32(-SWIGLU_OAI.limit)));
  sigmoidInto(f, target, f32x4.mul(gate, splatF32(SWIGLU_OAI.slope)));
  target.set(f32x4.mul(f32x4.mul(gate, target), f32x4.add(up, splatF32(1))));
};

/** a · σ(b) · (1 + b · (1 − σ(b))) */
const siluGradient: ElementFunction = (f, target, a, b) => {
  // Beyond ±88 the slope is 0 or 1; what is next to nothing is no number to multiply large ones by.
  const x = f.let('x', f32x4.pmax(f32x4.pmin(b, splatF32(88)), splatF32(-88)));
  const rest = sigmoidInto(f, target, x);
  const slope = f32x4.add(splatF32(1), f32x4.mul(x, rest));
  target.set(f32x4.mul(a, f32x4.mul(target, slope)));
};

/** With s = σ(2u(x)), GELU is x·s and its slope s + x · s · (1 − s) · 2u′(x). */
const geluGradient: ElementFunction = (f, target, a, b) => {
  // Beyond ±20 the slope is 0 or 1; x³ would overflow.
  const x = f.let('x', f32x4.pmax(f32x4.pmin(b, splatF32(20)), splatF32(-20)));
  const rest = geluSigmoidInto(f, target, x);
  const scale = Math.sqrt(8 / Math.PI);
  const slope = f32x4.add(splatF32(scale), f32x4.mul(splatF32(3 * 0.044715 * scale), f32x4.mul(x, x)));
  const bend = f32x4.mul(f32x4.mul(x, slope), f32x4.mul(target, rest));
  target.set(f32x4.mul(a, f32x4.add(target, bend)));
};

function elementwise(op: Kernel['op'], nOperands: 1 | 2, element: ElementFunction): Kernel {
  return {
    op,
    dtypes: [],
    params: { columns: 'i32', bStride: 'i32' },
    values: ({ out, inputs }) => {
      const columns = columnsOf(out.tensor);
      const bIsRow = inputs[1]?.tensor.shape.length === 1;
      return { columns, bStride: bIsRow ? 0 : columns };
    },
    build: (k) => buildElementwise(k, nOperands, element),
  };
}

/** silu(a) · b, stored as f32 or quantised. */
const plainSiluMul = elementwise('siluMul', 2, siluMul);
const siluMulKernel: Kernel = {
  ...plainSiluMul,
  params: { columns: 'i32', bStride: 'i32', quantized: 'i32' },
  values: (instruction) => ({
    ...plainSiluMul.values(instruction),
    quantized: instruction.params['quantized'] ?? 0,
  }),
  build(k) {
    const { f } = k;
    const quantizer = quantizing(k);
    f.if(
      quantizer.isWanted,
      () => {
        const [va, result] = [f.local('v128', 'va'), f.local('v128', 'result')];
        const operands = [k.input(0, 'a'), k.input(1, 'b')];
        quantizeBlocks(k, quantizer, k.out(), k.param('columns'), operands, ([a, b], offset) => {
          va.set(v128.load(a!, offset));
          siluMul(f, result, va, v128.load(b!, offset));
          return result;
        });
      },
      () => plainSiluMul.build(k),
    );
  },
};

/** A function of an element and a number that the instruction has as the parameter `name`. */
function withNumber(
  op: Kernel['op'],
  name: string,
  element: (f: FunctionBuilder, target: Local<'v128'>, a: Local<'v128'>, number: Local<'v128'>) => void,
): Kernel {
  const plain = elementwise(op, 1, () => {});
  return {
    ...plain,
    params: { ...plain.params, [name]: 'f32' },
    values: (instruction) => ({ ...plain.values(instruction), [name]: instruction.params[name]! }),
    build(k) {
      const number = k.f.let(name, f32x4.splat(k.paramF32(name)));
      buildElementwise(k, 1, (f, target, a) => element(f, target, a, number));
    },
  };
}

function buildElementwise(k: KernelBody, nOperands: 1 | 2, element: ElementFunction): void {
  const { f } = k;
  const out = k.out();
  const a = k.input(0, 'a');
  const b = nOperands === 2 ? k.input(1, 'b') : a;
  const rows = k.rows();
  const columns = k.param('columns');
  const bStride = k.param('bStride');
  const { from, to } = k.share(i32.shr_u(i32.add(columns, 15), 4));
  from.set(i32.shl(from, 4));
  to.set(i32.shl(to, 4));
  f.if(i32.gt_s(to, columns), () => to.set(columns));
  const row = f.local('i32', 'row');
  const end = f.local('ptr', 'end');
  const vectorEnd = f.local('ptr', 'vectorEnd');
  const pa = f.local('ptr', 'pa');
  const pb = f.local('ptr', 'pb');
  const po = f.local('ptr', 'po');
  const va = f.local('v128', 'va');
  const result = f.local('v128', 'result');

  f.for(row, { from: 0, to: rows }, () => {
    const start = i32.add(i32.mul(row, columns), from);
    pa.set(addressAt(a, start, 4));
    po.set(addressAt(out, start, 4));
    pb.set(addressAt(b, i32.add(i32.mul(row, bStride), from), 4));
    end.set(addressAt(pa, i32.sub(to, from), 4));
    vectorEnd.set(addressAt(pa, i32.and(i32.sub(to, from), ~3), 4));
    const advance = (bytes: number): void => {
      for (const p of [pa, pb, po]) p.set(ptr.add(p, bytes));
    };
    f.while(ptr.lt_u(pa, vectorEnd), () => {
      va.set(v128.load(pa));
      element(f, result, va, v128.load(pb));
      v128.store(po, result);
      advance(16);
    });
    // The last one to three elements take the same code, one lane at a time.
    f.while(ptr.lt_u(pa, end), () => {
      va.set(v128.load32_zero(pa));
      element(f, result, va, v128.load32_zero(pb));
      v128.store32_lane(po, result, 0);
      advance(4);
    });
  });
}

export const ELEMENTWISE_KERNELS: readonly Kernel[] = [
  elementwise('add', 2, (_f, target, a, b) => target.set(f32x4.add(a, b))),
  elementwise('mul', 2, (_f, target, a, b) => target.set(f32x4.mul(a, b))),
  withNumber('scale', 'factor', (_f, target, a, factor) => target.set(f32x4.mul(a, factor))),
  withNumber('softcap', 'cap', softcapInto),
  elementwise('sigmoid', 1, (f, target, a) => void sigmoidInto(f, target, a)),
  elementwise('silu', 1, (f, target, a) => siluInto(f, target, a)),
  siluMulKernel,
  elementwise('swigluOai', 2, swigluOai),
  elementwise('gelu', 1, (f, target, a) => geluInto(f, target, a)),
  elementwise('siluGradient', 2, siluGradient),
  elementwise('geluGradient', 2, geluGradient),
  elementwise('accumulateGradient', 2, (_f, target, a, b) => target.set(f32x4.add(a, b))),
];
