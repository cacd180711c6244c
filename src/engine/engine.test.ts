// The engine on an executor that computes nothing: what goes into each step, in which order sequences are served, when
// they end and with what reason, and that the failure of one is not the failure of others.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS, N_VOCAB, ask, counting, runAll, start } from '../../test/scripted-engine.ts';
import type { Outcome } from '../../test/scripted-engine.ts';

test('generates until the length asked for, and calls onFinish once', () => {
  const { engine, executor } = start();
  const run = ask(engine, [7, 8], 3);
  assert.equal(engine.isIdle, false);
  assert.equal(runAll(engine), 3);
  assert.deepEqual(run.tokens, [9, 10, 11]);
  assert.equal(run.ended, 'no length');
  assert.equal(engine.isIdle, true);
  assert.deepEqual([run.sequence.nPrompt, run.sequence.nGenerated], [2, 3]);
  // The last token is chosen, not evaluated.
  assert.deepEqual(
    executor.steps.map((rows) => rows.map(([, position, token]) => [position, token])),
    [
      [
        [0, 7],
        [1, 8],
      ],
      [[2, 9]],
      [[3, 10]],
    ],
  );
  assert.equal(engine.step(), false);
});

test('a stop token ends the text and is not reported', () => {
  const { engine } = start();
  const run = ask(engine, [7], 30, { stopTokens: new Set([11, 30]) });
  runAll(engine);
  assert.deepEqual([run.tokens, run.ended, run.sequence.stopToken], [[8, 9, 10], 'no stop', 11]);
});

test('a text ends when the context is full', () => {
  const { engine } = start({ nCtx: 6, nKvBlock: 3 });
  const run = ask(engine, [1, 2, 3], 30);
  runAll(engine);
  assert.deepEqual([run.tokens, run.ended], [[4, 5, 6], 'no context']);
});

test('a text that may shift goes on: the first tokens stay, the older half of the others goes', () => {
  const { engine, executor } = start({ nCtx: 10, nKvBlock: 3, nTokensMax: 3 });
  const run = ask(engine, [40, 41, 1], 14, { nKeep: 2 });
  runAll(engine);
  assert.deepEqual([run.tokens, run.ended], [counting(2, 14), 'no length']);
  assert.deepEqual([run.sequence.nPrompt, run.sequence.nGenerated], [3, 14]);
  const read = executor.steps.flat().map(([, position, token]) => `${position}:${token}`);
  // Full with 40 41 1 … 8: 1 … 4 are dropped, 5 … 8 read again behind 40 41; then 5 … 8 are dropped of 5 … 12.
  const afterFirst = read.slice(read.indexOf('8:7') + 1);
  assert.deepEqual(afterFirst.slice(0, 10), [
    '0:40',
    '1:41',
    '2:5',
    '3:6',
    '4:7',
    '5:8',
    '6:9',
    '7:10',
    '8:11',
    '0:40',
  ]);
  assert.deepEqual(afterFirst.slice(10, 16), ['1:41', '2:9', '3:10', '4:11', '5:12', '6:13']);
  assert.equal(engine.cache.nAvailable, 3);
});

test('a shift reads nothing of what it keeps a second time where whole blocks of it are known', () => {
  const { engine, executor } = start({ nCtx: 100, nKvBlock: 4 });
  const run = ask(engine, counting(0, 40), 70, { nKeep: 34 });
  runAll(engine);
  assert.equal(run.tokens.length, 70);
  const positions = executor.steps.flat().map(([, position]) => position);
  const again = positions.slice(positions.indexOf(98) + 1);
  assert.equal(again[0], 32);
  assert.equal(run.sequence.nCached, 0, 'that is not what the prompt found');
});

test('a text may shift again and again beside others, and each gets its own tokens', () => {
  const { engine } = start({ nCtx: 40, nKvBlock: 6 });
  const runs = [0, 15, 30].map((token, i) => ask(engine, [token], 300, { nKeep: i }));
  runAll(engine, 2000);
  for (const [i, { tokens, ended }] of runs.entries()) {
    assert.deepEqual([tokens, ended], [counting(15 * i + 1, 300).map((t) => t % N_VOCAB), 'no length']);
  }
  assert.equal(engine.cache.nAvailable, 6);
});

