// Keeps the k candidates of greatest logit, best first; of equal logits the lower token id counts as better.
// One pass with a heap of k entries whose root is the worst of the kept: a vocabulary costs little more than being
// read.

import type { Candidates, SamplerStep } from './candidates.ts';

export function topK(k: number): SamplerStep {
  return { name: 'top-k', apply: (candidates) => keepBest(candidates, k) };
}

/** Cuts to the best `k` (at least 1), sorted best first; with no more than `k` candidates it changes nothing. */
function keepBest(candidates: Candidates, k: number): void {
  if (candidates.size <= k) return;
  sortBestFirst(candidates, k);
  candidates.size = k;
}

/** Brings the best `k` candidates, 1 <= k <= size, to the front, best first; the rest is no longer valid. */
export function sortBestFirst(candidates: Candidates, k: number): void {
  const { ids, logits, size } = candidates;
  for (let root = (k >> 1) - 1; root >= 0; root--) siftDown(candidates, root, k);
  let worst = logits[0]!;
  for (let i = k; i < size; i++) {
    const logit = logits[i]!;
    // Nearly always so, and the cheap half of what isWorse asks.
    if (logit < worst) continue;
    if (isWorse(logit, ids[i]!, worst, ids[0]!)) continue;
    ids[0] = ids[i]!;
    logits[0] = logit;
    siftDown(candidates, 0, k);
    worst = logits[0]!;
  }
  for (let end = k - 1; end > 0; end--) {
    candidates.swap(0, end);
    siftDown(candidates, 0, end);
  }
}

/** Restores the heap order (a parent is worse than its children) of the first `end` entries below `root`. */
function siftDown({ ids, logits }: Candidates, root: number, end: number): void {
  const id = ids[root]!;
  const logit = logits[root]!;
  let hole = root;
  for (let child = 2 * hole + 1; child < end; child = 2 * hole + 1) {
    const right = child + 1;
    if (right < end && isWorse(logits[right]!, ids[right]!, logits[child]!, ids[child]!)) child = right;
    if (isWorse(logit, id, logits[child]!, ids[child]!)) break;
    ids[hole] = ids[child]!;
    logits[hole] = logits[child]!;
    hole = child;
  }
  ids[hole] = id;
  logits[hole] = logit;
}

function isWorse(logitA: number, idA: number, logitB: number, idB: number): boolean {
  return logitA < logitB || (logitA === logitB && idA > idB);
}
