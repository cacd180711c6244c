// Kernels over flat arrays: dropout with a counter-based mask, the sum of squares, AdamW.

import { assert } from '../../../../base/errors.ts';
import { HYPER, SUM_SEGMENT_COUNT } from '../../../../graph/operations-training.ts';
import { elementsMax } from '../../../../graph/tensor.ts';
import type { Expr, Local } from '../../emit/expression.ts';
import type { FunctionBuilder } from '../../emit/function-builder.ts';
import { f32, f32x4, i32, i32x4, i64x2, i8x16, ptr, v128 } from '../../emit/operations.ts';
import { splatI32, sumLanes, transpose } from '../floats.ts';
import { addressAt } from '../kernel.ts';
import type { Kernel, KernelBody } from '../kernel.ts';

/** Elements that a thread takes at once: a cache line, and the size of four Philox blocks. */
const RUN = 16;

/** Calls `body` with the index of each run of 16 elements in this thread's share of `n`. */
function eachRun(k: KernelBody, n: Local<'i32'>, body: (first: Local<'i32'>) => void): void {
  const { f } = k;
  const { from, to } = k.share(i32.shr_u(i32.add(n, RUN - 1), 4));
  const run = f.local('i32', 'run');
  const first = f.local('i32', 'first');
  f.for(run, { from, to }, () => {
    first.set(i32.shl(run, 4));
    body(first);
  });
}

/** Multipliers and key increments of Philox4x32-10 (Salmon et al. 2011). */
const PHILOX = { m0: 0xd2511f53, m1: 0xcd9e8d57, w0: 0x9e3779b9, w1: 0xbb67ae85, nRounds: 10 };

const EVEN = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
const ODD = EVEN.map((lane) => lane + 4);

/**
 * Makes the emitter of four Philox blocks at once, a block a lane: it changes the counter words `x` into random words.
 * Multipliers and increments are kept in locals, because constants in a loop are built anew each time.
 */
function philox(f: FunctionBuilder, key: readonly Local<'v128'>[]): (x: readonly Local<'v128'>[]) => void {
  const constant = (value: number): Local<'v128'> => f.let('philox', splatI32(value | 0));
  const [m0, m1] = [constant(PHILOX.m0), constant(PHILOX.m1)];
  const increments = [constant(PHILOX.w0), constant(PHILOX.w1)];
  const roundKey = f.localArray('v128', 'roundKey', 2);
  const low = f.local('v128', 'productLow');
  const high = f.local('v128', 'productHigh');
  const hi0 = f.local('v128', 'hi0');
  const lo0 = f.local('v128', 'lo0');
  const product = (a: Local<'v128'>, m: Local<'v128'>): void => {
    low.set(i64x2.extmul_low_i32x4_u(a, m));
    high.set(i64x2.extmul_high_i32x4_u(a, m));
  };
  return (x) => {
    const [x0, x1, x2, x3] = x as [Local<'v128'>, Local<'v128'>, Local<'v128'>, Local<'v128'>];
    for (let round = 0; round < PHILOX.nRounds; round++) {
      roundKey.forEach((k, i) => k.set(round === 0 ? key[i]! : i32x4.add(k, increments[i]!)));
      product(x0, m0);
      hi0.set(i8x16.shuffle(low, high, ODD));
      lo0.set(i8x16.shuffle(low, high, EVEN));
      product(x2, m1);
      x0.set(v128.xor(v128.xor(i8x16.shuffle(low, high, ODD), x1), roundKey[0]!));
      x1.set(i8x16.shuffle(low, high, EVEN));
      x2.set(v128.xor(v128.xor(hi0, x3), roundKey[1]!));
      x3.set(lo0);
    }
  };
}

