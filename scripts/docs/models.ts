// The tables of docs/models.md: what the registries say is supported, beside what docs/data/models.json says was
// compared. Whatever is in a registry and in no record is named as not compared.

import { readFileSync } from 'node:fs';
import { RUNNABLE_DTYPES } from '../../src/backend/executor.ts';
import { memorySource } from '../../src/base/byte-source.ts';
import { SmallMindError } from '../../src/base/errors.ts';
import { FALLBACK_NAMES } from '../../src/chat/fallbacks.ts';
import { Metadata } from '../../src/gguf/metadata.ts';
import { readGguf } from '../../src/gguf/reader.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { writeGguf } from '../../src/gguf/writer.ts';
import { KV_DTYPES } from '../../src/graph/step.ts';
import { ARCHITECTURES, defineModel } from '../../src/models/registry.ts';
import { findPreTokenizer, PRE_TOKENIZERS } from '../../src/tokenizer/pre/pre-tokenizers.ts';
import { createTokenizer, TOKENIZER_MODELS } from '../../src/tokenizer/tokenizer.ts';
import type { ModelRecord, SuiteRecord, TextRecord } from '../../test/comparison-record.ts';
import { ENCODER_KINDS, randomEncoderGguf } from '../../test/random-encoder.ts';
import { FILE_KINDS, randomDecoderGguf } from '../../test/random-decoder.ts';
import { table } from './marks.ts';

/** Models that people have of each architecture, as llama.cpp's converter names architectures. */
const FAMILIES: Readonly<Record<string, string>> = {
  llama:
    'Llama 1 to 3.3, TinyLlama, SmolLM, SmolLM2, Mistral 7B, Mistral Nemo, Mixtral, Vicuna, Yi, DeepSeek LLM, ' +
    'DeepSeek R1 Distill Llama, what is trained here',
  gpt2: 'GPT-2, DistilGPT-2, what is trained here',
  qwen2: 'Qwen1.5, Qwen2, Qwen2.5, Qwen2.5 Coder, QwQ, DeepSeek R1 Distill Qwen',
  qwen3: 'Qwen3',
  qwen2moe: 'Qwen1.5 MoE, Qwen2 57B A14B',
  qwen3moe: 'Qwen3 30B A3B, Qwen3 Coder 30B A3B',
  gemma: 'Gemma, CodeGemma',
  gemma2: 'Gemma 2',
  gemma3: 'Gemma 3 (its text)',
  phi2: 'Phi-1, Phi-1.5, Phi-2',
  phi3: 'Phi-3, Phi-3.5 mini, Phi-4, Phi-4 mini',
  gptneox: 'GPT-NeoX, Pythia, Dolly 2',
  stablelm: 'StableLM 3B, Stable LM 2 1.6B and 12B, Stable Code 3B',
  starcoder2: 'StarCoder2',
  smollm3: 'SmolLM3',
  olmo2: 'OLMo 2, OLMo 3',
  olmoe: 'OLMoE',
  granite: 'Granite 3, dense',
  granitemoe: 'Granite 3 with experts (1B A400M, 3B A800M)',
  'gpt-oss': 'gpt-oss',
  bert: 'BERT, BGE, E5, GTE, all-MiniLM (embeddings)',
  'nomic-bert': 'Nomic Embed Text 1 and 1.5 (embeddings)',
  'jina-bert-v3': 'Jina Embeddings 3',
  glm4: 'GLM-4 0414',
  minicpm: 'MiniCPM 1B, 2B',
  exaone: 'EXAONE 3, 3.5',
  exaone4: 'EXAONE 4',
  'command-r': 'Command R and R+, Aya Expanse',
  cohere2: 'Command R7B, Command A',
  falcon: 'Falcon 7B, 40B and 180B',
  orion: 'Orion 14B',
  seed_oss: 'Seed-OSS',
  internlm2: 'InternLM 2, 2.5',
  ernie4_5: 'ERNIE 4.5, dense',
  xverse: 'XVERSE',
};

/** What cannot be compared, and why. A test holds that all else is. */
export const NOT_COMPARED: Readonly<Record<string, string>> = {
  Q8_1: 'llama.cpp has no products with it',
  Q8_K: 'llama.cpp has no products with it',
};

