// Numbers and tables for people, in plain text that fits a terminal.

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1.8 MiB`; three digits at most, but for bytes. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < UNITS.length - 1; unit++) value /= 1024;
  return `${unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `292,800`. By hand: the first `toLocaleString` of a process takes 17 ms. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** `812`, `9.3`. */
export function formatRate(perSecond: number): string {
  return perSecond.toFixed(perSecond < 10 ? 1 : 0);
}

/** Without a rate where none was measured: decoding is timed from the first token on. */
export function describeRate(unit: string, count: number, perSecond: number): string {
  const rate = perSecond > 0 ? `, ${formatRate(perSecond)} tokens/s` : '';
  return `${count} ${unit}${count === 1 ? '' : 's'}${rate}`;
}

/** Lines of text without what would steer a terminal; tabs stay. */
export function withoutControls(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, '');
}

/** Text from a file on one line, harmless to a terminal: control characters are escaped. */
export function oneLine(text: string): string {
  const escape = (c: string): string => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll('\\"', '"')
    .replace(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, escape);
}

/** How many characters a line may have: 80 where the output is no terminal, or one that does not say (0 columns). */
export function widthOf({ columns }: { readonly columns?: number }): number {
  return columns === undefined || columns === 0 ? 80 : columns;
}

/** At most `width` characters; what is cut ends with an ellipsis. */
export function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** Rows of cells in columns, two spaces apart. Columns whose index is in `right` are set to the right. */
export function formatColumns(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  const align = (cell: string, i: number): string =>
    right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!);
  return rows.map((row) => row.map(align).join('  ').trimEnd());
}

/** Lines of at most `width` characters, broken at spaces. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
