// The compute limit, for float and quantised weights, with one thread and several. The bounds are wide, since machines
// differ; a loop that the engine had optimised away would be far beyond.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measureComputeLimit } from './compute-limit.ts';

/** More than a core does: 16 products of bytes in each of four vector units at 8 GHz. */
const GOPS_MAX = 2 * 16 * 4 * 8;

const CASES = [
  ['F32', 1, 'auto'],
  ['Q8_0', 1, 'auto'],
  ['Q4_0', 2, 'auto'],
  ['Q4_0', 2, 'strict'],
] as const;

for (const [dtype, threads, kernels] of CASES) {
  test(`what ${threads} threads multiply and add with ${kernels} kernels for ${dtype} is possible`, async () => {
    const gops = await measureComputeLimit(dtype, threads, kernels);
    assert.ok(gops > 0.1 && gops < threads * GOPS_MAX, `${gops} GOP/s`);
  });
}
