// An engine on an executor that computes nothing, for tests of what goes into each step and when texts end.

import assert from 'node:assert/strict';
import type { Executor } from '../src/backend/executor.ts';
import { Engine } from '../src/engine/engine.ts';
import type { EngineModel } from '../src/engine/engine.ts';
import type { EngineRequest, Sequence } from '../src/engine/sequence.ts';
import type { ProgramLimits } from '../src/graph/step.ts';
import { resolveSamplerOptions } from '../src/sampler/options.ts';
import { Sampler } from '../src/sampler/sampler.ts';

export const N_VOCAB = 50;
export const LIMITS: ProgramLimits = {
  nTokensMax: 8,
  nOutputMax: 4,
  nSeqMax: 3,
  nCtx: 100,
  nKvBlock: 12,
  kvDtype: 'F16',
};

/** One evaluated token: [sequence slot, position, token, cache row]. */
type Row = readonly [slot: number, position: number, token: number, cacheRow: number];

/**
 * Remembers each step. The logits of a row favour its token + 1, so that a greedy sequence counts upwards; a token with
 * an entry in `scripts` gets those logits instead.
 */
export class ScriptedExecutor implements Executor {
  readonly description = 'scripted';
  readonly nThreads = 1;
  readonly memoryBytes = 0;
  readonly steps: Row[][] = [];
  readonly outputRows: number[][] = [];
  /** Which program each step ran. */
  readonly ran: number[] = [];
  readonly scripts = new Map<number, number[]>();
  failure: Error | undefined;
  readonly #inputs = new Map<string, Int32Array>();
  readonly #counts = { nTokens: new Int32Array(1), nOutputs: new Int32Array(1) };
  readonly #logits: Float32Array;

  constructor(limits: ProgramLimits) {
    const nBlockPerSeq = Math.ceil(limits.nCtx / 32);
    for (const name of ['tokens', 'positions', 'lastSeen', 'sequences', 'kvSlots']) {
      this.#inputs.set(name, new Int32Array(limits.nTokensMax));
    }
    this.#inputs.set('outputRows', new Int32Array(limits.nOutputMax));
    this.#inputs.set('blockTables', new Int32Array(limits.nSeqMax * nBlockPerSeq));
    this.#logits = new Float32Array(limits.nOutputMax * N_VOCAB);
  }

  input(name: string): Int32Array {
    return this.#inputs.get(name)!;
  }

  rowCount(name: string): Int32Array {
    return this.#counts[name as 'nTokens' | 'nOutputs'];
  }

  state(): Float32Array {
    return this.#logits;
  }

  output(): Float32Array {
    return this.#logits;
  }

  run(program = 0): void {
    if (this.failure) throw this.failure;
    this.ran.push(program);
    const nTokens = this.#counts.nTokens[0]!;
    const at = (name: string, row: number): number => this.input(name)[row]!;
    const rows = Array.from({ length: nTokens }, (_, r): Row => {
      return [at('sequences', r), at('positions', r), at('tokens', r), at('kvSlots', r)];
    });
    const wanted = [...this.input('outputRows').subarray(0, this.#counts.nOutputs[0])];
    this.steps.push(rows);
    this.outputRows.push(wanted);
    wanted.forEach((row, i) => {
      const token = at('tokens', row);
      const logits = this.#logits.subarray(i * N_VOCAB, (i + 1) * N_VOCAB);
      logits.fill(0);
      logits[(token + 1) % N_VOCAB] = 5;
      const script = this.scripts.get(token);
      if (script) logits.set(script);
    });
  }

  async close(): Promise<void> {}
}

const modelOf = ({ nOutputMax }: ProgramLimits): EngineModel => ({
  nVocab: N_VOCAB,
  isCausal: true,
  outputs: [{ kind: 'logits', nRowsMax: nOutputMax, columns: N_VOCAB }],
});

export function start(limits: Partial<ProgramLimits> = {}): { engine: Engine; executor: ScriptedExecutor } {
  const all = { ...LIMITS, ...limits };
  const executor = new ScriptedExecutor(all);
  return { executor, engine: new Engine(executor, all, modelOf(all)) };
}

const greedy = (): Sampler => new Sampler(resolveSamplerOptions({ temperature: 0, seed: 1 }), N_VOCAB);

/** What became of a request. */
export interface Outcome {
  readonly sequence: Sequence;
  readonly tokens: number[];
  ended: string;
}

export function ask(
  engine: Engine,
  tokens: number[],
  nGenerateMax: number,
  more: Partial<EngineRequest> = {},
): Outcome {
  const generated: number[] = [];
  const outcome: Partial<Outcome> & { ended: string } = { tokens: generated, ended: 'no' };
  const sequence = engine.start({
    tokens,
    nGenerateMax,
    sampler: greedy(),
    onToken: (token) => void generated.push(token),
    onFinish: (reason) => void (outcome.ended += ` ${reason}`),
    onError: (error) => void (outcome.ended += ` ${(error as { code?: string }).code ?? String(error)}`),
    ...more,
  });
  return Object.assign(outcome, { sequence }) as Outcome;
}

export function runAll(engine: Engine, nStepsMax = 500): number {
  let nSteps = 0;
  while (engine.step()) assert.ok(++nSteps <= nStepsMax, 'the engine does not come to an end');
  return nSteps;
}

export const counting = (from: number, n: number): number[] => Array.from({ length: n }, (_, i) => from + i);
