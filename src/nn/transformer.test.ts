// The whole model: its parameters, its configuration, and its derivatives against finite differences along random
// directions, on the reference executor in float64.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReferenceExecutor } from '../backend/reference/executor.ts';
import { Random } from '../base/random.ts';
import { differentiate } from '../graph/autodiff.ts';
import { Graph } from '../graph/tensor.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ParameterViews, initialize, layOutParameters } from '../training/parameters.ts';
import type { ParameterLayout } from '../training/parameters.ts';
import { DropoutRng } from './dropout.ts';
import { TransformerModel, transformerConfig } from './transformer.ts';
import type { TransformerConfig } from './transformer.ts';

const layoutOf = (config: TransformerConfig): ParameterLayout =>
  layOutParameters((scope) => void new TransformerModel(scope, config, new DropoutRng(scope.graph)));

const BENCHMARK = { architecture: 'gpt2', nVocab: 256, nCtx: 64, nEmbd: 128, nLayer: 2, nHead: 4 } as const;

test('the GPT-style configuration of the benchmark has 470,528 parameters in 29 tensors', () => {
  const { nParameters, parameters } = layoutOf(transformerConfig(BENCHMARK));
  assert.equal(nParameters, 470_528);
  assert.equal(parameters.length, 29);
});

test('parameters have the names and shapes of GGUF', () => {
  const small = { nVocab: 10, nCtx: 6, nEmbd: 8, nLayer: 1, nHead: 2 };
  const namesOf = (config: TransformerConfig): string[] =>
    layoutOf(config)
      .parameters.map(({ name, shape }) => `${name} ${shape.join('×')}`)
      .sort();
  assert.deepEqual(namesOf(transformerConfig({ ...small, architecture: 'gpt2' })), [
    'blk.0.attn_norm.bias 8',
    'blk.0.attn_norm.weight 8',
    'blk.0.attn_output.bias 8',
    'blk.0.attn_output.weight 8×8',
    'blk.0.attn_qkv.bias 24',
    'blk.0.attn_qkv.weight 24×8',
    'blk.0.ffn_down.bias 8',
    'blk.0.ffn_down.weight 8×32',
    'blk.0.ffn_norm.bias 8',
    'blk.0.ffn_norm.weight 8',
    'blk.0.ffn_up.bias 32',
    'blk.0.ffn_up.weight 32×8',
    'output.weight 10×8',
    'output_norm.bias 8',
    'output_norm.weight 8',
    'position_embd.weight 6×8',
    'token_embd.weight 10×8',
  ]);
  assert.deepEqual(namesOf(transformerConfig({ ...small, architecture: 'llama', nHeadKv: 1 })), [
    'blk.0.attn_k.weight 4×8',
    'blk.0.attn_norm.weight 8',
    'blk.0.attn_output.weight 8×8',
    'blk.0.attn_q.weight 8×8',
    'blk.0.attn_v.weight 4×8',
    'blk.0.ffn_down.weight 8×32',
    'blk.0.ffn_gate.weight 32×8',
    'blk.0.ffn_norm.weight 8',
    'blk.0.ffn_up.weight 32×8',
    'output_norm.weight 8',
    'token_embd.weight 10×8',
  ]);
});

test('configurations that do not divide, or are no sizes, are refused with what is wrong', () => {
  for (const [change, message] of [
    [{ nEmbd: 130 }, /"nEmbd" 130 is not a multiple of "nHead" 4/],
    [{ nHeadKv: 3 }, /"nHead" 4 is not a multiple of "nHeadKv" 3/],
    [{ nEmbd: 24 }, /heads are 6 wide/],
    [{ nVocab: 0 }, /"nVocab" expected a positive integer, got 0/],
    [{ nLayer: 1.5 }, /"nLayer" expected a positive integer, got 1.5/],
    [{ dropout: 1 }, /"dropout" expected .* below 1, got 1/],
    [{ dropout: NaN }, /"dropout"/],
  ] as const) {
    assert.throws(() => transformerConfig({ ...BENCHMARK, ...change }), { code: 'INVALID_OPTION', message });
  }
});

const SMALL = { nVocab: 7, nCtx: 6, nEmbd: 16, nLayer: 2, nFf: 12 };
const CONFIGS: Readonly<Record<string, TransformerConfig>> = {
  'gpt2 with dropout': transformerConfig({ ...SMALL, architecture: 'gpt2', nHead: 4, dropout: 0.2 }),
  'gpt2, tied': transformerConfig({ ...SMALL, architecture: 'gpt2', nHead: 2, isTied: true }),
  'llama with shared heads, tied, with dropout': transformerConfig({ ...SMALL, nHead: 4, nHeadKv: 2, dropout: 0.3 }),
  'llama, not tied': transformerConfig({ ...SMALL, nHead: 2, isTied: false }),
};
const [N_SEQ, N_POSITIONS] = [2, 5];

