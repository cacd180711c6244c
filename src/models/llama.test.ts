// The llama graph: what it reads from a file, what it refuses, and how it is planned.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomLlamaGguf } from '../../test/random-model.ts';
import type { RandomLlamaOptions } from '../../test/random-model.ts';
import { memorySource } from '../base/byte-source.ts';
import { Metadata } from '../gguf/metadata.ts';
import { readGguf } from '../gguf/reader.ts';
import type { Gguf } from '../gguf/reader.ts';
import type { MetadataEntry } from '../gguf/value-types.ts';
import { lower } from '../graph/lower.ts';
import { planProgram } from '../graph/plan.ts';
import type { ProgramLimits } from '../graph/step.ts';
import { dimMax } from '../graph/tensor.ts';
import type { Graph } from '../graph/tensor.ts';
import { defineModel } from './registry.ts';

const SMALL: RandomLlamaOptions = {
  seed: 1,
  dtype: 'Q8_0',
  nLayer: 4,
  nEmbd: 64,
  nHead: 4,
  nHeadKv: 2,
  nFf: 96,
  nVocab: 320,
  nCtx: 128,
  tied: false,
};
const LIMITS: ProgramLimits = { nTokensMax: 16, nOutputMax: 4, nSeqMax: 2, nCtx: 64, nKvBlock: 4, kvDtype: 'F16' };

const read = (options: Partial<RandomLlamaOptions> = {}): Promise<Gguf> =>
  readGguf(memorySource(randomLlamaGguf({ ...SMALL, ...options }), 'random.gguf'));

/** The file with other metadata; `undefined` takes an entry away. */
function withMetadata(gguf: Gguf, changes: Readonly<Record<string, MetadataEntry | undefined>>): Gguf {
  const entries = new Map(gguf.metadata.entries());
  for (const [key, entry] of Object.entries(changes)) {
    if (entry) entries.set(key, entry);
    else entries.delete(key);
  }
  return { ...gguf, metadata: new Metadata(entries, 'random.gguf') };
}

function withTensor(gguf: Gguf, name: string, shape: readonly number[] | undefined): Gguf {
  const tensors = new Map(gguf.tensors);
  const known = tensors.get(name) ?? tensors.values().next().value!;
  if (shape) tensors.set(name, { ...known, name, shape });
  else tensors.delete(name);
  return { ...gguf, tensors };
}

const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });
const text = (value: string): MetadataEntry => ({ type: 'string', value });
const opsOf = (graph: Graph): string[] => graph.nodes.filter((n) => n.inputs.length > 0).map((n) => n.op);
const countOf = (graph: Graph, op: string): number => opsOf(graph).filter((o) => o === op).length;

test('hyper-parameters come from the file', async () => {
  const { hyperParameters } = await defineModel(await read());
  const { architecture, nVocab, nEmbd, nLayer, nHead, nHeadKv, headDim, nFf, nCtxTrain } = hyperParameters;
  assert.deepEqual(
    { architecture, nVocab, nEmbd, nLayer, nHead, nHeadKv, headDim, nFf, nCtxTrain },
    {
      architecture: 'llama',
      nVocab: 320,
      nEmbd: 64,
      nLayer: 4,
      nHead: 4,
      nHeadKv: 2,
      headDim: 16,
      nFf: 96,
      nCtxTrain: 128,
    },
  );
});

test('what a file may leave out has the defaults of the format', async () => {
  const gguf = withMetadata(await read({ nHeadKv: 4 }), {
    'llama.attention.head_count_kv': undefined,
    'llama.rope.dimension_count': undefined,
    'llama.rope.freq_base': undefined,
  });
  const model = await defineModel(gguf);
  assert.equal(model.hyperParameters.nHeadKv, 4);
  const rope = model.buildGraph(LIMITS).nodes.find((n) => n.op === 'rope')!;
  assert.deepEqual(rope.params, { headDim: 16, nRot: 16, neox: 0 });
});

test('the graph leads from tokens to logits, one row for each that is wanted', async () => {
  const graph = (await defineModel(await read())).buildGraph(LIMITS);
  assert.equal(graph.outputs.length, 1);
  assert.deepEqual(graph.outputs[0]!.shape.map(dimMax), [4, 320]);
  const inputs = graph.nodes.filter((n) => n.op === 'input').map((n) => n.name);
  assert.deepEqual(inputs.sort(), [
    'blockTables',
    'kvSlots',
    'lastSeen',
    'outputRows',
    'positions',
    'sequences',
    'tokens',
  ]);
  assert.equal(countOf(graph, 'attention'), 4);
  assert.equal(countOf(graph, 'matmul'), 4 * 7 + 1);
  // Rows that nobody wants are dropped before the last norm and the largest matrix.
  assert.equal(graph.outputs[0]!.inputs[0]!.inputs[0]!.op, 'gatherRows');
});

