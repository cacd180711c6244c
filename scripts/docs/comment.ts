// Doc comments as data: the text of a comment, its tags, and what it says of defaults. Links go to what the same page
// describes.

import type { JSDocableNode } from 'ts-morph';

export interface DocComment {
  /** Paragraphs, each on one line. */
  readonly text: string;
  /** Parameter → what it is. */
  readonly params: ReadonlyMap<string, string>;
  readonly returns: string;
  readonly throws: string;
  /** Programs, as they are written. */
  readonly examples: readonly string[];
  readonly isInternal: boolean;
}

const flow = (text: string): string =>
  text
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.replace(/\s+/g, ' ').trim())
    .join('\n\n')
    .trim();

export function readComment(node: JSDocableNode): DocComment {
  const raw = node.getJsDocs().at(-1)?.getInnerText() ?? '';
  const [text = '', ...tags] = raw.split(/(?:^|\n|\s)@(?=(?:param|returns|throws|example|internal|see)\b)/);
  const tagged = tags.map((tag) => /^(\w+)\s?([^]*)$/.exec(tag)!);
  const bodiesOf = (name: string): string[] => tagged.filter((tag) => tag[1] === name).map((tag) => tag[2]!);
  const params = bodiesOf('param').map((body): [string, string] => {
    const [, name, what] = /^\s*(\w+)\s+([^]*)$/.exec(body)!;
    return [name!, flow(what!)];
  });
  return {
    text: flow(text),
    params: new Map(params),
    returns: flow(bodiesOf('returns').join(' ')),
    throws: bodiesOf('throws').map(flow).join('; '),
    examples: bodiesOf('example').map((body) => body.trim()),
    isInternal: tagged.some((tag) => tag[1] === 'internal'),
  };
}

/** "Default 1." at the end of a sentence, apart from the rest. A full stop inside a number ends nothing. */
export function splitDefault(text: string): { rest: string; fallback: string } {
  const match = /(?:^|\s)Default:? ((?:[^.]|\.(?=\S))+)\.(?=\s|$)/.exec(text);
  if (!match) return { rest: text, fallback: '' };
  return { rest: (text.slice(0, match.index) + text.slice(match.index + match[0].length)).trim(), fallback: match[1]! };
}
