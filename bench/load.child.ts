// One measurement of bench/load.ts in a process of its own, as JSON: what a copy costs, or what loading does.
//   copy BYTES          into memory fresh from the operating system, and into the same again
//   load PATH THREADS   by the built package, as its users have it

import { readFileSync } from 'node:fs';
import { loadModel } from 'smallmind';

const [what, argument, threads] = process.argv.slice(2) as [string, string, string | undefined];

const peakBytes = (): number => 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]);

function copy(nBytes: number): object {
  const source = new Uint8Array(64 << 20).fill(1);
  const target = new Uint8Array(nBytes);
  const pass = (): number => {
    const startMs = performance.now();
    for (let at = 0; at < nBytes; at += source.length) target.set(source.subarray(0, nBytes - at), at);
    return performance.now() - startMs;
  };
  return { freshMs: pass(), againMs: pass(), sum: target[nBytes - 1] };
}

async function load(path: string, nThreads: number): Promise<object> {
  const startMs = performance.now();
  const model = await loadModel(path, { threads: nThreads });
  const wallMs = performance.now() - startMs;
  await model.generate('Once upon a time', { maxTokens: 16 }).result;
  const { loadMs, memoryBytes } = model.info;
  const figures = { loadMs, wallMs, memoryBytes, peakBytes: peakBytes() };
  await model.close();
  return figures;
}

console.log(JSON.stringify(what === 'copy' ? copy(Number(argument)) : await load(argument, Number(threads))));
