// What must hold in every JavaScript runtime, as a program that imports the installed package and nothing of a test
// framework: it tries each thing, prints one JSON line with what came out, and then has to end by itself.
//   RUNTIME suite.ts TASK   where TASK is a SuiteTask as JSON

import { readFile } from 'node:fs/promises';
import { argv, stdout } from 'node:process';
import { Worker } from 'node:worker_threads';
import { GgufError, SmallMindError, cosineSimilarity, diagnose, enableWideVectors, loadModel } from 'smallmind';
import type { LoadOptions, Model, ModelSource } from 'smallmind';
import { evaluatePerplexity } from 'smallmind/eval';
import { readGguf } from 'smallmind/gguf';
import { storiesModel } from 'smallmind/stories';
import { openTraining } from 'smallmind/training';

export interface SuiteTask {
  /** `suite`: all checks. `idle`: leaves a model open. `awaited`: nothing but a text under way keeps the process. */
  readonly kind: 'suite' | 'idle' | 'awaited';
  /** Paths: a model, a part of it, and where nothing is. */
  readonly model: string;
  readonly truncated: string;
  readonly missing: string;
  /** A path, too: a model that only makes embeddings. */
  readonly encoder: string;
  readonly prompt: string;
  /** What the model says after the prompt at temperature 0, or its beginning. */
  readonly greedy: string;
}

export interface SuiteReport {
  readonly engine: string;
  readonly dot: string;
  /** The executor of the first model in words. */
  readonly executor: string;
  readonly sharedMemory: boolean;
  readonly memory64: boolean;
  readonly wideVectors: boolean;
  /** Of logits and texts that must have the same bits in every runtime. */
  readonly bits: string;
  /** By name: what went wrong, or null. */
  readonly checks: Readonly<Record<string, string | null>>;
}

const N_GENERATE = 48;
const { kind, model: path, truncated, missing, encoder, prompt, greedy } = JSON.parse(argv.at(-1)!) as SuiteTask;
const checks: Record<string, string | null> = {};
/** FNV-1a over everything that must be the same everywhere. */
let bits = 0xcbf29ce484222325n;

function addBits(bytes: Uint8Array): void {
  for (const byte of bytes) bits = BigInt.asUintN(64, (bits ^ BigInt(byte)) * 0x100000001b3n);
}

function expect(what: string, actual: unknown, expected: unknown): void {
  const [got, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (got !== wanted) throw new Error(`${what}: expected ${wanted}, got ${got}`);
}

async function check(name: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
    checks[name] = null;
  } catch (error) {
    checks[name] = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
}

/** What `promise` is rejected with. */
async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error('it was not rejected'),
    (error: unknown) => error,
  );
}

/** Node 22 does not know `await using`. */
async function withModel<T>(
  options: LoadOptions,
  body: (model: Model) => Promise<T>,
  source: ModelSource = path,
): Promise<T> {
  const model = await loadModel(source, options);
  try {
    return await body(model);
  } finally {
    await model.close();
  }
}

async function expectGreedy(model: Model): Promise<void> {
  const { text } = await model.generate(prompt, { maxTokens: N_GENERATE, temperature: 0 }).result;
  expect('text', text.slice(0, greedy.length), greedy);
}

/** The workers that something is posted to from now on. */
function watchWorkers(): Worker[] {
  const workers: Worker[] = [];
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (this: Worker, ...args: Parameters<typeof postMessage>) {
    if (!workers.includes(this)) workers.push(this);
    postMessage.apply(this, args);
  };
  return workers;
}

async function strictLogits(options: LoadOptions): Promise<Uint8Array> {
  return withModel({ kernels: 'strict', ...options }, async (model) => {
    const logits = await model.logits(await model.tokenize(prompt), { all: true });
    return new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
  });
}

