// Core counts of machines of every kind, by the files that their systems would show.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countCores } from './cores.node.ts';
import type { Machine } from './cores.node.ts';

interface Cpu {
  readonly siblings: string;
  readonly capacity?: number;
  readonly maxFrequency?: number;
}

function linux(cpus: readonly Cpu[], nAvailable = cpus.length, allowed = `0-${cpus.length - 1}`): Machine {
  const files = new Map([['/proc/self/status', `Name:\tnode\nCpus_allowed_list:\t${allowed}\n`]]);
  cpus.forEach(({ siblings, capacity, maxFrequency }, cpu) => {
    const folder = `/sys/devices/system/cpu/cpu${cpu}`;
    files.set(`${folder}/topology/thread_siblings_list`, siblings);
    if (capacity !== undefined) files.set(`${folder}/cpu_capacity`, String(capacity));
    if (maxFrequency !== undefined) files.set(`${folder}/cpufreq/cpuinfo_max_freq`, String(maxFrequency));
  });
  return { ...UNKNOWN, platform: 'linux', nAvailable, read: (path) => files.get(path) };
}

const UNKNOWN: Machine = {
  platform: 'win32',
  arch: 'x64',
  nAvailable: 16,
  read: () => undefined,
  sysctl: () => undefined,
};

const many = <T>(n: number, of: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => of(i));

/** Hyper-threads i and i + nCore share a core. */
const server = (nCore: number): Cpu[] => many(2 * nCore, (i) => ({ siblings: `${i % nCore},${(i % nCore) + nCore}` }));

/** Of performance cores, two hyper-threads each, some boost further than others. */
const hybridLaptop = [
  ...many(12, (i) => ({ siblings: `${i - (i % 2)}-${i - (i % 2) + 1}`, maxFrequency: i < 4 ? 4_800_000 : 4_500_000 })),
  ...many(8, (i) => ({ siblings: `${12 + i}`, maxFrequency: 3_800_000 })),
];

const boardOfTwoKinds = many(8, (i) => ({ siblings: `${i}`, capacity: i < 4 ? 530 : 1024, maxFrequency: 2_000_000 }));

const mac = (values: Readonly<Record<string, string>>): Machine => ({
  ...UNKNOWN,
  platform: 'darwin',
  arch: 'arm64',
  nAvailable: 10,
  sysctl: (name) => values[name],
});

const CASES: readonly [name: string, machine: Machine, nLogical: number, nPhysical: number, nFast: number][] = [
  ['hyper-threads share a core', linux(server(8)), 16, 8, 8],
  ['a container has a quota of two processors on a large machine', linux(server(64), 2), 2, 2, 2],
  ['the affinity leaves both hyper-threads of two cores', linux(server(8), 4, '2-3,10-11'), 4, 2, 2],
  ['the affinity leaves one processor', linux(server(8), 1, '5'), 1, 1, 1],
  ['two kinds of cores differ in their clock', linux(hybridLaptop), 20, 14, 6],
  ['two kinds of cores differ in their capacity', linux(boardOfTwoKinds), 8, 8, 4],
  ['only slow cores are left to the process', linux(boardOfTwoKinds, 3, '0-2'), 3, 3, 3],
  ['Linux shows no topology', { ...UNKNOWN, platform: 'linux' }, 16, 8, 8],
  ['a Mac has two kinds of cores', mac({ 'hw.physicalcpu': '10', 'hw.perflevel0.physicalcpu': '8' }), 10, 10, 8],
  ['a Mac has one kind', mac({ 'hw.physicalcpu': '6' }), 10, 6, 6],
  ['a Mac does not answer', mac({}), 10, 10, 10],
  ['nothing is told on x64', UNKNOWN, 16, 8, 8],
  ['nothing is told on x64, with one processor', { ...UNKNOWN, nAvailable: 1 }, 1, 1, 1],
  ['nothing is told on arm64', { ...UNKNOWN, arch: 'arm64' }, 16, 16, 16],
];

for (const [name, machine, nLogical, nPhysical, nFast] of CASES) {
  test(`cores are counted where ${name}`, () => {
    assert.deepEqual(countCores(machine), { nLogical, nPhysical, nFast });
  });
}

test('this machine has cores', () => {
  const { nLogical, nPhysical, nFast } = countCores();
  assert.ok(nFast >= 1 && nPhysical >= nFast && nLogical >= nPhysical);
});
