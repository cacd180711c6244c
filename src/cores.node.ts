// Counts the cores that this process may compute on, from what the operating system tells. Knows no model and no
// threads; what it reads is handed in, so that tests can be on any machine.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Cores } from './base/platform.ts';

/** The facts of a machine, as far as it has them. */
export interface Machine {
  /** `process.platform` and `process.arch`. */
  readonly platform: string;
  readonly arch: string;
  /** What affinity and the CPU quota of a container leave to this process, in hyper-threads (libuv knows both). */
  readonly nAvailable: number;
  /** A file of /proc or /sys; `undefined` where there is none. */
  read(path: string): string | undefined;
  /** A value of macOS's sysctl. */
  sysctl(name: string): string | undefined;
}

/**
 * A core is slow below this share of the fastest one's speed. Cores of one kind differ by up to 9 % in their turbo;
 * efficiency cores have 0.82 of the others' clock at most, or 0.6 of their capacity.
 */
const FAST_SHARE = 0.87;

export function countCores(machine: Machine = thisMachine()): Cores {
  const { platform, arch, nAvailable: nLogical } = machine;
  if (platform === 'linux') {
    const speeds = linuxCoreSpeeds(machine);
    if (speeds.length > 0) {
      const fastest = Math.max(...speeds);
      const nFast = speeds.filter((speed) => speed >= FAST_SHARE * fastest).length;
      return { nLogical, nPhysical: Math.min(nLogical, speeds.length), nFast: Math.min(nLogical, nFast) };
    }
  }
  if (platform === 'darwin') {
    const nPhysical = Number(machine.sysctl('hw.physicalcpu') ?? 0);
    const nFast = Number(machine.sysctl('hw.perflevel0.physicalcpu') ?? nPhysical);
    if (nPhysical > 0 && nFast > 0) {
      return { nLogical, nPhysical: Math.min(nLogical, nPhysical), nFast: Math.min(nLogical, nFast) };
    }
  }
  // Not told. x64 has two hyper-threads a core, as a rule.
  const nPhysical = arch === 'x64' ? Math.ceil(nLogical / 2) : nLogical;
  return { nLogical, nPhysical, nFast: nPhysical };
}

/** The speed of each core that this process may run on, in whatever unit; none where Linux does not tell. */
function linuxCoreSpeeds({ read }: Machine): number[] {
  const status = read('/proc/self/status') ?? '';
  const cpus = /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '';
  const speeds = new Map<string, number>();
  for (const cpu of parseCpuList(cpus)) {
    const folder = `/sys/devices/system/cpu/cpu${cpu}`;
    const siblings = read(`${folder}/topology/thread_siblings_list`);
    if (siblings === undefined) return [];
    const speed = read(`${folder}/cpu_capacity`) ?? read(`${folder}/cpufreq/cpuinfo_max_freq`);
    speeds.set(siblings, Number(speed ?? 1));
  }
  return [...speeds.values()];
}

/** `0-2,5` → 0, 1, 2, 5. */
function parseCpuList(text: string): number[] {
  return text.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Number.isInteger(first) ? Array.from({ length: last! - first! + 1 }, (_, i) => first! + i) : [];
  });
}

function thisMachine(): Machine {
  return {
    platform: process.platform,
    arch: process.arch,
    nAvailable: availableParallelism(),
    read: (path) => orNothing(() => readFileSync(path, 'utf8')),
    sysctl: (name) =>
      orNothing(() => execFileSync('sysctl', ['-n', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })),
  };
}

/** Missing, or not allowed to be read: then it is not told. */
function orNothing(get: () => string): string | undefined {
  try {
    return get().trim();
  } catch {
    return undefined;
  }
}
