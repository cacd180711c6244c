// Reading over HTTP against a server on this machine: the bytes, few requests, and one clear error for whatever a
// server, the network or the caller does.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { beginRange, sendRange, serveRanges } from '../../test/range-server.ts';
import type { RangeServer } from '../../test/range-server.ts';
import type { ByteSource } from './byte-source.ts';
import { GgufError } from './errors.ts';
import { openHttp } from './http-source.ts';

const BYTES = Uint8Array.from({ length: 10_000 }, (_, i) => (i * 7) ^ (i >> 8));
const BLOCK = 1000;

let server: RangeServer;
/** Set by tests: how `/changing` answers. */
let respond: Parameters<typeof serveRanges>[0][string] = BYTES;
before(async () => {
  server = await serveRanges({
    '/file': BYTES,
    '/small': BYTES.subarray(0, 10),
    '/empty': new Uint8Array(0),
    '/changing': (request, response) => {
      if (typeof respond === 'function') respond(request, response);
      else sendRange(respond, request, response);
    },
  });
});
after(() => server[Symbol.asyncDispose]());

/** Tests are cut off by this much silence only where they are about silence: the machine may be busy. */
const open = (path: string, { signal, idleMsMax }: { signal?: AbortSignal; idleMsMax?: number } = {}) =>
  openHttp(`${server.url}${path}`, { blockBytes: BLOCK, signal, retryMs: 1, idleMsMax });
const IDLE_MS_MAX = 400;

async function read(source: ByteSource, offsetBytes: number, nBytes: number): Promise<Uint8Array> {
  const target = new Uint8Array(nBytes);
  await source.read(offsetBytes, target);
  return target;
}

/** What is asked for while `step` runs. */
async function rangesOf(step: () => Promise<unknown>): Promise<string[]> {
  const nBefore = server.ranges.length;
  await step();
  return server.ranges.slice(nBefore);
}

describe('a source over HTTP', () => {
  test('knows its size from the first request and gives every range', async () => {
    const source = await open('file');
    assert.equal(source.sizeBytes, BYTES.length);
    for (const [offset, n] of [
      [0, 1],
      [0, 999],
      [0, 1000],
      [990, 20],
      [995, 3010],
      [9999, 1],
      [0, 10_000],
      [5, 0],
      [10_000, 0],
    ] as const) {
      assert.deepEqual(await read(source, offset, n), BYTES.slice(offset, offset + n), `${offset}, ${n}`);
    }
    await source.close();
  });

  test('may be smaller than a block, or empty', async () => {
    const small = await open('small');
    assert.deepEqual(await read(small, 2, 8), BYTES.slice(2, 10));
    const empty = await open('empty');
    assert.equal(empty.sizeBytes, 0);
    await assert.rejects(read(empty, 0, 1), { code: 'GGUF_TRUNCATED' });
  });

  test('makes one request for what begins the file, and none for what it has', async () => {
    let source!: ByteSource;
    assert.deepEqual(await rangesOf(async () => (source = await open('file'))), ['bytes=0-999']);
    assert.deepEqual(await rangesOf(() => read(source, 0, 500)), []);
    assert.deepEqual(await rangesOf(() => read(source, 500, 500)), []);
    assert.deepEqual(await rangesOf(() => read(source, 900, 200)), ['bytes=1000-1999']);
    assert.deepEqual(await rangesOf(() => read(source, 1100, 700)), []);
  });

  test('fetches a large range at once, and of a last block what there is', async () => {
    const source = await open('file');
    assert.deepEqual(await rangesOf(() => read(source, 1500, 4000)), ['bytes=1500-5499']);
    assert.deepEqual(await rangesOf(() => read(source, 9990, 10)), ['bytes=9000-9999']);
  });

  test('fetches a block once for several who wait for it, and forgets those not used for long', async () => {
    const source = await open('file');
    const atOnce = () => Promise.all([read(source, 2000, 10), read(source, 2500, 10), read(source, 2990, 5)]);
    assert.deepEqual(await rangesOf(atOnce), ['bytes=2000-2999']);
    for (const at of [3000, 4000, 2000, 5000, 6000]) await read(source, at, 1);
    assert.deepEqual(await rangesOf(() => read(source, 2000, 1)), []);
    assert.deepEqual(await rangesOf(() => read(source, 3000, 1)), ['bytes=3000-3999']);
  });

  test('refuses to read beyond its end without asking', async () => {
    const source = await open('file');
    const ranges = await rangesOf(() => assert.rejects(read(source, 9999, 2), GgufError));
    assert.deepEqual(ranges, []);
  });

  test('tries again where a block could not be fetched', async () => {
    respond = BYTES;
    const source = await open('changing');
    respond = (_, response) => response.writeHead(503).end();
    await assert.rejects(read(source, 5000, 1), { code: 'FILE_UNREADABLE', message: /HTTP 503/ });
    respond = BYTES;
    assert.deepEqual(await read(source, 5000, 1), BYTES.slice(5000, 5001));
  });
});