async function runChecks(): Promise<SuiteReport> {
  const diagnosis = await diagnose();
  let executor = '';

  await check('the kernels compute what the reference computes', async () => {
    expect('verdict', diagnosis.findings, []);
  });
  for (const thread of ['worker', 'inline'] as const) {
    for (const threads of [1, 2]) {
      await check(`greedy text, ${thread}, threads: ${threads}`, () =>
        withModel({ thread, threads }, async (model) => {
          expect('threads', model.info.threads, threads);
          await expectGreedy(model);
          executor ||= model.info.executor.replace(/,[^,]*$/, '');
        }),
      );
    }
  }
  await check('strict: the same bits in worker and inline, with one thread and two', async () => {
    const logits = await strictLogits({ thread: 'worker', threads: 2 });
    addBits(logits);
    for (const options of [
      { thread: 'inline', threads: 1 },
      { thread: 'worker', threads: 1 },
    ] as const) {
      expect('bytes', Array.from(await strictLogits(options)), Array.from(logits));
    }
  });
  await check('the stories model of the package', async () => {
    const options = { maxTokens: 40, seed: 1 };
    const tell = async (model: Model): Promise<string> =>
      (await model.generate('Once upon a time', options).result).text;
    const text = await withModel({ kernels: 'strict' }, tell, storiesModel);
    expect('length', text.length > 60, true);
    addBits(new TextEncoder().encode(text));
  });
  await check('sources: bytes, Blob, ByteSource', async () => {
    const file = await readGguf(path);
    await file.close();
    expect('architecture', file.metadata.get('general.architecture'), 'llama');
    const bytes = new Uint8Array(await readFile(path));
    const source = {
      name: 'source',
      sizeBytes: bytes.length,
      async read(offsetBytes: number, target: Uint8Array) {
        target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
      },
      async close() {},
    };
    for (const given of [bytes, new Blob([bytes]), source]) {
      for (const thread of ['worker', 'inline'] as const) {
        await withModel({ thread }, expectGreedy, given);
      }
    }
  });
  await check('streaming', () =>
    withModel({}, async (model) => {
      const run = model.generate(prompt, { maxTokens: N_GENERATE, temperature: 0 });
      const pieces: string[] = [];
      for await (const piece of run) pieces.push(piece);
      expect('more than one piece', pieces.length > 5, true);
      expect('text', pieces.join(''), (await run.result).text);
    }),
  );
  await check('a conversation with its history, by a template of the package', async () => {
    const converse = (thread: 'worker' | 'inline'): Promise<readonly string[]> =>
      withModel({ kernels: 'strict', thread }, async (model) => {
        const chat = model.chat({ template: 'chatml', system: 'You tell stories.' });
        for (const question of ['Tell me of the little dog.', 'And then?']) {
          const answer = chat.send(question, { maxTokens: 24, temperature: 0 });
          const pieces: string[] = [];
          for await (const piece of answer) pieces.push(piece);
          const { text, cachedTokens } = await answer.result;
          expect('pieces', [pieces.length > 5, pieces.join('')], [true, text]);
          expect('the history is found in the cache', cachedTokens > 0, chat.messages.length > 3);
        }
        expect('roles', chat.messages.map(({ role }) => role).join(), 'system,user,assistant,user,assistant');
        return chat.messages.map(({ content }) => String(content));
      });
    const told = await converse('worker');
    addBits(new TextEncoder().encode(told.join('\n')));
    expect('inline', await converse('inline'), told);
  });
  await check('embeddings of an encoder and of a model that generates', async () => {
    const texts = ['A cat sleeps.', 'dogs, 1 2 3?', 'A cat sleeps.'];
    for (const source of [encoder, path]) {
      const embed = (thread: 'worker' | 'inline'): Promise<number[][]> =>
        withModel(
          { kernels: 'strict', thread },
          async (model) => (await model.embed(texts)).data.map(({ embedding }) => Array.from(embedding)),
          source,
        );
      const [cat, dogs, same] = await embed('worker');
      expect('the same text again', same, cat);
      expect('length', Math.abs(Math.hypot(...cat!) - 1) < 1e-6, true);
      expect('another text has the same vector', cosineSimilarity(cat!, dogs!) > 0.999, false);
      addBits(new Uint8Array(Float32Array.from([...cat!, ...dogs!]).buffer));
      expect('inline', await embed('inline'), [cat, dogs, same]);
    }
  });
  for (const thread of ['worker', 'inline'] as const) {
    await check(`abort, stop and close of a text under way, ${thread}`, () =>
      withModel({ thread }, async (model) => {
        const endless = { temperature: 0, contextFull: 'shift' } as const;
        const abort = new AbortController();
        const aborted = model.generate(prompt, { ...endless, signal: abort.signal });
        for await (const _ of aborted) break;
        expect('finish reason', (await aborted.result).finishReason, 'abort');
        const signalled = model.generate(prompt, { ...endless, signal: abort.signal });
        setTimeout(() => abort.abort(), 5);
        expect('error', ((await rejection(signalled.result)) as Error).name, 'AbortError');
        const closed = model.generate(prompt, endless);
        await model.close();
        expect('code', ((await rejection(closed.result)) as SmallMindError).code, 'MODEL_CLOSED');
      }),
    );
    await check(`typed errors, ${thread}`, async () => {
      const notFound = (await rejection(loadModel(missing, { thread }))) as SmallMindError;
      expect('missing file', [notFound instanceof SmallMindError, notFound.code], [true, 'FILE_NOT_FOUND']);
      const damaged = (await rejection(loadModel(truncated, { thread }))) as GgufError;
      expect('truncated file', [damaged instanceof GgufError, damaged.code], [true, 'GGUF_TRUNCATED']);
    });
  }
  await check('two models at once', () =>
    withModel({}, async (one) =>
      withModel({ thread: 'inline' }, async (two) => {
        await Promise.all([expectGreedy(one), expectGreedy(two), expectGreedy(one)]);
      }),
    ),
  );
  // The key-value cache of so long a context needs more than 4 GiB of addresses, of which little is touched.
  await check('more than 4 GiB, or an error that says what to do', async () => {
    const load = withModel({ nCtx: 1 << 20, parallel: 8 }, expectGreedy);
    if (diagnosis.features.memory64) return load;
    const refused = (await rejection(load)) as SmallMindError;
    expect('code', refused.code, 'UNSUPPORTED_FEATURE');
    expect('remedy', /use Node 24/.test(refused.message), true);
  });
  await check('training and evaluation', async () => {
    const text = 'Once upon a time there was a little dog. '.repeat(100);
    const options = { tokenizer: 'char', nLayer: 1, nEmbd: 32, nHead: 2, nCtx: 32, nSeq: 4, nSteps: 3 } as const;
    const run = await openTraining([{ name: 'text', text }], options, { kernels: 'strict', threads: 2 });
    const losses: number[] = [];
    for await (const event of run.events()) if (event.kind === 'step' && event.loss) losses.push(event.loss);
    await run.close();
    expect('steps', losses.length, 3);
    const { perplexity } = await evaluatePerplexity(path, text, { kernels: 'strict', nCtx: 64 });
    addBits(new Uint8Array(Float64Array.of(...losses, perplexity).buffer));
  });
  await check('a worker that dies is a typed error, and the next load gets a new one', async () => {
    const workers = watchWorkers();
    await withModel({}, async (model) => {
      const dying = model.generate(prompt, { temperature: 0, contextFull: 'shift' });
      await workers[0]!.terminate();
      expect('code', ((await rejection(dying.result)) as SmallMindError).code, 'ENGINE_CRASHED');
    });
    await withModel({}, expectGreedy);
  });
  // For the whole process, so it comes last.
  const wideVectors = enableWideVectors();
  await check('the same with 256-bit vectors, where the engine has them', async () => {
    await withModel({ threads: 2 }, expectGreedy);
    addBits(await strictLogits({ threads: 2 }));
  });
  return {
    wideVectors,
    engine: diagnosis.engine,
    dot: diagnosis.dot,
    executor,
    sharedMemory: diagnosis.features.sharedMemory,
    memory64: diagnosis.features.memory64,
    bits: bits.toString(16),
    checks,
  };
}

if (kind === 'suite') {
  stdout.write(`${JSON.stringify(await runChecks())}\n`);
} else {
  const model = await loadModel(path, { threads: 2 });
  const run = model.generate(prompt, { maxTokens: N_GENERATE, temperature: 0 });
  const print = async (): Promise<void> => void stdout.write(`${JSON.stringify((await run.result).text)}\n`);
  if (kind === 'idle') await print();
  else void print();
}
