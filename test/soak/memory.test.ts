// A thousand texts in one process that is warm, and models that are loaded and closed again and again: resident memory
// stays where it is, in the worker and inline. SMALLMIND_SOAK_CYCLES says how often models are loaded in the worker,
// which takes half a second each from sources: 500 is full size, with SMALLMIND_TEST_SECONDS=600.

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
const N_CYCLES = { inline: 500, worker: Number(process.env['SMALLMIND_SOAK_CYCLES'] ?? 60) };
/** Parts of the cycles whose medians are compared; the first is the warm-up. */
const N_PARTS = 5;
const PLACES = [
  ['inline', 1],
  ['worker', 2],
] as const;

// In a heap of its default size V8 collects so late that thousands of texts go by before memory stops growing. In a
// small one the collector has to run, and what stays is what is held.
const FLAGS = ['--conditions=smallmind-source', '--max-old-space-size=64', '--max-semi-space-size=2'];

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Runs a program of this folder on stories260K in a small heap. @returns what it prints, parsed */
function residentBytesOf(program: string, thread: string, threads: number, n: number): readonly number[] {
  const path = fileURLToPath(new URL(program, import.meta.url));
  const model = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
  const args = [...FLAGS, path, model, thread, String(threads), String(n)];
  const residentBytes = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as number[];
  assert.equal(residentBytes.length, n);
  return residentBytes;
}

/** The medians, in MiB, of windows after the warm-up. */
function windowsOf(residentBytes: readonly number[], nWarmUp: number, length: number): number[] {
  const windows: number[] = [];
  for (let start = nWarmUp; start < residentBytes.length; start += length) {
    windows.push(median(residentBytes.slice(start, start + length)) / 2 ** 20);
  }
  return windows;
}

const show = (megabytes: readonly number[]): string => megabytes.map((n) => n.toFixed(1)).join(' ');

describe('resident memory stays flat over 1,000 texts', needsShared(), () => {
  for (const [thread, threads] of PLACES) {
    test(`${thread}, ${threads} thread(s)`, (t) => {
      const residentBytes = residentBytesOf('./generations.child.ts', thread, threads, N_GENERATIONS);
      const windows = windowsOf(residentBytes, N_WARM_UP, WINDOW);
      t.diagnostic(`${thread}: ${show(windows)} MiB by hundreds after ${N_WARM_UP}`);
      for (const n of windows) assert.ok(n <= windows[0]! * (1 + RELATIVE_TOLERANCE), show(windows));
    });
  }
});

describe('resident memory stays flat when models are loaded and closed', needsShared(), () => {
  for (const [thread, threads] of PLACES) {
    const n = N_CYCLES[thread];
    test(`${thread}, ${threads} thread(s), ${n} times`, (t) => {
      const length = Math.ceil(n / N_PARTS);
      const windows = windowsOf(residentBytesOf('./cycles.child.ts', thread, threads, n), length, length);
      t.diagnostic(`${thread}: ${show(windows)} MiB by ${length} after ${length}`);
      // It may become less: memory that was freed late.
      for (const size of windows) assert.ok(size / windows[0]! - 1 <= RELATIVE_TOLERANCE, show(windows));
    });
  }
});
