// The threads of web workers in the browsers that this process has started, counted from outside, as Linux names them:
// so that those count too that a worker has started, and a worker that was told to end but has not.

import { existsSync, readFileSync, readdirSync } from 'node:fs';

/** As Chromium, Firefox and WebKit name them. */
const WEB_WORKER = /^(DedicatedWorker|DOM Worker|WebCore: Worker)/;
/** Firefox has workers of its own, but not in the processes of its pages. */
const HAS_OWN_WORKERS = /^firefox/;

/** Options for `test()`: skips on other systems. */
export function needsThreadNames(): { skip: string | false } {
  return { skip: existsSync('/proc/self/task') ? false : 'needs Linux, which names the threads of a process' };
}

export function countWorkerThreads(): number {
  return descendantsOf(process.pid)
    .filter((pid) => !HAS_OWN_WORKERS.test(read(pid, 'comm')))
    .flatMap((pid) => tasksOf(pid).map((task) => read(pid, `task/${task}/comm`)))
    .filter((name) => WEB_WORKER.test(name)).length;
}

function descendantsOf(pid: number): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Boolean);
  const parents = new Map(pids.map((child) => [child, Number(/^PPid:\s*(\d+)/m.exec(read(child, 'status'))?.[1])]));
  const childrenOf = (parent: number): number[] => pids.filter((child) => parents.get(child) === parent);
  const withAllBelow = (parent: number): number[] =>
    childrenOf(parent).flatMap((child) => [child, ...withAllBelow(child)]);
  return withAllBelow(pid);
}

function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Nothing, when the process or thread has ended meanwhile. */
function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