test('logits come from an output matrix of their own, or from the embeddings', async () => {
  const weightOf = async (gguf: Gguf): Promise<string> =>
    (await defineModel(gguf)).buildGraph(LIMITS).outputs[0]!.inputs[1]!.name;
  assert.equal(await weightOf(await read()), 'output.weight');
  assert.equal(await weightOf(await read({ tied: true })), 'token_embd.weight');
});

test('heads of another size than nEmbd / nHead', async () => {
  const { hyperParameters, buildGraph } = await defineModel(await read({ headDim: 32 }));
  assert.equal(hyperParameters.headDim, 32);
  const attention = buildGraph(LIMITS).nodes.find((n) => n.op === 'attention')!;
  assert.deepEqual(attention.shape.map(dimMax), [16, 128]);
});

test('the arena is far smaller than what is computed, and does not grow with the layers', async () => {
  const plan = async (nLayer: number) => {
    const graph = (await defineModel(await read({ nLayer }))).buildGraph(LIMITS);
    const program = planProgram(
      lower(graph, { siluMul: true, matmulAdd: true, activationType: (d) => (d === 'Q8_0' ? 'Q8A' : undefined) }),
    );
    return { program, buffers: program.buffers.reduce((n, b) => n + b.sizeBytes, 0) };
  };
  const [four, eight] = [await plan(4), await plan(8)];
  assert.ok(four.program.arenaBytes < four.buffers / 5, `${four.program.arenaBytes} of ${four.buffers}`);
  assert.equal(eight.program.arenaBytes, four.program.arenaBytes);
  assert.ok(
    four.program.buffers.every((b) => b.write === 'store' || b.write === 'inPlace'),
    'nothing needs clearing',
  );
});

test('lowering fuses each gate and quantises each operand once', async () => {
  const graph = (await defineModel(await read())).buildGraph(LIMITS);
  const lowered = lower(graph, {
    siluMul: true,
    matmulAdd: true,
    activationType: (d) => (d === 'Q8_0' ? 'Q8A' : undefined),
  });
  assert.equal(countOf(lowered, 'siluMul'), 4);
  assert.equal(countOf(lowered, 'silu') + countOf(lowered, 'mul'), 0);
  // A layer: for q, k and v together, for the attention's output, for gate and up together, for down. Then the logits.
  assert.equal(lowered.nodes.filter((n) => n.dtype === 'Q8A').length, 4 * 4 + 1);
  // Norms and silu(a) · b are stored so; what attention makes is quantised after.
  assert.equal(countOf(lowered, 'quantize'), 4);
});

test('a missing tensor and one of a wrong shape are named', async () => {
  const gguf = await read();
  const building = async (changed: Gguf): Promise<Graph> => (await defineModel(changed)).buildGraph(LIMITS);
  await assert.rejects(building(withTensor(gguf, 'blk.2.ffn_up.weight', undefined)), {
    code: 'GGUF_MISSING',
    message: /random\.gguf: tensor "blk\.2\.ffn_up\.weight" is missing/,
    details: { tensor: 'blk.2.ffn_up.weight' },
  });
  await assert.rejects(building(withTensor(gguf, 'blk.0.attn_k.weight', [64, 64])), {
    code: 'SHAPE_MISMATCH',
    message: /"blk\.0\.attn_k\.weight" expected shape \[32, 64\], got \[64, 64\]/,
  });
  await assert.rejects(building(withTensor(gguf, 'output_norm.weight', [64, 1])), { code: 'SHAPE_MISMATCH' });
});

