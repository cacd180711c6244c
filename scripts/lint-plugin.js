// The import table as a lint rule: reports forbidden imports, re-exports, `import()` and import types, value or type
// alike, where they stand in the editor. Knows nothing of the table itself, which is in import-table.js.

import { relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { judgeImport } from './import-table.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const importTable = {
  create(/** @type {any} */ context) {
    const file = relative(ROOT, context.filename).split(sep).join('/');
    const check = (/** @type {any} */ node) => {
      // `export { x }` has no source, and the argument of `import()` may be computed.
      if (typeof node.source?.value !== 'string') return;
      const reason = judgeImport(file, node.source.value);
      if (reason !== undefined) context.report({ node: node.source, message: reason });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
      TSImportType: check,
    };
  },
};

export default { meta: { name: 'smallmind' }, rules: { 'import-table': importTable } };
