// Models by URL on the command line: what a file gives, a URL gives; what the network does is one line and exit code 1.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { serveRanges } from '../range-server.ts';
import type { RangeServer } from '../range-server.ts';
import { runCommand, smallModel, writeScratch } from './command.ts';

const path = writeScratch('small.gguf', smallModel);
const textPath = writeScratch('text.txt', 'Once upon a time there was a model.');
let server: RangeServer;
before(async () => {
  server = await serveRanges({
    '/model.gguf': smallModel,
    '/whole.gguf': (_, response) => response.end(smallModel),
    '/forbidden.gguf': (_, response) => response.writeHead(403).end(),
  });
});
after(() => server[Symbol.asyncDispose]());

const COMMANDS: Readonly<Record<string, (model: string) => string[]>> = {
  run: (model) => ['run', model, '-p', 'a', '-n', '5', '--temp', '0', '--seed', '1', '--json'],
  inspect: (model) => ['inspect', model, '--json'],
  perplexity: (model) => ['perplexity', model, textPath, '--json'],
};

/** What does not depend on when and where. */
function factsOf(stdout: string): object {
  const { timings: _, seconds: __, source: ___, ...facts } = JSON.parse(stdout) as Record<string, unknown>;
  return facts;
}

for (const [name, argsOf] of Object.entries(COMMANDS)) {
  test(`${name} takes a URL, with a query, and says what it says of the file`, async () => {
    const [file, url] = await Promise.all([
      runCommand(argsOf(path)),
      runCommand(argsOf(`${server.url}model.gguf?download=true`)),
    ]);
    assert.deepEqual([url.code, url.stderr], [0, '']);
    assert.deepEqual(factsOf(url.stdout), factsOf(file.stdout));
  });

  for (const [file, says] of [
    ['none.gguf', /none\.gguf: no such file \(HTTP 404 Not Found\); check the address/],
    ['whole.gguf', /does not answer Range requests; fetch it whole/],
    ['forbidden.gguf', /HTTP 403.*with an account that may/],
  ] as const) {
    test(`${name}: ${file} is one clear line`, async () => {
      const { code, stdout, stderr } = await runCommand(argsOf(`${server.url}${file}`));
      assert.deepEqual([code, stdout], [1, '']);
      assert.match(stderr, says);
      assert.match(stderr, /^smallmind: [^\n]+\n$/);
    });
  }
}
