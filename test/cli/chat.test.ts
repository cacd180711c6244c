// `smallmind chat` from its sources: answers through a pipe, commands, mistakes, and a terminal, which `script` makes.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../../src/index.ts';
import type { ChatMessage } from '../../src/index.ts';
import { alterModel, outcomeOf, runCommand, scratchFolder, smallModel, startCommand, writeScratch } from './command.ts';

/** The model's own template: as few tokens as can be, and it knows an option. */
const TEMPLATE =
  '{% for m in messages %}{{ m.content }}|{% endfor %}{% if shouts %}!{% endif %}' +
  "{% if messages[-1].content == 'refuse' %}{{ raise_exception('I do not like it') }}{% endif %}";
const plain = writeScratch('plain.gguf', smallModel);
const model = writeScratch(
  'chat.gguf',
  await alterModel((metadata) => metadata.set('tokenizer.chat_template', { type: 'string', value: TEMPLATE })),
);
const GREEDY = ['--temp', '0', '-n', '4'];
const chat = (input: string, ...args: string[]) => runCommand(['chat', model, ...GREEDY, ...args], input);
const answersOf = (stdout: string) =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

/** What the library answers to these messages, one after the other. */
async function expectedAnswers(messages: readonly string[], system?: string): Promise<string[]> {
  await using loaded = await loadModel(model, { thread: 'inline' });
  const conversation = loaded.chat({ system });
  const answers: string[] = [];
  for (const message of messages) {
    answers.push((await conversation.send(message, { temperature: 0, maxTokens: 4 }).result).text);
  }
  return answers;
}

test('in a pipe each line gets an answer, by the template of the file, and stdout holds nothing else', async () => {
  const [piped, withSystem] = [await chat('a\nb\n'), await chat('a\n', '--system', 'be kind')];
  assert.equal(piped.code, 0, piped.stderr);
  assert.equal(piped.stdout, (await expectedAnswers(['a', 'b'])).map((answer) => `${answer}\n`).join(''));
  assert.equal(withSystem.stdout, `${await expectedAnswers(['a'], 'be kind')}\n`);
  assert.equal(piped.stderr, '(cut off at --max-tokens)\n'.repeat(2));
});

test('--json prints one line an answer, --template-option reaches the template', async () => {
  const [calm, loud] = [
    await chat('a\nb\n', '--json'),
    await chat('a\n', '--json', '--template-option', 'shouts=true'),
  ];
  const answers = answersOf(calm.stdout);
  assert.deepEqual(
    answers.map(({ text: answer }) => answer),
    await expectedAnswers(['a', 'b']),
  );
  assert.deepEqual([answers[1].forgotten, answers[1].finishReason], [0, 'length']);
  assert.equal(answersOf(loud.stdout)[0].promptTokens, answers[0].promptTokens + 1);
});

test('/save and /load keep a conversation, /system and /clear change it', async () => {
  const [first, second] = [join(scratchFolder, 'first.json'), join(scratchFolder, 'second.json')];
  const read = (path: string): ChatMessage[] => JSON.parse(readFileSync(path, 'utf8'));
  const [answer] = await expectedAnswers(['a'], 'be kind');
  const saved = await chat(`a\n/save ${first}\n/clear\n/save ${second}\n`, '--system', 'be kind');
  assert.equal(saved.code, 0, saved.stderr);
  assert.match(saved.stderr, /3 messages written to .*first\.json\n1 message written to/);
  const system = { role: 'system', content: 'be kind' };
  const history = [
    { role: 'user', content: 'a' },
    { role: 'assistant', content: answer },
  ];
  assert.deepEqual(read(first), [system, ...history]);
  assert.deepEqual(read(second), [system]);
  const loaded = await chat(`/load ${first}\n/system be\\\nbrief\n/save ${second}\n/system\n/save ${first}\n`);
  assert.equal(loaded.code, 0, loaded.stderr);
  assert.deepEqual(read(second), [{ role: 'system', content: 'be\nbrief' }, ...history]);
  assert.deepEqual(read(first), history);
});

test('/regenerate gives another answer in place of the last, even with a seed; /exit leaves', async () => {
  const path = join(scratchFolder, 'again.json');
  const input = `a\n/regenerate\n/stats\n/save ${path}\n/exit\nnever sent\n`;
  const { code, stdout, stderr } = await chat(input, '--temp', '2', '--seed', '7', '--json');
  assert.equal(code, 0, stderr);
  const [one, two] = answersOf(stdout);
  assert.deepEqual([one.seed, two.seed], [7, 8]);
  assert.notEqual(one.text, two.text);
  const saved: ChatMessage[] = JSON.parse(readFileSync(path, 'utf8'));
  assert.deepEqual(
    saved.map(({ content }) => content),
    ['a', two.text],
  );
  assert.match(stderr, /last answer +4 tokens, .* tokens\/s/);
  assert.match(stderr, /context +\d+ of 64 tokens, \d+ %\nmessages +2, 0 of them forgotten\nall answers +8 tokens/);
});

