// The proof that training works at all: nanoGPT's character model of tinyshakespeare, which in its published run of
// this configuration reaches a validation loss of 1.88 (https://github.com/karpathy/nanoGPT, "I only have a macbook").

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { spawnSync } from 'node:child_process';
import { needsShared, sharedPath } from '../shared-data.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'smallmind-shakespeare-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('2,000 steps on tinyshakespeare reach a validation loss of 1.88', needsShared(), (t) => {
  const config = join(ROOT, 'bench/tinyshakespeare.json');
  const data = sharedPath('text', 'tinyshakespeare.txt');
  const startMs = performance.now();
  const args = ['train', '--config', config, '--data', data, '--out', join(folder, 'run'), '--json'];
  const cli = ['--conditions=smallmind-source', join(ROOT, 'src/cli/main.ts'), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, cli, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const lines = readFileSync(join(folder, 'run', 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n');
  const last = JSON.parse(lines.at(-1)!) as { step: number; validationLoss: number };
  const seconds = (performance.now() - startMs) / 1000;
  t.diagnostic(
    `validation loss ${last.validationLoss.toFixed(4)} after ${last.step} steps and ${seconds.toFixed(0)} s`,
  );
  assert.equal(last.step, 2000);
  assert.ok(last.validationLoss <= 1.88, `${last.validationLoss}`);
  assert.equal(typeof JSON.parse(stdout).bestValidationLoss, 'number');
});