test('a shift that would keep more than half of the context is refused, and half of the smallest works', () => {
  for (const [nCtx, max] of [
    [10, 5],
    [4, 2],
    [3, 1],
    [2, 0],
  ] as const) {
    const { engine } = start({ nCtx, nKvBlock: 3 });
    assert.throws(() => ask(engine, [1], 9, { nKeep: max + 1 }), {
      code: 'INVALID_OPTION',
      message: new RegExp(`"contextKeep" expected at most half of the context, ${max} tokens, got ${max + 1}`),
    });
    const run = ask(engine, [1], 20, { nKeep: max });
    runAll(engine);
    assert.deepEqual([run.tokens, run.ended], [counting(2, 20), 'no length']);
  }
});

test('a text whose time is over ends before its next step, whether it runs or waits', () => {
  const { engine } = start({ nSeqMax: 1 });
  const deadlineMs = performance.now() + 20;
  const [running, waiting] = [ask(engine, [1], 99, { deadlineMs }), ask(engine, [2], 9, { deadlineMs })];
  const other = ask(engine, [3], 2, { deadlineMs: performance.now() + 60_000 });
  engine.step();
  while (performance.now() < deadlineMs);
  assert.equal(running.ended, 'no');
  engine.step();
  assert.deepEqual([running.ended, running.tokens], ['no time', [2]]);
  assert.deepEqual([waiting.ended, waiting.tokens], ['no time', []]);
  runAll(engine);
  assert.deepEqual([other.ended, other.tokens], ['no length', [4, 5]]);
});

test('onToken may end the text with a reason', () => {
  const { engine } = start();
  const run = ask(engine, [1], 9, { onToken: (token) => (token === 4 ? 'stop' : undefined) });
  runAll(engine);
  assert.deepEqual([run.ended, run.sequence.nGenerated, run.sequence.stopToken], ['no stop', 3, undefined]);
  assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
});

test('a length that the context just holds is a length, not a full context', () => {
  const { engine } = start({ nCtx: 6, nKvBlock: 3 });
  const run = ask(engine, [1, 2, 3], 3);
  runAll(engine);
  assert.deepEqual([run.tokens.length, run.ended], [3, 'no length']);
});

test('prompts that cannot run are refused before anything starts', () => {
  const { engine } = start({ nCtx: 6, nKvBlock: 3 });
  assert.throws(() => ask(engine, [], 1), { code: 'INVALID_OPTION', message: /empty/ });
  assert.throws(() => ask(engine, counting(1, 6), 1), { code: 'CONTEXT_FULL', details: { promptTokens: 6, nCtx: 6 } });
  assert.throws(() => ask(engine, counting(1, 7), 0), { code: 'CONTEXT_FULL' });
  for (const bad of [-1, N_VOCAB, 1.5, NaN]) {
    assert.throws(() => ask(engine, [1, bad], 1), {
      code: 'INVALID_OPTION',
      message: /token 1 expected an id of 0..49/,
    });
  }
  assert.equal(engine.isIdle, true);
  const fits = ask(engine, counting(1, 6), 0);
  runAll(engine);
  assert.equal(fits.ended, 'no length');
});

test('a prompt is evaluated in chunks, with logits for its last token only', () => {
  const { engine, executor } = start();
  const run = ask(engine, counting(1, 20), 1);
  runAll(engine);
  assert.deepEqual(
    executor.steps.map((rows) => rows.length),
    [8, 8, 4],
  );
  assert.deepEqual(executor.outputRows, [[], [], [3]]);
  assert.deepEqual(
    executor.steps.flat().map(([, position]) => position),
    counting(0, 20),
  );
  assert.deepEqual(run.tokens, [21]);
});

