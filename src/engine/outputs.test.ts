// What a step gives and what its rows see: logits or hidden states, of causal texts and of those evaluated whole.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS, N_VOCAB, ScriptedExecutor, ask, counting, runAll, start } from '../../test/scripted-engine.ts';
import { Engine } from './engine.ts';

/** An engine of texts whose tokens attend to all of their text. */
function startWhole(): { engine: Engine; executor: ScriptedExecutor } {
  const limits = { ...LIMITS, nTokensMax: 40, nOutputMax: 40, nCtx: 40, nKvBlock: 4 };
  const executor = new ScriptedExecutor(limits);
  const outputs = [{ kind: 'hidden', nRowsMax: 40, columns: N_VOCAB }] as const;
  return { executor, engine: new Engine(executor, limits, { nVocab: N_VOCAB, isCausal: false, outputs }) };
}

/** Evaluates a text. @returns the positions whose rows it gets, as they come */
function evaluate(engine: Engine, tokens: number[]): number[] {
  const positions: number[] = [];
  const onRow = (position: number): void => void positions.push(position);
  ask(engine, tokens, 0, { output: 'hidden', wantsRows: 'all', onRow });
  return positions;
}

test('texts that are not causal are evaluated whole, as many in a step as fit, and their tokens see their end', () => {
  const { engine, executor } = startWhole();
  const lengths = [10, 35, 20, 40];
  const seen = lengths.map((n) => evaluate(engine, counting(1, n)));
  engine.step();
  const lastSeen = [...executor.input('lastSeen').subarray(0, 30)];
  assert.deepEqual(lastSeen, [...Array<number>(10).fill(9), ...Array<number>(20).fill(19)]);
  runAll(engine);
  assert.deepEqual(
    executor.steps.map((rows) => rows.length),
    [30, 35, 40],
  );
  assert.deepEqual(
    seen,
    lengths.map((n) => counting(0, n)),
  );
  assert.equal(engine.cache.nAvailable, 4);
});

test('texts that are not causal take nothing over from others, though they begin alike', () => {
  const { engine, executor } = startWhole();
  for (const text of [counting(0, 40), counting(0, 40), counting(0, 33)]) {
    evaluate(engine, text);
    runAll(engine);
  }
  assert.deepEqual(
    executor.steps.map((rows) => rows.length),
    [40, 40, 33],
  );
});

test('a step computes either logits or hidden states, and neither starves the other', () => {
  const executor = new ScriptedExecutor(LIMITS);
  const outputs = (['logits', 'hidden'] as const).map((kind) => ({ kind, nRowsMax: 4, columns: N_VOCAB }));
  const engine = new Engine(executor, LIMITS, { nVocab: N_VOCAB, isCausal: true, outputs });
  const generated = ask(engine, [1], 12);
  const seen = evaluate(engine, counting(10, 20));
  runAll(engine);
  assert.deepEqual([generated.tokens, seen], [counting(2, 12), counting(0, 20)]);
  const slots = executor.steps.map((rows) => new Set(rows.map(([slot]) => slot)));
  assert.ok(slots.every((set) => set.size === 1));
  const programs = executor.ran;
  assert.deepEqual(
    slots.map((set) => [...set][0]),
    programs,
  );
  assert.ok(programs.slice(0, 6).includes(1) && programs.slice(0, 6).includes(0));
});

test('causal tokens see up to themselves, whatever is computed of them', () => {
  const { engine, executor } = start();
  ask(engine, counting(1, 5), 0);
  runAll(engine);
  assert.deepEqual([...executor.input('lastSeen').subarray(0, 5)], counting(0, 5));
});
