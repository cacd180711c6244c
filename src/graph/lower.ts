// Lowering: rewrites a graph into what a backend says it runs best: fused operations, and activations quantised where
// its integer kernels want them. The reference executor never sees the result; conformance tests compare the two.

import type { DType } from '../base/dtype.ts';
import type { OpParams } from './operation.ts';
import { writeModeOf } from './operations.ts';
import { Graph, columnsOf } from './tensor.ts';
import type { ActivationDType, Tensor } from './tensor.ts';

/** What a backend can do, as far as rewriting is concerned. */
export interface LoweringRules {
  /** Has a fused silu(a)·b. */
  readonly siluMul: boolean;
  /** Its matmul of packed weights adds a bias or a residual stream to what it stores. */
  readonly matmulAdd: boolean;
  /** To what the activations of a matmul with weights of this type are quantised; undefined: left as they are. */
  activationType(weights: DType): ActivationDType | undefined;
}

/** Returns a new graph with the same leaves and outputs. Nodes that nothing reads are dropped. */
export function lower(graph: Graph, rules: LoweringRules): Graph {
  const nUses = countUses(graph);
  const lowered = new Graph();
  for (const [name, values] of graph.constants) lowered.constants.set(name, values);
  const fusions = findFusions(graph, nUses, rules);
  const readAs = quantizedUses(graph, nUses, rules);
  const image = new Map<Tensor, Tensor>();
  const quantized = { Q8A: new Map<Tensor, Tensor>(), Q8W: new Map<Tensor, Tensor>() };
  const at = (t: Tensor): Tensor => image.get(t)!;

  for (const node of graph.nodes) {
    if (isLive(node, nUses) && !fusions.absorbed.has(node)) image.set(node, rewrite(node));
  }
  for (const output of graph.outputs) lowered.output(at(output));
  return lowered;

  function rewrite(node: Tensor): Tensor {
    const { op, inputs, params, name } = node;
    if (inputs.length === 0) return lowered.leaf(op as 'weight', name, node.dtype as DType, node.shape);
    const fused = fusions.heads.get(node);
    if (op === 'rmsNorm') return applyQuantizing(node, op, inputs, params);
    if (fused?.op === 'siluMul') return applyQuantizing(node, fused.op, fused.inputs, {});
    if (fused) {
      const [x, weight, ...addends] = fused.inputs as [Tensor, Tensor, ...Tensor[]];
      return lowered.apply('matmul', [activation(x, weight), at(weight), ...addends.map(at)], {}, name);
    }
    if (op === 'expertMatmul') {
      const [x, weight, ids] = inputs as [Tensor, Tensor, Tensor];
      return lowered.apply(op, [activation(x, weight), at(weight), at(ids)], params, name);
    }
    // Only weights are packed; plain matrices have kernels of their own.
    if (op === 'matmul') return lowered.apply('matmulNT', inputs.map(at), {}, name);
    const isPlain = inputs.every((t) => t.op !== 'weight');
    if (op === 'embed' && isPlain) return lowered.apply('gatherRows', inputs.map(at), {}, name);
    return lowered.append({ op, inputs: inputs.map(at), params, shape: node.shape, dtype: node.dtype, name });
  }

  /** An operation that can store its result quantised, and does where nothing reads it otherwise. */
  function applyQuantizing(node: Tensor, op: 'rmsNorm' | 'siluMul', inputs: readonly Tensor[], params: OpParams) {
    const dtype = inputs.every((t) => op === 'rmsNorm' || !isRow(t)) ? readAs.get(node) : undefined;
    if (!dtype) return lowered.apply(op, inputs.map(at), params, node.name);
    const q = lowered.apply(op, inputs.map(at), { ...params, ...quantizedAs(dtype) }, `${node.name}.q8`);
    quantized[dtype].set(node, q);
    return q;
  }

  /** The operand of a matmul; quantised once for all matmuls that share it. */
  function activation(x: Tensor, weight: Tensor): Tensor {
    const dtype = activationTypeOf(weight, rules);
    if (!dtype) return at(x);
    let q = quantized[dtype].get(x);
    if (!q) {
      q = lowered.apply('quantize', [at(x)], quantizedAs(dtype), `${x.name}.q8`);
      quantized[dtype].set(x, q);
    }
    return q;
  }
}

const quantizedAs = (dtype: ActivationDType): OpParams => ({ quantized: dtype === 'Q8A' ? 1 : 2 });