const dropout: Kernel = {
  op: 'dropout',
  dtypes: [],
  params: { n: 'i32', stream: 'i32', threshold: 'i32', isAll: 'i32', scale: 'f32' },
  values({ out, params }) {
    const { p, stream } = params as { p: number; stream: number };
    // An element is kept when its 32 random bits are not below p · 2^32; no 32 bits reach 2^32.
    const threshold = Math.ceil(p * 2 ** 32);
    const isAll = threshold === 2 ** 32;
    return {
      n: elementsMax(out.tensor),
      stream,
      threshold: threshold | 0,
      isAll: isAll ? 1 : 0,
      scale: isAll ? 0 : 1 / (1 - p),
    };
  },
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const rng = k.input(1, 'rng');
    const n = k.param('n');
    const scale = f.let('scale', f32x4.splat(k.paramF32('scale')));
    const threshold = f.let('threshold', i32x4.splat(k.param('threshold')));
    const stream = f.let('stream', i32x4.splat(k.param('stream')));
    const isAll = k.param('isAll');
    const key = [0, 4].map((offset) => f.let('key', v128.load32_splat(rng, offset)));
    const step = f.let('step', v128.load32_splat(rng, 8));
    const randomize = philox(f, key);
    const words = f.localArray('v128', 'word', 4);
    const value = f.local('v128', 'value');
    const p = f.local('ptr', 'p');
    const target = f.local('ptr', 'target');
    const left = f.local('i32', 'left');
    const lane = f.local('i32', 'lane');
    eachRun(k, n, (first) => {
      words[0]!.set(i32x4.add(i32x4.splat(i32.shr_u(first, 2)), i32x4.const(0, 1, 2, 3)));
      words[1]!.set(stream);
      words[2]!.set(step);
      words[3]!.set(v128.zero());
      randomize(words);
      transpose(f, words);
      p.set(addressAt(x, first, 4));
      target.set(addressAt(out, first, 4));
      left.set(i32.sub(n, first));
      for (const word of words) {
        // Whether the element is kept, as a mask; p = 1 keeps none.
        word.set(i32x4.ge_u(word, threshold));
        f.if(isAll, () => word.set(v128.zero()));
        f.if(
          i32.ge_s(left, 4),
          () => v128.store(target, v128.and(f32x4.mul(v128.load(p), scale), word)),
          () => {
            lane.set(0);
            f.while(i32.lt_s(lane, left), () => {
              value.set(v128.and(f32x4.mul(v128.load32_zero(addressAt(p, lane, 4)), scale), word));
              v128.store32_lane(addressAt(target, lane, 4), value, 0);
              word.set(i8x16.shuffle(word, word, [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3]));
              lane.set(i32.add(lane, 1));
            });
          },
        );
        p.set(ptr.add(p, 16));
        target.set(ptr.add(target, 16));
        left.set(i32.sub(left, 4));
      }
    });
  },
};

const sumSquares: Kernel = {
  op: 'sumSquares',
  dtypes: [],
  params: { n: 'i32' },
  values: ({ inputs }) => ({ n: elementsMax(inputs[0]!.tensor) }),
  build(k) {
    const { f } = k;
    const out = k.out();
    const x = k.input(0, 'x');
    const n = k.param('n');
    const segmentSize = f.let('segmentSize', i32.div_u(i32.add(n, SUM_SEGMENT_COUNT - 1), SUM_SEGMENT_COUNT));
    const { from, to } = k.share(i32.const(SUM_SEGMENT_COUNT));
    const segment = f.local('i32', 'segment');
    const end = f.local('i32', 'end');
    const i = f.local('i32', 'i');
    const p = f.local('ptr', 'p');
    const v = f.local('v128', 'v');
    const sums = f.localArray('v128', 'sum', 4);
    f.for(segment, { from, to }, () => {
      i.set(i32.mul(segment, segmentSize));
      end.set(i32.add(i, segmentSize));
      f.if(i32.gt_s(end, n), () => end.set(n));
      p.set(addressAt(x, i, 4));
      for (const s of sums) s.set(v128.zero());
      f.while(i32.le_s(i32.add(i, 16), end), () => {
        sums.forEach((s, j) => {
          v.set(v128.load(p, 16 * j));
          s.set(f32x4.add(s, f32x4.mul(v, v)));
        });
        p.set(ptr.add(p, 64));
        i.set(i32.add(i, 16));
      });
      f.while(i32.lt_s(i, end), () => {
        v.set(v128.load32_zero(p));
        sums[0]!.set(f32x4.add(sums[0]!, f32x4.mul(v, v)));
        p.set(ptr.add(p, 4));
        i.set(i32.add(i, 1));
      });
      const total = f32x4.add(f32x4.add(sums[0]!, sums[1]!), f32x4.add(sums[2]!, sums[3]!));
      const folded = f.let('folded', sumLanes(f, total));
      f32.store(addressAt(out, segment, 4), folded);
    });
  },
};

