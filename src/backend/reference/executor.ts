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
import type { Value } from './value.ts';

export class ReferenceExecutor implements Executor {
  readonly description = 'reference (float64)';
  readonly nThreads = 1;
  readonly #graphs: readonly Graph[];
  readonly #weights: ReadonlyMap<string, Value>;
  readonly #state = new Map<string, Value>();
  readonly #inputs = new Map<string, Int32Array>();
  readonly #rowCounts = new Map<string, Int32Array>();
  readonly #values = new Map<Tensor, Value>();
  readonly #outputs: readonly (readonly Float32Array[])[];
  /** The graph that was run last. */
  #last: Graph;

  private constructor(graphs: readonly Graph[], weights: ReadonlyMap<string, Value>) {
    this.#graphs = graphs;
    this.#last = graphs[0]!;
    this.#weights = weights;
    this.#outputs = graphs.map((g) => g.outputs.map((node) => new Float32Array(elementsMax(node))));
    for (const node of graphs.flatMap((g) => g.nodes)) {
      for (const dim of node.shape) if (typeof dim !== 'number') this.#rowCounts.set(dim.name, new Int32Array(1));
      // Graphs may have inputs of different lengths under one name: the longest counts.
      if (node.op === 'input' && (this.#inputs.get(node.name)?.length ?? 0) < elementsMax(node)) {
        this.#inputs.set(node.name, new Int32Array(elementsMax(node)));
      }
      if (node.op === 'state' && !this.#state.has(node.name)) this.#state.set(node.name, emptyState(node));
    }
  }

  static async create(
    graphs: Graph | readonly Graph[],
    source: WeightSource,
    onProgress?: LoadProgress,
  ): Promise<ReferenceExecutor> {
    const all = [graphs].flat();
    const weightLeaves = all.flatMap((g) => g.nodes.filter((n) => n.op === 'weight'));
    const leaves = [...new Map(weightLeaves.map((n) => [n.name, n])).values()];
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
    return new ReferenceExecutor(all, weights);
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

  state(name: string): Float64Array {
    return known(this.#state, name).data;
  }

  run(program = 0): void {
    this.#values.clear();
    this.#last = this.#graphs[program]!;
    for (const node of this.#last.nodes) this.#values.set(node, this.#evaluate(node));
    this.#last.outputs.forEach((node, i) => this.#outputs[program]![i]!.set(known(this.#values, node).data));
  }

  output(index: number, program = 0): Float32Array {
    return this.#outputs[program]![index]!;
  }

  /** The value of any node of the last run, by name: for finding where two executors part. */
  value(name: string): Float64Array {
    const node = this.#last.nodes.find((n) => n.name === name);
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
      case 'view': {
        const { offset } = node.params;
        const base = known(this.#values, node.inputs[0]!).data;
        return {
          data: base.subarray(offset!, offset! + elementsMax(node)),
          rows: this.#rows(rowsOf(node)),
          columns: columnsOf(node),
        };
      }
      case 'constant': {
        const data = Float64Array.from(known(this.#last.constants, node.name)());
        return { data, rows: this.#rows(rowsOf(node)), columns: columnsOf(node) };
      }
      case 'input': {
        const [first, second] = node.shape;
        const [rows, columns] = second === undefined ? [1, this.#rows(first!)] : [this.#rows(first!), columnsOf(node)];
        const words = known(this.#inputs, node.name);
        const numbers = node.dtype === 'F32' ? new Float32Array(words.buffer) : words;
        const data = Float64Array.from(numbers.subarray(0, rows * columns));
        return { data, rows, columns };
      }
      default:
        return evaluateOperation(
          node.op,
          node.inputs.map((t) => known(this.#values, t)),
          node.params,
          node.shape.map((d) => this.#rows(d)),
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
