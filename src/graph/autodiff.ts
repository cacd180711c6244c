// Reverse-mode differentiation on the graph: appends, behind a scalar loss, the operations that compute its
// derivatives. What each operation contributes stands beside its forward in the operation table. The result is ordinary
// graph, so it is lowered, planned and executed like everything else.

import { assert } from '../base/errors.ts';
import { OPERATIONS } from './operations.ts';
import type { Graph, Tensor } from './tensor.ts';
import { elementsMax } from './tensor.ts';

export interface DifferentiationOptions {
  /** What the derivatives are multiplied by. Default 1. */
  readonly scale?: number;
  /**
   * Forward values that are computed a second time when the way back needs them, instead of being kept until then
   * (arXiv:1604.06174). What they are computed from is kept. Default: none.
   */
  readonly recomputes?: (node: Tensor) => boolean;
}

/**
 * Derivatives of `loss` (one element) by each tensor of `wrt`, in their order and shape.
 * @throws {SmallMindError} INTERNAL when an operation between them has no gradient, or the loss does not depend on one
 */
export function differentiate(
  graph: Graph,
  loss: Tensor,
  wrt: readonly Tensor[],
  { scale = 1, recomputes = () => false }: DifferentiationOptions = {},
): Tensor[] {
  assert(elementsMax(loss) === 1, `the loss "${loss.name}" must be one number`);
  const forward = graph.nodes.slice(0, loss.id + 1);
  const isWanted = dependents(forward, wrt);
  const again = new Recomputation(graph, recomputes);
  const gradients = new Map<Tensor, Tensor>();
  const shape = loss.shape as readonly number[];
  gradients.set(
    loss,
    graph.constant(`lossScale[${shape}] ${scale}`, shape, () => Float32Array.of(scale)),
  );

  for (const node of forward.reverse()) {
    const dOut = gradients.get(node);
    if (!dOut || !node.inputs.some((input) => isWanted.has(input))) continue;
    const { gradient } = OPERATIONS[node.op];
    assert(gradient, `operation "${node.op}" has no gradient`);
    gradient(graph, again.valueOf(node), dOut).forEach((d, i) => {
      const input = node.inputs[i]!;
      if (!d || !isWanted.has(input)) return;
      const known = gradients.get(input);
      gradients.set(input, known ? graph.apply('add', [known, d]) : d);
    });
  }
  return wrt.map((tensor) => {
    const d = gradients.get(tensor);
    assert(d, `the loss does not depend on "${tensor.name}"`);
    return d;
  });
}

/** Second evaluations of forward nodes. What turns out not to be needed is dropped by lowering. */
class Recomputation {
  readonly #graph: Graph;
  readonly #isChosen: (node: Tensor) => boolean;
  readonly #copies = new Map<Tensor, Tensor>();

  constructor(graph: Graph, isChosen: (node: Tensor) => boolean) {
    this.#graph = graph;
    this.#isChosen = isChosen;
  }

  /** The node, its operands as they are to be used on the way back. */
  valueOf(node: Tensor): Tensor {
    if (node.inputs.every((input) => this.#use(input) === input)) return this.#use(node);
    return this.#copy(node);
  }

  /** The node itself, or its copy if it is to be computed again. */
  #use(node: Tensor): Tensor {
    return node.inputs.length > 0 && this.#isChosen(node) ? this.#copy(node) : node;
  }

  #copy(node: Tensor): Tensor {
    let copy = this.#copies.get(node);
    if (!copy) {
      const inputs = node.inputs.map((input) => this.#use(input));
      copy = this.#graph.apply(node.op, inputs, node.params, `${node.name}.again`);
      this.#copies.set(node, copy);
    }
    return copy;
  }
}

/** The nodes that `wrt` enters into, `wrt` included. */
function dependents(nodes: readonly Tensor[], wrt: readonly Tensor[]): Set<Tensor> {
  const found = new Set<Tensor>(wrt);
  for (const node of nodes) if (node.inputs.some((input) => found.has(input))) found.add(node);
  return found;
}
