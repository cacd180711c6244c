// Writes the hostile corpus as files, for other readers than ours: the hand-made files and mutants, with a manifest
// that says of each why it is there and, where that is known, what has to come of it.
//   npm run corpus -- FOLDER [COUNT [FIRST]]     mutants FIRST (0) to FIRST + COUNT (1000) - 1

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MALFORMED, UNSUPPORTED, wellFormed } from '../test/hostile/malformed-gguf.ts';
import { loadSeedFiles, makeMutant } from '../test/hostile/mutations.ts';

const [folder, count = '1000', first = '0'] = process.argv.slice(2);
if (folder === undefined) throw new Error('usage: npm run corpus -- FOLDER [COUNT [FIRST]]');
mkdirSync(folder, { recursive: true });

const manifest: { file: string; bytes: number; expect: 'accept' | 'reject' | 'either'; why: string }[] = [];
const write = (file: string, bytes: Uint8Array, expect: (typeof manifest)[number]['expect'], why: string): void => {
  writeFileSync(join(folder, file), bytes);
  manifest.push({ file, bytes: bytes.length, expect, why });
};

write('ok.gguf', wellFormed, 'accept', 'every value type, well-formed');
[...MALFORMED, ...UNSUPPORTED].forEach(([why, bytes, code], i) => {
  write(`bad-${String(i).padStart(3, '0')}.gguf`, bytes, 'reject', `${why} (${code})`);
});
const seeds = await loadSeedFiles();
for (let n = Number(first); n < Number(first) + Number(count); n++) {
  const { name, bytes } = makeMutant(seeds, n);
  write(`mutant-${String(n).padStart(6, '0')}.gguf`, bytes, 'either', name);
}
writeFileSync(join(folder, 'manifest.json'), `${JSON.stringify(manifest, undefined, 1)}\n`);
console.log(`${manifest.length} files in ${folder}`);
