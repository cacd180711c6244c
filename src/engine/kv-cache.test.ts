// The block bookkeeping: who holds what, what is found again, what is given up first. A model that remembers the text
// behind each block judges random histories.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KvCache } from './kv-cache.ts';

const BLOCK_SIZE = 2;

/** A text in the cache, as a sequence holds it. */
interface Held {
  readonly tokens: readonly number[];
  readonly blocks: Int32Array;
  nBlocks: number;
  /** Blocks that were found rather than allocated. */
  readonly nFound: number;
  /** Blocks that are published; -1: none may be any more. */
  nPublished: number;
}

/** Takes what is known of `tokens` and allocates the rest. */
function hold(cache: KvCache, tokens: readonly number[]): Held {
  const blocks = new Int32Array(Math.ceil(tokens.length / BLOCK_SIZE));
  const nFound = cache.acquirePrefix(tokens, tokens.length, blocks);
  let nBlocks = nFound;
  while (nBlocks < blocks.length) blocks[nBlocks++] = cache.allocate();
  return { tokens, blocks, nBlocks, nFound, nPublished: nFound };
}

const release = (cache: KvCache, { tokens, blocks, nBlocks }: Held, nTokens = tokens.length): void =>
  cache.release(tokens, nTokens, blocks, nBlocks);

/** Holds a text and gives it back, evaluated in full. */
function visit(cache: KvCache, tokens: readonly number[]): Held {
  const held = hold(cache, tokens);
  release(cache, held);
  return held;
}

const isFound = (cache: KvCache, tokens: readonly number[]): boolean => {
  const blocks = new Int32Array(tokens.length);
  const n = cache.acquirePrefix(tokens, tokens.length, blocks);
  cache.release(tokens, 0, blocks, n);
  return n * BLOCK_SIZE === tokens.length;
};

test('blocks that are held are all different, and there are no more than nBlock', () => {
  const cache = new KvCache(4, BLOCK_SIZE);
  const blocks = Array.from({ length: 4 }, () => cache.allocate());
  assert.deepEqual([...blocks].sort(), [0, 1, 2, 3]);
  assert.equal(cache.nAvailable, 0);
  assert.throws(() => cache.allocate(), { code: 'CONTEXT_FULL', message: /larger context/ });
});

test('full blocks of a text that has ended are found by the next one that begins alike', () => {
  const cache = new KvCache(8, BLOCK_SIZE);
  const first = visit(cache, [1, 2, 3, 4, 5]);
  assert.equal(cache.nAvailable, 8);
  const second = hold(cache, [1, 2, 3, 4, 9, 9]);
  assert.equal(second.nFound, 2);
  assert.deepEqual([...second.blocks.subarray(0, 2)], [...first.blocks.subarray(0, 2)]);
  assert.equal(hold(cache, [1, 2, 9, 4]).nFound, 1);
  assert.equal(hold(cache, [3, 4]).nFound, 0, 'the same tokens behind others are another text');
});

test('a text of which less was evaluated is found as far as that goes', () => {
  const cache = new KvCache(8, BLOCK_SIZE);
  release(cache, hold(cache, [1, 2, 3, 4]), 3);
  assert.equal(isFound(cache, [1, 2]), true);
  assert.equal(isFound(cache, [1, 2, 3, 4]), false);
});

test('token ids are told apart however they are written', () => {
  const cache = new KvCache(8, BLOCK_SIZE);
  visit(cache, [1, 23]);
  assert.equal(isFound(cache, [12, 3]), false);
  assert.equal(isFound(cache, [1, 23]), true);
});

test('a block that two sequences share is free only when both have given it back', () => {
  const cache = new KvCache(4, BLOCK_SIZE);
  visit(cache, [1, 2]);
  const [a, b] = [hold(cache, [1, 2]), hold(cache, [1, 2])];
  assert.equal(a.blocks[0], b.blocks[0]);
  assert.equal(cache.nAvailable, 3);
  release(cache, a);
  assert.equal(cache.nAvailable, 3);
  release(cache, b);
  assert.equal(cache.nAvailable, 4);
});

