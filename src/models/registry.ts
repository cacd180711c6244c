// The architectures that this version runs, by their name in GGUF's `general.architecture`.

import { UnsupportedError } from '../base/errors.ts';
import type { Gguf } from '../gguf/reader.ts';
import { llama } from './llama.ts';
import type { Architecture, ModelDefinition } from './model.ts';

const ARCHITECTURES: Readonly<Record<string, Architecture>> = { llama };

/** @throws {UnsupportedError} UNSUPPORTED_ARCHITECTURE with the list of what works */
export function defineModel(gguf: Gguf): ModelDefinition {
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
