// Run by heap.test.ts in a process of its own: forwards of a whole model, and prints, as JSON, the bytes of heap that
// one costs, one number a round.

import { CONFIGS, N_SEQ, buildForwards, buildModel, createForwards } from './models.ts';

const [name, threads] = process.argv.slice(2) as [keyof typeof CONFIGS, string];
const N_RUNS = 2000;
const N_ROUNDS = 14;
const LENGTHS = [1, 4, 16];

const executor = await createForwards(buildForwards(buildModel(CONFIGS[name]), LENGTHS), { nThreads: Number(threads) });
const tokens = executor.input('tokens');
const positions = executor.input('positions');
let checksum = 0;

/** In tens, because V8 compiles one long loop anew each time it runs, and that memory is not a forward's. */
function runTen(program: number): void {
  const nPositions = LENGTHS[program]!;
  for (let run = 0; run < 10; run++) {
    for (let i = 0; i < N_SEQ * nPositions; i++) {
      tokens[i] = (tokens[i]! + 7 * i + run) % 48;
      positions[i] = i % nPositions;
    }
    executor.run(program);
  }
}

const rounds: number[] = [];
for (let round = 0; round < N_ROUNDS; round++) {
  gc!();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < N_RUNS / 10; i++) runTen(i % LENGTHS.length);
  rounds.push((process.memoryUsage().heapUsed - before) / N_RUNS);
  checksum += executor.output(0, 0)[0]!;
}
if (!Number.isFinite(checksum)) throw new Error('the model gives no numbers');
await executor.close();
console.log(JSON.stringify(rounds));
