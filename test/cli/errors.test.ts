// Every mistake of a user is one clear line on stderr with what to do, the right exit code, nothing on stdout, and no
// process left behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MetadataEntry } from '../../src/gguf/value-types.ts';
import { alterModel, runCommand, scratchFolder, smallModel, writeScratch } from './command.ts';

const small = writeScratch('small.gguf', smallModel);

interface Mistake {
  readonly args: readonly string[];
  readonly code: 1 | 2;
  /** What the line has to say: the thing and the remedy. */
  readonly says: RegExp;
}

const run = (file: string, says: RegExp, ...more: string[]): Mistake => ({
  args: ['run', file, '-p', 'a', '-n', '1', ...more],
  code: 1,
  says,
});
const badFile = (name: string, bytes: Uint8Array | string, says: RegExp): Mistake =>
  run(writeScratch(name, bytes), says);
const badOption = (says: RegExp, ...options: string[]): Mistake => ({ ...run(small, says, ...options), code: 2 });
const usage = (says: RegExp, ...args: string[]): Mistake => ({ args, code: 2, says });

const u32 = (value: number): MetadataEntry => ({ type: 'u32', value });
const text = (value: string): MetadataEntry => ({ type: 'string', value });
const unknownArchitecture = await alterModel((metadata) => metadata.set('general.architecture', text('mamba')));
const missingTensor = await alterModel((_, tensors) => tensors.delete('blk.0.ffn_up.weight'));
const wrongShape = await alterModel((metadata) => metadata.set('llama.feed_forward_length', u32(65)));
const missingKey = await alterModel((metadata) => metadata.delete('llama.block_count'));

const MISTAKES: Readonly<Record<string, Mistake>> = {
  'a missing file': run(`${scratchFolder}/none.gguf`, /none\.gguf: no such file; check the path/),
  'a directory': run(scratchFolder, /is a directory; give the path of a \.gguf file/),
  'an empty file': badFile('empty.gguf', '', /empty\.gguf: .*the file is empty.*download it again/),
  'a file that is not GGUF': badFile('page.gguf', '<!DOCTYPE html>', /not a GGUF file.*web page/),
  'a truncated head': badFile('head.gguf', smallModel.subarray(0, 100), /head\.gguf: .*(truncated|cut off|ends)/),
  'truncated data': badFile('data.gguf', smallModel.subarray(0, smallModel.length - 64), /data\.gguf: .*ends at/),
  'an unknown architecture': badFile('mamba.gguf', unknownArchitecture, /"mamba" is not supported; supported: llama/),
  'a missing tensor': badFile('tensor.gguf', missingTensor, /tensor "blk\.0\.ffn_up\.weight" is missing/),
  'a tensor of the wrong shape': badFile('shape.gguf', wrongShape, /expected shape \[65, 32\], got \[64, 32\]/),
  'a missing metadata key': badFile('key.gguf', missingKey, /no "llama\.block_count"/),
  'a prompt that is too long': run(
    small,
    /prompt has \d+ tokens, the context holds 64; shorten/,
    '-p',
    'a '.repeat(80),
  ),

  'a temperature that is no number': badOption(/--temp expected a finite number, got "abc";/, '--temp', 'abc'),
  'half a number': badOption(/--temp expected a finite number, got "1e";/, '--temp', '1e'),
  'an empty number': badOption(/--max-tokens expected an integer from 0 to \d+, got "";/, '-n', ''),
  'a hexadecimal number': badOption(/--top-k expected an integer from 0 to \d+, got "0x10";/, '--top-k', '0x10'),
  'a fraction where an integer is needed': badOption(
    /--threads expected an integer from 1 to 64, got 1\.5;/,
    '-t',
    '1.5',
  ),
  'a probability above 1': badOption(/--top-p expected a number from 0 to 1, got 2;/, '--top-p', '2'),
  'a negative seed': badOption(/--seed expected an integer from 0 to \d+, got -1;/, '--seed', '-1'),
  'an infinite penalty': badOption(/--repeat-penalty expected .*, got "Infinity";/, '--repeat-penalty', 'Infinity'),
  'an unknown kernel set': badOption(
    /--kernels expected one of auto, relaxed, simd, strict, reference, got "fast";/,
    '--kernels',
    'fast',
  ),
  'a bias for what is no token': badOption(
    /--logit-bias expected token ids, integers from 0 on, got "x";/,
    '--logit-bias',
    'x=1',
  ),
  'a bias without a number': badOption(/--logit-bias expected a number .* for 5, got "";/, '--logit-bias', '5'),
  'a bias for a token that there is not': badOption(
    /"logitBias" expected token ids of 0\.\.299, got 300/,
    '--logit-bias',
    '300=1',
  ),
  'an empty stop string': badOption(/--stop expected at most 16 strings, none empty, got "";/, '--stop', ''),
  'no time at all': badOption(/--max-time expected an integer from 1 to \d+, got 0;/, '--max-time', '0'),
  'an unknown policy': badOption(/--context-full expected one of stop, shift, got "go";/, '--context-full', 'go'),
  'log-probabilities without JSON': badOption(/--logprobs needs --json/, '--logprobs', '3'),
  'an option without its value': badOption(/option '--temp <T>' argument missing/, '--temp'),
  'an unknown option': badOption(
    /unknown option '--tmp' \(Did you mean --temp\?\); see "smallmind run --help"/,
    '--tmp',
    '1',
  ),
  'an unknown command': usage(/unknown command 'rnu' \(Did you mean run\?\); see "smallmind --help"/, 'rnu'),
  'two models': usage(/too many arguments/, 'run', small, small),
  'inspect without a model': usage(/missing required argument 'model'/, 'inspect'),
  'inspect with a bad context': usage(
    /--ctx expected an integer from 1 to \d+, got 0;/,
    'inspect',
    small,
    '--ctx',
    '0',
  ),
  'inspect of a missing file': { args: ['inspect', 'none.gguf'], code: 1, says: /none\.gguf: no such file/ },
};

for (const [name, { args, code, says }] of Object.entries(MISTAKES)) {
  test(`${name} is one clear line and exit code ${code}`, async () => {
    const outcome = await runCommand(args);
    assert.equal(outcome.stdout, '');
    assert.match(outcome.stderr, /^smallmind: [^\n]+\n$/);
    assert.match(outcome.stderr, says);
    assert.doesNotMatch(outcome.stderr, /please report/);
    assert.equal(outcome.code, code);
  });
}

test('--verbose adds the stack, before or after the command', async () => {
  for (const args of [
    ['--verbose', 'run', 'none.gguf', '-p', 'a'],
    ['run', 'none.gguf', '-p', 'a', '--verbose'],
  ]) {
    const { code, stderr } = await runCommand(args);
    assert.equal(code, 1);
    assert.match(stderr, /^smallmind: none\.gguf: no such file.*\n/);
    assert.match(stderr, /\n {4}at .*files\.node\.ts/);
    assert.match(stderr, /FILE_NOT_FOUND/);
  }
});

test('bad flags are refused before the file is looked at', async () => {
  const { code, stderr } = await runCommand(['run', 'none.gguf', '-p', 'a', '--temp', 'hot']);
  assert.equal(code, 2);
  assert.match(stderr, /--temp/);
});
