// `smallmind train` from its sources: what it leaves behind, that a run which is ended anywhere, even by force, goes on
// with the same numbers, and that every mistake is one clear line with the last good checkpoint intact.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { decodeCheckpoint } from '../../src/training.ts';
import type { Checkpoint } from '../../src/training.ts';
import { outcomeOf, runCommand, scratchFolder, startCommand, writeScratch } from './command.ts';
import type { Outcome } from './command.ts';

const TEXT = Array.from({ length: 400 }, (_, i) => `The ${['cat', 'dog', 'cow'][(i * i) % 3]} saw ${i} mice.\n`).join(
  '',
);
const data = writeScratch('mice.txt', TEXT);

/** A model that takes a step in a millisecond or two. */
const TINY = [
  ['--data', data],
  ['--tokenizer', 'char'],
  ['--layers', '1'],
  ['--heads', '2'],
  ['--embd', '16'],
  ['--ff', '32'],
  ['--ctx', '16'],
  ['--batch', '4'],
  ['--dropout', '0.1'],
  ['--eval-every', '10'],
  ['--eval-batches', '2'],
  ['--checkpoint-every', '25'],
  ['--kernels', 'strict'],
].flat();

const folderOf = (name: string): string => join(scratchFolder, name);
const lastOf = (folder: string): string => join(folder, 'last.checkpoint');
const readLast = (folder: string): Checkpoint => decodeCheckpoint(readFileSync(lastOf(folder)), folder);

interface Entry extends Record<string, number | undefined> {
  readonly step: number;
}

const readMetrics = (folder: string): Entry[] =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Entry);

/** What must be the same in two runs: all but the speed. */
const numbersOf = (folder: string): Entry[] => readMetrics(folder).map((entry) => ({ ...entry, tokensPerSecond: 0 }));

async function trainOk(folder: string, ...args: string[]): Promise<Outcome> {
  const outcome = await runCommand(['train', '--out', folder, ...args]);
  assert.equal(outcome.code, 0, outcome.stderr);
  return outcome;
}

test('a run leaves its config, checkpoints, metrics and a picture behind', async () => {
  const folder = folderOf('whole');
  const { stdout, stderr } = await trainOk(folder, ...TINY, '--steps', '45');
  assert.equal(stderr, '');
  assert.match(stdout, /^llama, [\d,]+ parameters: 1 layers, 2 heads, width 16, context 16, vocabulary \d+\n/);
  assert.match(stdout, /\nstep 10\/45 · loss \d\.\d{4} · validation \d\.\d{4} · [\d,]+ tokens\/s\n/);
  assert.match(stdout, /\ndone in \d+ s, best validation loss \d\.\d{4}; see .*loss\.svg\n$/);
  assert.equal(stdout.match(/^step /gm)!.length, 6);
  const files = ['best.checkpoint', 'config.json', 'last.checkpoint', 'loss.svg', 'metrics.jsonl'];
  assert.deepEqual(readdirSync(folder).sort(), files);

  const metrics = readMetrics(folder);
  assert.deepEqual(
    metrics.map(({ step }) => step),
    Array.from({ length: 46 }, (_, i) => i),
  );
  for (const { step, loss, learningRate, gradientNorm, validationLoss, tokens } of metrics) {
    assert.equal(tokens, step * 64);
    assert.equal(validationLoss !== undefined, step % 10 === 0 || step === 45);
    if (step > 0) assert.ok(loss! > 0 && learningRate! > 0 && gradientNorm! > 0);
  }
  assert.ok(metrics.at(-1)!['loss']! < metrics[1]!['loss']! - 0.3);
  const { step, bestValidationLoss } = readLast(folder);
  assert.equal(step, 45);
  assert.equal(bestValidationLoss, Math.min(...metrics.flatMap((m) => m['validationLoss'] ?? [])));
  const svg = readFileSync(join(folder, 'loss.svg'), 'utf8');
  for (const part of ['>training<', '>validation<', '>step<', '<polyline']) assert.ok(svg.includes(part), part);
});

