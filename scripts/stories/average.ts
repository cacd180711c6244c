// The mean of the parameters of several checkpoints of one model: late in training it predicts better than any of them
// (Izmailov et al., arXiv:1803.05407). The rest is that of the first.
//   node --conditions=smallmind-source scripts/stories/average.ts OUT CHECKPOINT CHECKPOINT …

import { readFileSync, writeFileSync } from 'node:fs';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/training.ts';

const [out, ...paths] = process.argv.slice(2);
if (!out || paths.length < 2) throw new Error('usage: average.ts OUT CHECKPOINT CHECKPOINT …');
const checkpoints = paths.map((path) => decodeCheckpoint(readFileSync(path), path));
const [first] = checkpoints as [(typeof checkpoints)[number]];
const sums = new Float64Array(first.arrays.parameters.length);
for (const { arrays } of checkpoints) {
  if (arrays.parameters.length !== sums.length) throw new Error('the checkpoints are of different models');
  arrays.parameters.forEach((x, i) => (sums[i]! += x));
}
const parameters = Float32Array.from(sums, (sum) => sum / checkpoints.length);
writeFileSync(out, encodeCheckpoint({ ...first, arrays: { ...first.arrays, parameters } }));
