// What this engine's WebAssembly understands, found out by validating tiny modules that use it: never by version.
// What a relaxed instruction computes is not asked here: that takes running it (evaluate.ts).

import type { FunctionBuilder } from './function-builder.ts';
import type { ModuleOptions } from './module-builder.ts';
import { ModuleBuilder } from './module-builder.ts';
import { f32x4, i32, ptr, v128 } from './operations.ts';

export interface WasmFeatures {
  /** 128-bit vectors. */
  readonly simd: boolean;
  /** Relaxed vector instructions exist; what they compute has to be probed by running them. */
  readonly relaxedSimd: boolean;
  /** Atomics and shared memories. Whether a page may hand one to a worker is another question: crossOriginIsolated. */
  readonly threads: boolean;
  /** 64-bit addresses. */
  readonly memory64: boolean;
}

let cached: WasmFeatures | undefined;

/** Found out at the first call, then remembered. All false where there is no WebAssembly at all. */
export function wasmFeatures(): WasmFeatures {
  cached ??= {
    simd: isValid({ pointer: 'i32' }, (f) => f.drop(v128.zero())),
    relaxedSimd: isValid({ pointer: 'i32' }, (f) => {
      f.drop(f32x4.relaxed_madd(v128.zero(), v128.zero(), v128.zero()));
    }),
    threads: isValid({ pointer: 'i32', memory: { minPages: 1, maxPages: 1, shared: true } }, () => {
      i32.atomic_store(0, 0);
    }),
    memory64: isValid({ pointer: 'i64', memory: { minPages: 1 } }, () => ptr.store(0, 0)) && hasWideMemory(),
  };
  return cached;
}

function isValid(options: ModuleOptions, body: (f: FunctionBuilder<readonly []>) => void): boolean {
  if (typeof WebAssembly === 'undefined') return false;
  const module = new ModuleBuilder(options);
  module.func('probe', {}, body);
  return WebAssembly.validate(module.toBytes());
}

/** Whether such a memory can be made: Node 22 takes modules with 64-bit addresses, but of an older draft. */
function hasWideMemory(): boolean {
  try {
    // The compiler's library does not know 64-bit memories yet.
    const wide = { initial: 0n, maximum: 0n, address: 'i64' } as unknown as WebAssembly.MemoryDescriptor;
    return new WebAssembly.Memory(wide).buffer.byteLength === 0;
  } catch {
    return false;
  }
}
