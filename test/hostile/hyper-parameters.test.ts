// Model files whose metadata lies: counts of zero, of billions, negative or no numbers, heads that do not divide. Each
// is refused by an error that names what is wrong, at once, and without the memory that it asks for.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SmallMindError, loadModel } from '../../src/index.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { editedModel, goodModel } from './edited-model.ts';
import { threadMs } from '../thread-time.ts';

const MILLISECONDS_MAX = 1000;
/** The lies ask for gigabytes; all tests together, with the files that they write, need some 100 MB. */
const GROWTH_BYTES_MAX = 256 * 2 ** 20;

/** Smaller than usual: nothing here depends on the size. */
const SIZE = { nEmbd: 64, nFf: 96 };

const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const i32 = (value: number): MetadataEntry => ({ type: 'i32', value });
const u64 = (value: number | bigint): MetadataEntry => ({ type: 'u64', value });
const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });
const text = (value: string): MetadataEntry => ({ type: 'string', value });
const f32s = (value: number[]): MetadataEntry => ({
  type: 'array',
  elementType: 'f32',
  value: Float32Array.from(value),
});

/** `undefined` removes the key. */
type Change = readonly [key: string, value: MetadataEntry | undefined];
type Case = readonly [what: string, code: string, message: RegExp, ...changes: Change[]];

const COUNTS = [
  'block_count',
  'embedding_length',
  'attention.head_count',
  'attention.head_count_kv',
  'feed_forward_length',
  'context_length',
];

const ROPE = 'llama.rope.scaling';
const YARN: readonly Change[] = [
  [`${ROPE}.type`, text('yarn')],
  [`${ROPE}.factor`, f32(4)],
];

