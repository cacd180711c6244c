// The messages between a model's handle and the engine's worker. Requests are numbered by the caller; every request
// gets any number of events and then exactly one answer. The worker may in turn ask for something of a source that
// cannot be posted.

import type { ErrorRecord } from './base/errors.ts';
import type { FormatRequest } from './chat/format.ts';
import type { ChatPrompt } from './chat/prompt.ts';
import type { EmbeddingInput } from './local-embedding.ts';
import type { LentSource, SourceAnswer, SourceQuestion } from './lent-source.ts';
import type {
  EmbeddingResult,
  GenerateResult,
  LoadProgressEvent,
  ModelInfo,
  ResolvedEmbedOptions,
  ResolvedGenerateOptions,
  ResolvedLoadOptions,
} from './options.ts';
import type { EncodeOptions } from './tokenizer/tokenizer.ts';

/** A source as it can be posted; one that is lent is read through questions. */
export type PostedSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'http'; readonly url: string }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array; readonly name: string }
  | { readonly kind: 'blob'; readonly blob: Blob; readonly name: string }
  | { readonly kind: 'lent'; readonly lent: LentSource };

/** Each request's arguments and answer. */
export interface Requests {
  load: { args: { source: PostedSource; options: ResolvedLoadOptions }; answer: { model: number; info: ModelInfo } };
  generate: {
    args: { model: number; prompt: string | readonly number[]; options: ResolvedGenerateOptions };
    answer: GenerateResult;
  };
  embed: {
    args: { model: number; texts: readonly EmbeddingInput[]; options: ResolvedEmbedOptions };
    answer: EmbeddingResult;
  };
  tokenize: { args: { model: number; text: string; options: EncodeOptions }; answer: number[] };
  detokenize: { args: { model: number; tokens: readonly number[] }; answer: string };
  prompt: { args: { model: number; request: FormatRequest }; answer: ChatPrompt };
  logits: { args: { model: number; tokens: readonly number[]; all: boolean }; answer: Float32Array };
  close: { args: { model: number }; answer: void };
}

export type RequestType = keyof Requests;

export type ToWorker =
  /** The first message, where memory can be shared: a word that counts all messages, each before it is posted. */
  | { readonly id: 0; readonly type: 'start'; readonly posted: Int32Array }
  | { [T in RequestType]: { readonly id: number; readonly type: T; readonly args: Requests[T]['args'] } }[RequestType]
  /** Ends the request early: a load or an embedding rejects, a generation finishes with the reason `abort`. */
  | { readonly id: number; readonly type: 'abort' }
  | { readonly id: number; readonly type: 'told'; readonly question: number; readonly answer: SourceAnswer };

export type FromWorker =
  | { readonly id: number; readonly type: 'answer'; readonly value: unknown }
  | { readonly id: number; readonly type: 'error'; readonly error: ErrorRecord }
  | { readonly id: number; readonly type: 'progress'; readonly progress: LoadProgressEvent }
  | { readonly id: number; readonly type: 'piece'; readonly text: string }
  /** Something of the load's lent source is needed; `question` numbers what is asked. */
  | { readonly id: number; readonly type: 'ask'; readonly question: number; readonly asked: SourceQuestion };