const SUITES = JSON.parse(readFileSync(new URL('../../docs/data/models.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, SuiteRecord>
>;
const RECORDS = {
  peers: [...new Set(Object.values(SUITES).flatMap(({ peers }) => peers))],
  models: Object.values(SUITES).flatMap(({ models }) => models),
  texts: Object.values(SUITES).flatMap(({ texts }) => texts),
  templates: Object.values(SUITES).flatMap(({ templates }) => templates),
};
/** Of random weights, for which the distance from exact arithmetic is known: logits, and vectors. */
const RANDOM = RECORDS.models.filter(({ rms }) => rms !== undefined);
const LOGITS = RANDOM.filter(({ nDecided }) => nDecided !== undefined);
const VECTORS = RANDOM.filter(({ nDecided }) => nDecided === undefined);

/** What the registries have and no record covers, by name. */
export function findNotCompared(): string[] {
  const compared = new Set([
    ...RANDOM.flatMap(({ architecture, dtypes, kvType }) => [architecture, ...dtypes, `cache in ${kvType}`]),
    ...RECORDS.texts.flatMap(({ model, preTokenizer }) => [`tokenizer ${model}`, `pre-tokenizer ${preTokenizer}`]),
  ]);
  const supported = [
    ...Object.keys(ARCHITECTURES),
    ...RUNNABLE_DTYPES,
    ...KV_DTYPES.map((dtype) => `cache in ${dtype}`),
    ...TOKENIZER_MODELS.map((model) => `tokenizer ${model}`),
    ...[...PRE_TOKENIZERS.keys()].map((name) => `pre-tokenizer ${name}`),
  ];
  return supported.filter((name) => !compared.has(name));
}

/** Architectures that write text and were not compared behind a known beginning and in a batch. */
export function findNotShared(): string[] {
  return Object.keys(ARCHITECTURES).filter((architecture) => {
    const own = LOGITS.filter((each) => each.architecture === architecture);
    return (
      own.length > 0 && !own.some(({ nPositionReused = 0, nTogether = 1 }) => nPositionReused > 0 && nTogether > 1)
    );
  });
}

/** More are not listed one by one. */
const N_TYPES_SHOWN = 6;
const MISSING = '**not compared**';
const code = (text: string): string => `\`${text}\``;
const count = (n: number): string => (n === 0 ? '' : n.toLocaleString('en'));
const sum = <T>(records: readonly T[], valueOf: (record: T) => number | undefined): number =>
  records.reduce((total, record) => total + (valueOf(record) ?? 0), 0);
const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)];

/** Over all positions: ours and llama.cpp's. */
function rmsOf(records: readonly ModelRecord[]): string {
  if (records.length === 0) return '';
  const nPosition = sum(records, (each) => each.nPosition);
  const over = (side: 'ours' | 'theirs'): string =>
    Math.sqrt(sum(records, ({ rms, ...each }) => each.nPosition * rms![side] ** 2) / nPosition).toExponential(1);
  return `${over('ours')} / ${over('theirs')}`;
}

function sameOf(records: readonly ModelRecord[]): string {
  const nDecided = sum(records, (each) => each.nDecided);
  const nSame = sum(records, (each) => each.nSame);
  return nDecided === 0 ? '' : `${count(nSame)} of ${count(nDecided)}`;
}

function modelArchitectures(): string {
  const head = [
    '`general.architecture`',
    'models of it',
    'types',
    'files',
    'positions',
    'window',
    'behind a known beginning',
    'in a batch',
    'off, F32',
    'off, Q8_0',
    'clear tokens that are the same',
  ];
  const rows = Object.keys(ARCHITECTURES).map((architecture) => {
    const families = FAMILIES[architecture];
    if (families === undefined) throw new Error(`scripts/docs/models.ts does not say whose "${architecture}" is`);
    const both = [LOGITS, VECTORS].map((records) => records.filter((each) => each.architecture === architecture));
    const own = both.find((records) => records.length > 0) ?? [];
    if (own.length === 0) return [code(architecture), families, '', MISSING, ...head.slice(4).map(() => '')];
    const dtypes = distinct(own.flatMap((each) => each.dtypes));
    const inType = (dtype: string, kvType: string): ModelRecord[] =>
      own.filter((each) => each.dtype === dtype && each.kvType === kvType);
    return [
      code(architecture),
      families,
      dtypes.length > N_TYPES_SHOWN ? 'all that are compared [below](#types-of-tensors)' : dtypes.join(', '),
      count(sum(own, (each) => each.nModel)),
      count(sum(own, (each) => each.nPosition)),
      distinct(own.flatMap(({ window }) => window ?? [])).join(', '),
      count(sum(own, (each) => each.nPositionReused)),
      count(Math.max(...own.map(({ nTogether = 1 }) => nTogether))),
      rmsOf(inType('F32', 'F32')),
      rmsOf(inType('Q8_0', 'F16')),
      sameOf(own),
    ];
  });
  const kernels = distinct(RANDOM.flatMap((each) => each.kernels)).toSorted();
  const threads = distinct(RANDOM.flatMap((each) => each.threads)).toSorted();
  const nTokens = distinct(LOGITS.map((each) => each.nTokens)).toSorted();
  const note =
    `${RECORDS.peers.join('; ')}. Texts of ${nTokens.join(', ')} tokens; kernels ${kernels.map(code).join(', ')}; ` +
    `${threads.join(', ')} threads. \`npm run models\`.`;
  return `${table([head, ...rows])}\n\n${note}`;
}

function modelTypes(): string {
  const rows = RUNNABLE_DTYPES.map((dtype) => {
    const most = LOGITS.filter((each) => each.dtype === dtype);
    const some = LOGITS.filter((each) => each.dtype !== dtype && each.dtypes.includes(dtype));
    if (most.length + some.length === 0) {
      const reason = NOT_COMPARED[dtype];
      return [dtype, reason === undefined ? MISSING : `not compared: ${reason}`, '', '', '', ''];
    }
    return [
      dtype,
      count(sum(most, (each) => each.nModel)),
      count(sum(some, (each) => each.nModel)),
      count(sum([...most, ...some], (each) => each.nPosition)),
      rmsOf(most.filter(({ kvType }) => kvType === 'F16')),
      sameOf([...most, ...some]),
    ];
  });
  const head = ['type', 'files of it', 'files with some of it', 'positions', 'off', 'clear tokens that are the same'];
  return table([head, ...rows]);
}

function modelCaches(): string {
  const rows = KV_DTYPES.map((kvType) => {
    const own = LOGITS.filter((each) => each.kvType === kvType);
    const behind = count(sum(own, (each) => each.nPositionReused));
    return own.length === 0
      ? [kvType, MISSING, '', '', '']
      : [
          kvType,
          count(sum(own, (each) => each.nModel)),
          count(sum(own, (each) => each.nPosition)),
          behind,
          rmsOf(own.filter(({ dtype, architecture }) => dtype === 'F32' && architecture === 'llama')),
        ];
  });
  return table([['cache in', 'files', 'positions', 'behind a known beginning', 'off, `llama` in F32'], ...rows]);
}

function modelTokenizers(): string {
  const rows = TOKENIZER_MODELS.map((model) => {
    const own = RECORDS.texts.filter((each) => each.model === model);
    const vocabularies = Object.entries(Object.groupBy(own, ({ vocabulary }) => vocabulary));
    const cell = vocabularies.map(([vocabulary, texts]) => `${vocabulary} (${count(nTextOf(texts!))})`).join(', ');
    return [code(model), own.length === 0 ? MISSING : cell];
  });
  return table([['`tokenizer.ggml.model`', 'vocabularies (and texts) that became the same tokens'], ...rows]);
}

function modelEmbeddings(): string {
  const rows = [...Map.groupBy(VECTORS, ({ what }) => what)].map(([what, own]) => [
    what.replace('embeddings of ', ''),
    code(own[0]!.architecture),
    count(sum(own, (each) => each.nModel)),
    count(sum(own, (each) => each.nPosition)),
    ...['F32', 'Q8_0'].map((type) => rmsOf(own.filter(({ dtype }) => dtype === type))),
  ]);
  return table([['model', 'architecture', 'files', 'vectors', 'off, F32', 'off, Q8_0'], ...rows]);
}

const nTextOf = (texts: readonly TextRecord[]): number => sum(texts, (each) => each.nText);

/** Names that share their rules are a row. */
function modelPreTokenizers(): string {
  const rules = Map.groupBy(PRE_TOKENIZERS.keys(), (name) => PRE_TOKENIZERS.get(name)!.cut);
  const rows = [...rules.values()].map((names) => {
    const cells = names.map((name) => {
      const n = nTextOf(RECORDS.texts.filter((each) => each.preTokenizer === name));
      return `${code(name)} (${n === 0 ? MISSING : count(n)})`;
    });
    return [cells.join(', ')];
  });
  return table([['`tokenizer.ggml.pre` with the same rules (and texts)'], ...rows]);
}

function modelFiles(): string {
  const real = RECORDS.models.filter(({ rms }) => rms === undefined);
  const groups = Map.groupBy(real, ({ what, architecture }) => `${what} ${architecture}`);
  const rows = [...groups.values()].map((own) => [
    own[0]!.what,
    code(own[0]!.architecture),
    distinct(own.flatMap(({ dtypes }) => dtypes)).join(', '),
    count(sum(own, (each) => each.nPosition)),
    sameOf(own),
  ]);
  return table([['file', 'architecture', 'types', 'positions', 'clear tokens that are the same'], ...rows]);
}

function modelTemplates(): string {
  const rows = RECORDS.templates.map(({ template, nConversation }) => [template, String(nConversation)]);
  const own = `For files without a template: ${FALLBACK_NAMES.map(code).join(', ')}.`;
  return `${table([['template', 'conversations with the same text, or refused alike'], ...rows])}\n\n${own}`;
}

/** What a file gets that asks for something unknown. */
async function refusalOf(attempt: () => unknown): Promise<string> {
  try {
    await attempt();
  } catch (error) {
    if (!(error instanceof SmallMindError)) throw error;
    const message = error.message.replace(/(supported: (?:[^,]+, ){3}).*/, '$1…');
    return `${error.code}  ${message}`;
  }
  throw new Error('nothing was refused');
}

const LIMITS = { nTokensMax: 1, nOutputMax: 1, nSeqMax: 1, nCtx: 32, nKvBlock: 1, kvDtype: 'F32' } as const;
type Change = readonly [key: string, value: MetadataEntry];

/** Of a file that is like others of its architecture, but for metadata or a tensor. */
function variantRefusal(kind: string, change: Change | undefined, tensor?: string): Promise<string> {
  const shape = { seed: 1, dtype: 'F32', nLayer: 1, nEmbd: 32, nHead: 2, nFf: 32, nVocab: 300, nCtx: 32 } as const;
  const bytes = Object.hasOwn(ENCODER_KINDS, kind)
    ? randomEncoderGguf(ENCODER_KINDS[kind]!, shape)
    : randomDecoderGguf(FILE_KINDS[kind]!, { ...shape, nHeadKv: 2, headDim: 16 });
  return refusalOf(async () => {
    const gguf = await readGguf(memorySource(bytes, 'MODEL.gguf'));
    const metadata = new Metadata(new Map([...gguf.metadata.entries(), ...(change ? [change] : [])]));
    const tensors = new Map(gguf.tensors);
    if (tensor !== undefined) tensors.set(tensor, { ...[...tensors.values()][0]!, name: tensor });
    return (await defineModel({ ...gguf, metadata, tensors })).buildGraph(LIMITS, 'hidden');
  });
}

const isCausal = (architecture: string, value: boolean): Change => [
  `${architecture}.attention.causal`,
  { type: 'bool', value },
];

const REFUSALS = [
  await refusalOf(async () => {
    const metadata = [['general.architecture', { type: 'string', value: 'mamba' }]] as const;
    return defineModel(await readGguf(memorySource(writeGguf({ metadata, tensors: [] }), 'MODEL.gguf')));
  }),
  await refusalOf(() => findPreTokenizer('my-own')),
  await refusalOf(() => createTokenizer({ model: 'rwkv', tokens: [] } as never)),
  await variantRefusal('qwen2', ['qwen2.rope.scaling.type', { type: 'string', value: 'dynamic' }]),
  await variantRefusal('glm4', [
    'glm4.rope.dimension_sections',
    { type: 'array', elementType: 'i32', value: Int32Array.from([8, 12, 12, 0]) },
  ]),
  await variantRefusal('llama with experts', undefined, 'blk.0.ffn_gate.0.weight'),
  await variantRefusal('llama with experts', undefined, 'blk.0.ffn_gate_up_exps.weight'),
  await variantRefusal('bert', undefined, 'blk.0.attn_q_norm.weight'),
  await variantRefusal('bert', isCausal('bert', true)),
  await variantRefusal('gemma2', isCausal('gemma2', false)),
];

/** Architectures of models that people have, as llama.cpp names them. */
const KNOWN_OF_OTHERS = (
  'arcee baichuan bailingmoe bloom chatglm dbrx deci deepseek deepseek2 dots1 ernie4_5-moe eurobert falcon-h1 ' +
  'gemma-embedding gemma3n gemma4 glm4moe granitehybrid hunyuan-dense hunyuan-moe jamba jina-bert-v2 lfm2 ' +
  'llama4 mamba mamba2 minicpm3 minimax-m2 mistral3 modern-bert mpt nemotron nemotron_h nomic-bert-moe olmo ' +
  'openelm phimoe qwen qwen2vl qwen35 qwen35moe qwen3next qwen3vl rwkv7 starcoder t5'
).split(' ');

function modelRefusals(): string {
  const missing = KNOWN_OF_OTHERS.filter((name) => !Object.hasOwn(ARCHITECTURES, name));
  const note = `Architectures that others run and that are not there yet: ${missing.map(code).join(', ')}.`;
  return `\`\`\`text\n${REFUSALS.join('\n')}\n\`\`\`\n\n${note}`;
}

export const TABLES: Readonly<Record<string, () => string>> = {
  modelArchitectures,
  modelTypes,
  modelCaches,
  modelEmbeddings,
  modelTokenizers,
  modelPreTokenizers,
  modelFiles,
  modelTemplates,
  modelRefusals,
};