test('--json prints one object at the end, and the lines go to stderr', async () => {
  const { stdout, stderr } = await trainOk(folderOf('json'), ...TINY, '--steps', '12', '--json');
  const { step, loss, validationLoss, bestValidationLoss, nParameters, seconds, files } = JSON.parse(stdout);
  assert.equal(step, 12);
  assert.ok(loss > 0 && validationLoss > 0 && bestValidationLoss <= validationLoss && seconds > 0);
  assert.ok(nParameters > 1000);
  assert.ok(Object.values(files as Record<string, string>).every((path) => existsSync(path)));
  assert.match(stderr, /^step 12\/12 · loss/m);
});

test('what was trained is exported, runs, and has a perplexity', async () => {
  const folder = folderOf('export');
  await trainOk(folder, ...TINY, '--steps', '100', '--dropout', '0', '--lr', '0.01');
  const model = folderOf('mice.gguf');
  const exported = await runCommand(['export', folder, '-o', model, '--type', 'q8_0', '--json']);
  assert.equal(exported.code, 0, exported.stderr);
  const { type, checkpoint, step, fallbacks } = JSON.parse(exported.stdout);
  assert.deepEqual([type, basename(checkpoint), fallbacks.length], ['Q8_0', 'best.checkpoint', 7]);
  assert.equal(step, 100);
  const plain = await runCommand(['export', lastOf(folder), '-o', folderOf('last.gguf'), '--name', 'Mice']);
  assert.match(
    plain.stdout,
    /last\.gguf: llama, [\d,]+ parameters, F16, [\d.]+ KiB, from step 100 \(.*last\.checkpoint\)\n$/,
  );

  const told = await runCommand(['run', model, '-p', 'The cat', '-n', '8', '--temp', '0']);
  assert.equal(told.code, 0, told.stderr);
  assert.match(told.stdout, /^The cat saw /);
  const measured = await runCommand(['perplexity', model, data, '--ctx', '16', '--json']);
  const { perplexity, bitsPerByte, nBytes, nTokens, nPredicted } = JSON.parse(measured.stdout);
  assert.deepEqual([nBytes, nTokens, nPredicted], [TEXT.length, TEXT.length, TEXT.length - 1]);
  assert.ok(perplexity > 1 && perplexity < 6, `${perplexity}`);
  assert.ok(Math.abs(bitsPerByte - Math.log2(perplexity)) < 0.01, `${bitsPerByte}`);
  const table = await runCommand(['perplexity', model, data, '--ctx', '16']);
  assert.match(table.stdout, /^perplexity +\d\.\d{4} \(\d\.\d{4} nats a token\)\nbits per byte +\d\.\d{4}\n/);
});

/** Starts a run and ends it with a signal once so many steps are in its metrics. */
async function endEarly(folder: string, signal: NodeJS.Signals, nSteps: number, args: readonly string[]) {
  const child = startCommand(['train', '--out', folder, ...args]);
  const outcome = outcomeOf(child);
  const metrics = join(folder, 'metrics.jsonl');
  for (let waited = 0; waited < 50_000; waited += 5) {
    const isFar = existsSync(metrics) && readFileSync(metrics, 'utf8').includes(`"step":${nSteps},`);
    if (isFar || child.exitCode !== null) break;
    await setTimeout(5);
  }
  child.kill(signal);
  return outcome;
}

const LONG = [...TINY, '--steps', '400', '--accumulate', '2'];
const straight = folderOf('straight');

test('a run that was killed goes on with the same numbers, on any number of threads', async () => {
  await trainOk(straight, ...LONG, '-t', '1');
  const folder = folderOf('killed');
  for (const [nSteps, threads] of [
    [60, '2'],
    [140, '1'],
  ] as const) {
    const how = nSteps === 60 ? LONG : ['--resume'];
    const { code } = await endEarly(folder, 'SIGKILL', nSteps, [...how, '-t', threads]);
    assert.equal(code, null);
    const { step } = readLast(folder);
    assert.ok(step >= nSteps - 25 && step < 400, `${step}`);
    // As if it had been killed in the middle of a line, too.
    writeFileSync(join(folder, 'metrics.jsonl'), '{"step":39', { flag: 'a' });
  }
  const { stdout } = await trainOk(folder, '--resume', '-t', '2');
  assert.match(stdout, /from step [123]\d\d; wasm strict/);
  assert.deepEqual(numbersOf(folder), numbersOf(straight));
  assert.deepEqual(readLast(folder), readLast(straight));
});

