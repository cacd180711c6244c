// Feature detection, against what the development engine is known to have, and against an engine that is made to refuse
// some modules.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmFeatures } from './features.ts';

test('finds every feature in Node 24 or newer, and does not look twice', () => {
  const found = wasmFeatures();
  assert.deepEqual(found, { simd: true, relaxedSimd: true, threads: true, memory64: true });
  assert.equal(wasmFeatures(), found);
});

test('a feature is false where the engine refuses the module that uses it', async (t) => {
  t.mock.method(WebAssembly, 'validate', (bytes: Uint8Array) => !bytes.includes(0xfd));
  const fresh = (await import(`./features.ts?fresh=${Date.now()}`)) as typeof import('./features.ts');
  const { simd, relaxedSimd, threads, memory64 } = fresh.wasmFeatures();
  assert.deepEqual([simd, relaxedSimd, threads, memory64], [false, false, true, true]);
});
