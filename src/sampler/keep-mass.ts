// What top-p and typical-p have in common: order the candidates by a key and keep the shortest run from the front whose
// probabilities reach a given sum. A weighted quickselect finds that run without sorting: about two passes over what is
// left, where a sort of 150,000 candidates would cost more than the model's layer. A sorted list stays sorted.

import type { Candidates } from './candidates.ts';

/**
 * Cuts `candidates` to the shortest prefix, by descending `keys` (of equal keys the lower id first), whose `probs` sum
 * to `mass` or more; with `isStrict`, to more than `mass`. Keeps at least one; `probs` are not normalised again.
 */
export function keepMass(candidates: Candidates, mass: number, isStrict: boolean): void {
  const { probs } = candidates;
  // Everything before `lo` is in the prefix and sums to `kept`; nothing from `hi` on is.
  let lo = 0;
  let hi = candidates.size;
  let kept = 0;
  while (hi - lo > 1) {
    const middle = partition(candidates, lo, hi);
    let sum = kept;
    for (let i = lo; i < middle; i++) sum += probs[i]!;
    if (isStrict ? sum > mass : sum >= mass) {
      hi = middle;
    } else {
      kept = sum;
      lo = middle;
    }
  }
  candidates.size = hi;
}

/**
 * Hoare's partition of [lo, hi), at least two entries: returns a split point strictly inside, before which all entries
 * are no worse than those after it. The order of an already sorted range does not change.
 */
function partition(candidates: Candidates, lo: number, hi: number): number {
  const { ids, keys } = candidates;
  // A scattered pivot, so that no simple shape of the logits makes this quadratic; never the last, so that it ends.
  const pivot = lo + ((Math.imul(lo + Math.imul(hi, 0x9e3779b1), 0x85ebca6b) >>> 8) % (hi - lo - 1));
  const key = keys[pivot]!;
  const id = ids[pivot]!;
  let i = lo - 1;
  let j = hi;
  for (;;) {
    do i++;
    while (keys[i]! > key || (key === keys[i]! && ids[i]! < id));
    do j--;
    while (keys[j]! < key || (key === keys[j]! && ids[j]! > id));
    if (i >= j) return j + 1;
    candidates.swap(i, j);
  }
}
