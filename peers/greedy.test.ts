// Greedy text of the real models against llama.cpp, from the golden prompts. Unrounded weights give its tokens exactly.
// With 8-bit activations both round, and two tokens that are next to equally likely may swap: from there on the texts
// are different ones, so the rest is compared teacher-forced, along llama.cpp's text.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { loadModel } from '../src/index.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { MODELS, goldenCases, indexOfGreatest, modelPath } from '../test/golden/golden-data.ts';
import type { GoldenCase } from '../test/golden/golden-data.ts';
import { needsShared } from '../test/shared-data.ts';
import { describeFile, describeRuns } from './described-file.ts';
import { logSoftmax, needsPeers, openLlama } from './llama.ts';
import type { Llama } from './llama.ts';

const N_TOKENS = 48;
/**
 * golden.json says how far llama.cpp's logits are from exact arithmetic at most, after one prompt and with 8-bit
 * activations: 0.06 to 0.22. Two runtimes, 48 positions.
 */
const QUANTISED_TOLERANCE = 0.5;

const options = { skip: needsPeers().skip || needsShared().skip };

/** What llama.cpp says after the prompt, and how far its token leads before the next likely one at each position. */
async function askLlamaCpp(llama: Llama, golden: GoldenCase) {
  const tokens = await llama.greedy(golden.tokens, N_TOKENS);
  assert.equal(tokens.length, N_TOKENS, golden.prompt);
  const forced = [...golden.tokens, ...tokens.slice(0, -1)];
  const rows = await llama.logProbs(forced, golden.tokens.length - 1);
  const leads = rows.map((row, i) => {
    const others = row.filter((_, token) => token !== tokens[i]);
    return row[tokens[i]!]! - others.reduce((a, b) => Math.max(a, b), -Infinity);
  });
  return { tokens, forced, rows, leads };
}

for (const file of MODELS) {
  const isQuantised = file.includes('-q');
  const what = isQuantised ? 'where they are clear' : 'exactly';
  test(`greedy tokens of ${file} are those of llama.cpp ${what}`, options, async (t) => {
    const cases = goldenCases().filter((golden) => golden.model === file);
    assert.equal(cases.length, 3);
    await using model = await loadModel(modelPath(file), { thread: 'inline' });
    const { nVocab } = model.info;
    const llama = await openLlama(modelPath(file));
    t.after(() => llama.close());
    const nSame: number[] = [];
    let [nTokens, nDecided] = [0, 0];
    for (const golden of cases) {
      const theirs = await askLlamaCpp(llama, golden);
      const { tokens } = await model.generate(golden.prompt, { maxTokens: N_TOKENS, temperature: 0 }).result;
      if (!isQuantised) assert.deepEqual(tokens, theirs.tokens, golden.prompt);
      const firstOther = theirs.tokens.findIndex((token, i) => tokens[i] !== token);
      nSame.push(firstOther < 0 ? N_TOKENS : firstOther);
      nTokens = Math.max(nTokens, theirs.forced.length);

      const logits = await model.logits(theirs.forced, { all: true });
      theirs.rows.forEach((row, i) => {
        const position = golden.tokens.length - 1 + i;
        const ours = logSoftmax(logits.subarray(position * nVocab, (position + 1) * nVocab));
        const where = `${golden.prompt} + ${i}`;
        // What generation chose is what the logits say, as long as the texts are the same.
        if (i <= nSame.at(-1)!) assert.equal(tokens[i], indexOfGreatest(ours), where);
        if (isQuantised && theirs.leads[i]! <= 2 * QUANTISED_TOLERANCE) return;
        assert.equal(indexOfGreatest(ours), indexOfGreatest(row), where);
        nDecided++;
      });
    }
    t.diagnostic(`${file}: the first ${nSame.join(', ')} of ${N_TOKENS} tokens are the same`);
    const { architecture, dtypes } = await describeFile(readFileSync(modelPath(file)));
    recordComparison('models', {
      what: file,
      architecture,
      dtype: dtypes[0]!,
      dtypes,
      kvType: 'F16',
      ...describeRuns([model.info.executor]),
      nModel: 1,
      nTokens,
      nPosition: cases.length * N_TOKENS,
      nDecided,
      nSame: nDecided,
    });
  });
}
