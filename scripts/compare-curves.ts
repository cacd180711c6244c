// Draws the validation losses of several training runs into one picture, and says where each was lowest.
//   node --conditions=smallmind-source scripts/compare-curves.ts OUT.svg "without dropout=run0" "dropout 0.2=run1"

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { drawLossCurve } from '../src/training.ts';

const [out, ...runs] = process.argv.slice(2);
if (!out || runs.length === 0) throw new Error('usage: compare-curves.ts OUT.svg "LABEL=RUN FOLDER" …');

const series = runs.map((run) => {
  const [label, folder] = run.split('=') as [string, string];
  const lines = readFileSync(join(folder, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const points = lines
    .map((line) => JSON.parse(line) as { step: number; validationLoss?: number })
    .flatMap(({ step, validationLoss }) => (validationLoss === undefined ? [] : [{ step, loss: validationLoss }]));
  return { label, points };
});
// An untrained model's loss would leave no room for the differences.
const drawn = series.map(({ label, points }) => ({ label, points: points.filter(({ step }) => step > 0) }));
writeFileSync(out, drawLossCurve('Validation loss', drawn));
for (const { label, points } of series) {
  const best = points.reduce((a, b) => (b.loss < a.loss ? b : a));
  console.log(`${label}: ${best.loss.toFixed(4)} at step ${best.step}, ${points.at(-1)!.loss.toFixed(4)} at the end`);
}