test('every position has a cache row of its own, in the block that the table names', () => {
  const { engine, executor } = start();
  ask(engine, counting(0, 40), 30);
  ask(engine, counting(5, 40), 30);
  runAll(engine);
  const rows = executor.steps.flat();
  assert.equal(new Set(rows.map(([, , , cacheRow]) => cacheRow)).size, rows.length);
  const tables = executor.input('blockTables');
  for (const [slot, position, , cacheRow] of rows) {
    const block = tables[slot * Math.ceil(LIMITS.nCtx / 32) + Math.floor(position / 32)]!;
    assert.equal(cacheRow, block * 32 + (position % 32));
  }
});

test('several texts share a step', () => {
  const { engine, executor } = start();
  const runs = [10, 20, 30].map((token) => ask(engine, [token], 4));
  runAll(engine);
  assert.deepEqual(
    runs.map((r) => r.tokens),
    [counting(11, 4), counting(21, 4), counting(31, 4)],
  );
  assert.deepEqual(
    executor.steps.map((rows) => rows.length),
    [3, 3, 3, 3],
  );
  for (const rows of executor.steps) assert.equal(new Set(rows.map(([slot]) => slot)).size, 3);
});

test('more texts than slots wait their turn, first come first served', () => {
  for (const nSeqMax of [1, 3]) {
    const { engine } = start({ nSeqMax });
    const begun: number[] = [];
    const runs = counting(0, 5).map((i) => {
      const onToken = (token: number): undefined => void (token === 10 * i + 1 && begun.push(i));
      return ask(engine, [10 * i], 3, { onToken });
    });
    runAll(engine);
    // Those that begin in the same step may report in any order.
    const rounds = Map.groupBy(begun, (_, n) => Math.floor(n / nSeqMax));
    assert.deepEqual(
      [...rounds.values()].flatMap((round) => round.sort()),
      [0, 1, 2, 3, 4],
    );
    for (const run of runs) assert.equal(run.ended, 'no length');
  }
});

test('a running text gets its turn while a long prompt is read', () => {
  const { engine, executor } = start();
  const quick = ask(engine, [1], 30);
  engine.step();
  const slot = quick.sequence.slot;
  ask(engine, counting(0, 45).concat(counting(0, 45)), 1);
  executor.steps.length = 0;
  for (let i = 0; i < 9; i++) engine.step();
  const turns = executor.steps.map((rows) => rows.some(([s]) => s === slot));
  // Whoever is served first may take the whole step; each slot comes first once in nSeqMax steps.
  for (let i = 0; i + LIMITS.nSeqMax <= turns.length; i++) {
    assert.ok(turns.slice(i, i + LIMITS.nSeqMax).includes(true), `no turn in steps ${i}..${i + LIMITS.nSeqMax - 1}`);
  }
});

test('more texts than rows of logits take turns, and none is starved', () => {
  const { engine, executor } = start({ nOutputMax: 1 });
  const runs = [0, 10, 20].map((token) => ask(engine, [token], 5));
  runAll(engine);
  for (const run of runs) assert.deepEqual([run.tokens.length, run.ended], [5, 'no length']);
  assert.ok(executor.outputRows.every((rows) => rows.length <= 1));
});

test('an aborted text ends before its next step, whether it runs or waits, and only it', () => {
  const { engine } = start({ nSeqMax: 1 });
  const [running, waiting, other] = [ask(engine, [1], 9), ask(engine, [2], 9), ask(engine, [3], 2)];
  engine.step();
  engine.abort(running.sequence);
  engine.abort(waiting.sequence);
  assert.equal(running.ended, 'no');
  engine.step();
  assert.deepEqual([running.ended, running.tokens], ['no abort', [2]]);
  assert.deepEqual([waiting.ended, waiting.tokens], ['no abort', []]);
  runAll(engine);
  assert.deepEqual([other.ended, other.tokens], ['no length', [4, 5]]);
  engine.abort(other.sequence);
  engine.step();
  assert.equal(other.ended, 'no length', 'aborting what has ended changes nothing');
  assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
});

test('a text aborted from its own onToken generates no further token', () => {
  const { engine } = start();
  const seen: number[] = [];
  const run: Outcome = ask(engine, [1], 9, {
    onToken(token, sequence) {
      seen.push(token);
      if (seen.length === 2) engine.abort(sequence);
    },
  });
  runAll(engine);
  assert.deepEqual([seen, run.ended], [[2, 3], 'no abort']);
});