/** The weight that multiplies operand 0. */
function packedOperand({ op, inputs }: Tensor): Tensor | undefined {
  const isProduct = op === 'matmul' || op === 'expertMatmul';
  return isProduct && inputs[1]!.op === 'weight' ? inputs[1] : undefined;
}

/** To what the other operand of a matmul with a weight is quantised, if it is. */
const activationTypeOf = (weight: Tensor, rules: LoweringRules): ActivationDType | undefined =>
  columnsOf(weight) % 32 === 0 ? rules.activationType(weight.dtype as DType) : undefined;

/** The type in which all readers of a node want it, where they agree: matmuls with weights of some types. */
function quantizedUses(
  graph: Graph,
  nUses: ReadonlyMap<Tensor, number>,
  rules: LoweringRules,
): ReadonlyMap<Tensor, ActivationDType | undefined> {
  const types = new Map<Tensor, ActivationDType | undefined>();
  const read = (t: Tensor, dtype?: ActivationDType): void => {
    types.set(t, types.has(t) && types.get(t) !== dtype ? undefined : dtype);
  };
  for (const node of graph.nodes) {
    if (!isLive(node, nUses)) continue;
    const weight = packedOperand(node);
    node.inputs.forEach((t, i) => read(t, weight && i === 0 ? activationTypeOf(weight, rules) : undefined));
  }
  for (const output of graph.outputs) read(output);
  return types;
}

/** An operation that computes a node and what the node alone reads. */
interface Fused {
  readonly op: 'siluMul' | 'matmul';
  readonly inputs: readonly Tensor[];
}

interface Fusions {
  /** The last node of each, with what takes its place. */
  readonly heads: ReadonlyMap<Tensor, Fused>;
  /** The other nodes, which have no image of their own. */
  readonly absorbed: ReadonlySet<Tensor>;
}

function findFusions(graph: Graph, nUses: ReadonlyMap<Tensor, number>, rules: LoweringRules): Fusions {
  const heads = new Map<Tensor, Fused>();
  const absorbed = new Set<Tensor>();
  const absorb = (head: Tensor, part: Tensor, fused: Fused): void => {
    heads.set(head, fused);
    heads.delete(part);
    absorbed.add(part);
  };
  for (const node of graph.nodes) {
    if (!isLive(node, nUses)) continue;
    const { op, inputs } = node;
    if (op === 'matmul' && packedOperand(node)) heads.set(node, { op: 'matmul', inputs });
    const part = inputs.find((t) => nUses.get(t) === 1 && isAbsorbed(node, t, heads.get(t), rules));
    if (!part) continue;
    const others = inputs.filter((t) => t !== part);
    if (op === 'mul') absorb(node, part, { op: 'siluMul', inputs: [part.inputs[0]!, ...others] });
    else absorb(node, part, { op: 'matmul', inputs: [...heads.get(part)!.inputs, ...others] });
  }
  return { heads, absorbed };
}

/** Whether `node` becomes one operation with its operand `part`, which it alone reads. */
function isAbsorbed(node: Tensor, part: Tensor, fused: Fused | undefined, rules: LoweringRules): boolean {
  if (node.op === 'mul') return rules.siluMul && part.op === 'silu' && node.inputs[0] === part;
  return node.op === 'add' && rules.matmulAdd && fused?.op === 'matmul' && fused.inputs.length < 4 && !isRow(part);
}

const isRow = (t: Tensor): boolean => t.shape.length === 1;

/** Whether it changes memory that lasts over steps: such nodes live without a reader. */
function hasEffect({ op }: Tensor): boolean {
  const write = writeModeOf(op);
  return write === 'stateful' || write === 'accumulateKeep';
}

const isLive = (node: Tensor, nUses: ReadonlyMap<Tensor, number>): boolean =>
  (nUses.get(node) ?? 0) > 0 || hasEffect(node);

/** How often each node's value is read, by outputs too; what nothing reads counts for nothing. */
function countUses(graph: Graph): Map<Tensor, number> {
  const nUses = new Map<Tensor, number>();
  const read = (t: Tensor): void => void nUses.set(t, (nUses.get(t) ?? 0) + 1);
  graph.outputs.forEach(read);
  for (const node of [...graph.nodes].reverse()) if (isLive(node, nUses)) node.inputs.forEach(read);
  return nUses;
}
