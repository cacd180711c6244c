// Proof 10 of the hot path: a full forward allocates nothing on the JavaScript heap, measured where nothing else runs,
// with a young generation so large that no collection hides the growth.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const FLAGS = ['--conditions=smallmind-source', '--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64'];
/** Rounds in which V8 still compiles what it finds to be hot. */
const N_WARM_UP = 6;

describe('10. a full model forward allocates no heap bytes after warm-up', () => {
  for (const name of ['gpt2', 'llama']) {
    for (const threads of [1, 2]) {
      test(`${name} on ${threads} threads: less than a byte a forward over 2,000 forwards`, (t) => {
        const path = fileURLToPath(new URL('./heap.child.ts', import.meta.url));
        const output = execFileSync(process.execPath, [...FLAGS, path, name, String(threads)], { encoding: 'utf8' });
        const warm = (JSON.parse(output) as number[]).slice(N_WARM_UP).sort((a, b) => a - b);
        // What a forward allocates shows in every round; compiling something late shows in one or two.
        const median = warm[Math.floor(warm.length / 2)]!;
        t.diagnostic(`${name}, ${threads} threads: ${median.toFixed(2)} bytes a forward`);
        assert.ok(median < 1, `${median} bytes a forward; by round: ${warm.map((n) => n.toFixed(2)).join(' ')}`);
      });
    }
  }
});
