// Flags and numbers of the command line.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from 'commander';
import { resolveGenerateOptions } from '../options.ts';
import { LENGTH_FLAGS, LOAD_FLAGS, LOGIT_BIAS_FLAG, SAMPLER_FLAGS } from './flags.ts';
import { UsageError, addFlags, checkFlags, parseNumber, readFlags } from './usage.ts';

test('numbers are decimal numbers and nothing else', () => {
  for (const text of ['0', '42', '-1', '+3', '0.5', '.5', '5.', '1e3', '2.5E-2']) {
    assert.equal(parseNumber(text), Number(text), text);
  }
  for (const text of ['', ' ', '1 ', 'abc', '1e', '0x10', 'Infinity', 'NaN', '1,5', '1_000', '--1', '.']) {
    assert.equal(parseNumber(text), text);
  }
});

test('every flag arrives under the name that the library has for it', () => {
  const all = [...LENGTH_FLAGS, ...SAMPLER_FLAGS, LOGIT_BIAS_FLAG, ...LOAD_FLAGS];
  const flags = all.filter(({ preset }) => preset === undefined);
  const command = new Command().exitOverride();
  addFlags(command, 'All:', flags);
  const args = flags.flatMap(({ flags: spelling }, i) => [/--[\w-]+/.exec(spelling)![0], String(i)]);
  command.parse(args, { from: 'user' });
  const expected = flags.map(({ name, parse }, i) => [name, parse(String(i))]);
  assert.deepEqual(Object.entries(readFlags(command.opts(), flags)), expected);
});

test('of two flags for one option the first that is given counts', () => {
  const read = (...args: string[]): unknown => {
    const command = new Command().exitOverride();
    addFlags(command, 'All:', LOAD_FLAGS);
    command.parse(args, { from: 'user' });
    return readFlags(command.opts(), LOAD_FLAGS)['nCtx'];
  };
  assert.deepEqual(
    [read('--fit'), read('--ctx', '64'), read('--fit', '--ctx', '64'), read()],
    ['fit', 64, 64, undefined],
  );
});

test('a missing flag leaves the library its default, but for the length', () => {
  const command = new Command();
  addFlags(command, 'All:', [...LENGTH_FLAGS, ...SAMPLER_FLAGS]);
  command.parse([], { from: 'user' });
  const given = Object.entries(readFlags(command.opts(), [...LENGTH_FLAGS, ...SAMPLER_FLAGS]));
  assert.deepEqual(
    given.filter(([, value]) => value !== undefined),
    [['maxTokens', 512]],
  );
});

test('flags that may be repeated collect what they are given', () => {
  const command = new Command();
  const flags = [...LENGTH_FLAGS, LOGIT_BIAS_FLAG];
  addFlags(command, 'All:', flags);
  const stops = ['--stop', 'a=b', '--stop', ''];
  const biases = ['--logit-bias', '5=1.5', '--logit-bias', '7=-Infinity', '--logit-bias', 'x', '--logit-bias', '8=y'];
  command.parse([...stops, ...biases], { from: 'user' });
  const { stop, logitBias } = readFlags(command.opts(), flags);
  assert.deepEqual(stop, ['a=b', '']);
  // What is no number is for the library to refuse.
  assert.deepEqual(logitBias, { 5: 1.5, 7: -Infinity, x: '', 8: 'y' });
});

test("the sampler flags are all of the library's sampler options", () => {
  const names = SAMPLER_FLAGS.map(({ name }) => name);
  assert.deepEqual(names.sort(), Object.keys(resolveGenerateOptions({}).sampler).sort());
});

test('what the library refuses is said in terms of the flag', () => {
  const check = (): unknown => checkFlags(SAMPLER_FLAGS, () => resolveGenerateOptions({ topP: 1.5 }));
  assert.throws(check, (error: Error) => {
    return error instanceof UsageError && error.message === '--top-p expected a number from 0 to 1, got 1.5';
  });
});