test('a failing executor fails everything that runs or waits, and the engine goes on', () => {
  const { engine, executor } = start({ nSeqMax: 1 });
  const runs = [ask(engine, counting(0, 40), 9), ask(engine, [5], 9)];
  for (let i = 0; i < 4; i++) engine.step();
  executor.failure = new Error('broken');
  assert.equal(engine.step(), true);
  for (const run of runs) assert.equal(run.ended, 'no Error: broken');
  assert.equal(engine.isIdle, true);
  assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
  executor.failure = undefined;
  const again = ask(engine, counting(0, 40), 1);
  runAll(engine);
  assert.equal(again.sequence.nCached, 0, 'what a failed step wrote is not used');
  assert.deepEqual(again.tokens, [40]);
});

test('logits that are no numbers fail their own text and no other', () => {
  const { engine, executor } = start();
  executor.scripts.set(12, [NaN]);
  const [bad, good] = [ask(engine, [10], 9), ask(engine, [20], 9)];
  runAll(engine);
  assert.deepEqual([bad.tokens, bad.ended], [[11, 12], 'no NUMERIC']);
  assert.deepEqual([good.tokens.length, good.ended], [9, 'no length']);
  assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
});

test('a handler that throws fails its own text and no other', () => {
  const { engine } = start();
  const bad = ask(engine, [10], 9, {
    onToken() {
      throw new Error('handler');
    },
  });
  const good = ask(engine, [20], 3);
  runAll(engine);
  assert.equal(bad.ended, 'no Error: handler');
  assert.deepEqual(good.tokens, [21, 22, 23]);
});

test('a prompt that begins like an earlier text skips what the cache holds', () => {
  const { engine, executor } = start();
  const prompt = counting(0, 45).concat(counting(0, 25));
  const first = ask(engine, prompt, 1);
  runAll(engine);
  const steps = executor.steps.splice(0);
  const second = ask(engine, [...prompt, 3], 1);
  runAll(engine);
  assert.equal(first.sequence.nCached, 0);
  assert.equal(second.sequence.nCached, 64);
  assert.deepEqual(
    executor.steps.flat().map(([, position]) => position),
    counting(64, 7),
  );
  // Its block table leads to the rows that the first one wrote.
  const table = executor.input('blockTables').subarray(second.sequence.slot * 4);
  for (const [, position, , cacheRow] of steps.flat().filter(([, p]) => p < 64)) {
    assert.equal(table[Math.floor(position / 32)]! * 32 + (position % 32), cacheRow);
  }
});

test('texts that begin alike at the same time: one reads, the others wait for it and read only what is theirs', () => {
  const { engine, executor } = start({ nTokensMax: 16 });
  const prompt = counting(0, 45).concat(counting(0, 25));
  const runs = [5, 6, 7].map((last) => ask(engine, [...prompt, last], 4));
  runAll(engine);
  for (const [i, { tokens, ended }] of runs.entries()) {
    assert.deepEqual([tokens, ended], [counting(6 + i, 4), 'no length']);
  }
  assert.deepEqual(
    runs.map((run) => run.sequence.nCached),
    [0, 64, 64],
  );
  const read = executor.steps.flat().filter(([, position]) => position <= 70);
  assert.equal(read.length, 71 + 7 + 7);
  assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
});

test('a text waits only for what it shares, not for the rest of a long prompt', () => {
  const { engine, executor } = start();
  const shared = counting(0, 32);
  ask(engine, [...shared, ...counting(0, 45)], 1);
  const short = ask(engine, [...shared, 9], 1);
  while (short.ended === 'no') engine.step();
  assert.deepEqual([short.sequence.nCached, short.tokens], [32, [10]]);
  assert.ok(executor.steps.flat().every(([slot, position]) => slot === short.sequence.slot || position < 64));
});

test('a text does not wait for one that was ended while it read', () => {
  const { engine } = start();
  const prompt = counting(0, 45);
  const [first, second] = [ask(engine, prompt, 4), ask(engine, prompt, 4)];
  engine.step();
  engine.abort(first.sequence);
  runAll(engine);
  assert.deepEqual([first.ended, second.ended, second.tokens], ['no abort', 'no length', counting(45, 4)]);
});

