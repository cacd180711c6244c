// The data of a training run: which tokens come, in which windows, and the same ones again after a resume.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { OptionError, ShapeError } from '../base/errors.ts';
import { createCharTokenizer } from '../tokenizer/char.ts';
import {
  checkTokenIds,
  DataLoader,
  encodeTexts,
  evaluationBatches,
  IGNORED_TARGET,
  splitTokens,
  type Batch,
  type DataLoaderOptions,
  type WindowOrder,
} from './data.ts';
import { threadMs } from '../../test/thread-time.ts';

/** Token i has the id i, so that a batch tells where its windows began. */
const counting = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

const emptyBatch = (nSeq: number, nCtx: number): Batch => ({
  inputs: new Int32Array(nSeq * nCtx),
  targets: new Int32Array(nSeq * nCtx),
});

/** The begins of the windows of the next `nBatches`; checks that the windows are whole. */
function drawBegins(loader: DataLoader, { nSeq, nCtx }: DataLoaderOptions, nBatches: number): number[] {
  const batch = emptyBatch(nSeq, nCtx);
  const begins: number[] = [];
  for (let b = 0; b < nBatches; b++) {
    loader.next(batch);
    for (let s = 0; s < nSeq; s++) {
      const begin = batch.inputs[s * nCtx]!;
      begins.push(begin);
      for (let t = 0; t < nCtx; t++) {
        assert.equal(batch.inputs[s * nCtx + t], begin + t);
        assert.equal(batch.targets[s * nCtx + t], begin + t + 1);
      }
    }
  }
  return begins;
}

const rejects = (action: () => void, message: RegExp): void => {
  assert.throws(action, (error: unknown) => error instanceof OptionError && message.test(error.message));
};

test('texts follow each other, with the separator behind each', () => {
  const tokenizer = createCharTokenizer('abc');
  const texts = [
    { name: 'one.txt', text: 'ab' },
    { name: 'two.txt', text: 'c' },
  ];
  assert.deepEqual([...encodeTexts(tokenizer, texts)], [0, 1, 2]);
  assert.deepEqual([...encodeTexts(tokenizer, texts, { separatorId: tokenizer.eosId })], [0, 1, 3, 2, 3]);
});

test('special tokens in the texts are recognised, unless they are to stay text', () => {
  const tokenizer = createCharTokenizer('<|endoftext|>');
  const texts = [{ name: 'one.txt', text: 'to<|endoftext|>' }];
  assert.equal(encodeTexts(tokenizer, texts).at(-1), tokenizer.eosId);
  assert.equal(encodeTexts(tokenizer, texts).length, 3);
  assert.equal(encodeTexts(tokenizer, texts, { parseSpecial: false }).length, 15);
});

test('rejects an empty text by its name, no text, and a separator that the vocabulary has not', () => {
  const tokenizer = createCharTokenizer('abc');
  const full = { name: 'full.txt', text: 'abc' };
  rejects(() => encodeTexts(tokenizer, [full, { name: 'empty.txt', text: '' }]), /^empty\.txt is empty/);
  rejects(() => encodeTexts(tokenizer, []), /no text to train on/);
  rejects(() => encodeTexts(tokenizer, [full], { separatorId: 4 }), /id 4, expected 0 to 3/);
});

test('rejects token ids outside the vocabulary and says where the first is', () => {
  checkTokenIds(Uint16Array.of(0, 99), 100);
  rejects(() => checkTokenIds(Uint16Array.of(0, 1, 100), 100), /token 2 of the data has the id 100, expected 0 to 99/);
  rejects(() => checkTokenIds(Int32Array.of(0, -1), 100), /token 1 of the data has the id -1/);
});

test('the last part is for validation', () => {
  const { train, validation } = splitTokens(counting(1001), 0.1);
  assert.deepEqual([train.length, train[0], train.at(-1)], [900, 0, 899]);
  assert.deepEqual([validation.length, validation[0], validation.at(-1)], [101, 900, 1000]);
  assert.equal(splitTokens(counting(10), 0).validation.length, 0);
  for (const fraction of [-0.1, 1, Number.NaN])
    rejects(() => splitTokens(counting(10), fraction), /validation expected/);
});

test('random windows begin anywhere that a whole window fits, each about equally often', () => {
  const options = { nSeq: 8, nCtx: 4, seed: 1 };
  const begins = drawBegins(new DataLoader(counting(14), options), options, 1000);
  const counts = Array.from({ length: 10 }, (_, begin) => begins.filter((each) => each === begin).length);
  assert.equal(
    counts.reduce((sum, count) => sum + count),
    8000,
  );
  // 800 expected, four standard deviations of 27.
  assert.ok(
    counts.every((count) => Math.abs(count - 800) < 108),
    String(counts),
  );
});

test('shuffled windows come once an epoch each, in another order every time', () => {
  const options = { nSeq: 2, nCtx: 4, seed: 1, order: 'shuffled' } as const;
  const loader = new DataLoader(counting(44), options);
  assert.equal(loader.stepsAnEpoch, 5);
  const epochs = [1, 2, 3].map(() => drawBegins(loader, options, 5));
  for (const epoch of epochs) {
    assert.deepEqual(
      epoch.toSorted((a, b) => a - b),
      [0, 4, 8, 12, 16, 20, 24, 28, 32, 36],
    );
  }
  assert.equal(new Set(epochs.map(String)).size, 3);
});

