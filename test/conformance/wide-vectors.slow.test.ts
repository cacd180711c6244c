// With V8's flag for 256-bit vectors the kernels compute the same bits, and the hot ones are indeed made of such
// vectors. Everything is compiled by the optimising compiler at once, which otherwise sees a kernel only after a while.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, globSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { enableWideVectors } from '../../src/index.ts';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const FLAG = '--experimental-wasm-revectorize';

/** What a program prints goes through a file: of what V8 itself writes to a pipe, a part is lost. */
async function run(args: readonly string[], flags: readonly string[]): Promise<string> {
  const path = join(tmpdir(), `smallmind-wide-vectors-${process.pid}.txt`);
  const output = openSync(path, 'w+');
  try {
    const allFlags = ['--conditions=smallmind-source', '--no-liftoff', ...flags];
    // A test that knows of the one above it answers in bytes.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const stdio: StdioOptions = ['ignore', output, output];
    const child = spawn(process.execPath, [...allFlags, ...args], { cwd: FOLDER, stdio, env });
    const [code] = (await once(child, 'exit')) as [number | null];
    const text = readFileSync(path, 'utf8');
    assert.equal(code, 0, text.slice(-5000));
    return text;
  } finally {
    closeSync(output);
    rmSync(path);
  }
}

const isKnown = enableWideVectors();
const skip = isKnown ? false : `no 256-bit vectors in Node ${process.version} on ${process.arch}`;

/** The words of V8's trace are those of Node 24. */
const isTraceKnown = { skip: process.version.startsWith('v24.') ? false : `Node ${process.version} says it otherwise` };

describe('with 256-bit vectors', { skip }, () => {
  let traced = '';
  before(async () => void (traced = await run(['wide-vectors.child.ts', '1'], [FLAG, '--trace-wasm-revectorize'])));

  test('logits and tokens are the same to the bit', async () => {
    const hashes = (output: string): unknown => JSON.parse(output.match(/^\{"F32.*\}$/m)![0]);
    const expected = hashes(await run(['wide-vectors.child.ts', '2'], []));
    assert.deepEqual(hashes(await run(['wide-vectors.child.ts', '2'], [FLAG])), expected);
    assert.deepEqual(hashes(traced), expected);
  });

  // Of F16 the tiles for many rows, which read it expanded: the halves of a column are unpacked in different ways.
  for (const [kernel, share] of [
    ['matmul.Q8A.Q8_0', 1],
    ['matmul.Q8A.Q4_0', 1],
    ['matmul.Q8A.Q4_K', 1],
    ['matmul.Q8A.Q6_K', 1],
    ['matmul.Q8A.Q3_K', 1],
    ['matmul.Q8A.IQ1_S', 1],
    ['matmul.Q8A.IQ2_XS', 1],
    ['matmul.Q8A.IQ3_XXS', 1],
    ['matmul.Q8A.MXFP4', 1],
    ['matmul.F32.F32', 1],
    ['matmul.F32.F16', 0.5],
    ['attention.F16.F32.4', 1],
    ['attention.F16.softmax', 1],
  ] as const) {
    test(`V8 makes such vectors of ${kernel}`, isTraceKnown, () => {
      const parts = traced.split('Begin revec function ').filter((part) => part.startsWith(`${kernel}\n`));
      assert.ok(parts.length > 0, 'it was not compiled');
      for (const part of parts) {
        // Each pair of stores side by side, and all that it depends on.
        const stores = part.slice(part.indexOf('store seeds:'), part.indexOf('reduce seeds:'));
        const nPair = stores.match(/^\{/gm)?.length ?? 0;
        const nTree = part.match(/After build tree/g)?.length ?? 0;
        assert.ok(nPair > 0 && nTree >= share * nPair, `of ${nPair} pairs of stores ${nTree}`);
        assert.match(part, /Decide to vectorize/);
      }
    });
  }

  for (const file of globSync('*.test.ts', { cwd: FOLDER }).filter((name) => !name.includes('wide'))) {
    test(`${file} passes`, async () => void (await run([file], [FLAG])));
  }
});
