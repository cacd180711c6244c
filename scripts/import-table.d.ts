// Types of import-table.js for the tests. The script stays plain JavaScript, so that the linter loads it on any Node.

export const IMPORT_TABLE: Readonly<Record<string, readonly string[]>>;
export const PACKAGE_TABLE: Readonly<Record<string, readonly string[]>>;
export function judgeImport(file: string, specifier: string): string | undefined;
