// Templates for files that bring none, by the control tokens that their vocabularies have. Each is the form that the
// models of its family were trained with, without tools.

interface Family {
  /** Tokens that give the family away: all of them are in the vocabulary. */
  readonly tokens: readonly string[];
  readonly template: string;
}

/** A turn for each message between markers: what most families have. ROLE in `opening` stands for its role. */
function turns(opening: string, closing: string): string {
  const open = (role: string): string => `'${opening.replace('ROLE', `' + ${role} + '`)}'`;
  return (
    `{% for message in messages %}{{ ${open('message.role')} + message.content + '${closing}' }}{% endfor %}` +
    `{% if add_generation_prompt %}{{ ${open("'assistant'")} }}{% endif %}`
  );
}

/** The system's words stand before the user's first. */
const withSystemInUser = (template: (words: string) => string): string =>
  "{% set ns = namespace(system='') %}{% for message in messages %}" +
  "{% if message.role == 'system' %}{% set ns.system = message.content + '\\n\\n' %}" +
  `${template('ns.system + message.content')}{% endif %}{% endfor %}`;

const FAMILIES: Readonly<Record<string, Family>> = {
  chatml: {
    tokens: ['<|im_start|>', '<|im_end|>'],
    template: turns('<|im_start|>ROLE\\n', '<|im_end|>\\n'),
  },
  llama3: {
    tokens: ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
    template: turns('<|start_header_id|>ROLE<|end_header_id|>\\n\\n', '<|eot_id|>'),
  },
  gemma: {
    tokens: ['<start_of_turn>', '<end_of_turn>'],
    template:
      withSystemInUser(
        (words) =>
          `{% elif message.role == 'user' %}{{ '<start_of_turn>user\\n' + ${words} + '<end_of_turn>\\n' }}` +
          "{% set ns.system = '' %}{% else %}{{ '<start_of_turn>model\\n' + message.content + '<end_of_turn>\\n' }}",
      ) + "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
  },
  phi3: {
    tokens: ['<|user|>', '<|assistant|>', '<|end|>'],
    template: turns('<|ROLE|>\\n', '<|end|>\\n'),
  },
  mistral: {
    tokens: ['[INST]', '[/INST]'],
    template: withSystemInUser(
      (words) =>
        `{% elif message.role == 'user' %}{{ '[INST] ' + ${words} + ' [/INST]' }}` +
        "{% set ns.system = '' %}{% else %}{{ ' ' + message.content + eos_token }}",
    ),
  },
};

/** Names of the templates that can be asked for. */
export const FALLBACK_NAMES: readonly string[] = Object.keys(FAMILIES);

/** The template of that name, if it is one. */
export function namedTemplate(name: string): string | undefined {
  return Object.hasOwn(FAMILIES, name) ? FAMILIES[name]!.template : undefined;
}

/** The template that fits a vocabulary, if one does. */
export function fallbackTemplate(tokens: readonly string[]): string | undefined {
  const known = new Set(tokens);
  return Object.values(FAMILIES).find((family) => family.tokens.every((token) => known.has(token)))?.template;
}