const CASES: readonly Case[] = [
  ...COUNTS.flatMap((name): Case[] => {
    const key = `llama.${name}`;
    const named = new RegExp(`"${key}"`);
    const cases: Case[] = [
      [`${name} of 0`, 'GGUF_INVALID', named, [key, u32(0)]],
      [`${name} of -4`, 'GGUF_INVALID', named, [key, i32(-4)]],
      [`${name} of 1.5`, 'GGUF_INVALID', named, [key, f32(1.5)]],
      [`${name} of NaN`, 'GGUF_INVALID', named, [key, f32(NaN)]],
      [`${name} of Infinity`, 'GGUF_INVALID', named, [key, f32(Infinity)]],
      [`${name} as text`, 'GGUF_INVALID', named, [key, text('4')]],
      [`${name} of 2^63`, 'GGUF_INVALID', named, [key, u64(2n ** 63n)]],
      [`${name} of 1e30`, 'GGUF_INVALID', named, [key, f32(1e30)]],
    ];
    if (name !== 'attention.head_count_kv') cases.push([`no ${name}`, 'GGUF_MISSING', named, [key, undefined]]);
    return cases;
  }),
  ['2^31 layers', 'GGUF_MISSING', /blk\.2\./, ['llama.block_count', u32(2 ** 31)]],
  ['2^50 layers', 'GGUF_MISSING', /blk\.2\./, ['llama.block_count', u64(2 ** 50)]],
  ['an embedding of 2^31', 'SHAPE_MISMATCH', /token_embd/, ['llama.embedding_length', u32(2 ** 31)]],
  ['2^31 hidden units', 'SHAPE_MISMATCH', /ffn_/, ['llama.feed_forward_length', u32(2 ** 31)]],
  ['2^31 heads', 'GGUF_INVALID', /head/, ['llama.attention.head_count', u32(2 ** 31)]],
  ['2^31 key-value heads', 'GGUF_INVALID', /head/, ['llama.attention.head_count_kv', u32(2 ** 31)]],
  ['3 heads, which do not divide', 'GGUF_INVALID', /heads 3/, ['llama.attention.head_count', u32(3)]],
  ['3 key-value heads for 4', 'GGUF_INVALID', /heads 3/, ['llama.attention.head_count_kv', u32(3)]],
  ['more key-value heads than heads', 'GGUF_INVALID', /heads 8/, ['llama.attention.head_count_kv', u32(8)]],
  ['8 heads where there are 4', 'GGUF_INVALID', /rotary/, ['llama.attention.head_count', u32(8)]],
  ['an odd rotary dimension', 'GGUF_INVALID', /rotary dimensions 15/, ['llama.rope.dimension_count', u32(15)]],
  ['more rotary dimensions than there are', 'GGUF_INVALID', /rotary/, ['llama.rope.dimension_count', u32(128)]],
  ['0 rotary dimensions', 'GGUF_INVALID', /rope\.dimension_count/, ['llama.rope.dimension_count', u32(0)]],
  ['a key length of 2^31', 'SHAPE_MISMATCH', /attn_q/, ['llama.attention.key_length', u32(2 ** 31)]],
  ['a key length of 0', 'GGUF_INVALID', /key_length/, ['llama.attention.key_length', u32(0)]],
  ...[NaN, Infinity, -1e-5].map((eps): Case => [
    `an epsilon of ${eps}`,
    'GGUF_INVALID',
    /layer_norm_rms_epsilon/,
    ['llama.attention.layer_norm_rms_epsilon', f32(eps)],
  ]),
  ['no epsilon', 'GGUF_MISSING', /layer_norm_rms_epsilon/, ['llama.attention.layer_norm_rms_epsilon', undefined]],
  ...[NaN, Infinity, 0, -10000].map((base): Case => [
    `a RoPE base of ${base}`,
    'GGUF_INVALID',
    /rope\.freq_base/,
    ['llama.rope.freq_base', f32(base)],
  ]),
  ...[NaN, Infinity, 0, -2].map((factor): Case => [
    `a RoPE factor of ${factor}`,
    'GGUF_INVALID',
    /rope\.scaling\.factor/,
    ['llama.rope.scaling.type', text('linear')],
    ['llama.rope.scaling.factor', f32(factor)],
  ]),
  ['a RoPE base of nearly nothing', 'GGUF_INVALID', /freq_base.*too fast/, ['llama.rope.freq_base', f32(1e-30)]],
  [
    'a RoPE factor of nearly nothing',
    'GGUF_INVALID',
    /scaling\.factor.*too fast/,
    ['llama.rope.scaling.factor', f32(1e-30)],
  ],
  ['unknown RoPE scaling', 'UNSUPPORTED_FEATURE', /"dynamic"/, ['llama.rope.scaling.type', text('dynamic')]],
  [
    'a rotation in sections',
    'UNSUPPORTED_FEATURE',
    /sections.*models of text alone run/,
    ['llama.rope.dimension_sections', f32s([8, 8, 0, 0])],
  ],
  [
    'YaRN of a context of 0',
    'GGUF_INVALID',
    /original_context_length/,
    ...YARN,
    [`${ROPE}.original_context_length`, u32(0)],
  ],
  ['YaRN with a factor of 0', 'GGUF_INVALID', /attn_factor/, ...YARN, [`${ROPE}.attn_factor`, f32(0)]],
  [
    'experts, and not how many of them a token takes',
    'GGUF_MISSING',
    /expert_used_count/,
    ['llama.expert_count', u32(8)],
  ],
  [
    'four billion experts',
    'GGUF_MISSING',
    /ffn_\w+_\w+\.weight" is missing/,
    ['llama.expert_count', u32(2 ** 32 - 1)],
    ['llama.expert_used_count', u32(2 ** 32 - 1)],
  ],
  ['a pooling of text', 'GGUF_INVALID', /pooling_type/, ['llama.pooling_type', text('mean')]],
  ['no architecture', 'GGUF_MISSING', /general\.architecture/, ['general.architecture', undefined]],
  [
    'an unknown architecture',
    'UNSUPPORTED_ARCHITECTURE',
    /"mamba".*supported: .*llama/,
    ['general.architecture', text('mamba')],
  ],
  [
    'an architecture called constructor',
    'UNSUPPORTED_ARCHITECTURE',
    /"constructor"/,
    ['general.architecture', text('constructor')],
  ],
  ['an unknown tokenizer', 'UNSUPPORTED_TOKENIZER', /"rwkv".*supported: llama/, ['tokenizer.ggml.model', text('rwkv')]],
  ['no tokens', 'GGUF_MISSING', /tokenizer\.ggml\.tokens/, ['tokenizer.ggml.tokens', undefined]],
  ['scores for another vocabulary', 'GGUF_INVALID', /tokenizer\.ggml\.scores/, ['tokenizer.ggml.scores', f32s([1, 2])]],
  ['a BOS beyond the vocabulary', 'GGUF_INVALID', /bos_token_id/, ['tokenizer.ggml.bos_token_id', u32(300)]],
];

