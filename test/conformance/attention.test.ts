// Attention over the paged cache and the write into it: several sequences, whose blocks lie scattered in the cache,
// positions around the ends of blocks, every ratio of heads. The cache is filled with large values first, so that a
// key read from the wrong place shows. Keys and values are such that a cache of the type keeps them exactly.

import { after, before } from 'node:test';
import { KV_BLOCK_SIZE, KV_DTYPES } from '../../src/graph/step.ts';
import type { KvDtype } from '../../src/graph/step.ts';
import type { Dim, Tensor } from '../../src/graph/tensor.ts';
import { dequantize, quantize } from '../../src/quant/codecs.ts';
import type { Rig } from './rig.ts';
import { conform, holdThreads, rowCount } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

/** Positions that each sequence has in the cache, and the blocks that hold them. */
const SEQUENCES = [
  { nPast: 70, blocks: [7, 2, 5] },
  { nPast: 1, blocks: [0, 0, 0] },
  { nPast: 33, blocks: [6, 1, 0] },
  { nPast: 96, blocks: [8, 4, 3] },
  // Three chunks.
  { nPast: 600, blocks: [9, 27, 10, 26, 11, 25, 12, 24, 13, 23, 14, 22, 15, 21, 16, 20, 17, 19, 18] },
];
const N_BLOCK = 28;
const N_BLOCK_PER_SEQ = 19;

/** [sequence, last position that it sees] of each row of q: batches mix sequences, in no order. */
const QUERIES: readonly Query[] = [
  [4, 598],
  [4, 599],
  [0, 0],
  [3, 95],
  [1, 0],
  [0, 31],
  [0, 32],
  [2, 32],
  [3, 63],
  [0, 69],
  [3, 64],
  [2, 31],
  [3, 1],
  [0, 30],
  [3, 32],
  [4, 255],
  [4, 256],
  [4, 300],
  [4, 512],
];

/** Rows that all see the end of their sequence; the first few of a long one, then whole ones. */
const WHOLE: readonly Query[] = [
  [4, 3],
  [0, 70],
  [1, 1],
  [2, 33],
].flatMap(([s, n]) => Array.from({ length: n! }, (): Query => [s!, SEQUENCES[s!]!.nPast - 1]));

type Query = readonly [sequence: number, lastSeen: number];

/** Scores and their exponentials in float32; weights add up to 1, so results are of the size of values. */
const TOLERANCE = 3e-6;

interface Heads {
  readonly nHead: number;
  readonly nHeadKv: number;
  readonly headDim: number;
  readonly softcap?: number;
  readonly window?: number;
  readonly sinks?: readonly number[];
}

/** What a cache of the type leaves of the values. */
const through = (dtype: KvDtype, values: Float32Array): Float32Array => dequantize(dtype, quantize(dtype, values));

/** The row of the cache that holds a position. */
function slotOf(sequence: number, position: number): number {
  const block = SEQUENCES[sequence]!.blocks[Math.floor(position / KV_BLOCK_SIZE)]!;
  return block * KV_BLOCK_SIZE + (position % KV_BLOCK_SIZE);
}

/** A cache of which every row has been written, those of the sequences with the numbers they are to have. */
function filledCache(rig: Rig, name: 'keys' | 'values', dtype: KvDtype, { nHead, nHeadKv, headDim }: Heads): Tensor {
  const nColumns = nHeadKv * headDim;
  const nRows = N_BLOCK * KV_BLOCK_SIZE;
  const state = rig.graph.leaf('state', `${name}.${nHead}.${nHeadKv}.${headDim}.${dtype}`, dtype, [nRows, nColumns]);
  const junk = rig.constant([nRows, nColumns], new Float32Array(nRows * nColumns).fill(20_000));
  const everywhere = rig.ids(Array.from({ length: nRows }, (_, i) => i));
  const slots = SEQUENCES.flatMap(({ nPast }, s) => Array.from({ length: nPast }, (_, p) => slotOf(s, p)));
  const rows = rig.constant([slots.length, nColumns], through(dtype, rig.numbers(slots.length * nColumns)));
  const params = { headDim, isKeys: name === 'keys' ? 1 : 0 };
  const written = rig.graph.apply('kvWrite', [state, junk, everywhere], params);
  return rig.graph.apply('kvWrite', [written, rows, rig.ids(slots)], params);
}

function attend(
  rig: Rig,
  heads: Heads,
  dtype: KvDtype,
  {
    queries = QUERIES,
    rows = queries.length,
    deviation = 1,
  }: { queries?: typeof QUERIES; rows?: Dim; deviation?: number } = {},
): Tensor {
  const { nHead, headDim, sinks } = heads;
  const q = rig.activations(rows, nHead * headDim, rig.numbers(queries.length * nHead * headDim, deviation));
  const keys = filledCache(rig, 'keys', dtype, heads);
  const values = filledCache(rig, 'values', dtype, heads);
  const lastSeen = rig.ids(
    queries.map(([, last]) => last),
    rows,
  );
  const sequences = rig.ids(
    queries.map(([sequence]) => sequence),
    rows,
  );
  const tables = rig.ids(
    SEQUENCES.flatMap(({ blocks }) => Array.from({ length: N_BLOCK_PER_SEQ }, (_, i) => blocks[i] ?? 0)),
    SEQUENCES.length,
    N_BLOCK_PER_SEQ,
  );
  const { nHeadKv, softcap = 0, window = 0 } = heads;
  const params = { nHead, nHeadKv, headDim, softcap, window, blockSize: KV_BLOCK_SIZE, scale: 1 / Math.sqrt(headDim) };
  const operands = [q, keys, values, lastSeen, sequences, tables];
  if (sinks) operands.push(rig.weight('F32', [nHead], Float32Array.from(sinks)));
  return rig.graph.apply('attention', operands, params);
}

