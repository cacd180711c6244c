// Runs the command line from its sources in a process of its own, with pipes for stdin, stdout and stderr, and makes
// model files for it. Nothing is a terminal here, and colours are not forced.

import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { memorySource } from '../../src/base/byte-source.ts';
import { readGguf, readTensorBytes } from '../../src/gguf/reader.ts';
import { writeGguf } from '../../src/gguf/writer.ts';
import type { TensorData } from '../../src/gguf/writer.ts';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { randomLlamaGguf } from '../random-model.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
/** Far above what any call takes; one that hangs is killed, and then has no exit code. */
const TIMEOUT_MS = 60_000;

export interface Outcome {
  /** null: it was killed. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts `smallmind ARGS` with a pipe for stdin that stays open. */
export function startCommand(args: readonly string[]): ChildProcessWithoutNullStreams {
  const { NODE_OPTIONS: _, FORCE_COLOR: __, NODE_TEST_CONTEXT: ___, ...env } = process.env;
  const child = spawn(process.execPath, ['--conditions=smallmind-source', MAIN, ...args], {
    env,
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  // Whoever ends early does not read its input to the end.
  child.stdin.on('error', () => {});
  return child;
}

export async function outcomeOf(child: ChildProcessWithoutNullStreams): Promise<Outcome> {
  const closed = new Promise<number | null>((resolve) => child.on('close', resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code, stdout, stderr };
}

/** Runs `smallmind ARGS` to its end. */
export function runCommand(args: readonly string[], input = ''): Promise<Outcome> {
  const child = startCommand(args);
  child.stdin.end(input);
  return outcomeOf(child);
}

const scratch = mkdtempSync(join(tmpdir(), 'smallmind-cli-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder that is removed at the end. */
export const scratchFolder = scratch;

/** Writes a file into the scratch folder and returns its path. */
export function writeScratch(name: string, bytes: Uint8Array | string): string {
  const path = join(scratch, name);
  writeFileSync(path, bytes);
  return path;
}

/** A model of a few thousand parameters, whose text means nothing. Its context holds 64 tokens. */
export const smallModel: Uint8Array = randomLlamaGguf({
  seed: 7,
  dtype: 'F32',
  nLayer: 1,
  nEmbd: 32,
  nHead: 2,
  nHeadKv: 1,
  nFf: 64,
  nVocab: 300,
  nCtx: 64,
  tied: true,
});

/** The small model with other metadata and tensors: what the function changes in the two maps. */
export async function alterModel(
  change: (metadata: Map<string, MetadataEntry>, tensors: Map<string, TensorData>) => void,
): Promise<Uint8Array> {
  const gguf = await readGguf(memorySource(smallModel));
  const tensors = new Map<string, TensorData>();
  for (const info of gguf.tensors.values())
    tensors.set(info.name, { ...info, bytes: await readTensorBytes(gguf, info) });
  const metadata = new Map(gguf.metadata.entries());
  change(metadata, tensors);
  return writeGguf({ metadata, tensors: [...tensors.values()] });
}
