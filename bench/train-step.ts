// One training step against PyTorch's: characters, 4 layers, 4 heads, 128 wide, block 64, batch 12, AdamW, F32. The two
// take turns, a few steps each, in two processes of which only one works at a time. Needs Debian's python3-torch with
// libopenblas0-pthread. `--threads N`, `--rounds N`, `--json`.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { WasmExecutor } from '../src/backend/wasm/executor.ts';
import { Random } from '../src/base/random.ts';
import { transformerConfig } from '../src/nn/transformer.ts';
import { Trainer, buildTrainingPrograms } from '../src/training/trainer.ts';

const { values: flags } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '12' },
    json: { type: 'boolean' },
  },
});
const nThreads = Number(flags.threads);
const STEPS_A_ROUND = 10;

const config = transformerConfig({ architecture: 'gpt2', nVocab: 65, nCtx: 64, nEmbd: 128, nLayer: 4, nHead: 4 });
const programs = buildTrainingPrograms(config, { nSeq: 12, nPositions: 64, nAccumulate: 1 });
const noWeights = { read: async () => {} };
const options = { kernels: 'auto', activations: 'f32', nThreads } as const;
const executor = await WasmExecutor.create(programs.graphs, noWeights, options);
const trainer = new Trainer(programs, executor);
trainer.initialize(1337);
const random = new Random(7);

function ourSteps(n: number): number[] {
  return Array.from({ length: n }, () => {
    const fill = (inputs: Int32Array, targets: Int32Array): void => {
      for (let i = 0; i < inputs.length; i++) {
        inputs[i] = random.uint32() % 65;
        targets[i] = random.uint32() % 65;
      }
    };
    const start = performance.now();
    trainer.train(fill, 1e-3);
    return performance.now() - start;
  });
}

const script = fileURLToPath(new URL('train_step_torch.py', import.meta.url));
const peer = spawn('/usr/bin/python3', [script, String(nThreads)], { stdio: ['pipe', 'pipe', 'inherit'] });
const lines = createInterface({ input: peer.stdout })[Symbol.asyncIterator]();
const ready = await lines.next();
if (ready.value !== 'ready') throw new Error('PyTorch did not start; install python3-torch and libopenblas0-pthread');

async function theirSteps(n: number): Promise<number[]> {
  peer.stdin.write(`${n}\n`);
  const { value } = await lines.next();
  return String(value).split(' ').slice(0, n).map(Number);
}

const median = (x: readonly number[]): number => [...x].sort((a, b) => a - b)[x.length >> 1]!;
ourSteps(20);
await theirSteps(20);
const ratios: number[] = [];
const ours: number[] = [];
const theirs: number[] = [];
for (let round = 0; round < Number(flags.rounds); round++) {
  const a = median(ourSteps(STEPS_A_ROUND));
  const b = median(await theirSteps(STEPS_A_ROUND));
  ours.push(a);
  theirs.push(b);
  ratios.push(a / b);
}
peer.stdin.end();
await executor.close();
const result = { threads: nThreads, oursMs: median(ours), torchMs: median(theirs), ratio: median(ratios) };
if (flags.json) console.log(JSON.stringify(result));
else {
  console.log(
    `threads ${nThreads}: ours ${result.oursMs.toFixed(1)} ms a step, PyTorch ${result.torchMs.toFixed(1)} ms`,
  );
  console.log(`ratio ${result.ratio.toFixed(2)} (must ≤ 2.5, goal ≤ 1.5), ${ratios.length} interleaved rounds`);
}
