// Web Workers as handles, and what keeps one from starting as an error with its remedy. Does not know which workers.

import { SmallMindError, UnsupportedError } from './base/errors.ts';
import type { WorkerHandle } from './base/platform.ts';

/** Starts a worker. @param start  makes it; what it throws, and what keeps the worker from starting, gets a remedy */
export function spawn(start: () => Worker): WorkerHandle {
  const policy = watchPolicy();
  let worker: Worker;
  try {
    worker = start();
  } catch (error) {
    throw startError(error instanceof Error ? error.message : String(error), policy.end());
  }
  let hasStarted = false;
  worker.addEventListener('message', () => void (hasStarted = true), { once: true });
  return {
    post: (message) => worker.postMessage(message),
    onMessage: (listener) => worker.addEventListener('message', (event) => listener(event.data)),
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
    },
  };
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