for (const order of ['random', 'shuffled'] as const satisfies WindowOrder[]) {
  test(`the seed decides which ${order} windows come`, () => {
    const draw = (seed: number): number[] => {
      const options = { nSeq: 3, nCtx: 5, seed, order };
      return drawBegins(new DataLoader(counting(200), options), options, 20);
    };
    assert.deepEqual(draw(7), draw(7));
    assert.notDeepEqual(draw(7), draw(8));
  });

  test(`a loader that takes over a state goes on with the same ${order} windows`, () => {
    const options = { nSeq: 3, nCtx: 5, seed: 2n ** 63n, order };
    const first = new DataLoader(counting(200), options);
    for (const nBatches of [0, 1, 13, 27]) {
      drawBegins(first, options, nBatches);
      const second = new DataLoader(counting(200), options);
      drawBegins(second, options, 2);
      second.state = JSON.parse(JSON.stringify(first.state)) as typeof first.state;
      const third = new DataLoader(counting(200), options);
      third.state = first.state;
      assert.deepEqual(drawBegins(second, options, 30), drawBegins(third, options, 30));
    }
    const straight = drawBegins(new DataLoader(counting(200), options), options, 50);
    const resumed = new DataLoader(counting(200), options);
    const before = drawBegins(resumed, options, 17);
    const again = new DataLoader(counting(200), options);
    again.state = resumed.state;
    assert.deepEqual([...before, ...drawBegins(again, options, 33)], straight);
  });
}

test('a state of other data or options is refused', () => {
  const options = { nSeq: 2, nCtx: 4, seed: 1 };
  const { state } = new DataLoader(counting(50), options);
  const take = (tokens: Int32Array, other: Partial<DataLoaderOptions>): void => {
    new DataLoader(tokens, { ...options, ...other }).state = state;
  };
  take(counting(50), { nSeq: 3 });
  rejects(() => take(counting(51), {}), /"nTokens" 50, this run has 51/);
  rejects(() => take(counting(50), { nCtx: 5 }), /"nCtx"/);
  rejects(() => take(counting(50), { seed: 2 }), /"seed"/);
  rejects(() => take(counting(50), { order: 'shuffled' }), /"order"/);
  const loader = new DataLoader(counting(50), options);
  rejects(() => (loader.state = { ...state, nWindowsDrawn: -1 }), /"nWindowsDrawn"/);
});

test('the smallest data is one window and its last target', () => {
  for (const order of ['random', 'shuffled'] as const) {
    const options = { nSeq: 2, nCtx: 4, seed: 1, order };
    assert.deepEqual(drawBegins(new DataLoader(counting(5), options), options, 3), [0, 0, 0, 0, 0, 0]);
    rejects(() => void new DataLoader(counting(4), options), /has 4 tokens, a window needs 5/);
  }
});

test('rejects shapes, orders and batches that cannot be', () => {
  const options = { nSeq: 2, nCtx: 4, seed: 1 };
  for (const bad of [0, -1, 1.5, Number.NaN]) {
    rejects(() => void new DataLoader(counting(50), { ...options, nSeq: bad }), /"nSeq" expected/);
    rejects(() => void new DataLoader(counting(50), { ...options, nCtx: bad }), /"nCtx" expected/);
  }
  const order = 'sorted' as WindowOrder;
  rejects(() => void new DataLoader(counting(50), { ...options, order }), /"order" expected random or shuffled/);
  assert.throws(() => new DataLoader(counting(50), options).next(emptyBatch(2, 5)), ShapeError);
});

test('evaluation predicts every token but the first once, and marks what does not count', () => {
  const batch = emptyBatch(2, 3);
  const seen: number[] = [];
  const counts: number[] = [];
  for (const n of evaluationBatches(counting(12), { nSeq: 2, nCtx: 3 }, batch)) {
    counts.push(n);
    const targets = batch.targets.filter((target) => target !== IGNORED_TARGET);
    assert.equal(targets.length, n);
    assert.deepEqual(
      [...targets],
      Array.from(batch.inputs.subarray(0, n), (id) => id + 1),
    );
    seen.push(...targets);
  }
  assert.deepEqual(counts, [6, 5]);
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

test('evaluation stops after as many tokens as are asked for', () => {
  const shape = { nSeq: 2, nCtx: 3 };
  assert.deepEqual([...evaluationBatches(counting(100), shape, emptyBatch(2, 3), 8)], [6, 2]);
  rejects(() => evaluationBatches(counting(1), shape, emptyBatch(2, 3)).next(), /has 1 tokens, a window needs 2/);
  assert.throws(() => evaluationBatches(counting(9), shape, emptyBatch(1, 3)).next(), ShapeError);
});

test('batches come faster than any step could use them', needsShared(), (t) => {
  const text = readFileSync(sharedPath('text', 'tinyshakespeare.txt'), 'utf8');
  const tokens = encodeTexts(createCharTokenizer(text), [{ name: 'tinyshakespeare.txt', text }]);
  const batch = emptyBatch(12, 64);
  const loader = new DataLoader(tokens, { nSeq: 12, nCtx: 64, seed: 1 });
  const start = threadMs();
  for (let step = 0; step < 2000; step++) loader.next(batch);
  const elapsedMs = threadMs() - start;
  t.diagnostic(`2,000 batches of 12 windows of 64 tokens: ${elapsedMs.toFixed(0)} ms`);
  assert.ok(elapsedMs < 5000);
});
