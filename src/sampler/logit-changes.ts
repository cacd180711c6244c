// What the caller changes in the model's logits before any other step sees them: functions of its own, then a bias for
// single tokens, then bans, which nothing can undo. These steps come first in the chain, where candidate i is token i.

import { OptionError, SmallMindError } from '../base/errors.ts';
import type { SamplerStep } from './candidates.ts';

/**
 * Changes logits in place, before each token is chosen.
 * @param logits  f64[nVocab], by token id; -Infinity forbids a token, NaN and Infinity are refused
 * @param tokens  the prompt and what was generated so far; valid during the call only
 */
export type LogitsProcessor = (logits: Float64Array, tokens: readonly number[]) => void;

export interface LogitChanges {
  readonly processors: readonly LogitsProcessor[];
  readonly biases: readonly (readonly [token: number, bias: number])[];
  readonly bannedTokens: readonly number[];
}

/**
 * The steps that are needed, in order; none where nothing is changed.
 * @throws {OptionError} for a token that the vocabulary does not have
 */
export function changeLogits({ processors, biases, bannedTokens }: LogitChanges, nVocab: number): SamplerStep[] {
  for (const [token] of biases) requireToken('logitBias', token, nVocab);
  for (const token of bannedTokens) requireToken('bannedTokens', token, nVocab);
  const steps: SamplerStep[] = [];
  if (processors.length > 0) steps.push(runProcessors(processors));
  const bans = bannedTokens.map((token) => [token, -Infinity] as const);
  if (biases.length + bans.length > 0) steps.push(addBiases([...biases, ...bans]));
  return steps;
}

function addBiases(entries: LogitChanges['biases']): SamplerStep {
  const ids = Int32Array.from(entries, ([token]) => token);
  const biases = Float64Array.from(entries, ([, bias]) => bias);
  return {
    name: 'logit-bias',
    apply({ logits }) {
      for (let i = 0; i < ids.length; i++) logits[ids[i]!] = logits[ids[i]!]! + biases[i]!;
    },
  };
}

function runProcessors(processors: readonly LogitsProcessor[]): SamplerStep {
  const tokens: number[] = [];
  return {
    name: 'logits-processors',
    apply({ logits }) {
      for (const process of processors) process(logits, tokens);
      const token = logits.findIndex((logit) => !(logit < Infinity));
      if (token >= 0) throw processorError(token, logits[token]!);
    },
    accept(token) {
      tokens.push(token);
    },
    reset() {
      tokens.length = 0;
    },
  };
}

function processorError(token: number, logit: number): SmallMindError {
  return new SmallMindError(
    'NUMERIC',
    `a logits processor made the logit of token ${token} ${logit}; ` +
      'it may give any number below Infinity, and -Infinity for a token that must not be chosen',
    { token, logit: String(logit) },
  );
}

function requireToken(option: string, token: number, nVocab: number): void {
  if (token < nVocab) return;
  throw new OptionError(`"${option}" expected token ids of 0..${nVocab - 1}, got ${token}`, { option, token });
}
