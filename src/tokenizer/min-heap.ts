// A priority queue of plain numbers over a typed array, for queues of millions of entries without an object each.
// Users pack what they need into one key: a priority times a stride, plus a position.

/** A binary heap that gives back its smallest key first; equal keys come back as often as they went in. */
export class MinHeap {
  readonly #keys: Float64Array;
  #size = 0;

  /** @param capacity  the most keys that are ever held at once; fixed */
  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity);
  }

  get size(): number {
    return this.#size;
  }

  push(key: number): void {
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  /** Removes the smallest key; the heap must not be empty. */
  pop(): number {
    const keys = this.#keys;
    const top = keys[0]!;
    const size = --this.#size;
    const last = keys[size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= last) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = last;
    return top;
  }
}
