// Thousands of damaged files, each a function of its number (mutations.ts): what the reader makes of one is a typed
// error or a file that holds what it says, and so it is for those who build on it, up to a model that generates. Each
// within a second, all within 256 MB. SMALLMIND_MUTATIONS says how many, SMALLMIND_MUTATION_FIRST the number of the
// first.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { memorySource } from '../../src/base/byte-source.ts';
import { SmallMindError } from '../../src/base/errors.ts';
import { readGguf, readTensorBytes } from '../../src/gguf/reader.ts';
import type { Gguf } from '../../src/gguf/reader.ts';
import { inspectModel, loadModel } from '../../src/index.ts';
import { CODECS, dequantize } from '../../src/quant/codecs.ts';
import { loadSeedFiles, makeMutant } from './mutations.ts';
import type { SeedFile } from './mutations.ts';
import { threadMs } from '../thread-time.ts';

const COUNT = Number(process.env['SMALLMIND_MUTATIONS'] ?? 4000);
const FIRST = Number(process.env['SMALLMIND_MUTATION_FIRST'] ?? 0);
const MILLISECONDS_MAX = 1000;
const GROWTH_BYTES_MAX = 256 * 2 ** 20;
/** Of the mutants that can be read, every so many are also planned as a model, and of these every so many run. */
const INSPECT_EVERY = 4;
const LOAD_EVERY = 8;
/** Tensors whose bytes are read and decoded, from the first on. */
const DECODED_TENSORS = 3;

const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;

/** A typed error is an answer; anything else is a failure of ours. */
function requireTyped(error: unknown, what: string): void {
  if (error instanceof SmallMindError && error.code !== 'INTERNAL') return;
  throw new assert.AssertionError({ message: `${what}: ${error instanceof Error ? error.stack : error}` });
}

/** Runs `step` and says whether it succeeded; it may fail by a typed error. */
async function succeeds(what: string, step: () => Promise<void>): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    requireTyped(error, what);
    return false;
  }
}

/** That all that a file says of its tensors is true, and that they can be read. */
async function checkTensors(gguf: Gguf, sizeBytes: number): Promise<void> {
  for (const { name, offsetBytes, sizeBytes: tensorBytes } of gguf.tensors.values()) {
    assert.ok(offsetBytes >= 0 && tensorBytes > 0 && offsetBytes + tensorBytes <= sizeBytes, name);
  }
  for (const info of [...gguf.tensors.values()].slice(0, DECODED_TENSORS)) {
    const bytes = await readTensorBytes(gguf, info);
    assert.equal(bytes.length, info.sizeBytes);
    if (!CODECS[info.dtype]) continue;
    const nElements = info.shape.reduce((product, dimension) => product * dimension, 1);
    assert.equal(dequantize(info.dtype, bytes).length, nElements);
  }
}

/** Plans the file as a model. */
async function inspect(bytes: Uint8Array): Promise<void> {
  const { problem } = await inspectModel(bytes);
  if (problem) throw new SmallMindError(problem.code, problem.message);
}

async function generate(bytes: Uint8Array): Promise<void> {
  await using model = await loadModel(bytes, { thread: 'inline', threads: 1, nCtx: 32, prefillChunk: 8 });
  const { tokens } = await model.generate('1', { temperature: 0, maxTokens: 2 }).result;
  assert.ok(tokens.length <= 2);
}

describe('a mutant is refused or read', () => {
  let seeds: SeedFile[];
  before(async () => {
    seeds = await loadSeedFiles();
  });

  test('the files that mutants are made from are sound', async () => {
    assert.ok(seeds.length >= 4);
    for (const { name, bytes } of seeds) {
      const gguf = await readGguf(memorySource(bytes));
      await checkTensors(gguf, bytes.length);
      if (gguf.tensors.has('token_embd.weight')) assert.equal((await inspectModel(bytes)).problem, undefined, name);
    }
    await generate(seeds.find(({ name }) => name === 'a model in F32')!.bytes);
  });

  test('a mutant is a function of its number, and there are many', () => {
    const numbers = Array.from({ length: 200 }, (_, n) => n);
    const made = numbers.map((n) => makeMutant(seeds, n));
    assert.deepEqual(
      numbers.map((n) => makeMutant(seeds, n).name),
      made.map(({ name }) => name),
    );
    assert.deepEqual(makeMutant(seeds, 7).bytes, made[7]!.bytes);
    assert.ok(new Set(made.map(({ name }) => name)).size > 40);
  });

  test(`mutants ${FIRST} to ${FIRST + COUNT - 1}`, async (t) => {
    const startBytes = peakBytes();
    const counts = { refused: 0, read: 0, inspected: 0, runnable: 0, loaded: 0, ran: 0 };
    let slowest = { ms: 0, what: '' };
    for (let n = FIRST; n < FIRST + COUNT; n++) {
      const { name, bytes } = makeMutant(seeds, n);
      const what = `mutant ${n} (${name})`;
      const startMs = threadMs();
      const isRead = await succeeds(what, async () => checkTensors(await readGguf(memorySource(bytes)), bytes.length));
      counts[isRead ? 'read' : 'refused']++;
      if (isRead && counts.read % INSPECT_EVERY === 0) {
        counts.inspected++;
        const isRunnable = await succeeds(what, () => inspect(bytes));
        if (isRunnable && ++counts.runnable % LOAD_EVERY === 0) {
          counts.loaded++;
          if (await succeeds(what, () => generate(bytes))) counts.ran++;
        }
      }
      const ms = threadMs() - startMs;
      if (ms > slowest.ms) slowest = { ms, what };
      assert.ok(ms < MILLISECONDS_MAX, `${what} took ${ms} ms`);
      assert.ok(
        peakBytes() - startBytes < GROWTH_BYTES_MAX,
        `${what}: ${(peakBytes() - startBytes) / 2 ** 20} MiB more`,
      );
    }
    t.diagnostic(`${JSON.stringify(counts)}; slowest ${slowest.ms.toFixed(0)} ms: ${slowest.what}`);
    t.diagnostic(`${((peakBytes() - startBytes) / 2 ** 20).toFixed(0)} MiB more at the peak`);
    // The sequence is worth its time only while it reaches everything.
    if (COUNT >= 1000) for (const count of Object.values(counts)) assert.ok(count > 0, JSON.stringify(counts));
  });
});
