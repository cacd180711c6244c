// What a caller does to the logits: biases, bans, functions of its own, in that precedence, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changeLogits } from './logit-changes.ts';
import type { LogitChanges } from './logit-changes.ts';
import { resolveSamplerOptions } from './options.ts';
import { Sampler, buildChain } from './sampler.ts';

const LOGITS = Float32Array.of(1, 5, 3, 2, 4);
const N_VOCAB = LOGITS.length;
const NOTHING: LogitChanges = { processors: [], biases: [], bannedTokens: [] };

function greedy(changes: Partial<LogitChanges>): Sampler {
  const options = resolveSamplerOptions({ temperature: 0, seed: 1 });
  return new Sampler(options, N_VOCAB, [
    ...changeLogits({ ...NOTHING, ...changes }, N_VOCAB),
    ...buildChain(options, N_VOCAB),
  ]);
}

test('nothing to change is no step at all', () => {
  assert.deepEqual(changeLogits(NOTHING, N_VOCAB), []);
});

test('a bias is added, and the logits themselves stay', () => {
  assert.equal(greedy({ biases: [[2, 1.9]] }).sample(LOGITS), 1);
  assert.equal(greedy({ biases: [[2, 2.1]] }).sample(LOGITS), 2);
  assert.equal(
    greedy({
      biases: [
        [1, -4.1],
        [4, -1.1],
      ],
    }).sample(LOGITS),
    2,
  );
  assert.deepEqual([...LOGITS], [1, 5, 3, 2, 4]);
});

test('a banned token is not chosen, whatever else is asked for it', () => {
  assert.equal(greedy({ bannedTokens: [1] }).sample(LOGITS), 4);
  assert.equal(
    greedy({
      biases: [
        [1, -Infinity],
        [4, -Infinity],
      ],
    }).sample(LOGITS),
    2,
  );
  const processors = [(logits: Float64Array): void => void (logits[1] = 1e300)];
  assert.equal(greedy({ bannedTokens: [1], biases: [[1, 100]], processors }).sample(LOGITS), 4);
});

test('banning everything is an error that says so', () => {
  const sampler = greedy({ bannedTokens: [0, 1, 2, 3, 4] });
  assert.throws(() => sampler.sample(LOGITS), { code: 'NUMERIC', message: /a logit bias forbids too much/ });
});

test('processors run in order, see the tokens so far, and may change logits at will', () => {
  const seen: string[] = [];
  const first = (logits: Float64Array, tokens: readonly number[]): void => {
    seen.push(`${logits[3]} after ${tokens.join(' ')}`);
    logits[3] = 9;
  };
  const second = (logits: Float64Array): void => void seen.push(`${logits[3]}`);
  const sampler = greedy({ processors: [first, second] });
  for (const token of [0, 4]) sampler.accept(token);
  assert.equal(sampler.sample(LOGITS), 3);
  sampler.accept(3);
  assert.equal(sampler.sample(LOGITS), 3);
  sampler.reset();
  sampler.sample(LOGITS);
  assert.deepEqual(seen, ['2 after 0 4', '9', '2 after 0 4 3', '9', '2 after ', '9']);
});

test('a processor that makes a logit NaN or Infinity is named as the cause', () => {
  for (const bad of [NaN, Infinity]) {
    for (const token of [0, 3]) {
      const sampler = greedy({ processors: [(logits) => void (logits[token] = bad)] });
      const message = new RegExp(`a logits processor made the logit of token ${token} ${bad};`);
      assert.throws(() => sampler.sample(LOGITS), { code: 'NUMERIC', message });
    }
  }
});

test('tokens that the vocabulary does not have are refused by the name of the option', () => {
  const expected = (option: string): object => ({
    code: 'INVALID_OPTION',
    message: new RegExp(`"${option}" .*0..4, got 5`),
  });
  assert.throws(() => greedy({ biases: [[5, 1]] }), expected('logitBias'));
  assert.throws(() => greedy({ bannedTokens: [5] }), expected('bannedTokens'));
});
