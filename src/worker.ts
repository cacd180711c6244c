// The engine's worker: holds the models and answers the requests of their handles. Between steps of a model it returns
// to its event loop when a message waits there, so that requests and aborts are heard while text is generated.

import { platform } from '#platform';
import type { ByteSource } from './base/byte-source.ts';
import { SmallMindError, closedError, toErrorRecord } from './base/errors.ts';
import { borrowSource } from './lent-source.ts';
import type { LentSource, SourceAnswer } from './lent-source.ts';
import { LocalModel } from './local-model.ts';
import { openSource } from './source.ts';
import type { FromWorker, RequestType, Requests, ToWorker } from './worker-protocol.ts';

const port = platform.parentPort()!;
const models = new Map<number, LocalModel>();
/** What `abort` does to the requests under way. */
const aborts = new Map<number, () => void>();
/** Questions to lenders of sources that wait for their answer. */
const questions = new Map<number, (answer: SourceAnswer) => void>();
/** Messages that the caller has posted; where memory cannot be shared it is not known. */
let posted: Int32Array | undefined;
let nReceived = 0;
/** Requests under way. */
let nRequests = 0;
let nextModel = 1;
let nextQuestion = 1;

type Handlers = { [T in RequestType]: (id: number, args: Requests[T]['args']) => Promise<Requests[T]['answer']> };

const handlers: Handlers = {
  async load(id, { source, options }) {
    const abort = new AbortController();
    const { signal } = abort;
    aborts.set(id, () => abort.abort(new SmallMindError('MODEL_CLOSED', 'loading was aborted')));
    const opened = await openSource(source, (lent) => borrow(id, lent), signal);
    const model = await LocalModel.load(opened, options, {
      onProgress: (progress) => send({ id, type: 'progress', progress }),
      isAborted: () => signal.aborted,
      pause,
    });
    if (signal.aborted) await model.close();
    signal.throwIfAborted();
    const number = nextModel++;
    models.set(number, model);
    return { model: number, info: model.info };
  },
  generate(id, { model, prompt, options }) {
    // One for all pieces: posting copies it.
    const piece = { id, type: 'piece' as const, text: '' };
    const run = modelOf(model).generate(prompt, options, (text) => {
      piece.text = text;
      send(piece);
    });
    aborts.set(id, () => run.abort());
    return run.result;
  },
  embed(id, { model, texts, options }) {
    const run = modelOf(model).embed(texts, options);
    aborts.set(id, () => run.abort());
    return run.result;
  },
  tokenize: async (_, { model, text, options }) => modelOf(model).tokenize(text, options),
  detokenize: async (_, { model, tokens }) => modelOf(model).detokenize(tokens),
  prompt: async (_, { model, request }) => modelOf(model).prompt(request),
  logits: async (_, { model, tokens, all }) => modelOf(model).logits(tokens, all),
  async close(_, { model }) {
    const closing = modelOf(model);
    models.delete(model);
    await closing.close();
  },
};

port.onMessage((message) => {
  nReceived++;
  const request = message as ToWorker;
  if (request.type === 'start') posted = request.posted;
  else if (request.type === 'abort') aborts.get(request.id)?.();
  else if (request.type === 'told') hear(request);
  else void answer(request);
});

async function answer({ id, type, args }: Extract<ToWorker, { args: unknown }>): Promise<void> {
  nRequests++;
  try {
    const handler = handlers[type] as (id: number, args: unknown) => Promise<unknown>;
    send({ id, type: 'answer', value: await handler(id, args) });
  } catch (error) {
    send({ id, type: 'error', error: toErrorRecord(error) });
  } finally {
    aborts.delete(id);
    nRequests--;
  }
}

/**
 * What a model waits for between steps. A single request that nobody disturbs goes on at once: a turn of the event loop
 * costs a kilobyte of heap.
 */
function pause(): Promise<void> | undefined {
  const isAlone = nRequests === 1 && posted !== undefined && Atomics.load(posted, 0) === nReceived;
  return isAlone ? undefined : platform.yieldToEvents();
}

function send(message: FromWorker): void {
  port.post(message);
}

function modelOf(number: number): LocalModel {
  const model = models.get(number);
  if (!model) throw closedError();
  return model;
}

/** A source that stays with the caller of request `id`. */
function borrow(id: number, lent: LentSource): ByteSource {
  return borrowSource(lent, (asked) => {
    const question = nextQuestion++;
    send({ id, type: 'ask', question, asked });
    return new Promise((resolve) => questions.set(question, resolve));
  });
}

function hear({ question, answer: said }: Extract<ToWorker, { type: 'told' }>): void {
  questions.get(question)?.(said);
  questions.delete(question);
}
