// Chooses the kernel variant by running tiny programs. Engines implement the relaxed dot product with different
// machine instructions, so what its unsigned operand may hold is measured, never guessed from a version.

import { platform } from '#platform';
import { UnsupportedError } from '../../base/errors.ts';
import { wasmFeatures } from './emit/features.ts';
import { ModuleBuilder } from './emit/module-builder.ts';
import { i32x4, i8x16 } from './emit/operations.ts';
import type { KernelSet, KernelVariant } from './kernels/kernel.ts';

export type DotMode = KernelVariant['dot'];

let relaxedDot: DotMode | undefined;

/** What the relaxed dot product computes here: `i16` when it is missing or unfit. */
export function probeRelaxedDot(): DotMode {
  relaxedDot ??= wasmFeatures().relaxedSimd ? probe() : 'i16';
  return relaxedDot;
}

function probe(): DotMode {
  if (isExact(255)) return 'u8';
  if (!isExact(127)) return 'i16';
  // What saturates in between is several instructions (pmaddubsw, pmaddwd, paddd), of which the first is had alone.
  return relaxedDotOf(127, 255, 127) === 2 * 32767 + 5 ? 'i7p' : 'i7';
}

/**
 * Whether the instruction is exact for all signed bytes times unsigned ones up to `max`, at the extremes and between.
 */
function isExact(max: number): boolean {
  const signed = [-127, 127, 1, -1, 64, -77];
  const unsigned = [max, 0, 1, Math.floor(max / 2) + 1, max - 1];
  return signed.every((a) =>
    unsigned.every((b) => signed.every((c) => relaxedDotOf(a, b, c) === 3 * a * b + c * b + 5)),
  );
}

/** 5 + a·b + a·b + a·b + c·b by the relaxed instruction, lane 0. Operands are run-time values: no folding. */
function relaxedDotOf(a: number, b: number, c: number): number {
  probeFunction ??= instantiateProbe();
  return probeFunction(a, b, c);
}

let probeFunction: ((a: number, b: number, c: number) => number) | undefined;

function instantiateProbe(): (a: number, b: number, c: number) => number {
  const module = new ModuleBuilder({ pointer: 'i32' });
  const params = { a: 'i32', b: 'i32', c: 'i32' } as const;
  module.func('dot', { params, results: ['i32'], export: true }, (f, { a, b, c }) => {
    const signed = f.let('signed', i8x16.replace_lane(i8x16.splat(a), c, 3));
    const start = i32x4.const(5, 5, 5, 5);
    return i32x4.extract_lane(i32x4.relaxed_dot_i8x16_i7x16_add_s(signed, i8x16.splat(b), start), 0);
  });
  const compiled = new WebAssembly.Module(module.toBytes() as BufferSource);
  return new WebAssembly.Instance(compiled).exports['dot'] as (a: number, b: number, c: number) => number;
}

/** The smallest module there is: its header. */
const EMPTY_MODULE = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/** A page may forbid WebAssembly. How an engine words that differs; that it then compiles nothing at all does not. */
function requireCompilation(): void {
  try {
    void new WebAssembly.Module(EMPTY_MODULE);
  } catch (error) {
    throw new UnsupportedError(
      'UNSUPPORTED_MACHINE',
      "WebAssembly may not be compiled here; in a page, add 'wasm-unsafe-eval' to the script-src directive of its " +
        'Content-Security-Policy, and of the one that its workers are served with',
      { directive: 'script-src' },
      { cause: error },
    );
  }
}

/**
 * The variant for a kernel set; `auto` is the fastest that this engine runs.
 * @throws {UnsupportedError} UNSUPPORTED_MACHINE without SIMD, without relaxed SIMD when that is asked for, or where a
 *   policy forbids WebAssembly
 */
export function chooseVariant(set: KernelSet | 'auto'): KernelVariant {
  requireCompilation();
  const features = wasmFeatures();
  const wide = platform.hasWideVectors();
  if (!features.simd) {
    throw new UnsupportedError(
      'UNSUPPORTED_MACHINE',
      'this JavaScript engine has no WebAssembly SIMD; use a newer one (run "smallmind doctor" for details)',
    );
  }
  if (set === 'relaxed' && !features.relaxedSimd) {
    throw new UnsupportedError(
      'UNSUPPORTED_MACHINE',
      'this JavaScript engine has no relaxed SIMD; choose the kernels "simd" or "auto"',
    );
  }
  if (set === 'relaxed' || (set === 'auto' && features.relaxedSimd)) {
    return { set: 'relaxed', dot: probeRelaxedDot(), fma: true, wide };
  }
  return { set: set === 'auto' ? 'simd' : set, dot: 'i16', fma: false, wide };
}