test('Ctrl-C saves a checkpoint, and the run goes on behind the last step', async () => {
  const folder = folderOf('interrupted');
  const { code, stdout, stderr } = await endEarly(folder, 'SIGINT', 130, LONG);
  assert.equal(code, 130, stderr);
  assert.equal(stderr, '');
  const { step } = readLast(folder);
  assert.match(stdout, new RegExp(`\nstopped at step ${step}; go on with --out .* --resume\n$`));
  assert.ok(step >= 130 && step < 400);
  assert.equal(readMetrics(folder).at(-1)!.step, step);
  await trainOk(folder, '--resume');
  assert.deepEqual(numbersOf(folder), numbersOf(straight));
  assert.deepEqual(readLast(folder), readLast(straight));
});

test('a run that is at its end can be resumed, and does nothing', async () => {
  const before = readFileSync(lastOf(straight));
  await trainOk(straight, '--resume');
  assert.deepEqual(readFileSync(lastOf(straight)), before);
});

test('entries behind the checkpoint are cut on resume', async () => {
  const folder = folderOf('cut');
  await trainOk(folder, ...TINY, '--steps', '30', '--schedule', 'constant');
  writeFileSync(join(folder, 'metrics.jsonl'), '{"step":31,"loss":99}\n{"step":32,"loss":99}\n', { flag: 'a' });
  await trainOk(folder, '--resume', '--steps', '33');
  const metrics = readMetrics(folder);
  assert.deepEqual(
    metrics.map(({ step }) => step),
    Array.from({ length: 34 }, (_, i) => i),
  );
  assert.ok(metrics.every(({ loss }) => loss !== 99));
});

test('a run that begins with another has its model and its vocabulary, and counts anew', async () => {
  const [first, second] = [folderOf('init-first'), folderOf('init-second')];
  await trainOk(first, ...TINY, '--steps', '12');
  const { stdout } = await trainOk(second, '--init', first, '--data', data, '--steps', '3', '--json');
  const { step, nParameters } = JSON.parse(stdout);
  const config = (folder: string) => JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  assert.equal(step, 3);
  assert.ok(nParameters > 1000);
  for (const key of ['layers', 'embd', 'heads', 'vocabSize', 'ctx'])
    assert.equal(config(second)[key], config(first)[key]);
  const lossOf = (folder: string, i: number): number =>
    JSON.parse(readFileSync(join(folder, 'metrics.jsonl'), 'utf8').trim().split('\n').at(i)!).validationLoss;
  const [untrained, ended, begun] = [lossOf(first, 0), lossOf(first, -1), lossOf(second, 0)];
  assert.ok(Math.abs(begun - ended) < 0.1 * (untrained - ended), `${begun}, after ${ended} from ${untrained}`);
  // And such a run can be resumed, which needs the first no more.
  await trainOk(second, '--resume');

  const other = await runCommand([
    'train',
    '--init',
    first,
    '--data',
    data,
    '--out',
    folderOf('init-other'),
    '--layers',
    '7',
  ]);
  assert.equal(other.code, 2);
  assert.match(other.stderr, /--layers is 7 here and \d+ in the checkpoint to begin with; leave it out/);
  const both = await runCommand(['train', '--init', first, '--resume', '--out', first]);
  assert.match(both.stderr, /--resume and --init exclude each other/);
});

test('a config file has the flags in camelCase, and flags go before it', async () => {
  const keys = TINY.filter((_, i) => i % 2 === 0).map((flag) =>
    flag.slice(2).replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase()),
  );
  const values = TINY.filter((_, i) => i % 2 === 1).map((value) => (Number(value) >= 0 ? Number(value) : value));
  const config = Object.fromEntries(keys.map((key, i) => [key, values[i]!] as const));
  const out = folderOf('configured');
  const path = writeScratch('train.json', JSON.stringify({ ...config, out, steps: 500, arch: 'gpt2', valData: data }));
  const { code, stdout, stderr } = await runCommand(['train', '--config', path, '--steps', '2', '--seed', '5']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^gpt2, .*width 16/);
  const saved = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'));
  assert.deepEqual([saved.steps, saved.seed, saved.ff, saved.data], [2, 5, 32, [data]]);
  const again = folderOf('again');
  await trainOk(again, '--config', join(out, 'config.json'));
  assert.deepEqual(numbersOf(again), numbersOf(out));
});

