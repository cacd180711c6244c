// The WebAssembly module of a program: its kernels in one function table, the barrier, and `run`, which walks the
// program's records. Programs with the same kernels share a module.

import type { Local } from './emit/expression.ts';
import type { FuncRef, FunctionBuilder } from './emit/function-builder.ts';
import { ModuleBuilder } from './emit/module-builder.ts';
import type { PointerType } from './emit/opcodes.ts';
import { i32, memory, ptr } from './emit/operations.ts';
import {
  BARRIER_OFFSET,
  COUNTER_SLOT,
  COUNTER_STRIDE_SLOT,
  KERNEL_TYPE,
  RECORD_BYTES,
  SLOT_BYTES,
  defineKernel,
} from './kernels/kernel.ts';
import type { KernelVariant, Routine } from './kernels/kernel.ts';
import { ABORT_ADDRESS, COUNT_ADDRESS, PHASE_ADDRESS, SLEEPERS_ADDRESS } from './memory.ts';

export const PAGE_BYTES = 65536;

/** Pages that a memory can have: 4 GiB by the standard, and 16 GiB by what engines do. */
const PAGE_COUNT_MAX: Readonly<Record<PointerType, number>> = { i32: 65536, i64: 262144 };

/**
 * Spins before a waiting thread lets the operating system take its core, for each other thread and at most: about 60
 * and 500 µs. Of many threads one is often late, and who sleeps then makes all of them late. Of two, who spins for long
 * may hold the core that the other waits for, where other programs run.
 */
const SPINS_OF_THREAD = 25_000;
const SPINS_MAX = 200_000;

export interface ModuleKind {
  /** The function table, in this order. */
  readonly kernels: readonly Routine[];
  readonly variant: KernelVariant;
  /** Width of addresses. Default `i32`. */
  readonly pointer?: PointerType;
  /** Several threads over a shared memory; otherwise one thread and no atomics. */
  readonly shared: boolean;
}

/** Imported by shared modules: sleeps while the phase is `phase` (pool-protocol.ts). */
const SLEEP_TYPE = { params: { phase: 'i32' } } as const;
type SleepRef = FuncRef<{ readonly phase: 'i32' }, readonly []>;

/** What an instance exports. */
export interface RunExports {
  /** Executes `nInstructions` records from `program` on; returns when all threads are done. Traps if one crashed. */
  run(program: number, nInstructions: number, thread: number, nThreads: number): void;
}

export function buildModule({ kernels, variant, pointer = 'i32', shared }: ModuleKind): ModuleBuilder {
  const module = new ModuleBuilder({
    pointer,
    memory: { import: ['env', 'memory'], shared, minPages: 1, maxPages: PAGE_COUNT_MAX[pointer] },
  });
  const sleep = shared ? module.importFunc('env', 'sleep', SLEEP_TYPE) : undefined;
  module.table(kernels.map((kernel) => defineKernel(module, variant, kernel)));
  const barrier = sleep && defineBarrier(module, sleep);
  defineRun(module, barrier);
  return module;
}

function defineRun(module: ModuleBuilder, barrier: FuncRef<{ nThreads: 'i32' }, readonly []> | undefined): void {
  const params = { program: 'i32', nInstructions: 'i32', thread: 'i32', nThreads: 'i32' } as const;
  module.func('run', { params, results: [], export: true }, (f, { program, nInstructions, thread, nThreads }) => {
    const left = f.let('left', nInstructions);
    const rec = f.let('rec', ptr.fromI32(program));
    if (barrier) {
      const stride = ptr.fromI32(i32.load(rec, COUNTER_STRIDE_SLOT * SLOT_BYTES));
      const counters = ptr.add(ptr.load(rec, COUNTER_SLOT * SLOT_BYTES), ptr.mul(ptr.fromI32(thread), stride));
      memory.fill(counters, 0, ptr.fromI32(i32.shl(nInstructions, 2)));
      // Nobody takes from a share before its owner is there.
      f.exec(barrier, { nThreads });
    }
    f.while(i32.gt_s(left, 0), () => {
      if (barrier) f.if(i32.load(rec, BARRIER_OFFSET), () => f.exec(barrier, { nThreads }));
      f.execIndirect(KERNEL_TYPE, i32.load(rec), { rec, thread, nThreads });
      rec.set(ptr.add(rec, RECORD_BYTES));
      left.set(i32.sub(left, 1));
    });
    if (barrier) f.exec(barrier, { nThreads });
  });
}

/**
 * Sense-reversing barrier: the last to arrive opens the next phase. The others spin, then sleep; whoever finds the
 * abort flag set (another thread has crashed and will never arrive) traps.
 */
function defineBarrier(module: ModuleBuilder, sleep: SleepRef): FuncRef<{ nThreads: 'i32' }, readonly []> {
  return module.func('barrier', { params: { nThreads: 'i32' }, results: [] }, (f, { nThreads }) => {
    const at = (address: number) => ptr.const(address);
    const phase = f.let('phase', i32.atomic_load(at(PHASE_ADDRESS)));
    const arrived = f.let('arrived', i32.atomic_rmw_add(at(COUNT_ADDRESS), 1));
    f.if(
      i32.eq(i32.add(arrived, 1), nThreads),
      () => {
        i32.atomic_store(at(COUNT_ADDRESS), 0);
        i32.atomic_store(at(PHASE_ADDRESS), i32.add(phase, 1));
        f.if(i32.atomic_load(at(SLEEPERS_ADDRESS)), () => {
          f.drop(memory.atomic_notify(at(PHASE_ADDRESS), nThreads));
        });
      },
      () => awaitPhase(f, phase, nThreads, sleep),
    );
  });
}

function awaitPhase(
  f: FunctionBuilder<readonly []>,
  phase: Local<'i32'>,
  nThreads: Local<'i32'>,
  sleep: SleepRef,
): void {
  const spinsMax = f.let('spinsMax', i32.mul(i32.sub(nThreads, 1), SPINS_OF_THREAD));
  f.if(i32.gt_u(spinsMax, SPINS_MAX), () => spinsMax.set(SPINS_MAX));
  const spins = f.let('spins', i32.const(0));
  const isWaiting = i32.eq(i32.atomic_load(ptr.const(PHASE_ADDRESS)), phase);
  f.while(isWaiting, () => {
    spins.set(i32.add(spins, 1));
    f.if(i32.gt_u(spins, spinsMax), () => {
      f.if(i32.atomic_load(ptr.const(ABORT_ADDRESS)), () => f.unreachable());
      f.drop(i32.atomic_rmw_add(ptr.const(SLEEPERS_ADDRESS), 1));
      f.exec(sleep, { phase });
      f.drop(i32.atomic_rmw_sub(ptr.const(SLEEPERS_ADDRESS), 1));
    });
  });
}
