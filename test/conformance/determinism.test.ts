// The same bits whatever computes: any number of threads, one row at a time or many, alone or among others. Promised
// for `strict`; the kernels are built so that it holds for every variant on one machine.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Tensor } from '../../src/graph/tensor.ts';
import { KV_BLOCK_SIZE } from '../../src/graph/step.ts';
import type { KvDtype } from '../../src/graph/step.ts';
import { Rig, VARIANTS, assertSameBits, createExecutor, holdThreads, rowCount, runStep } from './rig.ts';
import type { KernelVariant } from '../../src/backend/wasm/kernels/kernel.ts';
import type { Activations } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(7)));
after(() => release());

const N_ROWS = 13;
const [N_EMBD, N_FF, HEAD_DIM, N_HEAD, N_HEAD_KV] = [64, 96, 32, 4, 2];

/**
 * A transformer layer over rows that `ids` choose from a table; row i is position i of one sequence, and later
 * positions are never in the cache before earlier ones.
 */
function layer(rig: Rig, dtype: 'F32' | 'F16' | 'Q8_0' | 'Q4_0', kvDtype: KvDtype): void {
  const { graph } = rig;
  const rows = rowCount(N_ROWS);
  const order = Array.from({ length: N_ROWS }, (_, i) => i);
  const [ids, positions, slots, sequences] = [order, order, order, order.map(() => 0)].map((v) => rig.ids(v, rows));
  const matmul = (x: Parameters<typeof graph.apply>[1][number], nOut: number, nIn: number) =>
    graph.apply('matmul', [x, rig.weight(dtype, [nOut, nIn], rig.numbers(nOut * nIn, 1 / Math.sqrt(nIn)))]);
  const x = graph.apply('embed', [rig.weight(dtype, [N_ROWS, N_EMBD]), ids!]);
  const normed = graph.apply('rmsNorm', [x, rig.constant([N_EMBD])], { eps: 1e-5 });
  const angles = rig.constant([N_ROWS, HEAD_DIM]);
  const rotated = (nHead: number) => {
    const params = { headDim: HEAD_DIM, nRot: HEAD_DIM, neox: 0 };
    return graph.apply('rope', [matmul(normed, nHead * HEAD_DIM, N_EMBD), positions!, angles], params);
  };
  const q = rotated(N_HEAD);
  const shape = [KV_BLOCK_SIZE, N_HEAD_KV * HEAD_DIM];
  const write = (name: 'keys' | 'values', numbers: Tensor): Tensor => {
    const operands = [graph.leaf('state', name, kvDtype, shape), numbers, slots!];
    return graph.apply('kvWrite', operands, { headDim: HEAD_DIM, isKeys: name === 'keys' ? 1 : 0 });
  };
  const keys = write('keys', rotated(N_HEAD_KV));
  const values = write('values', matmul(normed, N_HEAD_KV * HEAD_DIM, N_EMBD));
  const params = { nHead: N_HEAD, nHeadKv: N_HEAD_KV, headDim: HEAD_DIM, blockSize: KV_BLOCK_SIZE, scale: 0.25 };
  const attended = graph.apply('attention', [q, keys, values, positions!, sequences!, rig.ids([0], 1, 1)], params);
  const residual = graph.apply('add', [matmul(attended, N_EMBD, N_HEAD * HEAD_DIM), x]);
  const gate = graph.apply('silu', [matmul(residual, N_FF, N_EMBD)]);
  const hidden = graph.apply('mul', [gate, matmul(residual, N_FF, N_EMBD)]);
  rig.check('y', graph.apply('add', [matmul(hidden, N_EMBD, N_FF), residual]), 0);
}