/** Heads of these sizes; the first stands for all where it is another thing that counts. */
const HEAD_DIMS: Readonly<Record<KvDtype, readonly [number, ...number[]]>> = {
  F16: [8, 4, 12, 16, 20, 64, 80],
  F32: [8, 4, 12, 16, 20, 64, 80],
  Q8_0: [32, 64, 96],
};

for (const dtype of KV_DTYPES) {
  const [headDimOfAll] = HEAD_DIMS[dtype];

  conform(`attention with heads of every size, ${dtype} cache`, (rig) => {
    for (const headDim of HEAD_DIMS[dtype]) {
      const y = attend(rig, { nHead: 2, nHeadKv: 1, headDim }, dtype);
      rig.check(`heads of ${headDim}`, y, TOLERANCE, 1);
    }
  });

  conform(`attention with heads that share keys, ${dtype} cache`, (rig) => {
    for (const [nHead, nHeadKv] of [
      [1, 1],
      [3, 3],
      [4, 2],
      [6, 2],
      [5, 1],
      [9, 3],
    ] as const) {
      const y = attend(rig, { nHead, nHeadKv, headDim: headDimOfAll }, dtype);
      rig.check(`${nHead} heads, ${nHeadKv} of keys`, y, TOLERANCE, 1);
    }
  });

  conform(`attention with sinks, small, large and beyond all scores, ${dtype} cache`, (rig) => {
    const y = attend(rig, { nHead: 4, nHeadKv: 2, headDim: headDimOfAll, sinks: [-3, 1, 6, 200] }, dtype);
    rig.check('y', y, TOLERANCE, 1);
  });

  conform(
    `attention of a number of rows that varies, ${dtype} cache`,
    (rig) => {
      const heads = { nHead: 3, nHeadKv: 1, headDim: headDimOfAll };
      const y = attend(rig, heads, dtype, { rows: rowCount(QUERIES.length) });
      rig.check('y', y, TOLERANCE, 1);
    },
    { steps: [19, 1, 0, 5, 2, 4].map((rows) => ({ rows })) },
  );
}

for (const dtype of KV_DTYPES) {
  conform(
    `attention of whole texts, whose rows all see its end, ${dtype} cache`,
    (rig) => {
      const heads = { nHead: 2, nHeadKv: 1, headDim: HEAD_DIMS[dtype][0] };
      rig.check('y', attend(rig, heads, dtype, { queries: WHOLE, rows: rowCount(WHOLE.length) }), TOLERANCE, 1);
    },
    { steps: [WHOLE.length, 3].map((rows) => ({ rows })) },
  );
}

for (const dtype of KV_DTYPES) {
  const heads = { nHead: 3, nHeadKv: 1, headDim: HEAD_DIMS[dtype][0] };

  conform(`attention with a window, ${dtype} cache`, (rig) => {
    for (const window of [1, 5, 32, 33, 100, 256, 300, 1000]) {
      rig.check(`of ${window}`, attend(rig, { ...heads, window }, dtype), TOLERANCE, 1);
    }
  });

  conform(`attention with capped scores, ${dtype} cache`, (rig) => {
    for (const softcap of [0.5, 50]) {
      rig.check(`to ${softcap}`, attend(rig, { ...heads, softcap }, dtype), TOLERANCE, 1);
    }
    rig.check('in a window', attend(rig, { ...heads, softcap: 2, window: 40 }, dtype), TOLERANCE, 1);
  });
}

conform(
  'attention with a window, of a number of rows that varies',
  (rig) => {
    const heads = { nHead: 3, nHeadKv: 1, headDim: 8, window: 70 };
    rig.check('y', attend(rig, heads, 'F16', { rows: rowCount(QUERIES.length) }), TOLERANCE, 1);
  },
  { steps: [19, 1, 0, 5, 2, 4].map((rows) => ({ rows })) },
);

conform('attention whose scores differ by far more than an exponential can hold', (rig) => {
  const y = attend(rig, { nHead: 2, nHeadKv: 1, headDim: 16 }, 'F32', { deviation: 300 });
  // A score of hundreds has an ulp of 1e-5 or more, which the exponential passes on.
  rig.check('y', y, 1e-3, 1);
});

for (const dtype of KV_DTYPES) {
  conform(
    `kvWrite of a number of rows that varies writes those and no others, ${dtype} cache`,
    (rig) => {
      // Values come back through a row of attention that sees one position, whose weight is 1.
      const nColumns = dtype === 'Q8_0' ? 96 : 20;
      const nSlot = 4;
      const state = (name: string) => rig.graph.leaf('state', name, dtype, [nSlot * KV_BLOCK_SIZE, nColumns]);
      const rows = rig.activations(rowCount(5), nColumns, through(dtype, rig.numbers(5 * nColumns)));
      const slots = rig.ids([96, 0, 64, 32, 0], rowCount(5));
      const values = rig.graph.apply('kvWrite', [state('values'), rows, slots], { headDim: nColumns, isKeys: 0 });
      const zeros = rig.ids([0, 0, 0, 0]);
      const tables = rig.ids([0, 1, 2, 3], nSlot, 1);
      const operands = [rig.constant([nSlot, nColumns]), values, values, zeros, rig.ids([0, 1, 2, 3]), tables];
      const params = { nHead: 1, nHeadKv: 1, headDim: nColumns, blockSize: KV_BLOCK_SIZE, scale: 1 };
      rig.check('values', rig.graph.apply('attention', operands, params), 0);
    },
    { steps: [0, 2, 0, 5, 1].map((rows) => ({ rows })) },
  );
}
