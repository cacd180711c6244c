// Training: a model, its loss and the derivatives as one program, the optimiser's step as a second, evaluation as a
// third, over the same parameters. A trainer knows batches of token ids and numbers; files, progress and schedules are
// its caller's.

import { SmallMindError } from '../base/errors.ts';
import { pow } from '../base/math.ts';
import type { Executor } from '../backend/executor.ts';
import { differentiate } from '../graph/autodiff.ts';
import { HYPER } from '../graph/operations-training.ts';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import { DropoutRng } from '../nn/dropout.ts';
import { TransformerModel } from '../nn/transformer.ts';
import type { TransformerConfig } from '../nn/transformer.ts';
import { IGNORED_TARGET } from './data.ts';
import { ParameterViews, initialize, layOutParameters } from './parameters.ts';
import type { ParameterLayout } from './parameters.ts';

export interface BatchShape {
  /** Sequences in a batch. */
  readonly nSeq: number;
  /** Tokens of each. */
  readonly nPositions: number;
  /** Batches whose gradients are averaged for one step of the optimiser. */
  readonly nAccumulate: number;
}

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Gradients are scaled down to this norm; 0: not at all. */
  readonly maxNorm: number;
}

export const ADAMW_DEFAULTS: AdamWOptions = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** The programs of a training run, in the order in which the executor numbers them. */
const PROGRAM = { train: 0, update: 1, evaluate: 2 };

/** The graphs that a trainer's executor is made of. */
export interface TrainingPrograms {
  readonly graphs: readonly Graph[];
  readonly layout: ParameterLayout;
  readonly config: TransformerConfig;
  readonly batch: BatchShape;
}

export interface ProgramOptions {
  /**
   * Keeps only the blocks' outputs on the way forward and computes the rest again: less memory, about a third slower.
   */
  readonly recompute?: boolean;
}

/** What lies within a block; the residual stream between blocks is kept. */
const isWithinBlock = ({ name }: Tensor): boolean => name.startsWith('blk.') && !name.endsWith('.residual');

export function buildTrainingPrograms(
  config: TransformerConfig,
  batch: BatchShape,
  { recompute = false }: ProgramOptions = {},
): TrainingPrograms {
  const layout = layOutParameters((scope) => {
    void new TransformerModel(scope, config, new DropoutRng(scope.graph));
  });
  const train = lossGraph(config, batch, layout, true);
  const gradients = new ParameterViews(train.graph, layout, 'gradients');
  const views = layout.parameters.map(({ name }) => train.parameters.get(name));
  const options = { scale: 1 / batch.nAccumulate, recomputes: recompute ? isWithinBlock : undefined };
  differentiate(train.graph, train.loss, views, options).forEach((d, i) => {
    train.graph.apply('accumulateGradient', [gradients.get(layout.parameters[i]!.name), d]);
  });
  const evaluate = lossGraph(config, batch, layout, false);
  return { graphs: [train.graph, updateGraph(layout), evaluate.graph], layout, config, batch };
}

function lossGraph(
  config: TransformerConfig,
  { nSeq, nPositions }: BatchShape,
  layout: ParameterLayout,
  isTraining: boolean,
): { graph: Graph; loss: Tensor; parameters: ParameterViews } {
  const graph = new Graph();
  const parameters = new ParameterViews(graph, layout, 'parameters');
  const model = new TransformerModel(parameters.scope(), config, new DropoutRng(graph));
  if (!isTraining) model.eval();
  const input = (name: string): Tensor => graph.leaf('input', name, 'I32', [nSeq * nPositions]);
  const logits = model.forward(input('tokens'), { nSeq, positions: input('positions') });
  const targets = input('targets');
  const losses = graph.apply('crossEntropy', [logits, targets], { ignore: IGNORED_TARGET }, 'losses');
  const loss = graph.apply('meanLoss', [losses, targets], { ignore: IGNORED_TARGET }, 'loss');
  graph.output(loss);
  return { graph, loss, parameters };
}

function updateGraph(layout: ParameterLayout): Graph {
  const graph = new Graph();
  const state = (name: string): Tensor => graph.leaf('state', name, 'F32', [layout.size]);
  const gradients = state('gradients');
  const hyper = graph.leaf('input', 'hyper', 'F32', [Object.keys(HYPER).length]);
  const squares = graph.apply('sumSquares', [gradients], {}, 'squares');
  const operands = [state('parameters'), state('moment1'), state('moment2'), gradients, squares, hyper];
  graph.apply('adamW', operands, { nDecayed: layout.nDecayed });
  graph.output(squares);
  return graph;
}

/** What a step reports. */
export interface StepResult {
  /** Mean over the tokens of the batches, before the step. */
  readonly loss: number;
  readonly gradientNorm: number;
}

export class Trainer {
  readonly programs: TrainingPrograms;
  /** Token ids of a batch, i32[nSeq · nPositions]. */
  readonly inputs: Int32Array;
  /** The tokens that should follow; `IGNORED_TARGET` where none counts. */
  readonly targets: Int32Array;
  readonly #executor: Executor;
  readonly #hyper: Float32Array;
  readonly #rng: Int32Array;
  /** Steps of the optimiser taken so far. */
  step = 0;
  /** Of the dropout masks. */
  seed = 0;

