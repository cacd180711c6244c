// Who is measured beside us, on the same file with the same threads. L is llama.cpp driven from C (llama-harness.c, the
// strictest), N is node-llama-cpp's API. Needs `npm run peers`; L needs gcc, too.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, globSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Speed, Workload } from '../src/benchmark.ts';
import { openPeer } from '../src/cli/peer.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

export interface Opponent {
  run(workload: Workload): Promise<Speed>;
  close(): Promise<void>;
}

export interface Setup {
  readonly path: string;
  readonly threads: number;
  /** Of a sequence. */
  readonly nCtx: number;
  /** Sequences that run at once. */
  readonly nSeq: number;
  /** Tokens in the cache before the prompt. */
  readonly depth: number;
  /** Where L leaves a filled context for N. */
  readonly statePath: string;
}

/** Of `names`, in their order: L before N, which takes over a context that L filled. */
export async function openOpponents(names: readonly string[], setup: Setup): Promise<Map<string, Opponent>> {
  const opponents = new Map<string, Opponent>();
  for (const name of names) opponents.set(name, await (name === 'L' ? openHarness : openNode)(setup));
  rmSync(setup.statePath, { force: true });
  return opponents;
}

/** Compiles the harness against the library that node-llama-cpp's package brings. */
function buildHarness(): { program: string; libraries: string } {
  const [library] = globSync('peers/node_modules/@node-llama-cpp/linux-x64/bins/*/libllama.v*.so', { cwd: ROOT });
  if (!library) throw new Error('llama.cpp is not installed; run npm run peers');
  const libraries = dirname(join(ROOT, library));
  const program = join(tmpdir(), `smallmind-llama-harness-${process.pid}`);
  const shared = globSync('{libllama.v*,libggml.v*,libggml-base}.so', { cwd: libraries }).map((name) =>
    join(libraries, name),
  );
  const args = ['-O2', join(ROOT, 'bench/llama-harness.c'), '-o', program, ...shared];
  execFileSync('gcc', [...args, `-Wl,-rpath,${libraries}`, '-Wl,--allow-shlib-undefined']);
  return { program, libraries };
}

async function openHarness({ path, threads, nCtx, nSeq, depth, statePath }: Setup): Promise<Opponent> {
  const { program, libraries } = buildHarness();
  const sizes = [threads, nCtx, nSeq, depth].map(String);
  const state = depth > 0 ? [statePath] : [];
  const child = spawn(program, [libraries, path, ...sizes, ...state], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the llama.cpp harness ended');
    return value;
  };
  if ((await next()) !== 'ready') throw new Error('the llama.cpp harness did not start');
  return {
    async run({ prompts, nGenerate }) {
      const nPrompt = prompts[0]!.length;
      child.stdin.write(`${nPrompt} ${nGenerate}\n`);
      const [prefillMs, decodeMs] = (await next()).split(' ').map(Number) as [number, number];
      return { prefill: (1000 * nPrompt * nSeq) / prefillMs, decode: (1000 * nGenerate * nSeq) / decodeMs };
    },
    async close() {
      child.stdin.end();
      rmSync(program, { force: true });
    },
  };
}

async function openNode({ path, threads, nCtx, nSeq, depth, statePath }: Setup): Promise<Opponent> {
  process.chdir(join(ROOT, 'peers'));
  if (depth > 0 && !existsSync(statePath))
    throw new Error('at a depth, N takes the context that L filled: --peers L,N');
  const peer = await openPeer(path, { threads, nCtx, nSeq, ...(depth > 0 ? { statePath } : {}) });
  return { run: (workload) => peer.run(workload), close: async () => peer[Symbol.asyncDispose]() };
}
