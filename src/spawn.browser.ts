// Web Workers as handles, and what keeps one from starting as an error with its remedy. Does not know which workers.
// A worker of ours starts no workers itself, but asks whoever started it: Firefox may stop for ever in a worker's
// `new Worker` (docs/browsers.md).

import { SmallMindError, UnsupportedError, fromErrorRecord, toErrorRecord } from './base/errors.ts';
import type { ErrorRecord } from './base/errors.ts';
import type { WorkerHandle } from './base/platform.ts';

/** By its name the engine's worker knows that it is one. */
export const ENGINE_NAME = 'smallmind-engine';
/** What a worker posts, with a port for the worker it asks for. */
const ASK = 'smallmind: start a worker';

/** What goes through that port, both ways. */
type ToChild = { readonly message: unknown } | 'terminate';
type FromChild = { readonly message: unknown } | { readonly error: Error | ErrorRecord };

/**
 * Starts a worker.
 * @param start       makes it; what it throws, and what keeps the worker from starting, gets a remedy
 * @param startChild  makes a worker that it asks for, which ends with it
 */
export function spawn(start: () => Worker, startChild?: () => Worker): WorkerHandle {
  const policy = watchPolicy();
  let worker: Worker;
  try {
    worker = start();
  } catch (error) {
    throw startError(error instanceof Error ? error.message : String(error), policy.end());
  }
  const children: WorkerHandle[] = [];
  let hasStarted = false;
  worker.addEventListener('message', ({ data, ports }) => {
    hasStarted = true;
    if (startChild && data === ASK) children.push(...spawnFor(ports[0]!, startChild));
  });
  return {
    post: (message) => worker.postMessage(message),
    onMessage: (listener) =>
      worker.addEventListener('message', ({ data }) => {
        if (data !== ASK) listener(data);
      }),
    onError(listener) {
      worker.addEventListener('error', ({ message }) => {
        if (hasStarted) return listener(new Error(message || 'no reason given'));
        // The report of a policy comes as an event of its own, before or after.
        setTimeout(() => listener(startError(message, policy.end())), POLICY_REPORT_MS);
      });
    },
    isGone: () => false,
    keepAlive() {},
    async terminate() {
      policy.end();
      worker.terminate();
      await Promise.all(children.map((child) => child.terminate()));
    },
  };
}

/** Starts a worker at the other end of a port. @returns it, if it starts */
function spawnFor(port: MessagePort, start: () => Worker): WorkerHandle[] {
  const tell = (answer: FromChild): void => port.postMessage(answer);
  const fail = (error: Error): void => tell({ error: error instanceof SmallMindError ? toErrorRecord(error) : error });
  let child: WorkerHandle;
  try {
    child = spawn(start);
  } catch (error) {
    fail(error as Error);
    return [];
  }
  child.onMessage((message) => tell({ message }));
  child.onError(fail);
  listen(port, (message: ToChild) => {
    if (message === 'terminate') void child.terminate();
    else child.post(message.message);
  });
  return [child];
}

/** Starts a worker: in the engine's worker by asking whoever started that. */
export function spawnHereOrAbove(start: () => Worker): WorkerHandle {
  if ((globalThis as { name?: unknown }).name !== ENGINE_NAME) return spawn(start);
  const { port1, port2 } = new MessageChannel();
  const tell = (message: ToChild): void => port1.postMessage(message);
  globalThis.postMessage(ASK, { transfer: [port2] });
  return {
    post: (message) => tell({ message }),
    onMessage: (listener) =>
      listen(port1, (answer: FromChild) => {
        if ('message' in answer) listener(answer.message);
      }),
    onError: (listener) =>
      listen(port1, (answer: FromChild) => {
        if (!('error' in answer)) return;
        listener(answer.error instanceof Error ? answer.error : fromErrorRecord(answer.error));
      }),
    isGone: () => false,
    keepAlive() {},
    async terminate() {
      tell('terminate');
      port1.close();
    },
  };
}

function listen<T>(port: MessagePort, listener: (message: T) => void): void {
  port.addEventListener('message', ({ data }: MessageEvent<T>) => listener(data));
  port.start();
}

const POLICY_REPORT_MS = 20;

/** Watches for reports that a policy forbids a worker. @returns what ends that and tells the directive, if any */
function watchPolicy(): { end(): string | undefined } {
  let directive: string | undefined;
  const onViolation = (event: SecurityPolicyViolationEvent): void => {
    if (/^(worker|child|script)-src/.test(event.effectiveDirective)) directive ??= event.effectiveDirective;
  };
  const target = globalThis as unknown as Document;
  target.addEventListener('securitypolicyviolation', onViolation);
  return {
    end() {
      target.removeEventListener('securitypolicyviolation', onViolation);
      return directive;
    },
  };
}

function startError(reason: string, directive: string | undefined): SmallMindError {
  if (directive !== undefined) {
    return new UnsupportedError(
      'UNSUPPORTED_MACHINE',
      `the page's Content-Security-Policy forbids the engine's worker; allow it in its ${directive} directive, ` +
        `e.g. worker-src 'self'`,
      { directive },
    );
  }
  return new SmallMindError(
    'ENGINE_CRASHED',
    `the engine's worker could not start: ${reason || 'its script was not loaded'}; ` +
      'its script has to be served from the origin of the page (docs/deploying.md)',
  );
}
