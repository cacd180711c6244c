// A value that somebody gave, in words for an error message: short whatever it is, and never an error itself.

const LENGTH_MAX = 80;

/** `"text"`, `5`, `5n`, `null`, `an array`, `an object`, `a function`. */
export function describeValue(value: unknown): string {
  if (typeof value === 'string') return `"${value.length > LENGTH_MAX ? `${value.slice(0, LENGTH_MAX)}…` : value}"`;
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'bigint') return `${value}n`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}
