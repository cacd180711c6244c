// How one model wants its conversations: the templates of its file, one of a family that fits its vocabulary, or the
// caller's own; compiled once each.

import { OptionError, SmallMindError } from '../base/errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { fallbackTemplate, FALLBACK_NAMES, namedTemplate } from './fallbacks.ts';
import { renderPrompt } from './prompt.ts';
import type { ChatPrompt, PromptRequest } from './prompt.ts';
import { compileTemplate } from './template.ts';
import type { ChatTemplate } from './template.ts';

/** Jinja texts as files bring them. */
export interface TemplateSources {
  readonly default?: string;
  /** For conversations with tools, where the file has a template of its own for them. */
  readonly toolUse?: string;
}

/** What `readTemplates` needs of a file's metadata. */
interface MetadataReader {
  has(key: string): boolean;
  getString(key: string, fallback?: string): string;
}

const KEY = 'tokenizer.chat_template';

/** @param tokens  the vocabulary's, by which a file without templates may still be known */
export function readTemplates(metadata: MetadataReader, tokens: readonly string[]): TemplateSources {
  const read = (key: string): string | undefined => (metadata.has(key) ? metadata.getString(key) : undefined);
  return { default: read(KEY) ?? fallbackTemplate(tokens), toolUse: read(`${KEY}.tool_use`) };
}

/** A conversation and how to put it. */
export interface FormatRequest extends PromptRequest {
  /** Jinja text, or the name of a family, instead of the file's. */
  readonly template?: string;
}

export class ChatFormat {
  readonly #tokenizer: Tokenizer;
  readonly #sources: TemplateSources;
  readonly #compiled = new Map<string, Promise<ChatTemplate>>();

  constructor(tokenizer: Tokenizer, sources: TemplateSources) {
    this.#tokenizer = tokenizer;
    this.#sources = sources;
  }

  /** @throws {SmallMindError} CHAT_TEMPLATE for a model without one, and as `compileTemplate` and `render` */
  async prompt(request: FormatRequest): Promise<ChatPrompt> {
    const source = this.#sourceFor(request);
    let compiled = this.#compiled.get(source);
    if (!compiled) {
      // The caller's templates come one after the other; of each model there are at most two.
      if (this.#compiled.size >= COMPILED_MAX) this.#compiled.clear();
      this.#compiled.set(source, (compiled = compileTemplate(source)));
    }
    return renderPrompt(await compiled, this.#tokenizer, request);
  }

  #sourceFor({ template, tools }: FormatRequest): string {
    if (template !== undefined) return resolveTemplate(template);
    const { default: usual, toolUse } = this.#sources;
    const source = tools === undefined ? usual : (toolUse ?? usual);
    if (source !== undefined) return source;
    throw new SmallMindError(
      'CHAT_TEMPLATE',
      'the model brings no chat template, and its vocabulary is of no family that is known here: it may not be made ' +
        `for conversations. Give one with "template": ${FALLBACK_NAMES.join(', ')}, or Jinja text`,
    );
  }
}

const COMPILED_MAX = 16;

function resolveTemplate(template: string): string {
  const named = namedTemplate(template);
  if (named !== undefined) return named;
  if (/\{[{%]/.test(template)) return template;
  throw new OptionError(
    `"template" expected one of ${FALLBACK_NAMES.join(', ')}, or Jinja text, got ${JSON.stringify(template.slice(0, 60))}`,
    { option: 'template' },
  );
}
