// How many multiply-adds a second this machine does with the instructions of a weight type's matrix kernel: the same
// sums over operands that the nearest cache holds, without unpacking, scales and results. What prefill is held against.

import { platform } from '#platform';
import type { DType } from '../../base/dtype.ts';
import type { QuantizedFormat } from '../../quant/block.ts';
import type { Local } from './emit/expression.ts';
import type { FunctionBuilder } from './emit/function-builder.ts';
import { i32, ptr, v128 } from './emit/operations.ts';
import { multiplyAdd } from './kernels/floats.ts';
import { pairSums, quadSums, totalOf, turnProducts } from './kernels/matmul/integer-sums.ts';
import { COUNTER_SLOT, COUNTER_STRIDE_SLOT, OUT_SLOT, SLOT_BYTES, setAddress } from './kernels/kernel.ts';
import type { KernelSet, KernelVariant, Routine } from './kernels/kernel.ts';
import { interleavingOf, quantizedFormatOf } from './kernels/matmul/layout.ts';
import type { Turn } from './kernels/matmul/block-reader.ts';
import { PAGE_BYTES, buildModule } from './module.ts';
import { threadPool } from './pool.ts';
import { chooseVariant } from './probe.ts';

/** Rows of x in a tile, against eight of W: which is the best differs with the instructions. */
const TILE_ROWS = [2, 3, 4, 6, 8];
const N_COLUMNS = 32;
/** Times 32 columns in a run, which takes about ten milliseconds. */
const N_BLOCKS = 500_000;
const N_RUNS = 8;

/** In a memory of one page. Counters are a cache line a thread. */
const RECORD_ADDRESS = 4096;
const COUNTERS_ADDRESS = 8192;
const COUNTER_BYTES = 64;
const DATA_ADDRESS = 16384;
/** What is read of W; a row of x, which no two are a power of two apart. */
const W_BYTES = 1024;
const X_BYTES = 192;

/**
 * Multiply-adds a second, in units of 10⁹ operations (an addition and a multiplication are two), that `threads` reach.
 * @param dtype    the type of the weights; activations are in 8 bits where those are quantised
 * @param kernels  the kernel set whose instructions count
 * @throws {UnsupportedError} as `chooseVariant` does
 */
export async function measureComputeLimit(
  dtype: DType,
  threads: number,
  kernels: KernelSet | 'auto' = 'auto',
): Promise<number> {
  const nThreads = platform.canShareMemory() && platform.canBlock() ? threads : 1;
  const shared = nThreads > 1;
  const kind = {
    kernels: TILE_ROWS.map((nRows) => limitRoutine(dtype, nRows)),
    variant: chooseVariant(kernels),
    shared,
  };
  const module = await WebAssembly.compile(buildModule(kind).toBytes() as BufferSource);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared });
  const record = new DataView(memory.buffer, RECORD_ADDRESS);
  writeRecord(record);
  const place = threadPool.reserve(nThreads);
  try {
    const alone = await threadPool.instantiate(place, module, memory);
    const model = await threadPool.attach(place, alone, module, memory);
    let best = 0;
    for (let run = 0; run < N_RUNS; run++) {
      for (const [index, nRows] of TILE_ROWS.entries()) {
        record.setInt32(0, index, true);
        const startMs = performance.now();
        threadPool.run(model, RECORD_ADDRESS, 1);
        const operations = 2 * 8 * nRows * N_COLUMNS * N_BLOCKS * nThreads;
        best = Math.max(best, operations / (performance.now() - startMs) / 1e6);
      }
    }
    return best;
  } finally {
    await threadPool.release(place);
  }
}

function writeRecord(record: DataView): void {
  setAddress(record, OUT_SLOT * SLOT_BYTES, DATA_ADDRESS);
  setAddress(record, COUNTER_SLOT * SLOT_BYTES, COUNTERS_ADDRESS);
  record.setInt32(COUNTER_STRIDE_SLOT * SLOT_BYTES, COUNTER_BYTES, true);
}

/**
 * Every thread does all of it; the sums are stored, so that they are wanted, and side by side, so that V8 can make one
 * 256-bit vector of both halves of a group.
 */
function limitRoutine(dtype: DType, nRows: number): Routine {
  return {
    op: `computeLimit${nRows}`,
    dtypes: [dtype],
    params: {},
    build(k) {
      const { f, variant } = k;
      const w = k.out();
      const x = Array.from({ length: nRows }, (_, c) => f.let('x', ptr.add(w, W_BYTES + X_BYTES * c)));
      const halves = [f.let('sumLow', v128.zero()), f.let('sumHigh', v128.zero())] as const;
      const format = quantizedFormatOf(dtype);
      const block = format ? integerBlock(f, x, w, halves, format, variant) : floatBlock(f, x, w, halves, variant);
      f.for(f.local('i32', 'block'), { from: 0, to: i32.const(N_BLOCKS) }, block);
      halves.forEach((sum, h) => v128.store(w, sum, PAGE_BYTES / 2 + 16 * h));
    },
  };
}

type Halves = readonly [Local<'v128'>, Local<'v128'>];

function integerBlock(
  f: FunctionBuilder,
  x: readonly Local<'ptr'>[],
  w: Local<'ptr'>,
  halves: Halves,
  format: QuantizedFormat,
  variant: KernelVariant,
) {
  const isPairs = interleavingOf(format, variant) === 'pairs';
  const sums = isPairs ? pairSums(f, x.length, 1) : quadSums(f, x.length, 1, format, variant);
  const addTurns = turnProducts(f, sums, x);
  const turns = Array.from({ length: isPairs ? 16 : 8 }, (_, turn): Turn => {
    return { turn, terms: sums.map(() => [v128.load(w, 32 * turn), v128.load(w, 32 * turn + 16)]) };
  });
  return (): void => {
    for (const each of sums) each.begin();
    addTurns(turns);
    x.forEach((_, c) => halves.forEach((sum, h) => sum.set(v128.xor(sum, totalOf(sums, c, 0, h)))));
  };
}

function floatBlock(
  f: FunctionBuilder,
  x: readonly Local<'ptr'>[],
  w: Local<'ptr'>,
  halves: Halves,
  variant: KernelVariant,
) {
  const sums = x.map(() => [f.local('v128', 'low'), f.local('v128', 'high')] as const);
  const [low, high] = [f.local('v128', 'wLow'), f.local('v128', 'wHigh')];
  const splat = f.local('v128', 'xSplat');
  return (): void => {
    for (let column = 0; column < N_COLUMNS; column++) {
      low.set(v128.load(w, 32 * column));
      high.set(v128.load(w, 32 * column + 16));
      x.forEach((p, c) => {
        splat.set(v128.load32_splat(p, 4 * column));
        const [sumLow, sumHigh] = sums[c]!;
        sumLow.set(multiplyAdd(variant, low, splat, sumLow));
        sumHigh.set(multiplyAdd(variant, high, splat, sumHigh));
      });
    }
    for (const pair of sums) halves.forEach((sum, h) => sum.set(v128.xor(sum, pair[h]!)));
  };
}
