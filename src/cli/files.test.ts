// Files are replaced whole or not at all, and errors say which file, why, and what to do.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readBytes, readText, writeFileAtomic } from './files.ts';

const folder = mkdtempSync(join(tmpdir(), 'smallmind-files-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('a file is replaced by what is written, and no other file stays', async () => {
  const path = join(folder, 'a.txt');
  writeFileAtomic(path, 'longer text');
  writeFileAtomic(path, Uint8Array.of(0xc3, 0xa9));
  assert.equal(await readText(path), 'é');
  assert.deepEqual([...(await readBytes(path))], [0xc3, 0xa9]);
  writeFileAtomic(path, '');
  assert.equal(readFileSync(path).length, 0);
  assert.deepEqual(readdirSync(folder), ['a.txt']);
});

test('a write that fails leaves nothing behind and changes nothing', () => {
  const taken = join(folder, 'taken');
  mkdirSync(join(taken, 'inside'), { recursive: true });
  assert.throws(() => writeFileAtomic(taken, 'text'), /taken could not be written: /);
  const nowhere = join(folder, 'none', 'a.txt');
  const message = /none\/a\.txt could not be written: the folder does not exist; make it first/;
  assert.throws(() => writeFileAtomic(nowhere, 'text'), { code: 'ENOENT', message });
  assert.ok(!readdirSync(folder).some((name) => name.endsWith('.tmp')));
  assert.deepEqual(readdirSync(taken), ['inside']);
});

test('a file that cannot be read is named, with what to do', async () => {
  const path = join(folder, 'none.txt');
  await assert.rejects(readBytes(path), { code: 'ENOENT', message: `${path}: no such file; check the path` });
  await assert.rejects(readText(folder), { code: 'EISDIR', message: `${folder}: this is a folder; name a file in it` });
});
