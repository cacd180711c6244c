// The loss and what is summed up on the way back: cross-entropy, means over the targets that count, sums over rows, the
// gradient of an embedding.

import { after, before } from 'node:test';
import { conform, holdThreads } from './rig.ts';
import type { Rig } from './rig.ts';

let release: () => Promise<void>;
before(async () => void (release = await holdThreads(3)));
after(() => release());

const COLUMNS = [...Array.from({ length: 33 }, (_, i) => i + 1), 64, 100, 257];
const ROWS = [1, 2, 3, 5, 13];
const IGNORE = -1;

/** Targets for rows of so many columns, every third ignored (of a single row: none). */
const targetsOf = (rows: number, columns: number): number[] =>
  Array.from({ length: rows }, (_, r) => (r % 3 === 1 ? IGNORE : (7 * r + columns - 1) % columns));

conform('crossEntropy and its derivative, also in place of the logits', (rig) => {
  for (const columns of COLUMNS) {
    for (const rows of ROWS) {
      const logits = rig.constant([rows, columns], rig.numbers(rows * columns, 3));
      const targets = rig.ids(targetsOf(rows, columns));
      const where = `[${rows}, ${columns}]`;
      const losses = rig.graph.apply('crossEntropy', [logits, targets], { ignore: IGNORE });
      rig.check(`losses ${where}`, losses, 2e-6, 1);
      const dLoss = rig.constant([rows]);
      const derivative = rig.graph.apply('crossEntropyGradient', [logits, targets, dLoss], { ignore: IGNORE });
      rig.check(`derivative ${where}`, derivative, 2e-6, 1);
      const copy = rig.graph.apply('add', [logits, rig.constant([columns], new Float32Array(columns))]);
      const inPlace = rig.graph.apply('crossEntropyGradient', [copy, targets, dLoss], { ignore: IGNORE });
      rig.check(`derivative in place ${where}`, inPlace, 2e-6, 1);
    }
  }
});

conform('crossEntropy of logits from -1e4 to 1e4, and of equal ones', (rig) => {
  for (const columns of [1, 5, 40]) {
    for (const [what, values] of [
      ['far apart', rig.numbers(4 * columns, 1e4)],
      ['equal', new Float32Array(4 * columns).fill(-3)],
    ] as const) {
      const logits = rig.constant([4, columns], values);
      const targets = rig.ids([0, columns - 1, IGNORE, columns >> 1]);
      const losses = rig.graph.apply('crossEntropy', [logits, targets], { ignore: IGNORE });
      rig.check(`losses of ${columns} ${what}`, losses, 1e-6, 1);
      const operands = [logits, targets, rig.constant([4])];
      const derivative = rig.graph.apply('crossEntropyGradient', operands, { ignore: IGNORE });
      rig.check(`derivative of ${columns} ${what}`, derivative, 2e-6, 1);
    }
  }
});

conform('a row that is ignored has the loss 0 and no derivative, whatever its logits', (rig) => {
  const logits = rig.constant([3, 5], rig.numbers(15).fill(NaN, 5, 8).fill(Infinity, 8, 10));
  const targets = rig.ids([4, IGNORE, 0]);
  rig.check('losses', rig.graph.apply('crossEntropy', [logits, targets], { ignore: IGNORE }), 1e-6);
  const operands = [logits, targets, rig.constant([3])];
  rig.check('derivative', rig.graph.apply('crossEntropyGradient', operands, { ignore: IGNORE }), 1e-6, 1);
});

conform('means over the targets that count, and their derivatives', (rig) => {
  const check = (name: string, targets: number[]): void => {
    const ids = rig.ids(targets);
    const losses = rig.constant([targets.length]);
    rig.check(`mean, ${name}`, rig.graph.apply('meanLoss', [losses, ids], { ignore: IGNORE }), 1e-5, 1);
    const derivative = rig.graph.apply('meanLossGradient', [rig.constant([1]), ids], { ignore: IGNORE });
    rig.check(`derivative, ${name}`, derivative, 1e-6);
  };
  for (const n of [1, 2, 3, 5, 13, 700]) check(`${n} rows`, targetsOf(n, 9));
  check('all count', [1, 2, 3]);
});

conform('with no target that counts the mean is that of nothing, and nothing is learnt from it', (rig) => {
  const ids = rig.ids([IGNORE, IGNORE, IGNORE]);
  const losses = rig.graph.apply('crossEntropy', [rig.constant([3, 5]), ids], { ignore: IGNORE });
  rig.check('mean', rig.graph.apply('meanLoss', [losses, ids], { ignore: IGNORE }), 0);
  rig.check('derivative', rig.graph.apply('meanLossGradient', [rig.constant([1]), ids], { ignore: IGNORE }), 0);
});

conform('sumRows', (rig) => {
  for (const columns of COLUMNS) {
    for (const rows of ROWS) {
      const sum = rig.graph.apply('sumRows', [rig.constant([rows, columns])]);
      rig.check(`[${rows}, ${columns}]`, sum, 1e-6, Math.sqrt(rows));
    }
  }
});

/** Rows of a table of 7, some several times, two never. */
function embedGradient(rig: Rig, columns: number): void {
  const ids = rig.ids([6, 1, 1, 0, 6, 1, 3, 1, 6]);
  const gradient = rig.graph.apply('embedGradient', [rig.constant([9, columns]), ids], { nRows: 7 });
  rig.check(`${columns} columns`, gradient, 1e-6, 2);
}

conform('embedGradient adds up the rows of the same token, and tokens that do not occur get 0', (rig) => {
  for (const columns of COLUMNS) embedGradient(rig, columns);
});

conform('embedGradient of one token of one', (rig) => {
  rig.check('y', rig.graph.apply('embedGradient', [rig.constant([1, 3]), rig.ids([0])], { nRows: 1 }), 0);
});