let peakBytes: number;
const peakNow = (): number => 1024 * process.resourceUsage().maxRSS;
before(async () => {
  // What it takes to load any model is there before the peak is measured.
  await (await loadModel(goodModel(SIZE), { thread: 'inline', threads: 1 })).close();
  peakBytes = peakNow();
});
after(() => {
  const growth = peakNow() - peakBytes;
  assert.ok(growth < GROWTH_BYTES_MAX, `resident memory grew by ${growth} bytes`);
});

async function edit(changes: readonly Change[]): Promise<Uint8Array> {
  return editedModel(({ metadata }) => {
    for (const [key, value] of changes) {
      if (value) metadata.set(key, value);
      else metadata.delete(key);
    }
  }, SIZE);
}

/** Loads within the time allowed. @returns the error */
async function refusalOf(bytes: Uint8Array, options: object): Promise<SmallMindError> {
  const startMs = threadMs();
  try {
    await using model = await loadModel(bytes, options);
    assert.fail(`${model.info.name} was loaded`);
  } catch (error) {
    assert.ok(error instanceof SmallMindError, String(error));
    assert.ok(threadMs() - startMs < MILLISECONDS_MAX, 'it took too long');
    return error;
  }
}

describe('a model file is refused that has', () => {
  for (const [what, code, message, ...changes] of CASES) {
    test(what, async () => {
      const bytes = await edit(changes);
      const onProgress = (): void => assert.fail('weights were read');
      for (const kernels of ['auto', 'reference'] as const) {
        const error = await refusalOf(bytes, { thread: 'inline', threads: 1, kernels, onProgress });
        assert.equal(error.code, code, String(error));
        assert.match(error.message, message);
      }
    });
  }
});

describe('a model file is loaded that has', () => {
  const fine: Record<string, Change> = {
    'a context of 2^40, which is cut to a sensible one': ['llama.context_length', u64(2 ** 40)],
    'a context of one token': ['llama.context_length', u32(1)],
    'no number of key-value heads, which is then that of heads': ['llama.attention.head_count_kv', undefined],
    'no RoPE base, which is then 10,000': ['llama.rope.freq_base', undefined],
    'a name with a line break': ['general.name', text('first\nsecond')],
  };
  for (const [what, change] of Object.entries(fine)) {
    test(what, async () => {
      const options = change[0].endsWith('head_count_kv') ? { ...SIZE, nHeadKv: 4 } : SIZE;
      const bytes = await editedModel(({ metadata }) => {
        if (change[1]) metadata.set(change[0], change[1]);
        else metadata.delete(change[0]);
      }, options);
      await using model = await loadModel(bytes, { thread: 'inline', threads: 1 });
      assert.ok(model.info.nCtx <= 4096);
      assert.equal((await model.logits([1])).length, 300);
    });
  }
});

test('an error from the worker has the class, code, message and details that it has inline', async () => {
  for (const index of [0, 7, 40, 45, 50, 60, CASES.length - 3]) {
    const [, , , ...changes] = CASES[index]!;
    const bytes = await edit(changes);
    const [inline, remote] = await Promise.all(
      ['inline', 'worker'].map((thread) => refusalOf(bytes, { thread, threads: 1 })),
    );
    const shape = (e: SmallMindError): unknown => [e.constructor.name, e.name, e.code, e.message, e.details];
    assert.deepEqual(shape(remote!), shape(inline!));
  }
});