test('a block that is released twice is our own mistake', () => {
  const cache = new KvCache(4, BLOCK_SIZE);
  const held = hold(cache, [1, 2]);
  release(cache, held);
  assert.throws(() => release(cache, held), { code: 'INTERNAL', message: /released twice/ });
});

test('blocks that are published are found while their text still runs, and stay found after it', () => {
  const cache = new KvCache(6, BLOCK_SIZE);
  const held = hold(cache, [1, 2, 3, 4, 5, 6]);
  assert.equal(cache.publish(held.tokens, held.blocks, 0, 1), true);
  assert.deepEqual([isFound(cache, [1, 2]), isFound(cache, [1, 2, 3, 4])], [true, false]);
  assert.equal(cache.publish(held.tokens, held.blocks, 1, 2), true);
  assert.equal(isFound(cache, [1, 2, 3, 4]), true);
  assert.equal(cache.nAvailable, 3);
  release(cache, held);
  assert.equal(isFound(cache, [1, 2, 3, 4, 5, 6]), true);
});

test('a text whose blocks are known already in others publishes none, nor what follows', () => {
  const cache = new KvCache(6, BLOCK_SIZE);
  const [a, b] = [hold(cache, [1, 2, 3, 4]), hold(cache, [1, 2, 5, 6])];
  assert.equal(cache.publish(a.tokens, a.blocks, 0, 2), true);
  assert.equal(cache.publish(b.tokens, b.blocks, 0, 2), false);
  assert.equal(isFound(cache, [1, 2, 5, 6]), false);
});

test('what is forgotten is not found, is free unless it is held, and leads to nothing', () => {
  const cache = new KvCache(4, BLOCK_SIZE);
  visit(cache, [9, 9]);
  const held = hold(cache, [1, 2, 3, 4]);
  cache.publish(held.tokens, held.blocks, 0, 1);
  cache.forgetAll();
  assert.deepEqual([isFound(cache, [9, 9]), isFound(cache, [1, 2]), cache.nAvailable], [false, false, 2]);
  assert.equal(cache.publish(held.tokens, held.blocks, 1, 2), false, 'its beginning is not found');
  release(cache, held);
  assert.equal(isFound(cache, [1, 2, 3, 4]), true);
  assert.equal(cache.nAvailable, 4);
});

test('of two sequences that computed the same text, the first to end is found, and no block is lost', () => {
  const cache = new KvCache(4, BLOCK_SIZE);
  const [a, b] = [hold(cache, [1, 2, 3, 4]), hold(cache, [1, 2, 3, 4])];
  assert.notEqual(a.blocks[0], b.blocks[0]);
  release(cache, a);
  release(cache, b);
  assert.equal(cache.nAvailable, 4);
  assert.deepEqual(hold(cache, [1, 2, 3, 4]).blocks, a.blocks);
  assert.notEqual(cache.allocate(), cache.allocate());
});

test('when memory is needed, the text that was used longest ago goes first', () => {
  const cache = new KvCache(3, BLOCK_SIZE);
  for (const text of [
    [1, 1],
    [2, 2],
    [3, 3],
    [1, 1],
  ])
    visit(cache, text);
  visit(cache, [4, 4]);
  assert.deepEqual(
    [1, 2, 3, 4].map((t) => isFound(cache, [t, t])),
    [true, false, true, true],
  );
});

test('of a text, the end goes before the beginning', () => {
  const cache = new KvCache(3, BLOCK_SIZE);
  visit(cache, [1, 1, 2, 2, 3, 3]);
  cache.allocate();
  assert.equal(isFound(cache, [1, 1, 2, 2]), true);
  assert.equal(isFound(cache, [1, 1, 2, 2, 3, 3]), false);
});

test('what is held is never given up, whatever its age', () => {
  const cache = new KvCache(2, BLOCK_SIZE);
  visit(cache, [1, 1]);
  const held = hold(cache, [1, 1]);
  visit(cache, [2, 2]);
  assert.notEqual(cache.allocate(), held.blocks[0]);
  assert.throws(() => cache.allocate(), { code: 'CONTEXT_FULL' });
});