/** The loss of a model and its derivatives, over parameters far from their initial values. */
async function lossAndDerivatives(config: TransformerConfig) {
  const layout = layoutOf(config);
  const graph = new Graph();
  const views = new ParameterViews(graph, layout, 'parameters');
  const model = new TransformerModel(views.scope(), config, new DropoutRng(graph));
  const input = (name: string): Tensor => graph.leaf('input', name, 'I32', [N_SEQ * N_POSITIONS]);
  const logits = model.forward(input('tokens'), { nSeq: N_SEQ, positions: input('positions') });
  const losses = graph.apply('crossEntropy', [logits, input('targets')], { ignore: -1 });
  const loss = graph.apply('meanLoss', [losses, input('targets')], { ignore: -1 });
  const gradients = differentiate(
    graph,
    loss,
    layout.parameters.map(({ name }) => views.get(name)),
  );
  const executor = await ReferenceExecutor.create(graph, { read: () => Promise.reject(new Error('no weights')) });
  const random = new Random(31);
  for (const name of ['tokens', 'targets']) {
    executor.input(name).forEach((_, i, ids) => (ids[i] = random.uint32() % config.nVocab));
  }
  executor.input('targets')[3] = -1;
  executor.input('positions').forEach((_, i, positions) => (positions[i] = i % N_POSITIONS));
  if (config.dropout > 0) executor.input('rng').set([9, 0, 4, 0]);
  const state = executor.state('parameters') as Float64Array;
  initialize(layout, state, 1);
  state.forEach((x, i) => (state[i] = x + 0.3 * random.normal()));
  executor.run();
  const derivatives = gradients.map((g) => executor.value(g.name).slice());
  const lossNow = (): number => {
    executor.run();
    return executor.value(loss.name)[0]!;
  };
  return { layout, state, derivatives, lossNow };
}

for (const [name, config] of Object.entries(CONFIGS)) {
  test(`the derivatives of ${name} match finite differences, parameter by parameter`, async () => {
    const { layout, state, derivatives, lossNow } = await lossAndDerivatives(config);
    const random = new Random(77);
    layout.parameters.forEach(({ name: parameter, offset, size }, n) => {
      const values = state.subarray(offset, offset + size);
      const before = values.slice();
      // Two directions for all of its numbers at once, and single numbers.
      const directions = [0, 1].map(() => Float64Array.from(values, () => random.normal()));
      for (let i = 0; i < 3; i++) {
        const single = new Float64Array(size);
        single[random.uint32() % size] = 1;
        directions.push(single);
      }
      const scale = derivatives[n]!.reduce((max, d) => Math.max(max, Math.abs(d)), 0);
      assert.ok(scale > 1e-6, `${parameter} has no influence`);
      for (const direction of directions) {
        const h = 1e-5;
        const at = (step: number): number => {
          values.forEach((_, i) => (values[i] = before[i]! + step * direction[i]!));
          return lossNow();
        };
        const expected = (at(h) - at(-h)) / (2 * h);
        values.set(before);
        const actual = derivatives[n]!.reduce((sum, d, i) => sum + d * direction[i]!, 0);
        const length = Math.sqrt(direction.reduce((sum, d) => sum + d * d, 0));
        const isNear = Math.abs(actual - expected) <= 1e-6 * Math.max(scale * length, 1e-3);
        assert.ok(isNear, `${parameter}: expected ${expected}, got ${actual}`);
      }
    });
  });
}

test('no position looks at a later one, and no sequence at another', async () => {
  for (const config of Object.values(CONFIGS)) {
    const graph = new Graph();
    const layout = layoutOf(config);
    const model = new TransformerModel(
      new ParameterViews(graph, layout, 'parameters').scope(),
      config,
      new DropoutRng(graph),
    ).eval();
    const input = (name: string): Tensor => graph.leaf('input', name, 'I32', [N_SEQ * N_POSITIONS]);
    graph.output(model.forward(input('tokens'), { nSeq: N_SEQ, positions: input('positions') }));
    const executor = await ReferenceExecutor.create(graph, { read: () => Promise.reject(new Error('no weights')) });
    initialize(layout, executor.state('parameters'), 5);
    executor.input('positions').forEach((_, i, positions) => (positions[i] = i % N_POSITIONS));
    const tokens = executor.input('tokens');
    const logitsOf = (changed: number): number[] => {
      tokens.forEach((_, i) => (tokens[i] = i === changed ? 6 : (2 * i) % 5));
      executor.run();
      return [...executor.output(0)];
    };
    const before = logitsOf(-1);
    for (const changed of [0, 2, 4, 5, 9]) {
      const after = logitsOf(changed);
      const isChanged = Array.from({ length: N_SEQ * N_POSITIONS }, (_, row) => {
        const of = (logits: number[]): number[] => logits.slice(row * config.nVocab, (row + 1) * config.nVocab);
        return of(after).some((x, i) => x !== of(before)[i]);
      });
      const end = changed < N_POSITIONS ? N_POSITIONS : 2 * N_POSITIONS;
      assert.deepEqual(
        isChanged,
        isChanged.map((_, row) => row >= changed && row < end),
        `token ${changed}`,
      );
    }
  }
});
