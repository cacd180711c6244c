// Zero heap bytes a token: what the engine's worker leaves on the JavaScript heap for each token, from the step to the
// posted text, with a young generation so large that no collection hides it. And what a token costs its caller.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { needsShared, sharedPath } from '../shared-data.ts';

const FLAGS = ['--conditions=smallmind-source', '--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64'];

const MESSAGE_BYTES_MAX = 1024;

/** Runs a program of this folder on stories260K. @returns what it prints, parsed */
function runChild(program: string, ...args: string[]): unknown {
  const path = fileURLToPath(new URL(program, import.meta.url));
  const model = sharedPath('models', 'stories260K', 'stories260K-f32.gguf');
  return JSON.parse(execFileSync(process.execPath, [...FLAGS, path, model, ...args], { encoding: 'utf8' }));
}

/** Texts during which V8 compiles most of what it finds to be hot; that memory is not a step's. */
const N_WARM_UP = 9;

const CASES = [
  { name: 'the default sampler', threads: 1, sampler: {} },
  {
    name: 'every sampler step',
    threads: 1,
    sampler: { typicalP: 0.95, repeatPenalty: 1.1, frequencyPenalty: 0.1, presencePenalty: 0.1 },
  },
  { name: 'a bias and a ban', threads: 1, sampler: { logitBias: { 5: 1, 300: -2 }, bannedTokens: [7] } },
  { name: 'a greedy choice on two threads', threads: 2, sampler: { temperature: 0 } },
];

describe("a token costs no byte of heap in the engine's worker", needsShared(), () => {
  for (const { name, threads, sampler } of CASES) {
    test(`with ${name}`, (t) => {
      const texts = runChild('./worker.child.ts', String(threads), JSON.stringify(sampler)) as number[];
      const warm = texts.slice(N_WARM_UP).sort((a, b) => a - b);
      assert.ok(warm.length >= 8);
      // What a token allocates shows in every text; what V8 compiles late, in some.
      const [least, median] = [warm[0]!, warm[Math.floor(warm.length / 2)]!];
      t.diagnostic(`${name}: ${least} bytes a token, median ${median.toFixed(2)} of ${warm.length} texts of 600`);
      assert.equal(least, 0, `${least} bytes a token; by text: ${texts.map((n) => n.toFixed(2)).join(' ')}`);
    });
  }
});

test('a token from the worker costs the main thread less than a kilobyte', needsShared(), (t) => {
  type Cost = { bytesPerToken: number; nTokens: number };
  const { message, read } = runChild('./messages.child.ts') as { message: Cost; read: Cost };
  assert.ok(message.nTokens >= 2000);
  t.diagnostic(
    `${message.bytesPerToken.toFixed(0)} bytes a token, ${read.bytesPerToken.toFixed(0)} with a loop that reads the pieces`,
  );
  assert.ok(message.bytesPerToken < MESSAGE_BYTES_MAX);
});
