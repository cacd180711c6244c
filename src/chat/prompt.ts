// From messages to the tokens of a prompt. Control tokens are read from what the template says and never from what the
// messages do: these are shielded before the template is rendered.

import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { ChatMessage, Json, Tool } from './messages.ts';
import type { ChatTemplate } from './template.ts';

export interface PromptRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly Tool[];
  /** Whether the prompt ends where an answer begins. */
  readonly addGenerationPrompt: boolean;
  /** Further variables of the template, like `enable_thinking`. */
  readonly templateOptions?: Readonly<Record<string, Json>>;
}

/** A conversation as the model reads it. */
export interface ChatPrompt {
  /** As the template renders it. */
  readonly text: string;
  /** With the model's BOS once, whether or not the template says it. */
  readonly tokens: readonly number[];
}

/** Fields whose values are words of the protocol: templates compare them. */
const PROTOCOL_FIELDS: ReadonlySet<string> = new Set(['role', 'type']);
const PROTOCOL_WORD = /^[\w-]{1,64}$/;

/** @throws {SmallMindError} CHAT_TEMPLATE as `ChatTemplate.render` */
export function renderPrompt(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  { messages, tools, addGenerationPrompt, templateOptions = {} }: PromptRequest,
): ChatPrompt {
  const mark = unusedCharacter(JSON.stringify([messages, tools, templateOptions]));
  const shielded = (value: unknown): unknown =>
    mapStrings(value, (text) => tokenizer.shield(text.replaceAll(mark, ''), mark));
  const spelled = (id: number | undefined): string =>
    id === undefined ? '' : new TextDecoder().decode(tokenizer.pieceBytes(id));
  const rendered = template.render({
    bos_token: spelled(tokenizer.bosId),
    eos_token: spelled(tokenizer.eosId),
    ...(shielded(templateOptions) as object),
    messages: shielded(messages),
    tools: tools === undefined ? null : shielded(tools),
    add_generation_prompt: addGenerationPrompt,
  });
  const tokens = tokenizer.encodeShielded(rendered, mark);
  if (tokenizer.addBos && tokens[0] !== tokenizer.bosId) tokens.unshift(tokenizer.bosId!);
  return { text: rendered.replaceAll(mark, ''), tokens };
}

/** One of Unicode's noncharacters, which are for such internal use; texts hold at most a few of them. */
function unusedCharacter(text: string): string {
  for (let unit = 0xfdd0; unit <= 0xfdef; unit++) {
    const character = String.fromCharCode(unit);
    if (!text.includes(character)) return character;
  }
  // Of a text that holds all of them, one is left out.
  return '\ufdd0';
}

/** A copy of plain values with every string changed, keys too, but for names and the words of the protocol. */
function mapStrings(value: unknown, change: (text: string) => string, key = ''): unknown {
  const isWord = (text: string): boolean => PROTOCOL_WORD.test(text);
  if (typeof value === 'string') return PROTOCOL_FIELDS.has(key) && isWord(value) ? value : change(value);
  if (Array.isArray(value)) return value.map((element) => mapStrings(element, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, element]) => [
      isWord(name) ? name : change(name),
      mapStrings(element, change, name),
    ]),
  );
}
