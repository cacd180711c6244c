// A thousand texts in one process that is warm: resident memory stays where it is, in the worker and inline.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needsShared, sharedPath } from '../shared-data.ts';

/** By then everything is compiled, every prompt is in the cache, and the small heap has found its size. */
const N_WARM_UP = 500;
const N_GENERATIONS = N_WARM_UP + 1000;
/** Generations whose median is compared: single ones are at the mercy of the collector. */
const WINDOW = 100;
const RELATIVE_TOLERANCE = 0.05;

// In a heap of its default size V8 collects so late that thousands of texts go by before memory stops growing. In a
// small one the collector has to run, and what stays is what is held.
const FLAGS = ['--conditions=smallmind-source', '--max-old-space-size=64', '--max-semi-space-size=2'];

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

describe('resident memory stays flat over 1,000 texts', needsShared(), () => {
  for (const [thread, threads] of [
    ['inline', 1],
    ['worker', 2],
  ] as const) {
    test(`${thread}, ${threads} thread(s)`, (t) => {
      const path = fileURLToPath(new URL('./generations.child.ts', import.meta.url));
      const model = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
      const args = [...FLAGS, path, model, thread, String(threads), String(N_GENERATIONS)];
      const residentBytes = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as number[];
      assert.equal(residentBytes.length, N_GENERATIONS);
      const windows: number[] = [];
      for (let start = N_WARM_UP; start < N_GENERATIONS; start += WINDOW) {
        windows.push(median(residentBytes.slice(start, start + WINDOW)));
      }
      const megabytes = windows.map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(' ');
      t.diagnostic(`${thread}: ${megabytes} MiB by hundreds after ${N_WARM_UP}`);
      for (const bytes of windows) assert.ok(Math.abs(bytes / windows[0]! - 1) <= RELATIVE_TOLERANCE, megabytes);
    });
  }
});
