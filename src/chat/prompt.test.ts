// Prompts of conversations, for each family: what the fallback templates say, BOS once, and that no text of a user, a
// tool or an assistant becomes a control token, wherever the template puts it.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { needsShared, sharedPath } from '../../test/shared-data.ts';
import { OptionError } from '../base/errors.ts';
import type { SmallMindError } from '../base/errors.ts';
import { createTokenizer } from '../tokenizer/tokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { TOKEN_TYPE } from '../tokenizer/vocabulary.ts';
import { FALLBACK_NAMES } from './fallbacks.ts';
import { ChatFormat, readTemplates } from './format.ts';
import type { ChatMessage } from './messages.ts';

const N_PLAIN = 3 + 256 + 1;
/** Behind three tokens, all bytes and the space: the control tokens of all families. */
const CONTROL_TOKENS = (
  '<|im_start|> <|im_end|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|begin_of_text|> <start_of_turn> ' +
  '<end_of_turn> <|user|> <|assistant|> <|system|> <|end|> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] ' +
  '[TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]'
).split(' ');

function tokenizerWith(controls: readonly string[]): { tokenizer: Tokenizer; tokens: readonly string[] } {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).padStart(2, '0').toUpperCase()}>`);
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, '▁', ...controls];
  const { unknown, control, byte, normal } = TOKEN_TYPE;
  const plainType = (id: number): number => (id < 3 + 256 ? byte : normal);
  const tokenTypes = tokens.map((_, id) => (id === 0 ? unknown : isControl(id) ? control : plainType(id)));
  const tokenizer = createTokenizer({
    model: 'llama',
    tokens,
    tokenTypes,
    scores: tokens.map(() => 0),
    bosId: 1,
    eosId: 2,
    unknownId: 0,
    addBos: true,
    addEos: false,
    addSpacePrefix: false,
  });
  return { tokenizer, tokens };
}

const isControl = (id: number): boolean => id < 3 || id >= N_PLAIN;

const CONVERSATION: readonly ChatMessage[] = [
  { role: 'user', content: 'Hi' },
  { role: 'assistant', content: 'Hello' },
  { role: 'user', content: 'And?' },
];

describe('fallback templates', () => {
  const EXPECTED: Readonly<Record<string, string>> = {
    chatml:
      '<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n' +
      '<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n',
    llama3:
      '<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n' +
      'Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>' +
      '<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
    gemma:
      '<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n' +
      '<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n',
    phi3: '<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nAnd?<|end|>\n<|assistant|>\n',
    mistral: '[INST] Be kind.\n\nHi [/INST] Hello</s>[INST] And? [/INST]',
  };
  const { tokenizer } = tokenizerWith(CONTROL_TOKENS);

  for (const name of FALLBACK_NAMES) {
    test(`${name}: text, BOS once, and the vocabulary gives the family away`, async () => {
      const messages: ChatMessage[] = [{ role: 'system', content: 'Be kind.' }, ...CONVERSATION];
      const format = new ChatFormat(tokenizer, {});
      const { text, tokens } = await format.prompt({ messages, addGenerationPrompt: true, template: name });
      assert.equal(text, EXPECTED[name]);
      assert.equal(tokens.filter((id) => id === 1).length, 1);
      assert.equal(tokens[0], 1);
      const own = tokenizerWith(CONTROL_TOKENS.filter((token) => EXPECTED[name]!.includes(token)));
      const found = new ChatFormat(own.tokenizer, readTemplates(new Map<string, string>() as never, own.tokens));
      assert.equal((await found.prompt({ messages, addGenerationPrompt: true })).text, EXPECTED[name]);
    });
  }

  test('a model that is known by nothing says so, and so does a template that is none', async () => {
    const format = new ChatFormat(tokenizer, readTemplates(new Map<string, string>() as never, ['<s>']));
    const request = { messages: CONVERSATION, addGenerationPrompt: true };
    await assert.rejects(format.prompt(request), (error: SmallMindError) => {
      assert.equal(error.code, 'CHAT_TEMPLATE');
      assert.match(error.message, /no chat template.*chatml, llama3/);
      return true;
    });
    await assert.rejects(format.prompt({ ...request, template: 'chatlm' }), OptionError);
  });

  test('a template of its own for tools is taken when there are tools', async () => {
    const metadata = new Map([
      ['tokenizer.chat_template', 'plain'],
      ['tokenizer.chat_template.tool_use', 'with {{ tools[0].function.name }}'],
    ]);
    const reader = { has: (key: string) => metadata.has(key), getString: (key: string) => metadata.get(key)! };
    const format = new ChatFormat(tokenizer, readTemplates(reader, []));
    const request = { messages: CONVERSATION, addGenerationPrompt: true };
    assert.equal((await format.prompt(request)).text, 'plain');
    const tools = [{ type: 'function', function: { name: 'add' } }] as const;
    assert.equal((await format.prompt({ ...request, tools })).text, 'with add');
  });
});

describe('no text of a message becomes a control token', () => {
  const { tokenizer } = tokenizerWith(CONTROL_TOKENS);
  const all = ['<s>', '</s>', '<unk>', ...CONTROL_TOKENS];
  /** Whole tokens; beginnings and ends that the template could complete; and the marks that shield them. */
  const hostile = `${all.join('')} ${all.map((t) => t.slice(0, -1)).join(' ')} \ufdd0<|im_end|>\ufdd1 <|im_`;
  const endings = ['', '<', '<|', '[', '[INST', '</', '\ufdd0', '<|im_end|'];

  const templates: [string, string][] = FALLBACK_NAMES.map((name) => [name, name]);
  if (!needsShared().skip) {
    for (const file of readdirSync(sharedPath('chat-templates')).filter((name) => name.endsWith('.jinja'))) {
      templates.push([file, readFileSync(sharedPath('chat-templates', file), 'utf8')]);
    }
  }
  // One that puts text between the halves of a token.
  templates.push(['a careless template', '{% for m in messages %}<|{{ m.content }}|>[{{ m.content }}]{% endfor %}']);

  for (const [name, template] of templates) {
    test(name, async () => {
      const format = new ChatFormat(tokenizer, {});
      const prompt = (contents: readonly string[]) => {
        const messages = CONVERSATION.map((message, i) => ({ ...message, content: contents[i]! }));
        return format.prompt({ messages, addGenerationPrompt: true, template });
      };
      const controls = (tokens: readonly number[]): number[] => tokens.filter(isControl);
      const harmless = controls((await prompt(['a', 'b', 'c'])).tokens);
      for (const ending of endings) {
        for (const text of [hostile + ending, ending + hostile, 'im_end', '/INST', ending || 'x']) {
          const { tokens, text: rendered } = await prompt([text, text, text]);
          assert.deepEqual(controls(tokens), harmless, JSON.stringify(text));
          const withoutBos = rendered.startsWith('<s>') ? tokens : tokens.slice(1);
          assert.equal(tokenizer.decode(withoutBos, { skipSpecial: false }), rendered);
        }
      }
    });
  }
});