/** The layer's rows, computed in chunks of so many rows. */
async function inChunks(
  chunk: number,
  nThreads: number,
  setup: {
    variant: (typeof VARIANTS)[number];
    activations: Activations;
    dtype: Parameters<typeof layer>[1];
    kvDtype: KvDtype;
  },
): Promise<Float32Array> {
  const rig = new Rig();
  layer(rig, setup.dtype, setup.kvDtype);
  const executor = await createExecutor(rig, setup.variant, nThreads, setup.activations);
  const all = new Float32Array(N_ROWS * N_EMBD);
  const inputs = [...rig.inputs].filter(([, values]) => values.length === N_ROWS);
  for (let start = 0; start < N_ROWS; start += chunk) {
    const rows = Math.min(chunk, N_ROWS - start);
    for (const [name, values] of inputs) executor.input(name).set(Array.from(values).slice(start, start + rows));
    all.set(runStep(rig, executor, { rows })[0]!.subarray(0, rows * N_EMBD), start * N_EMBD);
  }
  await executor.close();
  return all;
}

test('a norm and silu(a) · b that are quantised where they are made give the bits of those that are quantised after', async () => {
  const outputs = async (variant: KernelVariant, nThreads: number, isKept: boolean): Promise<Float32Array[]> => {
    const rig = new Rig(true);
    const { graph } = rig;
    const rows = rowCount(N_ROWS);
    const x = rig.activations(rows, N_EMBD);
    const normed = graph.apply('rmsNorm', [x, rig.constant([N_EMBD])], { eps: 1e-5 });
    const hidden = graph.apply('mul', [graph.apply('silu', [x]), rig.activations(rows, N_EMBD)]);
    for (const made of [normed, hidden]) {
      rig.check('y', graph.apply('matmul', [made, rig.weight('Q8_0', [N_EMBD, N_EMBD])]), 0);
    }
    if (isKept) for (const made of [normed, hidden]) rig.keep(made);
    const executor = await createExecutor(rig, variant, nThreads, 'q8');
    const all = runStep(rig, executor, { rows: N_ROWS });
    const compared = rig.checks.flatMap(({ name }, i) => (name === 'y' ? [all[i]!.slice()] : []));
    await executor.close();
    return compared;
  };
  for (const variant of VARIANTS) {
    for (const nThreads of [1, 3]) {
      const separate = await outputs(variant, nThreads, true);
      const fused = await outputs(variant, nThreads, false);
      assert.equal(fused.length, 2);
      fused.forEach((values, i) => assertSameBits(values, separate[i]!, `${variant.set}, ${nThreads} threads, ${i}`));
    }
  }
});

for (const variant of VARIANTS) {
  for (const [dtype, activations, kvDtype] of [
    ['F32', 'f32', 'F32'],
    ['F16', 'f32', 'F16'],
    ['Q8_0', 'q8', 'F16'],
    ['Q4_0', 'q8', 'Q8_0'],
    ['Q4_0', 'f32', 'F16'],
  ] as const) {
    const name = `${variant.set} (${variant.dot}), ${dtype} weights, ${activations} activations, ${kvDtype} cache`;
    test(`a layer has the same bits on 1, 2, 3 and 7 threads and in chunks of 1, 3, 5 and all rows: ${name}`, async () => {
      const setup = { variant, activations, dtype, kvDtype };
      const expected = await inChunks(N_ROWS, 1, setup);
      assert.ok(expected.every((x) => x !== 0));
      for (const nThreads of [1, 2, 3, 7]) {
        for (const chunk of nThreads === 3 ? [1, 3, 5, N_ROWS] : [1, N_ROWS]) {
          assertSameBits(await inChunks(chunk, nThreads, setup), expected, `${nThreads} threads, chunks of ${chunk}`);
        }
      }
    });
  }
}

test('strict and simd give the same bits: both use deterministic instructions only', async () => {
  const [simd, strict] = VARIANTS.slice(-2);
  for (const [dtype, activations, kvDtype] of [
    ['F16', 'f32', 'F16'],
    ['Q8_0', 'q8', 'Q8_0'],
  ] as const) {
    const setup = { activations, dtype, kvDtype };
    const ofStrict = await inChunks(N_ROWS, 2, { variant: strict!, ...setup });
    assertSameBits(await inChunks(N_ROWS, 2, { variant: simd!, ...setup }), ofStrict, dtype);
  }
});