test('logits of all positions wait for nobody', () => {
  const { engine } = start();
  const prompt = counting(0, 45);
  const positions: number[] = [];
  ask(engine, prompt, 1);
  ask(engine, prompt, 0, { wantsRows: 'all', onRow: (position) => void positions.push(position) });
  runAll(engine);
  assert.deepEqual(positions, counting(0, 45));
});

test('after logits that are no numbers, nothing that the cache held is used', () => {
  const { engine, executor } = start();
  const prompt = counting(0, 40);
  ask(engine, prompt, 1);
  runAll(engine);
  executor.scripts.set(12, [NaN]);
  ask(engine, [...prompt, 12], 1);
  runAll(engine);
  const again = ask(engine, prompt, 1);
  runAll(engine);
  assert.deepEqual([again.sequence.nCached, again.tokens], [0, [40]]);
});

test('at least one token of a prompt that is known in full is evaluated, for its logits', () => {
  const { engine } = start();
  ask(engine, counting(0, 32), 0);
  runAll(engine);
  const again = ask(engine, counting(0, 32), 1);
  runAll(engine);
  assert.deepEqual([again.sequence.nCached, again.tokens], [0, [32]]);
});

test('generated tokens are found again, too: a chat continues where it ended', () => {
  const { engine } = start();
  const first = ask(engine, [0], 40);
  runAll(engine);
  const next = ask(engine, [0, ...first.tokens, 7], 1);
  runAll(engine);
  assert.equal(next.sequence.nCached, 32);
});

test('logits of all positions are handed out in order, over several steps, cached or not', () => {
  const { engine, executor } = start();
  const positions: number[] = [];
  const best: number[] = [];
  const onLogits = (position: number, logits: Float32Array): void => {
    positions.push(position);
    best.push(logits.indexOf(5));
  };
  for (let round = 0; round < 2; round++) {
    ask(engine, counting(0, 35), 0, { wantsRows: 'all', onRow: onLogits, sampler: undefined });
    runAll(engine);
  }
  assert.deepEqual(positions, [...counting(0, 35), ...counting(0, 35)]);
  assert.deepEqual(best.slice(0, 35), counting(1, 35));
  assert.ok(executor.outputRows.every((rows) => rows.length <= LIMITS.nOutputMax));
});

test('logits of the last position come once', () => {
  const { engine } = start();
  const positions: number[] = [];
  ask(engine, counting(0, 20), 3, { onRow: (position) => void positions.push(position) });
  runAll(engine);
  assert.deepEqual(positions, [19]);
});

test('a text that is started from a handler runs', () => {
  const { engine } = start();
  let next: Outcome | undefined;
  ask(engine, [1], 1, { onFinish: () => void (next = ask(engine, [30], 2)) });
  runAll(engine);
  assert.deepEqual(next!.tokens, [31, 32]);
});

test('any mix of texts ends, each with the tokens it would get alone, and all blocks come back', () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    let state = seed;
    const random = (n: number): number => (state = (state * 48271) % 2147483647) % n;
    const { engine } = start({ nTokensMax: 1 + random(8), nOutputMax: 1 + random(4) });
    const runs: [Outcome, number, number][] = [];
    for (let i = 0; i < 40; i++) {
      const [from, nGenerate] = [random(N_VOCAB), random(30)];
      runs.push([
        ask(
          engine,
          counting(from, 1 + random(60)).map((t) => t % N_VOCAB),
          nGenerate,
        ),
        nGenerate,
        from,
      ]);
      for (let steps = random(6); steps > 0; steps--) engine.step();
    }
    runAll(engine, 20_000);
    for (const [{ tokens, sequence, ended }, nGenerate, from] of runs) {
      assert.equal(ended, 'no length');
      const first = from + sequence.nPrompt;
      assert.deepEqual(
        tokens,
        counting(first, nGenerate).map((t) => t % N_VOCAB),
      );
    }
    assert.equal(engine.cache.nAvailable, LIMITS.nKvBlock);
  }
});
