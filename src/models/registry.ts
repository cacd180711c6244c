// The architectures that this version runs, by their name in GGUF's `general.architecture`.

import { UnsupportedError } from '../base/errors.ts';
import type { Gguf } from '../gguf/reader.ts';
import { bert, jinaBertV3, nomicBert } from './encoder.ts';
import { cohere2, commandR } from './cohere.ts';
import { exaone, exaone4 } from './exaone.ts';
import { gemma, gemma2, gemma3 } from './gemma.ts';
import { gptOss } from './gpt-oss.ts';
import { gpt2 } from './gpt2.ts';
import {
  ernie45,
  glm4,
  granite,
  granitemoe,
  internlm2,
  llama,
  minicpm,
  olmo2,
  olmoe,
  smollm3,
  xverse,
} from './llama.ts';
import type { Architecture, ModelDefinition } from './model.ts';
import { falcon, gptneox, orion, phi2, phi3, stablelm, starcoder2 } from './neox.ts';
import { qwen2, qwen2moe, qwen3, qwen3moe, seedOss } from './qwen.ts';

export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama,
  gpt2,
  qwen2,
  qwen3,
  qwen2moe,
  qwen3moe,
  gemma,
  gemma2,
  gemma3,
  phi2,
  phi3,
  gptneox,
  stablelm,
  starcoder2,
  smollm3,
  olmo2,
  olmoe,
  granite,
  granitemoe,
  'gpt-oss': gptOss,
  bert,
  'nomic-bert': nomicBert,
  'jina-bert-v3': jinaBertV3,
  glm4,
  minicpm,
  exaone,
  exaone4,
  'command-r': commandR,
  cohere2,
  falcon,
  orion,
  seed_oss: seedOss,
  internlm2,
  ernie4_5: ernie45,
  xverse,
};

/** @throws {UnsupportedError} UNSUPPORTED_ARCHITECTURE with the list of what works; what the architecture throws */
export async function defineModel(gguf: Gguf): Promise<ModelDefinition> {
  const name = gguf.metadata.getString('general.architecture');
  if (!Object.hasOwn(ARCHITECTURES, name)) {
    const known = Object.keys(ARCHITECTURES).join(', ');
    throw new UnsupportedError(
      'UNSUPPORTED_ARCHITECTURE',
      `${gguf.source.name}: architecture "${name}" is not supported; supported: ${known}`,
      { architecture: name },
    );
  }
  return ARCHITECTURES[name]!(gguf);
}
