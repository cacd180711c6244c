// Lowering: rewrites a graph into what a backend says it runs best: fused operations, and activations quantised where
// its integer kernels want them. The reference executor never sees the result; conformance tests compare the two.

import type { DType } from '../base/dtype.ts';
import { writeModeOf } from './operations.ts';
import { Graph, columnsOf } from './tensor.ts';
import type { Tensor } from './tensor.ts';

/** What a backend can do, as far as rewriting is concerned. */
export interface LoweringRules {
  /** Has a fused silu(a)·b. */
  readonly siluMul: boolean;
  /** Wants the activations of a matmul with weights of this type quantised to 8 bits. */
  quantizesActivations(weights: DType): boolean;
}

/** Returns a new graph with the same leaves and outputs. Nodes that nothing reads are dropped. */
export function lower(graph: Graph, rules: LoweringRules): Graph {
  const nUses = countUses(graph);
  const lowered = new Graph();
  for (const [name, values] of graph.constants) lowered.constants.set(name, values);
  const image = new Map<Tensor, Tensor>();
  const quantized = new Map<Tensor, Tensor>();
  const at = (t: Tensor): Tensor => image.get(t)!;

  for (const node of graph.nodes) {
    if (isFusedAway(node, graph, nUses, rules)) continue;
    image.set(node, rewrite(node));
  }
  for (const output of graph.outputs) lowered.output(at(output));
  return lowered;

  function rewrite(node: Tensor): Tensor {
    const { op, inputs, params, name } = node;
    if (inputs.length === 0) return lowered.leaf(op as 'weight', name, node.dtype as DType, node.shape);
    if (op === 'mul' && rules.siluMul && inputs[0]!.op === 'silu' && nUses.get(inputs[0]!) === 1) {
      return lowered.apply('siluMul', [at(inputs[0]!.inputs[0]!), at(inputs[1]!)], {}, name);
    }
    // Only weights are packed; plain matrices have kernels of their own.
    const isPlain = inputs.every((t) => t.op !== 'weight');
    if (op === 'matmul' && isPlain) return lowered.apply('matmulNT', inputs.map(at), {}, name);
    if (op === 'embed' && isPlain) return lowered.apply('gatherRows', inputs.map(at), {}, name);
    if (op === 'matmul') return lowered.apply('matmul', [activation(inputs[0]!, inputs[1]!), at(inputs[1]!)], {}, name);
    return lowered.append({ op, inputs: inputs.map(at), params, shape: node.shape, dtype: node.dtype, name });
  }

  /** The operand of a matmul; quantised once for all matmuls that share it. */
  function activation(x: Tensor, weight: Tensor): Tensor {
    if (!rules.quantizesActivations(weight.dtype as DType) || columnsOf(x) % 32 !== 0) return at(x);
    let q = quantized.get(x);
    if (!q) {
      q = lowered.apply('quantize', [at(x)], {}, `${x.name}.q8`);
      quantized.set(x, q);
    }
    return q;
  }
}

/** Whether it changes memory that lasts over steps: such nodes live without a reader. */
function hasEffect({ op }: Tensor): boolean {
  const write = writeModeOf(op);
  return write === 'stateful' || write === 'accumulateKeep';
}

function countUses(graph: Graph): Map<Tensor, number> {
  const nUses = new Map<Tensor, number>();
  for (const node of [...graph.nodes].reverse()) {
    const isLive = graph.outputs.includes(node) || (nUses.get(node) ?? 0) > 0 || hasEffect(node);
    if (!isLive) continue;
    for (const input of node.inputs) nUses.set(input, (nUses.get(input) ?? 0) + 1);
  }
  for (const output of graph.outputs) nUses.set(output, (nUses.get(output) ?? 0) + 1);
  return nUses;
}

/** Dead nodes, and a silu that its only reader, a mul, takes in. */
function isFusedAway(node: Tensor, graph: Graph, nUses: Map<Tensor, number>, rules: LoweringRules): boolean {
  if (!nUses.get(node)) return !hasEffect(node);
  if (node.op !== 'silu' || !rules.siluMul || nUses.get(node) !== 1) return false;
  const reader = graph.nodes.find((n) => n.inputs.includes(node) && (nUses.has(n) || hasEffect(n)));
  return reader?.op === 'mul' && reader.inputs[0] === node;
}