test('a loss that is no number ends the run, with the last good checkpoint intact', async () => {
  const folder = folderOf('nan');
  const args = ['train', '--out', folder, ...TINY, '--lr', '1e30', '--clip', '0', '--checkpoint-every', '1'];
  const { code, stderr } = await runCommand(args);
  assert.equal(code, 1);
  assert.match(stderr, /^smallmind: the .* became (NaN|Infinity) at step \d+; lower the learning rate; the checkpoint/);
  const { step, arrays } = readLast(folder);
  assert.ok(stderr.endsWith(`the checkpoint of step ${step} is intact: ${lastOf(folder)}\n`), stderr);
  assert.ok(arrays.parameters.every(Number.isFinite));
});

interface Mistake {
  readonly args: readonly string[];
  readonly code: 1 | 2;
  readonly says: RegExp;
}

const newRun = (...args: string[]): string[] => ['train', '--out', folderOf('none'), ...args];
const broken = writeScratch('broken.checkpoint', 'SMALLCKP and no more than this');

const MISTAKES: Readonly<Record<string, Mistake>> = {
  'no folder': { args: ['train', '--data', data], code: 2, says: /no folder given; name one with --out/ },
  'no data': { args: newRun(), code: 2, says: /no data given; name text files with --data/ },
  'a missing data file': {
    args: newRun('--data', 'none.txt'),
    code: 1,
    says: /none\.txt: no such file; check the path/,
  },
  'a folder for data': { args: newRun('--data', scratchFolder), code: 1, says: /this is a folder; name a file in it/ },
  'an empty data file': {
    args: newRun('--data', data, writeScratch('empty.txt', '')),
    code: 2,
    says: /empty\.txt is empty; give it text to train on/,
  },
  'data that are too short': {
    args: newRun('--data', writeScratch('short.txt', 'a b c d e f g\n'), '--val-fraction', '0'),
    code: 2,
    says: /has \d+ tokens, a window needs 129; give it more text or a shorter context/,
  },
  'a width that heads do not divide': {
    args: newRun('--data', data, '--embd', '100', '--heads', '3'),
    code: 2,
    says: /--embd expected a multiple of 4 · --heads \(12\), got 100/,
  },
  'heads that key-value heads do not divide': {
    args: newRun('--data', data, '--kv-heads', '3'),
    code: 2,
    says: /--heads expected a multiple of --kv-heads \(3\), got 4/,
  },
  'a learning rate that is no number': {
    args: newRun('--data', data, '--lr', 'fast'),
    code: 2,
    says: /--lr expected a number of at least 0, got "fast"/,
  },
  'a thread count out of range': {
    args: newRun('--data', data, '--threads', '0'),
    code: 2,
    says: /--threads expected an integer from 1 to 64, got 0/,
  },
  'a config file that is not JSON': {
    args: newRun('--config', data),
    code: 2,
    says: /mice\.txt: .*JSON/,
  },
  'an unknown key in a config file': {
    args: newRun('--config', writeScratch('unknown.json', '{"layer": 2}')),
    code: 2,
    says: /unknown\.json: unknown key "layer"; keys are flags in camelCase: .*layers/,
  },
  'a folder that holds a run': {
    args: ['train', '--out', straight, ...LONG],
    code: 2,
    says: /straight already holds a run; go on with it by --resume, or give another --out/,
  },
  'nothing to resume': {
    args: newRun('--resume'),
    code: 2,
    says: /none holds no checkpoint to resume from; start the run without --resume/,
  },
  'a resume with another model': {
    args: ['train', '--out', straight, '--resume', '--layers', '2'],
    code: 2,
    says: /--layers is 2 here and 1 in the checkpoint; resume with the same options, or start anew/,
  },
  'a resume with other data': {
    args: ['train', '--out', straight, '--resume', '--data', writeScratch('other.txt', TEXT.replace('cat', 'rat'))],
    code: 2,
    says: /the data are not those of the checkpoint; resume with the same files, in the same order/,
  },
  'an export without a file': { args: ['export', straight], code: 2, says: /no file given to write; name one with -o/ },
  'an export of no checkpoint': {
    args: ['export', data, '-o', 'a.gguf'],
    code: 1,
    says: /mice\.txt: this is not a SmallMind checkpoint; give a file that "smallmind train" wrote/,
  },
  'an export of a damaged checkpoint': {
    args: ['export', broken, '-o', 'a.gguf'],
    code: 1,
    says: /broken\.checkpoint: /,
  },
  'an export of an unknown type': {
    args: ['export', straight, '-o', 'a.gguf', '--type', 'Q5_1'],
    code: 2,
    says: /--type expected one of F32, F16, Q8_0, Q4_0, got "Q5_1"/,
  },
  'an export to nowhere': {
    args: ['export', straight, '-o', folderOf('nowhere/a.gguf')],
    code: 1,
    says: /nowhere\/a\.gguf could not be written: the folder does not exist; make it first/,
  },
  'a perplexity without a text': { args: ['perplexity', 'a.gguf'], code: 2, says: /missing required argument 'text'/ },
  'a perplexity of a missing text': {
    args: ['perplexity', 'a.gguf', 'none.txt'],
    code: 1,
    says: /none\.txt: no such file; check the path/,
  },
  'a perplexity of no model': {
    args: ['perplexity', data, data],
    code: 1,
    says: /mice\.txt: .*not a GGUF file; give a model in GGUF format/,
  },
};

