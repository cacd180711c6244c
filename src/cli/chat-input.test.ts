// What is typed and piped, as messages. A terminal is two streams here: what is typed goes into one, and what the line
// editor draws comes out of the other.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChatInput } from './chat-input.ts';

const CTRL_C = '\u0003';
const CTRL_D = '\u0004';

/** All messages of a pipe. */
async function messagesOf(piped: string): Promise<string[]> {
  const input = new ChatInput(new PassThrough().end(piped), new PassThrough(), false, () => {});
  const messages: string[] = [];
  for (let message; (message = await input.next()) !== undefined;) messages.push(message);
  return messages;
}

function openTerminal() {
  const typed = new PassThrough();
  const screen = new PassThrough({ encoding: 'utf8' });
  let nStops = 0;
  const input = new ChatInput(typed, screen, true, () => nStops++);
  return {
    input,
    /** The next message, with these keys pressed once it is awaited. */
    async ask(...keys: string[]): Promise<string | undefined> {
      const message = input.next();
      for (const key of keys) {
        typed.write(key);
        await sleep(0);
      }
      return message;
    },
    press: async (keys: string): Promise<void> => {
      typed.write(keys);
      await sleep(0);
    },
    /** What came since it was last asked. */
    drawn: (): string => String(screen.read() ?? ''),
    nStops: (): number => nStops,
  };
}

describe('a pipe', () => {
  test('gives a message a line, and none for empty lines', async () => {
    assert.deepEqual(await messagesOf('one\r\n\n  \ntwo'), ['one', 'two']);
    assert.deepEqual(await messagesOf(''), []);
  });

  test('gives one for lines that a backslash or quotation marks hold together', async () => {
    assert.deepEqual(await messagesOf('a\\\nb\\\n\nc\n'), ['a\nb\n', 'c']);
    assert.deepEqual(await messagesOf('"""\na\\\n\n b\n"""\nc\n'), ['a\\\n\n b', 'c']);
  });

  test('gives what it has of a message that does not end', async () => {
    assert.deepEqual(await messagesOf('"""\na\nb'), ['a\nb']);
    assert.deepEqual(await messagesOf('a\\'), ['a']);
  });

  test('of any length comes in order', async () => {
    const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}`);
    assert.deepEqual(await messagesOf(lines.join('\n')), lines);
  });
});

describe('a terminal', () => {
  test('shows a prompt, another one for what goes on, and remembers lines', async () => {
    const { ask, drawn } = openTerminal();
    assert.equal(await ask('a\\\r', 'b\r'), 'a\nb');
    assert.match(drawn(), /> .*a\\.*\. .*b/s);
    assert.equal(await ask('\u001b[A', '\r'), 'b');
  });

  test('keeps what is typed while an answer is written, out of sight, for its turn', async () => {
    const { ask, press, drawn } = openTerminal();
    await ask('a\r');
    drawn();
    await press('next\rafter');
    assert.equal(drawn(), '');
    assert.equal(await ask(), 'next');
    assert.equal(drawn(), '> next\n');
    assert.equal(await ask('wards\r'), 'afterwards');
    assert.match(drawn(), /> after/);
  });

  test('takes what is pasted as one message', async () => {
    const { ask } = openTerminal();
    assert.equal(await ask('\u001b[200~a\rb\rc\u001b[201~', '!\r'), 'a\nb\nc!');
  });

  test('Ctrl-C stops an answer, then clears what is written, and twice at an empty prompt it leaves', async () => {
    const { ask, press, drawn, nStops } = openTerminal();
    await ask('a\r');
    await press(CTRL_C);
    assert.equal(nStops(), 1);
    assert.equal(await ask('never\\\r', 'sent', CTRL_C, CTRL_C, 'b\r'), 'b');
    assert.match(drawn(), /Ctrl-C once more leaves/);
    assert.equal(await ask(CTRL_C, 'c', CTRL_C, CTRL_C, CTRL_C), undefined);
    assert.equal(nStops(), 1);
  });

  test('Ctrl-D leaves, and the terminal is given back as it was', async () => {
    const { ask, drawn, input } = openTerminal();
    assert.equal(await ask(CTRL_D), undefined);
    const all = drawn();
    assert.ok(all.startsWith('\u001b[?2004h') && all.endsWith('\u001b[?2004l\n'), all);
    input.close();
    assert.equal(await input.next(), undefined);
    assert.equal(drawn(), '');
  });
});