type Answer = Exclude<Parameters<typeof serveRanges>[0][string], Uint8Array>;

/** Answers each request with the next of `answers`, and all that follow with the file. */
function inTurn(...answers: Answer[]): Answer {
  return (request, response) => {
    const answer = answers.shift();
    if (answer) answer(request, response);
    else sendRange(BYTES, request, response);
  };
}

const status =
  (code: number, headers: Record<string, string> = {}): Answer =>
  (_, response) =>
    response.writeHead(code, headers).end();

describe('what may pass is tried again', () => {
  const setbacks: Record<string, Answer> = {
    'a server that is busy': status(503),
    'too many requests': status(429, { 'retry-after': '0' }),
    'a connection that breaks': ({ socket }) => socket.destroy(),
    'a server that says nothing': () => {},
  };
  for (const [what, answer] of Object.entries(setbacks)) {
    test(`${what}, twice, at the beginning and later`, async () => {
      respond = inTurn(answer, answer);
      const source = await open('changing', { idleMsMax: IDLE_MS_MAX });
      respond = inTurn(answer, answer);
      assert.deepEqual(await read(source, 4000, 3000), BYTES.slice(4000, 7000));
      assert.deepEqual(await read(source, 1, 20), BYTES.slice(1, 21));
    });

    test(`${what}, not a fourth time`, async () => {
      respond = BYTES;
      const source = await open('changing', { idleMsMax: IDLE_MS_MAX });
      respond = inTurn(answer, answer, answer);
      const ranges = await rangesOf(() => assert.rejects(read(source, 4000, 3000), { code: 'FILE_UNREADABLE' }));
      assert.equal(ranges.length, 3);
    });
  }

  test('and goes on where it broke', async () => {
    respond = BYTES;
    const source = await open('changing');
    const breaking: Answer = (request, response) => {
      const { start } = beginRange(BYTES.length, request, response)!;
      response.write(BYTES.subarray(start, start + 700), () => setTimeout(() => response.destroy(), 20));
    };
    respond = inTurn(breaking, breaking);
    const ranges = await rangesOf(async () =>
      assert.deepEqual(await read(source, 4000, 3000), BYTES.slice(4000, 7000)),
    );
    assert.deepEqual(ranges, ['bytes=4000-6999', 'bytes=4700-6999', 'bytes=5400-6999']);
  });

  test('a server that trickles is waited for as long as bytes come', async () => {
    respond = BYTES;
    const source = await open('changing', { idleMsMax: IDLE_MS_MAX });
    respond = (request, response) => {
      const { start, end } = beginRange(BYTES.length, request, response)!;
      const send = (at: number): void => {
        response.write(BYTES.subarray(at, Math.min(end, at + 300)));
        if (at + 300 >= end) response.end();
        else setTimeout(() => send(at + 300), IDLE_MS_MAX / 4);
      };
      send(start);
    };
    const ranges = await rangesOf(async () =>
      assert.deepEqual(await read(source, 4000, 2000), BYTES.slice(4000, 6000)),
    );
    assert.equal(ranges.length, 1);
  });

  test('but not what is for good, nor after a wait that is too long', async () => {
    for (const answer of [status(404), status(403), status(503, { 'retry-after': '3600' })]) {
      respond = answer;
      assert.equal((await rangesOf(() => assert.rejects(open('changing')))).length, 1);
    }
  });

  test('as late as the server asks', async () => {
    respond = inTurn(status(429, { 'retry-after': '1' }));
    const startMs = performance.now();
    await open('changing');
    assert.ok(performance.now() - startMs >= 990);
  });

  test('not after the signal, at which the wait ends at once', async () => {
    const abort = new AbortController();
    respond = (_, response) => {
      status(503, { 'retry-after': '9' })(_, response);
      setTimeout(() => abort.abort('enough'), 20);
    };
    const startMs = performance.now();
    await assert.rejects(open('changing', { signal: abort.signal }), (error) => error === 'enough');
    assert.ok(performance.now() - startMs < 2000);
  });
});

test('a redirect is followed', async () => {
  respond = status(302, { location: '/file' });
  const source = await open('changing');
  assert.deepEqual(await read(source, 4000, 3000), BYTES.slice(4000, 7000));
});

