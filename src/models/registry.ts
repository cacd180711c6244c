// The architectures that this version runs, by their name in GGUF's `general.architecture`.

import { UnsupportedError } from '../base/errors.ts';
import type { Gguf } from '../gguf/reader.ts';
import { gpt2 } from './gpt2.ts';
import { llama } from './llama.ts';
import type { Architecture, ModelDefinition } from './model.ts';

export const ARCHITECTURES: Readonly<Record<string, Architecture>> = { llama, gpt2 };

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