/** The whole state is processed in runs; its size is rounded up to them, and the parameters begin at their borders. */
const adamW: Kernel = {
  op: 'adamW',
  dtypes: [],
  params: { n: 'i32', nDecayed: 'i32' },
  values({ inputs, params }) {
    const n = elementsMax(inputs[0]!.tensor);
    const nDecayed = params['nDecayed']!;
    assert(n % RUN === 0 && nDecayed % RUN === 0, `adamW works on runs of ${RUN}, got ${n} and ${nDecayed} elements`);
    return { n, nDecayed };
  },
  build(k) {
    const { f } = k;
    const [parameters, m, v, gradients, squares, hyper] = ['parameters', 'm', 'v', 'gradients', 'squares', 'hyper'].map(
      (name, i) => k.input(i, name),
    ) as [Local<'ptr'>, Local<'ptr'>, Local<'ptr'>, Local<'ptr'>, Local<'ptr'>, Local<'ptr'>];
    const h = (name: keyof typeof HYPER): Local<'f32'> => f.let(name, f32.load(hyper, 4 * HYPER[name]));
    const splat = (x: Expr<'f32'>): Local<'v128'> => f.let('splat', f32x4.splat(x));
    const [rate, beta1, beta2] = [h('learningRate'), h('beta1'), h('beta2')];
    const one = f32.const(1);
    const [keep1, add1] = [splat(beta1), splat(f32.sub(one, beta1))];
    const [keep2, add2] = [splat(beta2), splat(f32.sub(one, beta2))];
    const eps = splat(h('eps'));
    const step = splat(f32.div(rate, h('correction1')));
    const correction2 = splat(f32.div(one, h('correction2')));
    const shrink = splat(f32.sub(one, f32.mul(rate, h('weightDecay'))));
    const clip = splat(clipFactor(k, squares, h('maxNorm')));
    const n = k.param('n');
    const nDecayed = k.param('nDecayed');
    const keepWeight = f.local('v128', 'keepWeight');
    const offset = f.local('ptr', 'offset');
    const [g, m1, v1] = ['g', 'm1', 'v1'].map((name) => f.local('v128', name)) as [
      Local<'v128'>,
      Local<'v128'>,
      Local<'v128'>,
    ];
    eachRun(k, n, (first) => {
      keepWeight.set(f32x4.splat(one));
      f.if(i32.lt_s(first, nDecayed), () => keepWeight.set(shrink));
      offset.set(ptr.shl(ptr.fromI32(first), 2));
      const at = (base: Local<'ptr'>): Expr<'ptr'> => ptr.add(base, offset);
      for (let i = 0; i < RUN; i += 4) {
        g.set(f32x4.mul(v128.load(at(gradients), 4 * i), clip));
        m1.set(f32x4.add(f32x4.mul(v128.load(at(m), 4 * i), keep1), f32x4.mul(g, add1)));
        v1.set(f32x4.add(f32x4.mul(v128.load(at(v), 4 * i), keep2), f32x4.mul(f32x4.mul(g, g), add2)));
        v128.store(at(m), m1, 4 * i);
        v128.store(at(v), v1, 4 * i);
        v128.store(at(gradients), v128.zero(), 4 * i);
        const denominator = f32x4.add(f32x4.sqrt(f32x4.mul(v1, correction2)), eps);
        const update = f32x4.div(f32x4.mul(m1, step), denominator);
        const kept = f32x4.mul(v128.load(at(parameters), 4 * i), keepWeight);
        v128.store(at(parameters), f32x4.sub(kept, update), 4 * i);
      }
    });
  },
};

/** min(1, maxNorm / norm), or 1 where maxNorm is 0. Leaves the kernel where the norm is not finite. */
function clipFactor(k: KernelBody, squares: Local<'ptr'>, maxNorm: Local<'f32'>): Expr<'f32'> {
  const { f } = k;
  const sum = f.let('squareSum', f32.const(0));
  const i = f.local('i32', 'i');
  f.for(i, { from: 0, to: SUM_SEGMENT_COUNT }, () => sum.set(f32.add(sum, f32.load(addressAt(squares, i, 4)))));
  const norm = f.let('norm', f32.sqrt(sum));
  f.if(i32.eqz(f32.lt(norm, f32.const(Infinity))), () => f.return());
  const factor = f.let('clip', f32.const(1));
  f.if(i32.and(f32.gt(maxNorm, f32.const(0)), f32.gt(norm, maxNorm)), () => factor.set(f32.div(maxNorm, norm)));
  return factor;
}

export const OPTIMIZER_KERNELS: readonly Kernel[] = [dropout, sumSquares, adamW];
