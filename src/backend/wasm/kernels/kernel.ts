// What a kernel is: a WebAssembly function (record, thread, nThreads) that does one thread's share of one instruction.
// The record is 256 bytes in shared memory; its layout stands here once, for the encoder and for the kernels.

import type { OpName } from '../../../graph/operations.ts';
import type { Instruction } from '../../../graph/plan.ts';
import type { TensorDType } from '../../../graph/tensor.ts';
import { EXPANDED_BYTES } from '../../../quant/grids/expansion.ts';
import type { Expr, Local } from '../emit/expression.ts';
import type { FuncRef, FunctionBuilder } from '../emit/function-builder.ts';
import { funcType } from '../emit/module-builder.ts';
import type { ModuleBuilder } from '../emit/module-builder.ts';
import { f32, i32, ptr } from '../emit/operations.ts';

/** Which instructions kernels may use. `strict` results are the same bits on every machine. */
export type KernelSet = 'relaxed' | 'simd' | 'strict';

export interface KernelVariant {
  readonly set: KernelSet;
  /**
   * Integer dot products: `u8`, `i7` and `i7p` use relaxed instructions with an unsigned operand of 8 or 7 bits, as the
   * probe found it to work; `i16` multiplies in 16 bits, exactly, everywhere.
   */
  readonly dot: 'u8' | 'i7' | 'i7p' | 'i16';
  /** f32 multiply-add in one relaxed instruction (fused on most machines). */
  readonly fma: boolean;
  /** Tiles for an engine that makes vectors of 256 bits out of pairs of 128: as many registers hold twice as much. */
  readonly wide: boolean;
}

/** Record layout: slots of 8 bytes, so that pointers of either width fit. */
export const RECORD_BYTES = 256;
export const SLOT_BYTES = 8;
/** Slot 0: i32 kernel (index into the function table), i32 barrier flag. */
export const BARRIER_OFFSET = 4;
/** Slot 1: address of the row count, an i32. */
export const ROWS_SLOT = 1;
export const OUT_SLOT = 2;
/** Slots 3..9: addresses of up to seven operands. */
export const INPUT_SLOT = 3;
/** Slot 10: address of the threads' scratch. */
export const SCRATCH_SLOT = 10;
export const PARAM_SLOT = 11;
/** Slot 27: i32 bytes between the threads' counters; slot 28: address of thread 0's counter of this record. */
export const COUNTER_STRIDE_SLOT = 27;
export const COUNTER_SLOT = 28;
/** Slot 29: address of the scratch that threads share. */
export const SHARED_SCRATCH_SLOT = 29;
/** Slot 30: i32 bytes of scratch that each thread has. */
export const SCRATCH_BYTES_SLOT = 30;
/** Last slot: the row count itself, for instructions whose rows do not vary. */
export const ROWS_VALUE_SLOT = 31;

/** Writes an address into a slot of a record, wide enough for kernels of either pointer width. */
export function setAddress(view: DataView, at: number, address: number): void {
  view.setUint32(at, address, true);
  view.setUint32(at + 4, address / 2 ** 32, true);
}

/** Unit in which the arena is cleared: buffers are whole cache lines. */
export const LINE_BYTES = 64;

/**
 * Addresses of what the clear kernel goes by and counts, among the control words (memory.ts): i32 lines from the
 * arena's start that have been handed out before this run, by any program or to the caller; f64 lines zeroed so far,
 * and f64 lines left alone because they were new, hence zero.
 */
export const CLEARING = { usedLines: 256, clearedLines: 264, skippedLines: 272 };

/** Scratch that every thread has at least: eight blocks written out while they are packed, or attention scores. */
export const SCRATCH_BYTES_MIN = 8 * EXPANDED_BYTES;

export const KERNEL_TYPE = funcType({ params: { rec: 'ptr', thread: 'i32', nThreads: 'i32' }, results: [] });

/** Code that a record calls, in source form. */
export interface Routine {
  readonly op: string;
  /** Types of the operands that select it, as `kernelKey` lists them. */
  readonly dtypes: readonly TensorDType[];
  /** Parameters in the record, in this order from `PARAM_SLOT` on. */
  readonly params: Readonly<Record<string, 'i32' | 'f32'>>;
  build(body: KernelBody): void;
}

/** A kernel. `op` and `dtypes` say which instructions it serves. */
export interface Kernel extends Routine {
  readonly op: OpName;
  /** Their values for an instruction. */
  values(instruction: Instruction): Readonly<Record<string, number>>;
  /** Private memory that a thread needs for an instruction, where `SCRATCH_BYTES_MIN` may be too little. */
  scratchBytes?(instruction: Instruction): number;
  /** Memory that threads share within an instruction. It is zero at first; a kernel finds in it what it left there. */
  sharedScratchBytes?(instruction: Instruction): number;
}

/** The table key: operation and the types of the operands that matter to the kernel. */
export function kernelKey(op: string, dtypes: readonly TensorDType[]): string {
  return [op, ...dtypes].join('.');
}

/** What a kernel's builder works with: its function, its variant and the fields of its record. */
export class KernelBody {
  readonly module: ModuleBuilder;
  readonly variant: KernelVariant;
  readonly f: FunctionBuilder;
  readonly thread: Local<'i32'>;
  readonly nThreads: Local<'i32'>;
  readonly #rec: Local<'ptr'>;
  readonly #params: readonly string[];