  /** @param executor  made of `programs.graphs` */
  constructor(programs: TrainingPrograms, executor: Executor) {
    this.programs = programs;
    this.#executor = executor;
    this.inputs = executor.input('tokens');
    this.targets = executor.input('targets');
    const hyper = executor.input('hyper');
    this.#hyper = new Float32Array(hyper.buffer, hyper.byteOffset, hyper.length);
    this.#rng = programs.config.dropout > 0 ? executor.input('rng') : new Int32Array(4);
    const positions = executor.input('positions');
    for (let i = 0; i < positions.length; i++) positions[i] = i % programs.batch.nPositions;
  }

  /** One of the flat arrays of the training state, to be saved, restored or exported. */
  state(name: 'parameters' | 'moment1' | 'moment2'): Float32Array | Float64Array {
    return this.#executor.state(name);
  }

  /** Values of a parameter, row-major, as a view of the state. */
  parameter(name: string): Float32Array | Float64Array {
    const { offset, size } = this.programs.layout.parameters.find((p) => p.name === name)!;
    return this.state('parameters').subarray(offset, offset + size);
  }

  /** Starts anew: initial parameters, no moments, step 0. */
  initialize(seed: number): void {
    this.seed = seed;
    this.step = 0;
    initialize(this.programs.layout, this.state('parameters'), seed);
    this.state('moment1').fill(0);
    this.state('moment2').fill(0);
    this.#executor.state('gradients').fill(0);
  }

  /**
   * One step of the optimiser. When it fails, whatever the reason, parameters and moments are as they were.
   * @param nextBatch  fills inputs and targets, called `nAccumulate` times
   * @throws {SmallMindError} NUMERIC when the loss or the gradient's norm is NaN or infinite
   */
  train(
    nextBatch: (inputs: Int32Array, targets: Int32Array) => void,
    learningRate: number,
    options: AdamWOptions = ADAMW_DEFAULTS,
  ): StepResult {
    try {
      const loss = this.#accumulate(nextBatch);
      this.#expectFinite('loss', loss);
      this.#setHyper(learningRate, options);
      this.#executor.run(PROGRAM.update);
      const squares = this.#executor.output(0, PROGRAM.update);
      // Summed in f32, as the optimiser does, so that both mean the same numbers to be finite.
      const gradientNorm = Math.sqrt(squares.reduce((sum, s) => Math.fround(sum + s), 0));
      this.#expectFinite("gradient's norm", gradientNorm);
      this.step++;
      return { loss, gradientNorm };
    } catch (error) {
      // What was accumulated must not enter the next step.
      this.#executor.state('gradients').fill(0);
      throw error;
    }
  }

  /** Loss of the batch in `inputs` and `targets`, without dropout. */
  evaluate(): number {
    this.#checkBatch();
    this.#executor.run(PROGRAM.evaluate);
    return this.#executor.output(0, PROGRAM.evaluate)[0]!;
  }

  /** Adds up the gradients of a step's batches. @returns the mean of their losses */
  #accumulate(nextBatch: (inputs: Int32Array, targets: Int32Array) => void): number {
    const { nAccumulate } = this.programs.batch;
    let loss = 0;
    for (let i = 0; i < nAccumulate; i++) {
      nextBatch(this.inputs, this.targets);
      this.#checkBatch();
      this.#rng[0] = this.seed;
      this.#rng[2] = this.step * nAccumulate + i;
      this.#executor.run(PROGRAM.train);
      loss += this.#executor.output(0, PROGRAM.train)[0]! / nAccumulate;
    }
    return loss;
  }

  #expectFinite(what: string, value: number): void {
    if (Number.isFinite(value)) return;
    const step = this.step + 1;
    throw new SmallMindError('NUMERIC', `the ${what} became ${value} at step ${step}; lower the learning rate`, {
      step,
    });
  }

  #setHyper(learningRate: number, { beta1, beta2, eps, weightDecay, maxNorm }: AdamWOptions): void {
    const t = this.step + 1;
    const correction = { correction1: 1 - pow(beta1, t), correction2: 1 - pow(beta2, t) };
    const values = { learningRate, beta1, beta2, eps, weightDecay, maxNorm, ...correction };
    for (const [name, value] of Object.entries(values)) this.#hyper[HYPER[name as keyof typeof HYPER]] = value;
  }

  /** Ids reach the kernels as addresses: none may be out of range. */
  #checkBatch(): void {
    const { nVocab } = this.programs.config;
    for (let i = 0; i < this.inputs.length; i++) {
      const [input, target] = [this.inputs[i]!, this.targets[i]!];
      const isInputValid = input >= 0 && input < nVocab;
      if (isInputValid && target >= IGNORED_TARGET && target < nVocab) continue;
      const id = isInputValid ? target : input;
      throw new SmallMindError('INVALID_OPTION', `token ${id} of the data is outside the vocabulary of ${nVocab}`, {
        id,
      });
    }
  }
}
