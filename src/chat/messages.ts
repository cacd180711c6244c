// Messages of a conversation, in OpenAI's words, and their check at the door.

import { describeValue } from '../base/describe-value.ts';
import { OptionError } from '../base/errors.ts';

/** Plain values as JSON has them. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** What an assistant asks a tool for. */
export interface ToolCall {
  readonly id?: string;
  readonly type: 'function';
  /** `arguments` as an object: templates write it as JSON. */
  readonly function: { readonly name: string; readonly arguments: Json };
}

/** A message of a conversation. */
export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  /** What an assistant thought before it answered, for templates that know of it. */
  readonly reasoning_content?: string;
  /** Of an assistant: what it asks for. */
  readonly tool_calls?: readonly ToolCall[];
  /** Of a tool: which call it answers. */
  readonly tool_call_id?: string;
  readonly name?: string;
}

/** A function that the model may call; `parameters` is a JSON Schema. */
export interface Tool {
  readonly type: 'function';
  readonly function: { readonly name: string; readonly description?: string; readonly parameters?: Json };
}

const ROLES: readonly unknown[] = ['system', 'developer', 'user', 'assistant', 'tool'] satisfies ChatMessage['role'][];

/** @throws {OptionError} naming the first message that is none */
export function requireMessages(value: unknown): asserts value is readonly ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) refuse('messages', 'a list with at least one message', value);
  for (const [i, message] of value.entries()) requireMessage(`messages[${i}]`, message);
}

function requireMessage(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) return refuse(name, 'an object with role and content', value);
  const { role, content } = value as Partial<Record<keyof ChatMessage, unknown>>;
  if (!ROLES.includes(role)) refuse(`${name}.role`, `one of ${ROLES.join(', ')}`, role);
  if (typeof content !== 'string') refuse(`${name}.content`, 'a string', content);
}

function refuse(option: string, expected: string, value: unknown): never {
  throw new OptionError(`"${option}" expected ${expected}, got ${describeValue(value)}`, { option });
}