const histories = fc.array(
  fc.record({
    kind: fc.constantFrom('start', 'start', 'end', 'fail', 'publish', 'publish', 'forget'),
    tokens: fc.array(fc.integer({ min: 0, max: 1 }), { minLength: 1, maxLength: 9 }),
    which: fc.nat(),
    missing: fc.nat(3),
  }),
  { maxLength: 60 },
);

test('in any history, a block that is found holds exactly the text it is found by', () => {
  const nBlock = 7;
  const property = fc.property(histories, (history) => {
    const cache = new KvCache(nBlock, BLOCK_SIZE);
    /** What was evaluated into each block: its tokens and all before them, since keys depend on those. */
    const contents: (string | undefined)[] = Array.from({ length: nBlock });
    const live: Held[] = [];
    let hasForgotten = false;
    const holders = (block: number): number =>
      live.filter((h) => h.blocks.subarray(0, h.nBlocks).includes(block)).length;

    for (const { kind, tokens, which, missing } of history) {
      if (kind === 'start') {
        const blocks = new Int32Array(Math.ceil(tokens.length / BLOCK_SIZE));
        const nFound = cache.acquirePrefix(tokens, tokens.length, blocks);
        for (let i = 0; i < nFound; i++) {
          assert.equal(contents[blocks[i]!], String(tokens.slice(0, (i + 1) * BLOCK_SIZE)));
        }
        const held = { tokens, blocks, nBlocks: nFound, nFound, nPublished: nFound };
        live.push(held);
        while (held.nBlocks < blocks.length) {
          if (cache.nAvailable === 0) {
            assert.throws(() => cache.allocate(), { code: 'CONTEXT_FULL' });
            break;
          }
          const block = cache.allocate();
          assert.equal(holders(block), 0, `block ${block} is in use`);
          contents[block] = undefined;
          blocks[held.nBlocks++] = block;
        }
      } else if (kind === 'forget') {
        cache.forgetAll();
        hasForgotten = true;
        if (tokens.length >= BLOCK_SIZE) assert.equal(isFound(cache, tokens.slice(0, BLOCK_SIZE)), false);
      } else if (live.length > 0) {
        const held = live[which % live.length]!;
        // What its blocks have room for, less what was not evaluated; a failed one leaves nothing of its own.
        const nRoom = Math.min(held.tokens.length, held.nBlocks * BLOCK_SIZE);
        const nLeast = Math.max(held.nFound, held.nPublished) * BLOCK_SIZE;
        const nTokens = kind === 'fail' ? 0 : Math.max(nLeast, nRoom - missing);
        const nFull = Math.floor(nTokens / BLOCK_SIZE);
        for (let i = held.nFound; i < nFull; i++) {
          contents[held.blocks[i]!] = String(held.tokens.slice(0, (i + 1) * BLOCK_SIZE));
        }
        if (kind === 'publish') {
          if (held.nPublished < 0) continue;
          held.nPublished = cache.publish(held.tokens, held.blocks, held.nPublished, nFull) ? nFull : -1;
          continue;
        }
        live.splice(live.indexOf(held), 1);
        // Where another sequence computed the same and ended first, its blocks are found, and these end as unknown.
        const isFirst = !hasForgotten && !isFound(cache, held.tokens.slice(0, (held.nFound + 1) * BLOCK_SIZE));
        release(cache, held, nTokens);
        const known = held.tokens.slice(0, nTokens - (nTokens % BLOCK_SIZE));
        if (isFirst) assert.ok(isFound(cache, known), 'what just ended is found');
      }
      const nHeld = new Set(live.flatMap((h) => [...h.blocks.subarray(0, h.nBlocks)])).size;
      assert.equal(cache.nAvailable, nBlock - nHeld);
    }
  });
  fc.assert(property, { seed: 3, numRuns: 2000 });
});
