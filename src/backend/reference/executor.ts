// The reference executor: evaluates the unplanned, unfused graph in float64, a fresh array a node, every node kept by
// name until the next run. Slow and obviously right; it shares no planning, no layout and no kernel with what it
// judges.

import type { DType } from '../../base/dtype.ts';
import { SmallMindError, assert } from '../../base/errors.ts';
import type { Dim, Graph, Tensor } from '../../graph/tensor.ts';
import { columnsOf, elementsMax, rowsOf, sizeBytesMax } from '../../graph/tensor.ts';
import { dequantize } from '../../quant/codecs.ts';
import { requireFinite } from '../executor.ts';
import type { Executor, LoadProgress, WeightSource } from '../executor.ts';
import { evaluateOperation } from './operations.ts';
import type { Value } from './operations.ts';

export class ReferenceExecutor implements Executor {
  readonly description = 'reference (float64)';
  readonly nThreads = 1;
  readonly #graph: Graph;
  readonly #weights: ReadonlyMap<string, Value>;
  readonly #state = new Map<string, Value>();
  readonly #inputs = new Map<string, Int32Array>();
  readonly #rowCounts = new Map<string, Int32Array>();
  readonly #values = new Map<Tensor, Value>();
  readonly #outputs: readonly Float32Array[];

  private constructor(graph: Graph, weights: ReadonlyMap<string, Value>) {
    this.#graph = graph;
    this.#weights = weights;
    this.#outputs = graph.outputs.map((node) => new Float32Array(elementsMax(node)));
    for (const node of graph.nodes) {
      for (const dim of node.shape) if (typeof dim !== 'number') this.#rowCounts.set(dim.name, new Int32Array(1));
      if (node.op === 'input') this.#inputs.set(node.name, new Int32Array(elementsMax(node)));
      if (node.op === 'state') this.#state.set(node.name, emptyState(node));
    }
  }

  static async create(graph: Graph, source: WeightSource, onProgress?: LoadProgress): Promise<ReferenceExecutor> {
    const leaves = graph.nodes.filter((n) => n.op === 'weight');
    const weights = new Map<string, Value>();
    const totalBytes = leaves.reduce((sum, n) => sum + sizeBytesMax(n), 0);
    let doneBytes = 0;
    for (const leaf of leaves) {
      const bytes = new Uint8Array(sizeBytesMax(leaf));
      await source.read(leaf.name, 0, bytes);
      const values = dequantize(leaf.dtype as DType, bytes);
      requireFinite(leaf.name, values);
      const data = Float64Array.from(values);
      weights.set(leaf.name, { data, rows: rowsOf(leaf) as number, columns: columnsOf(leaf) });
      doneBytes += bytes.length;
      onProgress?.(doneBytes, totalBytes);
    }
    return new ReferenceExecutor(graph, weights);
  }

  get memoryBytes(): number {
    const all = [...this.#weights.values(), ...this.#state.values()];
    return all.reduce((sum, v) => sum + v.data.byteLength, 0);
  }

  input(name: string): Int32Array {
    return known(this.#inputs, name);
  }

  rowCount(name: string): Int32Array {
    return known(this.#rowCounts, name);
  }

  run(): void {
    this.#values.clear();
    for (const node of this.#graph.nodes) this.#values.set(node, this.#evaluate(node));
    this.#graph.outputs.forEach((node, i) => this.#outputs[i]!.set(known(this.#values, node).data));
  }

  output(index: number): Float32Array {
    return this.#outputs[index]!;
  }

  /** The value of any node of the last run, by name: for finding where two executors part. */
  value(name: string): Float64Array {
    const node = this.#graph.nodes.find((n) => n.name === name);
    if (!node) throw new SmallMindError('INTERNAL', `the graph has no node "${name}"`);
    return known(this.#values, node).data;
  }

  async close(): Promise<void> {
    this.#values.clear();
    this.#state.clear();
  }

  #rows(dim: Dim): number {
    return typeof dim === 'number' ? dim : this.#rowCounts.get(dim.name)![0]!;
  }

  #evaluate(node: Tensor): Value {
    switch (node.op) {
      case 'weight':
        return known(this.#weights, node.name);
      case 'state':
        return known(this.#state, node.name);
      case 'constant': {
        const data = Float64Array.from(known(this.#graph.constants, node.name));
        return { data, rows: this.#rows(rowsOf(node)), columns: columnsOf(node) };
      }
      case 'input': {
        const [first, second] = node.shape;
        const [rows, columns] = second === undefined ? [1, this.#rows(first!)] : [this.#rows(first!), columnsOf(node)];
        const data = Float64Array.from(this.#inputs.get(node.name)!.subarray(0, rows * columns));
        return { data, rows, columns };
      }
      default:
        return evaluateOperation(
          node.op,
          node.inputs.map((t) => known(this.#values, t)),
          node.params,
        );
    }
  }
}

function known<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const value = map.get(key);
  assert(value !== undefined, `unknown name ${typeof key === 'string' ? `"${key}"` : 'of a tensor'}`);
  return value;
}

function emptyState(leaf: Tensor): Value {
  return { data: new Float64Array(elementsMax(leaf)), rows: rowsOf(leaf) as number, columns: columnsOf(leaf) };
}
