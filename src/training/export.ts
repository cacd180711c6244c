// From a checkpoint to a GGUF file that SmallMind and llama.cpp run: hyper-parameters, vocabulary and weights. Matrices
// get the wanted type, vectors and position embeddings stay F32. The parameters have GGUF's names, shapes and order of
// rotary pairs already.

import { BLOCK_FORMATS } from '../base/dtype.ts';
import { OptionError, SmallMindError } from '../base/errors.ts';
import { writeGguf } from '../gguf/writer.ts';
import type { TensorData } from '../gguf/writer.ts';
import type { MetadataEntry } from '../gguf/value-types.ts';
import { DropoutRng } from '../nn/dropout.ts';
import { TransformerModel } from '../nn/transformer.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import { quantize } from '../quant/codecs.ts';
import { vocabularyEntries } from '../tokenizer/vocabulary.ts';
import type { Checkpoint } from './checkpoint.ts';
import { layOutParameters } from './parameters.ts';
import type { Parameter } from './parameters.ts';

/** Types that matrices can be exported in. */
export const EXPORT_TYPES = ['F32', 'F16', 'Q8_0', 'Q4_0'] as const;
/** One of `EXPORT_TYPES`. */
export type ExportType = (typeof EXPORT_TYPES)[number];

/** What the file is to be. */
export interface ExportOptions {
  /** Of the matrices. Default `F16`. */
  type?: ExportType;
  /** `general.name`. Default empty. */
  name?: string;
}

/** A GGUF file. */
export interface ExportedModel {
  /** Of the whole file. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Matrices that are F16 since their rows are no whole blocks of the wanted type. */
  readonly fallbacks: readonly string[];
  /** Weights. */
  readonly nParameters: number;
}

/** `general.file_type`: what most of a file is. */
const FILE_TYPES: Readonly<Record<ExportType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7 };

/**
 * Makes a GGUF file of a checkpoint, tokenizer included, which SmallMind and llama.cpp run.
 * @throws {OptionError} for a type that is none of EXPORT_TYPES
 * @throws {SmallMindError} FILE_UNREADABLE when the checkpoint's arrays are not those of its model, NUMERIC for weights
 *   that the type cannot hold
 */
export function exportGguf(checkpoint: Checkpoint, options: ExportOptions = {}): ExportedModel {
  const { type = 'F16', name = '' } = options;
  if (!EXPORT_TYPES.includes(type)) {
    throw new OptionError(`"type" expected one of ${EXPORT_TYPES.join(', ')}, got "${String(type)}"`, {
      option: 'type',
    });
  }
  const { config, vocabulary, arrays } = checkpoint;
  const layout = layOutParameters((scope) => {
    void new TransformerModel(scope, config, new DropoutRng(scope.graph));
  });
  if (layout.size !== arrays.parameters.length) {
    throw new SmallMindError(
      'FILE_UNREADABLE',
      'the arrays of the checkpoint are not those of its model; train it again',
    );
  }
  const fallbacks: string[] = [];
  const tensors = layout.parameters.map((parameter): TensorData => {
    const dtype = dtypeOf(parameter, type);
    if (dtype === 'F16' && type !== 'F16') fallbacks.push(parameter.name);
    const { offset, size, shape } = parameter;
    const values = arrays.parameters.subarray(offset, offset + size);
    return { name: parameter.name, dtype, shape, bytes: quantize(dtype, values) };
  });
  const metadata: readonly (readonly [string, MetadataEntry])[] = [
    ['general.architecture', text(config.architecture)],
    ['general.name', text(name)],
    ['general.file_type', u32(FILE_TYPES[type])],
    ['general.quantization_version', u32(2)],
    ...hyperParameters(config).map(([key, entry]) => [`${config.architecture}.${key}`, entry] as const),
    ...vocabularyEntries(vocabulary),
  ];
  return { bytes: writeGguf({ metadata, tensors }), fallbacks, nParameters: layout.nParameters };
}

/** llama.cpp adds position embeddings and vectors to F32 values, and wants them as F32. */
function dtypeOf({ name, shape }: Parameter, type: ExportType): ExportType {
  if (shape.length === 1 || name.startsWith('position_embd.')) return 'F32';
  return shape.at(-1)! % BLOCK_FORMATS[type].blockElements === 0 ? type : 'F16';
}

const text = (value: string): MetadataEntry => ({ type: 'string', value });
const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const f32 = (value: number): MetadataEntry => ({ type: 'f32', value });

/** Keys below the name of the architecture. */
function hyperParameters(config: TransformerConfig): [key: string, entry: MetadataEntry][] {
  const { architecture, nVocab, nCtx, nEmbd, nLayer, nHead, nHeadKv, nFf, normEps, ropeFreqBase } = config;
  const shared: [string, MetadataEntry][] = [
    ['vocab_size', u32(nVocab)],
    ['context_length', u32(nCtx)],
    ['embedding_length', u32(nEmbd)],
    ['block_count', u32(nLayer)],
    ['feed_forward_length', u32(nFf)],
    ['attention.head_count', u32(nHead)],
    ['attention.head_count_kv', u32(nHeadKv)],
  ];
  if (architecture === 'gpt2') return [...shared, ['attention.layer_norm_epsilon', f32(normEps)]];
  return [
    ...shared,
    ['attention.layer_norm_rms_epsilon', f32(normEps)],
    ['rope.dimension_count', u32(nEmbd / nHead)],
    ['rope.freq_base', f32(ropeFreqBase)],
  ];
}
