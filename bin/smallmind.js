#!/usr/bin/env node
// The command. Plain JavaScript that any Node from 12 on can parse: it checks the version before anything modern is
// loaded, says what is needed, and hands over to the built CLI. It knows no command and no option.

import { existsSync } from 'node:fs';

const NEEDED = [22, 18];
const [major, minor] = process.versions.node.split('.').map(Number);
const main = new URL('../dist/cli/main.js', import.meta.url);

if (major < NEEDED[0] || (major === NEEDED[0] && minor < NEEDED[1])) {
  console.error(
    `smallmind needs Node >= ${NEEDED.join('.')}, got ${process.version}. Install a newer Node: https://nodejs.org`,
  );
  process.exitCode = 1;
} else if (!existsSync(main)) {
  console.error('smallmind is not built. In a checkout run: npm run build');
  process.exitCode = 1;
} else {
  import(main.href).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
