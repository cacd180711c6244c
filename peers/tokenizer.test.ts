// Our tokenizer against llama.cpp's: the same ids for the same text, on the real models and on the random models'
// vocabularies, with control tokens as plain text and parsed. What is right where both agree is what llama.cpp does;
// that it is also what SentencePiece does is for the vectors in src/tokenizer/.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Random } from '../src/base/random.ts';
import { loadModel } from '../src/index.ts';
import { recordComparison } from '../test/comparison-record.ts';
import { MODELS, modelPath } from '../test/golden/golden-data.ts';
import { randomLlamaGguf } from '../test/random-model.ts';
import { needsShared } from '../test/shared-data.ts';
import { needsPeers, openLlama } from './llama.ts';

/** Every vocabulary here has tokens for these characters. */
const PLAIN_TEXTS = [
  'Once upon a time, there was a little girl.',
  'a',
  ' ',
  '   ',
  ' leading',
  'trailing ',
  '  two  spaces   between  ',
  'one\ntwo\n\nthree\n',
  '\n',
  '\u2581\u2581x',
  '"Hi," said Tom. "Is it 10:45?"',
  '<s>',
  '<unk>',
  '<0x41>',
  '<|start_story|>Once<|end_story|>',
  'A'.repeat(100),
  ' 1z 7a 2b 9 10 zz a1 0',
];

/** For vocabularies with byte tokens: without, llama.cpp ends the process at a character that it does not know. */
const BYTE_TEXTS = [
  'a</s>b',
  '</s> after',
  'tab\there\r\n',
  'naïve café',
  'e\u0301 is not é',
  'ひらがな 日本語',
  'Привет, мир',
  '🙂👍🏽 👨‍👩‍👧',
  '\u0000\u0001\u007f',
  '\u00a0\u3000\ufeff\u200b',
  '\u{10ffff}\uffff',
  "[INST] don't {x} = 50% * @home; #1 [/INST]",
];

/** Characters at random: merges that nobody thought of. */
function randomTexts(alphabet: string): string[] {
  const random = new Random(7);
  const characters = [...alphabet];
  const draw = (n: number): number => Math.floor(random.uniform() * n);
  return Array.from({ length: 50 }, () =>
    Array.from({ length: 1 + draw(60) }, () => characters[draw(characters.length)]!).join(''),
  );
}

const PLAIN_ALPHABET = 'aabcdeeefghiijklmnoopqrsttuvwxyz     ABIOTZ0123.,?!\'"\n-';

/** Of vocabularies for SPM. */
async function assertSameTokens(path: string, texts: readonly string[], vocabulary: string): Promise<void> {
  await using model = await loadModel(path, { thread: 'inline', threads: 1 });
  const llama = await openLlama(path, { contextSize: 64 });
  try {
    for (const parseSpecial of [false, true]) {
      for (const text of texts) {
        const ours = await model.tokenize(text, { addSpecial: false, parseSpecial });
        const how = `${JSON.stringify(text)}${parseSpecial ? ', control tokens parsed' : ''}`;
        assert.deepEqual(ours, llama.tokenize(text, parseSpecial), how);
      }
    }
  } finally {
    await llama.close();
  }
  recordComparison('texts', { model: 'llama', vocabulary, nText: texts.length });
}

for (const file of MODELS) {
  const options = { skip: needsPeers().skip || needsShared().skip };
  test(`texts become the same tokens as in llama.cpp with ${file}`, options, async () => {
    const hasBytes = file.startsWith('stories260K');
    const texts = hasBytes ? [...PLAIN_TEXTS, ...BYTE_TEXTS, ...randomTexts(`${PLAIN_ALPHABET}éñ日🙂`)] : PLAIN_TEXTS;
    await assertSameTokens(modelPath(file), [...texts, ...randomTexts(PLAIN_ALPHABET)], file);
  });
}

for (const nVocab of [260, 515, 2003]) {
  test(`texts become the same tokens as in llama.cpp with ${nVocab} synthetic ones`, needsPeers(), async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'smallmind-peers-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'random.gguf');
    const shape = { nLayer: 1, nEmbd: 32, nHead: 2, nHeadKv: 2, nFf: 32, nCtx: 64 };
    writeFileSync(path, randomLlamaGguf({ ...shape, seed: 1, dtype: 'F32', nVocab, tied: true }));
    const texts = [...PLAIN_TEXTS, ...BYTE_TEXTS, ...randomTexts(`${PLAIN_ALPHABET}é日🙂`)];
    await assertSameTokens(path, texts, `synthetic, ${nVocab} tokens`);
  });
}