const REFUSED: readonly [string, Readonly<Record<string, MetadataEntry | undefined>>, object][] = [
  ['no architecture', { 'general.architecture': undefined }, { code: 'GGUF_MISSING' }],
  [
    'an unknown architecture',
    { 'general.architecture': text('constructor') },
    { code: 'UNSUPPORTED_ARCHITECTURE', message: /"constructor" is not supported; supported: llama, gpt2, qwen2/ },
  ],
  [
    'no embedding length',
    { 'llama.embedding_length': undefined },
    { code: 'GGUF_MISSING', message: /embedding_length/ },
  ],
  [
    'no layers',
    { 'llama.block_count': u32(0) },
    { code: 'GGUF_INVALID', message: /block_count.*positive integer, got 0/ },
  ],
  ['half a head', { 'llama.attention.head_count': { type: 'f32', value: 2.5 } }, { code: 'GGUF_INVALID' }],
  [
    'heads that do not divide',
    { 'llama.attention.head_count_kv': u32(3) },
    { code: 'GGUF_INVALID', message: /divide/ },
  ],
  [
    'an odd rotation',
    { 'llama.rope.dimension_count': u32(15) },
    { code: 'GGUF_INVALID', message: /rotary dimensions 15/ },
  ],
  ['a rotation beyond the head', { 'llama.rope.dimension_count': u32(18) }, { code: 'GGUF_INVALID' }],
  [
    'more experts used than there are',
    { 'llama.expert_count': u32(8), 'llama.expert_used_count': u32(9) },
    { code: 'GGUF_INVALID', message: /9 experts used, of 8/ },
  ],
  [
    'another way of stretching positions',
    { 'llama.rope.scaling.type': text('ntk') },
    { code: 'UNSUPPORTED_FEATURE', message: /"ntk".*none, linear, yarn and longrope/ },
  ],
];

for (const [what, changes, error] of REFUSED) {
  test(`refuses a file with ${what}`, async () => {
    const gguf = withMetadata(await read(), changes);
    await assert.rejects(defineModel(gguf), error);
  });
}

/** The angles of a file with other metadata, [nCtx, headDim]. */
async function anglesOf(changes: Readonly<Record<string, MetadataEntry>>, gguf?: Gguf): Promise<Float32Array> {
  const { buildGraph } = await defineModel(withMetadata(gguf ?? (await read()), changes));
  return buildGraph(LIMITS).constants.get('rope.angles')!();
}

test('linear scaling divides positions, also where a file names but the factor, by its old key', async () => {
  const plain = await anglesOf({});
  const scalings: readonly Readonly<Record<string, MetadataEntry>>[] = [
    { 'llama.rope.scaling.type': text('linear'), 'llama.rope.scaling.factor': f32(4) },
    { 'llama.rope.scaling.factor': f32(4) },
    { 'llama.rope.scale_linear': f32(4) },
  ];
  for (const changes of scalings) {
    // Position 4 turns as far as position 1 did.
    assert.deepEqual((await anglesOf(changes)).subarray(4 * 16, 5 * 16), plain.subarray(16, 32));
  }
  const none = { 'llama.rope.scaling.type': text('none'), 'llama.rope.scaling.factor': f32(4) };
  assert.deepEqual(await anglesOf(none), plain);
});

test('YaRN takes its original context from the file, or the one that the model was trained for', async () => {
  const yarn = { 'llama.rope.scaling.type': text('yarn'), 'llama.rope.scaling.factor': f32(4) };
  const withContext = (nCtx: number): Promise<Float32Array> =>
    anglesOf({ ...yarn, 'llama.rope.scaling.original_context_length': u32(nCtx) });
  assert.deepEqual(await anglesOf(yarn), await withContext(SMALL.nCtx));
  assert.notDeepEqual(await anglesOf(yarn), await withContext(8 * SMALL.nCtx));
});

test('frequency factors divide the frequency of each pair', async () => {
  const freqFactors = Float32Array.from([1, 1, 2, 4, 4, 4, 8, 8]);
  const [scaled, plain] = [await anglesOf({}, await read({ freqFactors })), await anglesOf({})];
  freqFactors.forEach((factor, pair) => {
    for (const at of [2 * pair, 2 * pair + 1]) assert.equal(scaled[8 * 16 + at], plain[(8 / factor) * 16 + at]);
  });
});

test('refuses frequency factors that are not numbers above 0, one a pair', async () => {
  for (const bad of [0, -1, NaN, Infinity]) {
    const gguf = await read({ freqFactors: new Float32Array(8).fill(1, 0, 7).fill(bad, 7) });
    await assert.rejects(defineModel(gguf), { code: 'GGUF_INVALID', message: /rope_freqs.*positive/ });
  }
  const short = await read({ freqFactors: new Float32Array(4).fill(1) });
  await assert.rejects(defineModel(short), { code: 'SHAPE_MISMATCH', message: /rope_freqs.*\[8\], got \[4\]/ });
});
