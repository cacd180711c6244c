// smallmind doctor: what this machine offers, whether the kernels compute rightly on it, and what to do where not.

import { styleText } from 'node:util';
import type { Command } from 'commander';
import type { Diagnosis } from '../index.ts';
import type { CommandContext } from './program.ts';
import { formatBytes, formatColumns } from './text.ts';

const EXAMPLES = `
Examples:
  smallmind doctor
  smallmind doctor --json > doctor.json

The exit code is 1 when something is broken.`;

export function defineDoctor(command: Command, { signal, version }: CommandContext): void {
  command
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(async ({ json }: { json?: boolean }) => {
      const { diagnose } = await import('../index.ts');
      const diagnosis = await diagnose();
      signal.throwIfAborted();
      const output = json ? JSON.stringify({ version, ...diagnosis }) : describe(diagnosis, version).join('\n');
      process.stdout.write(`${output}\n`);
      if (diagnosis.verdict === 'broken') process.exitCode = 1;
    });
}

const DOT_MODES = {
  u8: 'dot product exact with 8-bit operands',
  i7: 'dot product exact with 7-bit operands',
  i7p: 'dot product exact with 7-bit operands, fastest in pairs',
  i16: 'dot product not used',
} as const;

function describe(diagnosis: Diagnosis, version: string): string[] {
  const { features, dot, nFastCore, nPhysicalCore, nLogicalCore, memoryBytes, selfTests } = diagnosis;
  const { kernels, threads, threadsReason } = diagnosis;
  const memory = memoryBytes === undefined ? '' : `, ${formatBytes(memoryBytes)} of memory`;
  const fast = nFastCore < nPhysicalCore ? `, ${nFastCore} of them fast` : '';
  const tests = formatColumns(
    selfTests.map((t) => [
      t.kernels,
      t.weights,
      `${t.threads} ${t.threads === 1 ? 'thread' : 'threads'}`,
      t.error ?? `off by ${t.difference.toExponential(1)}`,
    ]),
  );
  return [
    `smallmind ${version} on ${diagnosis.engine}`,
    `${nPhysicalCore} physical cores${fast}, ${nLogicalCore} logical${memory}`,
    '',
    mark(features.simd, 'WebAssembly SIMD'),
    mark(features.relaxedSimd, features.relaxedSimd ? `relaxed SIMD, ${DOT_MODES[dot]}` : 'relaxed SIMD'),
    mark(features.threads, 'WebAssembly threads'),
    mark(features.sharedMemory, 'shared memory'),
    mark(features.memory64, '64-bit memory'),
    mark(features.wideVectors, '256-bit vectors, asked of V8 (Node 24 or later on x64)'),
    '',
    'A product of matrices on each kernel set, against the reference:',
    ...tests.map((line, i) => mark(selfTests[i]!.passed, line)),
    '',
    ...describeVerdict(diagnosis),
    `By default a model runs with the kernels "${kernels}" on ${threads} ${threads === 1 ? 'thread' : 'threads'}:`,
    `${threadsReason}. A very small model gets fewer; --threads overrides.`,
  ];
}

function describeVerdict({ verdict, findings }: Diagnosis): string[] {
  const lines = findings.map(({ what, remedy }) => mark(false, `${what}: ${remedy}`));
  if (verdict === 'ready') return [mark(true, 'All is well.')];
  if (verdict === 'slow') return ['Models run, but slower than they could:', ...lines];
  return ['Something is broken:', ...lines];
}

function mark(isGood: boolean, text: string): string {
  return `${isGood ? styleText('green', '✓') : styleText('red', '✗')} ${text}`;
}
