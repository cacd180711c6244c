// The tokens of a vocabulary as a tree over UTF-16 units, for finding every token that begins at a place of a text. One
// hash table of numbers: a vocabulary of 250,000 tokens has a million nodes, which as objects would take 200 MB.

export const ROOT = 0;

export class Trie {
  /** Open addressing by (parent, unit); 0, which is no child, marks a free slot. */
  readonly #slots: Int32Array;
  readonly #parents: Int32Array;
  readonly #units: Uint16Array;
  /** The token that ends at a node, or -1. */
  readonly #ids: Int32Array;
  /** Odd. Nobody can write a vocabulary whose nodes all want the same slot without knowing it. */
  readonly #mix = Math.floor(Math.random() * 2 ** 32) | 1;
  #nNodes = 1;

  /** @param idOf  ids by text; the empty text never matches */
  constructor(idOf: ReadonlyMap<string, number>) {
    let nNodesMax = 1;
    for (const text of idOf.keys()) nNodesMax += text.length;
    this.#parents = new Int32Array(nNodesMax);
    this.#units = new Uint16Array(nNodesMax);
    this.#ids = new Int32Array(nNodesMax).fill(-1);
    this.#slots = new Int32Array(2 ** (32 - Math.clz32(2 * nNodesMax)));
    for (const [text, id] of idOf) {
      let node = ROOT;
      for (let i = 0; i < text.length; i++) node = this.#addChild(node, text.charCodeAt(i));
      if (node !== ROOT) this.#ids[node] = id;
    }
  }

  /** The node that `unit` leads to from `node`, or -1. */
  child(node: number, unit: number): number {
    const found = this.#slots[this.#findSlot(node, unit)]!;
    return found === 0 ? -1 : found;
  }

  /** The token that ends at `node`, or -1. */
  idAt(node: number): number {
    return this.#ids[node]!;
  }

  #addChild(node: number, unit: number): number {
    const slot = this.#findSlot(node, unit);
    const found = this.#slots[slot]!;
    if (found !== 0) return found;
    const child = this.#nNodes++;
    this.#parents[child] = node;
    this.#units[child] = unit;
    this.#slots[slot] = child;
    return child;
  }

  /** Where the child stands, or the free slot where it would. */
  #findSlot(node: number, unit: number): number {
    const mask = this.#slots.length - 1;
    const hash = Math.imul(node, 0x9e3779b1) + Math.imul(unit, this.#mix);
    for (let slot = (hash ^ (hash >>> 15)) & mask; ; slot = (slot + 1) & mask) {
      const child = this.#slots[slot]!;
      if (child === 0 || (this.#parents[child] === node && this.#units[child] === unit)) return slot;
    }
  }
}