for (const [name, { args, code, says }] of Object.entries(MISTAKES)) {
  test(`${name} is one clear line and exit code ${code}`, async () => {
    const outcome = await runCommand(args);
    assert.equal(outcome.stdout, '');
    assert.match(outcome.stderr, /^smallmind: [^\n]+\n$/);
    assert.match(outcome.stderr, says);
    assert.doesNotMatch(outcome.stderr, /please report/);
    assert.equal(outcome.code, code);
    assert.ok(!existsSync(folderOf('none')));
  });
}

test('a full disk ends the run, with the last good checkpoint intact', async (t) => {
  const disk = folderOf('tiny-disk');
  mkdirSync(disk);
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk], { encoding: 'utf8' });
  if (mount.status !== 0) return t.skip(`needs a tiny disk: ${mount.error?.message ?? mount.stderr.trim()}`);
  try {
    await fillDisk(disk);
  } finally {
    spawnSync('umount', [disk]);
  }
});

async function fillDisk(disk: string): Promise<void> {
  const folder = join(disk, 'run');
  const args = [...TINY, '--embd', '8', '--ff', '8', '--schedule', 'constant', '--val-fraction', '0', '-t', '1'];
  await trainOk(folder, ...args, '--steps', '10');
  const before = readFileSync(lastOf(folder));
  assert.ok(before.length > 8192);
  // Room for a few metrics, but not for another checkpoint.
  const filler = join(disk, 'filler');
  let size = 0;
  try {
    for (; ; size += 4096) writeFileSync(filler, new Uint8Array(4096), { flag: 'a' });
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  }
  truncateSync(filler, size - 8192);

  const { code, stderr } = await runCommand(['train', '--out', folder, '--resume', '--steps', '20']);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^smallmind: .*last\.checkpoint could not be written: no space left on the device; free some; .*\n$/,
  );
  assert.match(stderr, /; the checkpoint of step 10 is intact: .*last\.checkpoint\n$/);
  assert.deepEqual(readFileSync(lastOf(folder)), before);
  assert.ok(readdirSync(folder).every((file) => !file.endsWith('.tmp')));

  rmSync(filler);
  await trainOk(folder, '--resume', '--steps', '20');
  assert.equal(readLast(folder).step, 20);
  assert.deepEqual(
    readMetrics(folder).map(({ step }) => step),
    Array.from({ length: 21 }, (_, i) => i),
  );
}
