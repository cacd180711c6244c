// Conversations through the public API, in the worker and inline: history, stopping, answering again, forgetting.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadModel, OptionError } from '../../src/index.ts';
import type { ChatMessage, Model, SmallMindError } from '../../src/index.ts';
import { N_CTX, smallModel, THREADS } from './small-model.ts';

const GREEDY = { temperature: 0, maxTokens: 8 };

for (const thread of THREADS) {
  describe(`a chat, ${thread}`, () => {
    const load = (): Promise<Model> => loadModel(smallModel(), { thread });

    test('answers as the prompt of its history does, and remembers both', async () => {
      await using model = await load();
      const chat = model.chat({ system: 'Be kind.', template: 'chatml' });
      const first = await chat.send('Hi', GREEDY).result;
      let streamed = '';
      for await (const piece of chat.send('And?', GREEDY)) streamed += piece;
      const expected: ChatMessage[] = [
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: first.text },
        { role: 'user', content: 'And?' },
      ];
      const prompt = await model.applyChatTemplate(expected, { template: 'chatml' });
      const { text } = await model.generate(prompt.tokens, GREEDY).result;
      assert.equal(streamed, text);
      assert.deepEqual(chat.messages, [...expected, { role: 'assistant', content: text }]);
      assert.equal(chat.forgotten, 0);
    });

    test('speaks by the template of its file, unless it is given another', async () => {
      const chatTemplate = '{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}';
      await using model = await loadModel(smallModel({ chatTemplate }), { thread });
      const { text, tokens } = await model.applyChatTemplate([{ role: 'user', content: 'Hi' }]);
      assert.equal(text, 'user: Hi;');
      const own = await model.chat().send('Hi', GREEDY).result;
      assert.equal(own.promptTokens, tokens.length);
      assert.equal(own.text, (await model.generate(tokens, GREEDY).result).text);
      const other = await model.chat({ template: 'chatml' }).send('Hi', GREEDY).result;
      assert.ok(other.promptTokens > tokens.length);
    });

    test('finds its history in the cache', async () => {
      await using model = await load();
      const chat = model.chat({ template: 'chatml' });
      await chat.send('A rather long first message, longer than a block of the cache.', GREEDY).result;
      const { cachedTokens } = await chat.send('And?', GREEDY).result;
      assert.ok(cachedTokens >= 32, `${cachedTokens}`);
    });

    test('keeps what an answer had when it was stopped, and nothing of one that failed', async () => {
      await using model = await load();
      const chat = model.chat({ template: 'chatml' });
      for await (const piece of chat.send('Hi', { temperature: 0 })) if (piece !== '') break;
      const stopped = chat.messages;
      assert.equal(stopped.length, 2);
      const controller = new AbortController();
      const failing = chat.send('And?', { signal: controller.signal });
      controller.abort(new Error('enough'));
      await assert.rejects(failing.result, /enough/);
      assert.deepEqual(chat.messages, stopped);
      await chat.send('Again', GREEDY).result;
      assert.equal(chat.messages.length, 4);
    });

    test('gives another answer in place of the last', async () => {
      await using model = await load();
      const chat = model.chat({ template: 'chatml' });
      assert.throws(() => chat.regenerate(), OptionError);
      await chat.send('Hi', GREEDY).result;
      const { text } = await chat.regenerate({ maxTokens: 8, seed: 3 }).result;
      assert.deepEqual(chat.messages, [
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: text },
      ]);
    });

    test('answers one message at a time', async () => {
      await using model = await load();
      const chat = model.chat({ template: 'chatml' });
      const first = chat.send('Hi', GREEDY);
      assert.throws(() => chat.send('Hi'), /answer is under way/);
      await first.result;
      await chat.send('Hi', GREEDY).result;
    });

    test('forgets the oldest exchanges, and never the system or the question', async () => {
      await using model = await load();
      const chat = model.chat({ system: 'Be kind.', template: '{% for m in messages %}{{ m.content }}|{% endfor %}' });
      for (let i = 0; i < 12; i++) {
        const { promptTokens } = await chat.send(`${i}`.padEnd(40, '.'), GREEDY).result;
        assert.ok(promptTokens <= N_CTX - 8);
      }
      assert.equal(chat.messages.length, 25);
      assert.ok(chat.forgotten > 0 && chat.forgotten % 2 === 0, `${chat.forgotten}`);
      const rest = [chat.messages[0]!, ...chat.messages.slice(1 + chat.forgotten, -1)];
      assert.equal(rest[1]!.role, 'user');
    });

    test('a message that is too long alone is refused by the numbers, and so is any that is, where nothing is forgotten', async () => {
      await using model = await load();
      const isFull = (error: SmallMindError): boolean => error.code === 'CONTEXT_FULL' && /256/.test(error.message);
      await assert.rejects(model.chat({ template: 'chatml' }).send('x'.repeat(400)).result, isFull);
      const chat = model.chat({ template: 'chatml', contextFull: 'stop' });
      await chat.send('x'.repeat(100), GREEDY).result;
      await assert.rejects(chat.send('x'.repeat(150), GREEDY).result, isFull);
      assert.equal(chat.messages.length, 2);
    });

    test('a model without a template says what to give', async () => {
      await using model = await load();
      await assert.rejects(model.chat().send('Hi').result, (error: SmallMindError) => {
        assert.equal(error.code, 'CHAT_TEMPLATE');
        assert.match(error.message, /"template": chatml/);
        return true;
      });
    });

    test('bad options and messages are refused at the call', async () => {
      await using model = await load();
      assert.throws(() => model.chat({ contextFull: 'shift' as never }), /"contextFull" expected one of forget, stop/);
      assert.throws(() => model.chat({ messages: [{ role: 'bot' as never, content: '' }] }), /"messages\[0\].role"/);
      assert.throws(
        () => model.chat().send({ role: 'user', content: 1 as never }),
        /content" expected a string, got 1/,
      );
      await assert.rejects(model.applyChatTemplate([]), /"messages" expected a list with at least one message/);
    });
  });
}
