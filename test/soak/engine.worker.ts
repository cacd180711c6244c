// The engine's worker with a scale in it: it weighs the heap between two pieces of text that it posts, early and late
// in each text, and posts how much heavier it got, in bytes a piece.

import { parentPort } from 'node:worker_threads';

const FIRST_PIECE = 50;
const LAST_PIECE = 650;

const port = parentPort!;
const post = port.postMessage.bind(port);
/** Heap used: early, late, and at once again, which is what weighing costs. */
const weights = new Float64Array(3);
let nPieces = 0;

port.postMessage = (message: { type: string }) => {
  post(message);
  nPieces = message.type === 'piece' ? nPieces + 1 : 0;
  if (nPieces === FIRST_PIECE) weights[0] = process.memoryUsage().heapUsed;
  if (nPieces !== LAST_PIECE) return;
  weights[1] = process.memoryUsage().heapUsed;
  weights[2] = process.memoryUsage().heapUsed;
  const [early, late, again] = weights as unknown as [number, number, number];
  post({ type: 'weighed', bytesPerPiece: (late - early - (again - late)) / (LAST_PIECE - FIRST_PIECE) });
};

await import('../../src/worker.ts');
