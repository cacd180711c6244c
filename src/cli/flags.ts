// The flags of the command line that are options of the library, as tables: how a model is loaded, and how the next
// token is chosen. The defaults that help texts show are the library's own.

import { resolveGenerateOptions } from '../options.ts';
import { collectNumbers, collectTexts, parseNumber } from './usage.ts';
import type { Flag } from './usage.ts';

const number = (flags: string, name: string, help: string): Flag => ({ flags, name, help, parse: parseNumber });

export const CONTEXT_FLAG = number('-c, --ctx <N>', 'nCtx', 'context in tokens (default: as trained, at most 4096)');

export const FIT_FLAG: Flag = {
  flags: '--fit',
  name: 'nCtx',
  help: 'the largest context that fits into free memory, at most as trained',
  parse: (text) => text,
  preset: 'fit',
};

export const KV_TYPE_FLAG: Flag = {
  flags: '--kv-type <TYPE>',
  name: 'kvType',
  help: 'type of the key-value cache: f16, f32 or q8_0 (half of f16) (default: f16)',
  parse: (text) => text.toUpperCase(),
};

export const LOAD_FLAGS: readonly Flag[] = [
  number('-t, --threads <N>', 'threads', 'threads that compute (default: fast cores, at most 8)'),
  CONTEXT_FLAG,
  FIT_FLAG,
  {
    flags: '--kernels <SET>',
    name: 'kernels',
    help: 'auto, relaxed, simd, strict (same bits on any machine) or reference (slow) (default: auto)',
    parse: (text) => text.toLowerCase(),
  },
  {
    flags: '--activations <TYPE>',
    name: 'activations',
    help: 'with quantised weights: q8 (fast) or f32 (exact) (default: q8)',
    parse: (text) => text.toLowerCase(),
  },
  KV_TYPE_FLAG,
];

const { sampler: defaults } = resolveGenerateOptions({});

const sampling = (flags: string, name: keyof typeof defaults, help: string): Flag =>
  number(flags, name, `${help} (default: ${defaults[name]})`);

export const SAMPLER_FLAGS: readonly Flag[] = [
  sampling('--temp <T>', 'temperature', 'temperature; 0 takes the most likely token'),
  sampling('--top-k <K>', 'topK', 'keep the K most likely tokens; 0 is off'),
  sampling('--top-p <P>', 'topP', 'keep the most likely tokens up to this probability; 1 is off'),
  sampling('--min-p <P>', 'minP', 'keep tokens at least P times as likely as the best; 0 is off'),
  sampling('--typical-p <P>', 'typicalP', 'keep tokens of typical surprise up to this probability; 1 is off'),
  sampling('--repeat-penalty <R>', 'repeatPenalty', 'penalty for recent tokens; 1 is off'),
  sampling('--repeat-last-n <N>', 'repeatLastN', 'how many recent tokens the penalties look at'),
  sampling('--frequency-penalty <F>', 'frequencyPenalty', 'penalty for each recent occurrence; 0 is off'),
  sampling('--presence-penalty <P>', 'presencePenalty', 'penalty for having occurred recently; 0 is off'),
  number('--seed <S>', 'seed', 'the same seed gives the same text (default: random)'),
];

export const LOGIT_BIAS_FLAG: Flag = {
  flags: '--logit-bias <ID=VALUE>',
  name: 'logitBias',
  help: 'make a token likelier (to 100) or less likely (to -100); -Infinity bans it; may be repeated',
  parse: collectNumbers,
};

export const MAX_TOKENS_FLAG = number('-n, --max-tokens <N>', 'maxTokens', 'tokens to generate at most');

/** What else ends a text before its time. */
export const END_FLAGS: readonly Flag[] = [
  number('--max-time <MS>', 'maxTimeMs', 'end after so many milliseconds (default: no limit)'),
  {
    flags: '--stop <TEXT>',
    name: 'stop',
    help: 'end where this text comes, and leave it out; up to 16 of them',
    parse: collectTexts,
  },
];

export const LENGTH_FLAGS: readonly Flag[] = [
  { ...MAX_TOKENS_FLAG, fallback: 512 },
  ...END_FLAGS,
  {
    flags: '--context-full <WHAT>',
    name: 'contextFull',
    help: 'stop, or shift: forget the older half of the text and go on (default: stop)',
    parse: (text) => text.toLowerCase(),
  },
  number('--context-keep <N>', 'contextKeep', 'tokens at the beginning that a shift leaves (default: 1)'),
  number('--logprobs <N>', 'logprobs', 'with --json: log-probabilities, and the N most likely tokens'),
];
