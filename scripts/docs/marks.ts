// Generated parts of documents that are written by hand: they stand between `<!-- table NAME -->` and `<!-- end -->`.

export type Cells = readonly (readonly string[])[];

/** A Markdown table; the first row is its head. */
export function table([head, ...rows]: Cells): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head!), line(head!.map(() => '---')), ...rows.map(line)].join('\n');
}

/**
 * The document with the part at each mark written anew.
 * @param parts  name → Markdown. A mark with another name is an error
 */
export function fillMarks(document: string, parts: Readonly<Record<string, () => string>>): string {
  return document.replace(/(<!-- table (\w+) -->\n)[^]*?(<!-- end -->)/g, (_, begin: string, name: string, end) => {
    const write = parts[name];
    if (write === undefined) throw new Error(`there is no table "${name}"`);
    return `${begin}\n${write()}\n\n${end}`;
  });
}