describe('one clear error', () => {
  const cases: [what: string, respond: typeof respond, code: string, message: RegExp][] = [
    ['404', (_, r) => r.writeHead(404).end(), 'FILE_NOT_FOUND', /changing: no such file \(HTTP 404 Not Found\); check/],
    ['410', (_, r) => r.writeHead(410).end(), 'FILE_NOT_FOUND', /HTTP 410/],
    ['401', (_, r) => r.writeHead(401).end(), 'FILE_UNREADABLE', /HTTP 401.*an account/],
    ['403', (_, r) => r.writeHead(403).end(), 'FILE_UNREADABLE', /HTTP 403.*an account/],
    ['500', (_, r) => r.writeHead(500).end('x'.repeat(9000)), 'FILE_UNREADABLE', /HTTP 500.*later/],
    ['416 for a file that has bytes', (_, r) => r.writeHead(416, range('*/5')).end(), 'FILE_UNREADABLE', /HTTP 416/],
    ['no ranges', (_, r) => r.end(BYTES), 'UNSUPPORTED_FEATURE', /does not answer Range requests; fetch it whole/],
    ['no Content-Range', (_, r) => r.writeHead(206).end(), 'UNSUPPORTED_FEATURE', /Access-Control-Expose-Headers/],
    ['an unknown length', (_, r) => r.writeHead(206, range('0-9/*')).end(), 'UNSUPPORTED_FEATURE', /how long/],
    ['other bytes', (_, r) => r.writeHead(206, range('1-1000/9999')).end(), 'FILE_UNREADABLE', /got bytes 1-1000/],
    ['too few bytes', (_, r) => r.writeHead(206, range('0-999/9999')).end('x'), 'FILE_UNREADABLE', /sent 1 bytes/],
    ['no end of bytes', endless, 'FILE_UNREADABLE', /sent more than/],
    ['a connection that breaks', (request) => request.socket.destroy(), 'FILE_UNREADABLE', /could not be fetched \(/],
    ['one that breaks amid the bytes', breakAmid, 'FILE_UNREADABLE', /could not be fetched \(/],
  ];
  for (const [what, answer, code, message] of cases) {
    test(`for ${what}`, async () => {
      respond = answer;
      await assert.rejects(open('changing'), { code, message });
    });
  }

  test('for a server that is not there', async () => {
    const gone = await serveRanges({});
    await gone[Symbol.asyncDispose]();
    const message = /could not be fetched \(fetch failed: .*; check the address and the connection/;
    await assert.rejects(openHttp(gone.url, { retryMs: 1 }), { code: 'FILE_UNREADABLE', message });
  });

  for (const [header, first, second, isSame] of [
    ['etag', '"a"', '"b"', false],
    ['etag', 'W/"a"', 'W/"b"', true],
    ['last-modified', 'Mon, 05 Jan 2026 10:00:00 GMT', 'Tue, 06 Jan 2026 10:00:00 GMT', false],
  ] as const) {
    test(`for a file of the same size whose ${header} goes from ${first} to ${second}: ${isSame ? 'none' : 'one'}`, async () => {
      const said =
        (value: string): Answer =>
        (request, response) => {
          response.setHeader(header, value);
          sendRange(BYTES, request, response);
        };
      respond = said(first);
      const source = await open('changing');
      respond = said(second);
      const reading = read(source, 5000, 1);
      if (isSame) await reading;
      else await assert.rejects(reading, { code: 'FILE_UNREADABLE', message: /changed while it was read/ });
    });
  }

  test('for a file that changes while it is read', async () => {
    respond = BYTES;
    const source = await open('changing');
    respond = BYTES.subarray(0, 9000);
    await assert.rejects(read(source, 5000, 1), { code: 'FILE_UNREADABLE', message: /changed while it was read/ });
  });
});

describe('a read that never ends', () => {
  test('ends with the reason of the signal', async () => {
    respond = BYTES;
    const reason = { why: 'any' };
    const abort = new AbortController();
    const source = await open('changing', { signal: abort.signal });
    respond = () => {};
    const readings = [read(source, 5000, 1), read(source, 2000, 5000)];
    setTimeout(() => abort.abort(reason), 20);
    for (const reading of readings) await assert.rejects(reading, (error) => error === reason);
    await assert.rejects(open('changing', { signal: abort.signal }), (error) => error === reason);
  });

  test('ends when the source is closed', async () => {
    respond = BYTES;
    const source = await open('changing');
    respond = () => {};
    const reading = read(source, 5000, 1);
    await source.close();
    await assert.rejects(reading, { code: 'FILE_UNREADABLE', message: /closed/ });
  });
});

function range(value: string): Record<string, string> {
  return { 'content-range': `bytes ${value}` };
}

/** Sends until the connection is closed. */
function endless(_: unknown, response: import('node:http').ServerResponse): void {
  response.writeHead(206, range('0-999/9999'));
  const send = (): void => {
    if (response.destroyed) return;
    response.write(BYTES.subarray(0, 900), () => setImmediate(send));
  };
  send();
}

function breakAmid(_: unknown, response: import('node:http').ServerResponse): void {
  response.writeHead(206, { ...range('0-999/9999'), 'content-length': 1000 });
  response.write('x', () => response.destroy());
}
