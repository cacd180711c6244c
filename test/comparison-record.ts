// What tests have compared with other programs, for docs/models.md: `npm run models` names a folder, and each suite
// that passed leaves a file with its records there. Without it, nothing is written. A record says what was in the files
// and what was run, not what was meant to be.

import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Models beside llama.cpp: logits, embeddings or texts of files that have these things in common. */
export interface ModelRecord {
  /** What the models are: `random weights`, or the name of a file. */
  readonly what: string;
  readonly architecture: string;
  /** That of most matrices, and all that occur. */
  readonly dtype: string;
  readonly dtypes: readonly string[];
  readonly kvType: string;
  /** As they ran, e.g. `relaxed`. */
  readonly kernels: readonly string[];
  readonly threads: readonly number[];
  readonly nModel: number;
  /** Tokens of the longest text, and the window of attention, where there is one. */
  readonly nTokens: number;
  readonly window?: number;
  readonly nPosition: number;
  /** Of these, those of texts whose beginning was in the cache, and how many such texts ran in one batch. */
  readonly nPositionReused?: number;
  readonly nTogether?: number;
  /** Positions at which llama.cpp's most likely token leads clearly, and those of them at which ours is the same. */
  readonly nDecided?: number;
  readonly nSame?: number;
  /** Root mean square of the difference from exact arithmetic. */
  readonly rms?: { readonly ours: number; readonly theirs: number };
}

/** Texts that became the same tokens. */
export interface TextRecord {
  /** `tokenizer.ggml.model` and `tokenizer.ggml.pre`. */
  readonly model: string;
  readonly preTokenizer?: string;
  readonly vocabulary: string;
  readonly nText: number;
}

/** Conversations that became the same text. */
export interface TemplateRecord {
  readonly template: string;
  readonly nConversation: number;
}

/** What a suite leaves. */
export interface SuiteRecord {
  /** What was compared with, and which version, e.g. `llama.cpp b1 (node-llama-cpp 2.3.4)`. */
  readonly peers: string[];
  readonly models: ModelRecord[];
  readonly texts: TextRecord[];
  readonly templates: TemplateRecord[];
}

const records: SuiteRecord = { peers: [], models: [], texts: [], templates: [] };
const folder = process.env['SMALLMIND_COMPARISONS'];
if (folder !== undefined) {
  process.on('exit', (code) => {
    if (code !== 0) return;
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${basename(process.argv[1]!, '.test.ts')}.json`), JSON.stringify(records));
  });
}

/** To be called when all that was asserted holds. */
export function recordComparison<Kind extends keyof SuiteRecord>(kind: Kind, record: SuiteRecord[Kind][number]): void {
  (records[kind] as SuiteRecord[Kind][number][]).push(record);
}