test('the oldest messages are forgotten when the context is full, or nothing is with --context-full stop', async () => {
  const input = `${'a '.repeat(9)}\n`.repeat(6);
  const [forgets, stops] = [await chat(input), await chat(input, '--context-full', 'stop')];
  assert.equal(forgets.code, 0, forgets.stderr);
  assert.match(forgets.stderr, /the context is full: the oldest \d+ messages are forgotten/);
  assert.equal(forgets.stdout.trimEnd().split('\n').length, 6);
  assert.equal(stops.code, 1);
  assert.match(stops.stderr, /^smallmind: the conversation takes \d+ tokens and the context holds 64/m);
});

test('a mistake is one line, and the conversation goes on', async () => {
  const mistakes: readonly (readonly [message: string, says: RegExp])[] = [
    ['/nope', /there is no command \/nope; \/help lists them/],
    ['/save', /expected \/save FILE/],
    ['/exit now', /expected \/exit;/],
    ['/load none.json', /none\.json: no such file; check the path/],
    [`/load ${plain}`, /plain\.gguf is no JSON file of messages: /],
    [
      `/load ${writeScratch('else.json', 'null')}`,
      /else\.json is no JSON file of messages: "messages" expected a list/,
    ],
    ['/save none/a.json', /could not be written: the folder does not exist/],
    ['/regenerate', /there is no answer to give again/],
    ['a '.repeat(80), /the conversation takes \d+ tokens and the context holds 64/],
    ['refuse', /chat template says: I do not like it/],
  ];
  const { code, stdout, stderr } = await chat(
    [...mistakes.map(([message]) => message), '/etc/hosts is a file\n'].join('\n'),
  );
  const lines = stderr.trimEnd().split('\n');
  for (const [i, [message, says]] of mistakes.entries()) {
    assert.match(lines[i]!, /^smallmind: /, message);
    assert.match(lines[i]!, says);
    assert.doesNotMatch(lines[i]!, /please report/);
  }
  assert.deepEqual(lines.slice(mistakes.length), ['(cut off at --max-tokens)']);
  assert.equal(stdout, `${await expectedAnswers(['/etc/hosts is a file'])}\n`);
  assert.equal(code, 1);
});

for (const [name, args, says] of [
  ['a model without a template', [plain], /no chat template.* with --template: chatml.*; see "smallmind chat --help"/],
  [
    'a template that is no file',
    [model, '--template', 'none.jinja'],
    /--template expected chatml.*none\.jinja: no such/,
  ],
  ['a file that is no template', [model, '--template', writeScratch('t.txt', 'Hi')], /--template expected .* got "Hi"/],
  ['a template that fails', [model, '--template', writeScratch('t.jinja', '{% if %}')], /not valid.*--template/],
  ['an unknown policy', [model, '--context-full', 'shift'], /--context-full expected one of forget, stop, got "shift"/],
  [
    'an option without a value',
    [model, '--template-option', 'x'],
    /--template-option <KEY=JSON>' argument 'x' is invalid\. Expected KEY=JSON;/,
  ],
  ['no model', [], /missing required argument 'model'/],
] as const) {
  test(`${name} is one clear line and exit code 2`, async () => {
    const { code, stdout, stderr } = await runCommand(['chat', ...args], 'a\n');
    assert.equal(stdout, '');
    assert.match(stderr, /^smallmind: [^\n]+\n$/);
    assert.match(stderr, says);
    assert.equal(code, 2);
  });
}

test('SIGINT ends a pipe with what there is of the answer, and exit code 130', async () => {
  const child = startCommand(['chat', model, '--ctx', '4096', '--kernels', 'reference', '--logit-bias', '2=-Infinity']);
  const outcome = outcomeOf(child);
  child.stdin.write('a\n');
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGINT');
  const { code, stdout, stderr } = await outcome;
  assert.equal(code, 130, stderr);
  assert.match(stdout, /.\n$/s);
  assert.equal(stderr, '(stopped)\n');
});

const hasScript = process.platform === 'linux' && spawnSync('script', ['--version']).status === 0;
if (!hasScript && process.env['CI'] === 'true') throw new Error('script is missing; apt-get install bsdutils');
const terminal = { skip: hasScript ? false : 'there is no script of util-linux (apt-get install bsdutils)' };

test('at a terminal Ctrl-C stops the answer and not the program, and Ctrl-D leaves', terminal, async () => {
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const flags = `--ctx 4096 --kernels reference --logit-bias 2=-Infinity`;
  const command = `'${process.execPath}' --conditions=smallmind-source '${main}' chat '${model}' ${flags}`;
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    env: { ...process.env, TERM: 'xterm', NO_COLOR: '1', NODE_OPTIONS: '' },
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  let drawn = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (drawn += chunk));
  const [errors, closed] = [text(child.stderr), new Promise((resolve) => child.on('close', resolve))];
  const sees = async (what: RegExp): Promise<void> => {
    while (!what.test(drawn) && child.exitCode === null) {
      await new Promise((resolve) => child.stdout.once('data', resolve));
    }
    assert.match(drawn, what);
    drawn = '';
  };
  await sees(/random F32 7 · 4,096 tokens of context · \/help lists commands\r\n.*> /s);
  child.stdin.write('a\r');
  await sees(/a[\r\n]+./);
  child.stdin.write('\u0003');
  await sees(/[\r\n]\(stopped\)\r\n.*> /);
  child.stdin.write('/stats\r');
  await sees(/messages +2, 0 of them forgotten.*> /s);
  child.stdin.write('\u0004');
  assert.equal(await closed, 0, drawn + (await errors));
});