  constructor(
    module: ModuleBuilder,
    variant: KernelVariant,
    kernel: Routine,
    f: FunctionBuilder,
    locals: { rec: Local<'ptr'>; thread: Local<'i32'>; nThreads: Local<'i32'> },
  ) {
    this.module = module;
    this.variant = variant;
    this.f = f;
    this.#rec = locals.rec;
    this.thread = locals.thread;
    this.nThreads = locals.nThreads;
    this.#params = Object.keys(kernel.params);
  }

  /** A local with the address of the result. */
  out(): Local<'ptr'> {
    return this.f.let('out', ptr.load(this.#rec, OUT_SLOT * SLOT_BYTES));
  }

  /** A local with the address of operand `index`. */
  input(index: number, name: string): Local<'ptr'> {
    return this.f.let(name, ptr.load(this.#rec, (INPUT_SLOT + index) * SLOT_BYTES));
  }

  /** A local with the present row count. */
  rows(): Local<'i32'> {
    return this.f.let('rows', i32.load(ptr.load(this.#rec, ROWS_SLOT * SLOT_BYTES)));
  }

  /** A local with the address of this thread's scratch. */
  scratch(): Local<'ptr'> {
    const bytes = i32.load(this.#rec, SCRATCH_BYTES_SLOT * SLOT_BYTES);
    const offset = ptr.fromI32(i32.mul(this.thread, bytes));
    return this.f.let('scratch', ptr.add(ptr.load(this.#rec, SCRATCH_SLOT * SLOT_BYTES), offset));
  }

  /** A local with the address of the scratch that threads share. */
  sharedScratch(): Local<'ptr'> {
    return this.f.let('shared', ptr.load(this.#rec, SHARED_SCRATCH_SLOT * SLOT_BYTES));
  }

  /** Whether several threads may run the kernel: without a shared memory there are no atomic instructions. */
  get isShared(): boolean {
    return this.module.isMemoryShared;
  }

  param(name: string): Local<'i32'> {
    return this.f.let(name, i32.load(this.#rec, this.#paramOffset(name)));
  }

  /** Statement: a parameter that is a result. */
  setParam(name: string, value: Expr<'i32'>): void {
    i32.store(this.#rec, value, this.#paramOffset(name));
  }

  paramF32(name: string): Local<'f32'> {
    return this.f.let(name, f32.load(this.#rec, this.#paramOffset(name)));
  }

  /** This thread's share [from, to) of `total` equal items. */
  share(total: Expr<'i32'>): { from: Local<'i32'>; to: Local<'i32'> } {
    const { f, thread, nThreads } = this;
    const all = f.let('total', total);
    const from = f.let('from', i32.div_u(i32.mul(all, thread), nThreads));
    const to = f.let('to', i32.div_u(i32.mul(all, i32.add(thread, 1)), nThreads));
    return { from, to };
  }

  /**
   * Emits `body` for runs [from, to) of `total` items, each of which goes to one thread: first this thread's own
   * share, `grain` items at a time, then what others have not begun of theirs, so that a thread that the machine holds
   * up holds up the rest for one run at most. Who does an item must not matter to its result.
   */
  eachRun(total: Expr<'i32'>, grain: Expr<'i32'>, body: (from: Local<'i32'>, to: Local<'i32'>) => void): void {
    const { f, thread, nThreads } = this;
    const all = f.let('total', total);
    const from = f.let('from', i32.const(0));
    const to = f.let('to', all);
    if (!this.isShared) return body(from, to);
    const step = f.let('grain', grain);
    const owner = f.let('owner', thread);
    const left = f.let('ownersLeft', nThreads);
    const end = f.local('i32', 'shareEnd');
    const counters = f.let('counters', ptr.load(this.#rec, COUNTER_SLOT * SLOT_BYTES));
    const stride = f.let('counterStride', ptr.fromI32(i32.load(this.#rec, COUNTER_STRIDE_SLOT * SLOT_BYTES)));
    f.while(left, () => {
      const start = f.let('shareStart', i32.div_u(i32.mul(all, owner), nThreads));
      end.set(i32.div_u(i32.mul(all, i32.add(owner, 1)), nThreads));
      const counter = f.let('counter', addressAt(counters, owner, stride));
      f.loop((again) => {
        // Looking comes first: what is exhausted stays as it is, in the caches of all.
        f.if(i32.lt_s(i32.add(start, i32.atomic_load(counter)), end), () => {
          from.set(i32.add(start, i32.atomic_rmw_add(counter, step)));
          f.if(i32.lt_s(from, end), () => {
            to.set(i32.add(from, step));
            f.if(i32.gt_s(to, end), () => to.set(end));
            body(from, to);
            f.br(again);
          });
        });
      });
      owner.set(i32.add(owner, 1));
      f.if(i32.eq(owner, nThreads), () => owner.set(0));
      left.set(i32.sub(left, 1));
    });
  }

  #paramOffset(name: string): number {
    return (PARAM_SLOT + this.#params.indexOf(name)) * SLOT_BYTES;
  }
}

/** Defines the kernel's function in `module`. */
export function defineKernel(module: ModuleBuilder, variant: KernelVariant, kernel: Routine): FuncRef {
  const name = kernelKey(kernel.op, kernel.dtypes);
  return module.func(name, { ...KERNEL_TYPE }, (f, locals) => {
    kernel.build(new KernelBody(module, variant, kernel, f, locals as never));
  });
}

/** base + index · stride, in bytes; the product is taken at pointer width. */
export function addressAt(base: Expr<'ptr'>, index: Expr<'i32'>, strideBytes: Expr<'ptr'> | number): Expr<'ptr'> {
  return ptr.add(base, ptr.mul(ptr.fromI32(index), strideBytes));
}
